"""The evidence of a run as one page without scripts or anything from elsewhere; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5b5b61; --line: #d4d4d8; --page: #ffffff; --band: #f4f4f5;
  --passed: #0b6e4f; --failed: #b3261e; --missing: #7a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --soft: #a5a5ad; --line: #3c3c42; --page: #18181b;
  --band: #242428; --passed: #5cc79b; --failed: #ff8a80; --missing: #e3bf57; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 "Source Sans", "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.headline { border-left: .35rem solid var(--missing); background: var(--band); padding: .7rem 1rem; font-size: 1.1rem; }
.headline.failed { border-color: var(--failed); } .headline.passed { border-color: var(--passed); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 1rem; }
caption { text-align: left; color: var(--soft); padding: .2rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; min-width: 4rem; }
td:first-child { min-width: 8.5rem; }
.passed { color: var(--passed); } .failed { color: var(--failed); } .missing { color: var(--missing); }
.state { font-weight: 600; white-space: nowrap; } code { font-size: .85em; overflow-wrap: anywhere; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #999; --page: #fff; --band: #f2f2f2;
  --passed: #0b6e4f; --failed: #b3261e; --missing: #7a5b00; }
  body { max-width: none; padding: 0; font-size: 10.5pt; } h2 { break-after: avoid; } tr { break-inside: avoid; }
  thead { display: table-header-group; } .scroll { overflow: visible; } }
"""
MARKS = {"passed": ("passed", "✓ passed"), "failed": ("failed", "✗ failed"), "not measured": ("missing",
                                                                                             "◌ not measured")}
NOTHING = "not measured"


class Html(str):
    """A piece of the page that is escaped already."""

    __slots__ = ()


def page(found: Mapping) -> str:
    """The whole page from `evidence.evidence`."""
    parts = [_head(found), _gates(found["verdict"]), _scope(found), _threats(found), _people(found), _attacks(found),
             _tuning(found["tuning"]), _deviations(found["deviations"]), _artefacts(found), _copies(found),
             _section("Limits", _list(found["limits"]))]
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_text('Evidence: ' + found['run']['id'])}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(parts) + "\n</body>\n</html>\n")


# ---- sections --------------------------------------------------------------------------------------------------

def _head(found: Mapping) -> str:
    run, verdict = found["run"], found["verdict"]
    kind = {"failed": "failed", "no leak found": "passed"}.get(verdict["overall"], "")
    masked = "People are numbered and their data masked." if found["masked"] else "People are named: keep it safe."
    return (f"<h1>{_text(run['title'] or run['id'])}</h1>"
            f'<p class="soft">{_text(verdict["label"] or "No model")} of run {_text(run["id"])}, made '
            f"{_text(_time(run['created']))}; this file {_text(_time(found['made']))}. {_text(masked)}</p>"
            f'<p class="headline {kind}">{_text(verdict["headline"])}</p>' + _list(verdict["notes"]))


def _gates(verdict: Mapping) -> str:
    rows = [(one["label"] + ("" if one["vetoes"] else " (informs only)"), _state(one["state"]),
             one["reason"] + (f" To measure it: {one['todo']}" if one["todo"] else ""),
             f"{one['threshold']:g}: {one['threshold_is']}") for one in verdict["gates"]]
    return _section("Verdict", _table("Every gate that vetoes must pass; what was not measured is no pass.",
                                      ("Gate", "State", "Why", "Threshold"), rows))


def _scope(found: Mapping) -> str:
    scope = found["scope"]
    splits = [(name, sizes["documents"], sizes["items"]) for name, sizes in (scope["splits"] or {}).items()]
    fields = [(name, count) for name, count in (scope["fields"] or {}).items()]
    return _section("What was to be forgotten",
                    _facts("The forget request", scope["request"]) if scope["request"] else
                    "<p>No request is recorded beside the data: the whole forget side was to go.</p>",
                    f"<p>People to be forgotten: {_text(_count(scope['people']))}.</p>",
                    _table("Documents and items as used.", ("Side", "Documents", "Items"), splits),
                    _table("Personal fields, and of how many people forget has them.", ("Field", "People"), fields))


def _threats(found: Mapping) -> str:
    rows = [(one["who"], one["what"], _count(one["queries"], ""), "yes" if one["tried"] else "no")
            for one in found["threats"]]
    return _section("Who could try what, and what was tried", _table(
        f"{found['verdict']['queries']} prompts were answered by the tested model.",
        ("Who", "What", "Queries", "Tried"), rows))


def _people(found: Mapping) -> str:
    rows = [(one["person"], ", ".join(one["testable"]), ", ".join(one["leaked"]) or "none found", one["answers"],
             one["giving"], _share(one["upper"])) for one in found["people"]]
    return _section("Person by person", _table(
        "Fields that could be given away (some prompt does not hold them, and they do not follow from the name), and "
        "those that are. Bound: upper end of the exact 95 % interval of the share of answers that give something away; "
        "answers about one person are not independent, so the truth may lie higher.",
        ("Person", "Testable", "Given away", "Answers", "Giving", "Bound"), rows))


def _attacks(found: Mapping) -> str:
    rows = [(one["attack"], one["number"], *(_span(one[side]) for side in ("tested", "base", "control")),
             {True: "yes", False: "no", None: "not known"}[one["finds"]], _count(one["n"]))
            for one in found["attacks"]]
    control = next((one["control_model"] for one in found["attacks"] if one["control_model"]), None)
    said = f"the control ({control}) never saw forget" if control else "no control that never saw forget was measured"
    return _section("Attacks with their controls", _table(
        f"Each number with its 95 % interval. The base has memorised forget: an attack that does not tell it from the "
        f"control cannot find anything; {said}.",
        ("Attack", "Number", "Tested", "Base (knows)", "Control", "Tells base from control", "n"), rows))


def _tuning(tuning: Mapping) -> str:
    counts = {"configurations scored": tuning["configurations"], "other merges": tuning["merges"],
              "checkpoints": tuning["checkpoints"], "configurations of balance": tuning["balance"],
              "readings of balance": tuning["balance_readings"], "readings of the test half": len(
                  tuning["test_readings"]), "thresholds locked": _time(tuning["thresholds_locked"] or "no")}
    return _section("What was tried before", _facts("How much was looked at", counts), _table(
        "Readings of the half on which nothing is chosen.", ("When", "What", "Configurations tried by then"),
        [(_time(row["at"]), row["what"], row["configurations"]) for row in tuning["test_readings"]]),
        _table("Changes of thresholds.", ("When", "Gate", "Before", "After", "Readings of the test half by then"), [
            (_time(row["at"]), row["gate"], row["before"], row["after"], row["readings"])
            for row in tuning["threshold_changes"]]),
        _table("Thresholds.", ("Gate", "Default", "Now"), [
            (row["gate"], row["default"], row["now"]) for row in tuning["thresholds"]]))


def _deviations(found: Mapping) -> str:
    rows = [(name, row["setting"], row["here"], row["there"])
            for name, key in (("default", "from_defaults"), ("paper", "from_paper")) for row in found[key]]
    cut = found["truncated_answers"]
    return _section("Deviations", _table("Settings that are not the defaults, and of the method those that are not the "
                                         "paper's.", ("From", "Setting", "Here", "There"), rows),
                    f"<p>Answers that lose their end at the length limit: {_text(_count(cut))}. The run was resumed "
                    f"{len(found['resumed'])} times.</p>")


def _artefacts(found: Mapping) -> str:
    own, run = found["artefacts"], found["run"]
    facts = {"tested model": own["tested"], "precision": own["precision"], "decoding": own["decoding"],
             "recipe": run["recipe"], "seed": run["seed"], "commit": run["commit"], "device": run["device"],
             "command": " ".join(run["command"] or []), **{f"base {key}": value for key, value in own["base"].items()}}
    versions = {f"version of {name}": value for name, value in (run["versions"] or {}).items()}
    brought = [(name, key, value) for name, one in own["brought"].items() for key, value in one.items()]
    lists = [(f"list {split}: {name}", digest) for split, files in (own["lists"] or {}).items()
             for name, digest in files.items()]
    hashes = [*((f"adapter of {name}", digest) for name, digest in own["adapters"].items()),
              *((f"data: {name}", digest) for name, digest in own["data"].items()), *lists]
    return _section("Artefacts and how they were made", _facts("Run and model", facts | versions),
                    _table("Models that were brought.", ("Model", "", ""), brought),
                    _table("SHA-256.", ("What", "Hash"), [(name, _code(digest)) for name, digest in hashes]))


def _copies(found: Mapping) -> str:
    rows = [(one["what"], one["where"], "run folder" if one["inside"] else "outside", _count(one["files"], ""),
             _size(one["bytes"])) for one in found["residual_copies"]]
    return _section("Residual copies", _table("What still holds what was to be forgotten. Delete it where it must go.",
                                              ("What", "Where", "", "Files", "Size"), rows))


# ---- parts of a page -------------------------------------------------------------------------------------------

def _text(value: object) -> Html:
    return value if isinstance(value, Html) else Html(escape(NOTHING if value is None else str(value)))


def _section(title: str, *parts: str) -> str:
    return f"<h2>{_text(title)}</h2>\n" + "\n".join(parts)


def _list(lines: Iterable[str]) -> str:
    rows = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<ul>{rows}</ul>" if rows else ""


def _facts(caption: str, facts: Mapping) -> str:
    return _table(f"{caption}.", ("", ""), list(facts.items()))


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table with a caption; one line where there is nothing to show."""
    if not rows:
        return f'<p class="soft">{_text(caption)} None.</p>'
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns) if any(columns) else ""
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return (f'<div class="scroll"><table><caption>{_text(caption)}</caption>'
            + (f"<thead><tr>{head}</tr></thead>" if head else "") + f"<tbody>{body}</tbody></table></div>")


def _cell(value: object) -> str:
    return f"<td>{_text(f'{value:g}' if isinstance(value, float) else value)}</td>"


def _state(state: str) -> Html:
    name, words = MARKS[state]
    return Html(f'<span class="state {name}">{escape(words)}</span>')


def _code(text: object) -> Html:
    return Html(f"<code>{escape(str(text))}</code>")


def _count(value: int | None, none: str = NOTHING) -> str:
    return none if value is None else f"{value}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1%}"


def _span(side: Mapping) -> str:
    if side["value"] is None:
        return NOTHING
    return f"{side['value']:.3f}" + ("" if side["low"] is None else f" [{side['low']:.3f}, {side['high']:.3f}]")


def _size(value: int | None) -> str:
    if value is None:
        return ""
    power = min(max(0, (value.bit_length() - 1) // 10), 3)
    return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _time(text: str) -> str:
    """An ISO time to the second."""
    return text[:19].replace("T", " ") + (" UTC" if text.endswith("+00:00") else text[19:])
