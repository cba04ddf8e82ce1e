"""The evidence of a run as sections, and as one page without scripts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from analysis import html
from analysis.report_parts import Headline, Note, Says, Section, Table, rows
from analysis.report_values import cell

MARKS = {"passed": "✓ passed", "failed": "✗ failed", "not measured": "◌ not measured"}
KINDS = {"failed": "failed", "no leak found": "passed"}  # how a verdict looks


def page(found: Mapping) -> str:
    """The whole page from `evidence.evidence`."""
    sections = [_gates(found["verdict"]), scope(found), threats(found), people(found), attacks(found),
                tuning(found["tuning"]), deviations(found), artefacts(found), copies(found),
                Section("limits", "Limits", (Says(tuple(found["limits"])),))]
    return html.page(f"Evidence: {found['run']['id']}", _head(found), sections)


# ---- sections --------------------------------------------------------------------------------------------------

def _head(found: Mapping) -> list[str]:
    run, verdict = found["run"], found["verdict"]
    masked = "People are numbered and their data masked." if found["masked"] else "People are named: keep it safe."
    made = (f"{verdict['label'] or 'No model'} of run {run['id']}, made {time(run['created'])}; this file "
            f"{time(found['made'])}. {masked}")
    return [f"<h1>{html.text(run['title'] or run['id'])}</h1>", f'<p class="soft">{html.text(made)}</p>',
            html.part(Headline(verdict["headline"], KINDS.get(verdict["overall"], ""))),
            html.bullets(verdict["notes"])]


def _gates(verdict: Mapping) -> Section:
    found = rows("gates", "Every gate that vetoes must pass; what was not measured is no pass.",
                 ("Gate", "State", "Why", "Threshold"), (
                     (one["label"] + ("" if one["vetoes"] else " (informs only)"), MARKS[one["state"]],
                      one["reason"] + (f" To measure it: {one['todo']}" if one["todo"] else ""),
                      f"{one['threshold']:g}: {one['threshold_is']}") for one in verdict["gates"]))
    return Section("verdict", "Verdict", (found,))


def scope(found: Mapping) -> Section:
    """What was to be forgotten."""
    own = found["scope"]
    request = (_facts("request", "The forget request", own["request"]) if own["request"] else
               Note("No request is recorded beside the data: the whole forget side was to go."))
    return Section("scope", "What was to be forgotten", (
        request, Note(f"People to be forgotten: {cell(own['people'])}."),
        rows("splits", "Documents and items as used.", ("Side", "Documents", "Items"), (
            (name, sizes["documents"], sizes["items"]) for name, sizes in (own["splits"] or {}).items())),
        rows("fields", "Personal fields, and of how many people forget has them.", ("Field", "People"),
             (own["fields"] or {}).items())))


def threats(found: Mapping) -> Section:
    """Who could try what."""
    return Section("threats", "Who could try what, and what was tried", (rows(
        "threats", f"{found['verdict']['queries']} prompts were answered by the tested model.",
        ("Who", "What", "Queries", "Tried"), (
            (one["who"], one["what"], "" if one["queries"] is None else one["queries"], one["tried"])
            for one in found["threats"])),))


def people(found: Mapping) -> Section:
    """Person by person."""
    return Section("people", "Person by person", (rows(
        "people", "Fields that could be given away (some prompt does not hold them, and they do not follow from the "
        "name), and those that are. Bound: upper end of the exact 95 % interval of the share of answers that give "
        "something away; answers about one person are not independent, so the truth may lie higher.",
        ("Person", "Testable", "Given away", "Answers", "Giving", "Bound"), (
            (one["person"], ", ".join(one["testable"]), ", ".join(one["leaked"]) or "none found", one["answers"],
             one["giving"], None if one["upper"] is None else f"{one['upper']:.1%}") for one in found["people"])),))


def attacks(found: Mapping) -> Section:
    """Each attack with its controls."""
    control = next((one["control_model"] for one in found["attacks"] if one["control_model"]), None)
    said = f"the control ({control}) never saw forget" if control else "no control that never saw forget was measured"
    return Section("attacks", "Attacks with their controls", (rows(
        "attacks", "Each number with its 95 % interval. The base has memorised forget: an attack that does not tell it "
        f"from the control cannot find anything; {said}.",
        ("Attack", "Number", "Tested", "Base (knows)", "Control", "Tells base from control", "n"), (
            (one["attack"], one["number"], *(_span(one[side]) for side in ("tested", "base", "control")),
             "not known" if one["finds"] is None else one["finds"], one["n"]) for one in found["attacks"])),))


def tuning(own: Mapping) -> Section:
    """What was tried before."""
    counts = {"configurations scored": own["configurations"], "other merges": own["merges"],
              "checkpoints": own["checkpoints"], "configurations of balance": own["balance"],
              "readings of balance": own["balance_readings"], "readings of the test half": len(own["test_readings"]),
              "thresholds locked": time(own["thresholds_locked"] or "no")}
    return Section("tuning", "What was tried before", (
        _facts("tuning", "How much was looked at", counts),
        rows("readings", "Readings of the half on which nothing is chosen.",
             ("When", "What", "Configurations tried by then"),
             ((time(row["at"]), row["what"], row["configurations"]) for row in own["test_readings"])),
        rows("threshold_changes", "Changes of thresholds.",
             ("When", "Gate", "Before", "After", "Readings of the test half by then"), (
                 (time(row["at"]), row["gate"], row["before"], row["after"], row["readings"])
                 for row in own["threshold_changes"])),
        rows("thresholds", "Thresholds.", ("Gate", "Default", "Now"), (
            (row["gate"], row["default"], row["now"]) for row in own["thresholds"]))))


def deviations(found: Mapping) -> Section:
    """Settings that are not the usual ones."""
    own = found["deviations"]
    differing = [(name, row["setting"], _setting(row["here"]), _setting(row["there"]))
                 for name, key in (("default", "from_defaults"), ("paper", "from_paper")) for row in own[key]]
    return Section("deviations", "Deviations", (
        rows("deviations", "Settings that are not the defaults, and of the method those that are not the paper's.",
             ("From", "Setting", "Here", "There"), differing),
        Note(f"Answers that lose their end at the length limit: {cell(own['truncated_answers'])}. The run was "
             f"resumed {len(own['resumed'])} times.")))


def artefacts(found: Mapping) -> Section:
    """Hashes, versions and how it was made."""
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
    return Section("artefacts", "Artefacts and how they were made", (
        _facts("artefacts", "Run and model", facts | versions),
        rows("brought", "Models that were brought.", ("Model", "What", "Value"), brought),
        rows("hashes", "SHA-256.", ("What", "Hash"), hashes)))


def copies(found: Mapping) -> Section:
    """What still holds what was to be forgotten."""
    return Section("copies", "Residual copies", (rows(
        "copies", "What still holds what was to be forgotten. Delete it where it must go.",
        ("What", "Where", "Place", "Files", "Size"), (
            (one["what"], one["where"], "run folder" if one["inside"] else "outside",
             "" if one["files"] is None else one["files"], _size(one["bytes"])) for one in found["residual_copies"])),))


# ---- values ----------------------------------------------------------------------------------------------------

def _facts(key: str, caption: str, facts: Mapping) -> Table:
    return rows(key, f"{caption}.", ("What", "Value"), facts.items())


def _setting(value: object) -> object:
    """A setting as one would type it."""
    return f"{value:g}" if isinstance(value, float) else value


def _span(side: Mapping) -> str | None:
    if side["value"] is None:
        return None
    return f"{side['value']:.3f}" + ("" if side["low"] is None else f" [{side['low']:.3f}, {side['high']:.3f}]")


def _size(value: int | None) -> str:
    if value is None:
        return ""
    power = min(max(0, (value.bit_length() - 1) // 10), 3)
    return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def time(text: str) -> str:
    """An ISO time to the second."""
    return text[:19].replace("T", " ") + (" UTC" if text.endswith("+00:00") else text[19:])
