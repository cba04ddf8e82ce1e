"""What the command line prints: progress bars, the score table of a run, the list of runs."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from unlearn_core import advice
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.evaluation import leak_samples
from unlearn_core.evaluation.score import passes_gate, verdict
from unlearn_core.judging import gates
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, Store
from unlearn_core.trials import halves
from unlearn_core.vocabulary import SUB_SCORES, shipped

if TYPE_CHECKING:
    from unlearn_core.estimate import Estimate, Model
    from unlearn_core.jobs import Device
    from unlearn_core.settings import Recipe

NOT_MEASURED = "-"
_CELLS = [f"{side}.{kind}{task}" for side in "fr" for task in (1, 2, 3) for kind in "RK"]  # order of SUB_SCORES
_BROUGHT = ("model", "sha256", "adapter", "adapter_sha256", "dtype", "precision", "prompt", "decoding")
LEGEND = """Aggr. = mean of Task A. (Task Aggregate), MIA (1 - 2 |AUC - 0.5|) and MMLU.
AUC: loss attack on whole documents, 1 still recognised, 0.5 ideal, 0 over.
f. = forget (ideal 0), r. = retain (ideal 1), R = regurgitation (ROUGE-L
recall), K = knowledge (exact match), 1-3 = task. Gate: 0.75 of the base's MMLU."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process with code 1


def _console() -> Console:
    return _Console(width=None if sys.stdout.isatty() else 140, highlight=False)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, done, total) that draws one bar per stage with its ETA; plain lines where no one watches."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("<"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        rows: dict[str, int] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in rows:
                rows[stage] = bars.add_task(stage, total=total or None)
            bars.update(rows[stage], completed=done, total=total or None)
        yield report


def _plain_lines() -> Callable[[str, int, int], None]:
    started, last = time.monotonic(), ""

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stage != last and done in (0, 1):
            print(f"{time.monotonic() - started:7.1f} s  {stage}" + (f" ({total} steps)" if total else ""),
                  file=sys.stderr, flush=True)
            last = stage
    return report


def print_estimate(recipe: Recipe, device: Device, model: Model | None, expected: Estimate) -> None:
    """Steps of each model, memory of each stage, and whether its peak fits into what the device has free."""
    for name, steps in expected.steps.items():
        print(f"{name:<12}{steps:>10,} optimizer steps")
    if model is None:
        print("memory: not known before the base is downloaded, or its config says no sizes")
        return
    print(f"base: {model.parameters:,} parameters" + (", as published; it is not on this machine" * model.published))
    table = Table("stage", "part", Column("MiB", justify="right"), box=None)
    for stage in dict.fromkeys(part.stage for part in expected.parts):
        for part in (part for part in expected.parts if part.stage == stage):
            table.add_row(stage, escape(part.name), f"{part.mb:,.0f}")
        table.add_row(stage, "together", f"{expected.stage_mb(stage):,.0f}")
    _console().print(table)
    free = device.total_mb - device.used_mb
    print(f"peak {expected.memory_mb:,.0f} MiB in {expected.peak}, right within a factor of two; {device.name} has "
          f"{free:,.0f} MiB free")
    if expected.memory_mb > free:
        less = advice.in_words([alternative for kind in advice.settings(recipe, expected.peak) for alternative in kind])
        print(f"warning: that is more than {device.name} has free" + f"; less is needed {less}" * bool(less),
              file=sys.stderr)


def print_runs(store: Store) -> None:
    """One line per run, newest first, and one per folder that cannot be read."""
    runs, problems = store.scan()
    if not runs:
        print(f"no runs in {store.root}; make one with: python -m unlearn_core run demo")
    else:
        table = Table(Column("run", no_wrap=True), "state", "created (UTC)", "recipe", "seed", "Task Aggregate",
                      "MIA AUC", box=None)
        for run in runs:
            try:
                table.add_row(*map(escape, _run_cells(run)))
            except InputError as error:
                problems.append(f"{run.id}: {error}")
        _console().print(table)
    for problem in problems:
        print(f"not readable: {problem}", file=sys.stderr)


def _run_cells(run: Run) -> list[str]:
    recipe, scores = run.recipe(), run.scores()
    own = scores.get(shipped(scores), {})
    return [run.id, run.status()["state"], run.info()["created"][:19].replace("T", " "), recipe.name, str(recipe.seed),
            _number(own.get("task_aggregate")), _number(own.get("mia_auc"))]


def print_run(run: Run, recipe: bool = False) -> None:
    """State, scores and, if asked, the settings that differ from the defaults."""
    console, status, settings, scores = _console(), run.status(), run.recipe(), run.scores()
    at_rest = status["state"] in ("trained", "finished")
    where = "" if at_rest else f", {status['stage']} {status['step']}/{status['total']}"
    message = f" ({status['message']})" if status["message"] else ""
    print(f"{run.path}: {status['state']}{where}{message}")
    if recipe:
        for name, value, _ in recipes.differing(settings, Recipe()):
            print(f"  {name} = {value!r}")
    for name, one in run.brought().items():
        print(f"  {name}: " + "; ".join(f"{key} {one[key]}" for key in _BROUGHT if one.get(key)))
    if not scores:
        print("not merged or scored yet" if status["state"] == "trained" else "no scores yet")
        return
    for table in (_headlines(run, scores), _sub_scores(scores)):
        console.print(table)
        print()
    print(LEGEND)
    sizes = {tuple(sum(d["member"] is side for d in run.documents(m)) for side in (True, False)) for m in scores}
    for members, others in sorted(sizes - {(0, 0)}):
        print(f"The attack compared {members} members with {others} non-members.")
    if cut := run.info().get("truncated_answers"):
        print(f"warning: {cut} answers lose their end at encoding.max_length = {settings.encoding.max_length} tokens")


def print_trajectory(run: Run) -> None:
    """Scores of each adapter checkpoint, one line per checkpoint."""
    found = run.trajectory()
    table = _table("model", "step", "epoch", "Task A.", "AUC", *_CELLS)
    for row in found["rows"]:
        scores = row["scores"]
        table.add_row(escape(row["model"]), str(row["step"]), _number(row["epoch"], 1),
                      *(_number(scores.get(key)) for key in ("task_aggregate", "mia_auc")),
                      *(_number(scores.get(metric.key), 2) for metric in SUB_SCORES))
    _console().print(table)
    print(f"{_capital(halves.scored_on(found))}.")


def print_merges(run: Run) -> None:
    """Scores of each other merge, one line per merge."""
    found = run.merges()
    table = _table("kind", "merge", "norm", "Task A.", "AUC", *_CELLS)
    for row in found["rows"]:
        scores = row["scores"]
        table.add_row(row["kind"], row["name"], _number(row["norm_ratio"], 2),
                      *(_number(scores.get(key)) for key in ("task_aggregate", "mia_auc")),
                      *(_number(scores.get(metric.key), 2) for metric in SUB_SCORES))
    _console().print(table)
    print(f"norm: of the update beside its parents' mean. {_capital(halves.scored_on(found))}.")


def print_ablations(run: Run) -> None:
    """Scores of each intervention, the random parts as their mean and number."""
    found = run.ablations()
    table = _table("part", "mode", "norm", "Task A.", "AUC", "forget", "retain", "leak")
    groups: dict[tuple, list[dict]] = {}
    for row in found["rows"]:
        groups.setdefault((row["kind"], row["part"], row["mode"], row["draw"] > 0), []).append(row)
    for (kind, part, mode, random), rows in groups.items():
        name = f"  {len(rows)} random parts, mean" if random else f"{kind} {escape(part)}"
        table.add_row(name, mode, _number(statistics.fmean(row["norm_share"] for row in rows), 2), *(
            _mean_over([row["scores"] | ({} if row["leak"] is None else {"leak": row["leak"]}) for row in rows], keys)
            for keys in (["task_aggregate"], ["mia_auc"], *([metric.key for metric in SUB_SCORES
                                                             if metric.key.startswith(side)]
                                                            for side in ("forget", "retain")), ["leak"])))
    _console().print(table)
    print(f"norm: of the part beside the whole update's; leak: share of forget's people of whom an answer gives a "
          f"field away. {_capital(halves.scored_on(found))}.")


def print_balance(run: Run) -> None:
    """What was read on the documents that were not chosen on, one line per family."""
    found = run.balance()
    table = _table("family", "tried", "chosen", "Task A.", "AUC", "less the merge's")
    for row in found["families"]:
        span = row["difference"]
        difference = f"{span[0]:+.3f} [{span[1]:+.3f}, {span[2]:+.3f}]" if span else NOT_MEASURED
        chosen = [fold["chosen"].removeprefix(row["family"]).strip() for fold in row["folds"]]
        table.add_row(escape(row["family"]), str(row["configurations"]), escape("; ".join(chosen)),
                      _number(row["task_aggregate"]), _number(row["mia_auc"]), difference)
    _console().print(table)
    print(f"chosen: on each half; Task A. and AUC: means of what the other half says; less the merge's: Task A. less "
          f"that of the run's merge, 95 %.\nTarget of the AUC: {found['target']:.3f} ({found['target_from']}). "
          f"{found['configurations']} configurations tried, read {len(found['readings'])} times.")
    if found["refused"]:
        print(f"Too little to conclude anything: {found['refused']}.")


def print_thresholds(run: Run) -> None:
    """One line per gate of the verdict, then what was changed and when."""
    stored, now = run.gates(), gates.thresholds(run)
    print(f"locked since {stored['locked'][:19].replace('T', ' ')} UTC" if stored else "defaults, not locked")
    for gate in gates.GATES:
        print(f"{gate.key:<12} {now[gate.key]:<8g} {gate.help}")
    for change in gates.changes(run):
        print(f"changed on {change['at'][:19]}: {change['gate']} from {change['before']:g} to {change['after']:g}, "
              f"when the test half had been read {change['readings']} times")


def print_probe(run: Run, name: str) -> None:
    """One line for each measured number: where it is from, its 95 % interval, and how many documents or persons."""
    for row in run.probe(name)["rows"]:
        if row["value"] is not None:
            place = f"{row['model']:<12} {row['setting']!s:<20} {row.get('part', ''):<12} {row.get('on', ''):<7}"
            span = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
            print(f"{place} {row['measure']:<20} {row['value']:.3f}{span}, n = {row['n']}")


def print_samples(run: Run) -> None:
    """How many of the people to forget have a field given away in k samples, one line per model."""
    table = _table("model", "people", "samples", "temp.", "seed", "leak@1", "leak@N")
    for model, (rows, about) in leak_samples.of_run(run).items():
        curve = leak_samples.curve(rows)
        table.add_row(escape(model), str(len(curve.get(1, []))), str(about["samples"]), f"{about['temperature']:g}",
                      str(about["seed"]), *(_number(statistics.fmean(curve[k])) if k in curve else NOT_MEASURED
                                            for k in (1, about["samples"])))
    _console().print(table)
    print("leak@k: share of the people of whom k answers to each prompt are expected to give away a field that does "
          "not\nfollow from the name; N: all samples.")


def print_readings(run: Run) -> None:
    """Each look at the test half, one line per reading."""
    table = _table("read (UTC)", "what", "tried", "Task A. [95 %]", "AUC [95 %]", "units", "members")
    for row in run.readings():
        n = row.get("n") or {}
        sizes = [str(n.get("units", NOT_MEASURED)), f"{n['members']}+{n['nonmembers']}" if n else NOT_MEASURED]
        table.add_row(row["at"][:19].replace("T", " "), escape(row["what"]), str(row["configurations"]),
                      *(escape(_spanned(row, key)) for key in ("task_aggregate", "mia_auc")), *sizes)
    _console().print(table)
    print("tried: configurations scored on the development half by then. units: documents or persons of the smallest "
          "sub-score;\nmembers: with non-members, of the attack. Only the first reading is of documents that no choice "
          "had seen.")


def print_shadows(run: Run) -> None:
    """What U-LiRA recognises in each model, beside the plain loss attack and the controls."""
    found, rows = run.probe("shadows")["about"], run.probe("shadows")["rows"]
    table = _table("model", "attack", "AUC [95 %]", "at 1 %", "at 5 %", "members")
    for model, setting in dict.fromkeys((row["model"], row["setting"]) for row in rows):
        own = {row["measure"]: row for row in rows if (row["model"], row["setting"]) == (model, setting)}
        auc = own["auc"]
        span = "" if auc["low"] is None else f" [{auc['low']:.2f}, {auc['high']:.2f}]"
        table.add_row(escape(model), setting, escape(_number(auc["value"]) + span),
                      *(_number(own.get(key, {}).get("value")) for key in ("tpr_1", "tpr_5")),
                      f"{auc['members']}+{auc['nonmembers']}")
    _console().print(table)
    print(f"{found['shadows']} shadows, {found['variance']} variance, {found['cpu_seconds']:.0f} CPU seconds each. at "
          "1 %, at 5 %: share of members recognised at so\nmany false positives. shuffled: mean and 95 % where it is "
          "drawn which shadow saw which document.")


def _spanned(row: dict, key: str) -> str:
    ends = row["intervals"].get(key)
    return _number(row["scores"].get(key)) + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _mean_over(scores: list[dict], keys: list[str]) -> str:
    values = [found[key] for found in scores for key in keys if key in found]
    return _number(statistics.fmean(values)) if values else NOT_MEASURED


def _headlines(run: Run, scores: dict) -> Table:
    table = _table("model", "Aggr.", "Task A.", "MIA", "AUC [95 %]", "forgetting", "MMLU", "gate")
    intervals, base_mmlu = run.intervals(), scores.get("base", {}).get("mmlu")
    for model, found in scores.items():
        interval = intervals.get(model, {}).get("mia_auc")
        auc = _number(found.get("mia_auc")) + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")
        # The gate is for what comes after the base; the base is its reference.
        passed = None if model in ("untrained", "base") else passes_gate(found.get("mmlu"), base_mmlu)
        gate = {True: "passed", False: "failed", None: NOT_MEASURED}[passed]
        table.add_row(escape(model),
                      *(_number(found.get(key)) for key in ("aggregate", "task_aggregate", "mia_score")),
                      auc.replace("[", r"\["), verdict(interval), _number(found.get("mmlu")), gate)
    return table


def _sub_scores(scores: dict) -> Table:
    """The twelve: ideal 0 on forget, 1 on retain."""
    table = _table("sub-scores", *_CELLS)
    for model, found in scores.items():
        table.add_row(escape(model), *(_number(found.get(metric.key), 2) for metric in SUB_SCORES))
    return table


def _table(*columns: str) -> Table:
    """A bare table, narrow enough for 80 columns."""
    headers = [Column(escape(name), no_wrap=True) for name in columns]
    return Table(*headers, box=None, padding=(0, 1, 0, 0), pad_edge=False)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float | None, digits: int = 3) -> str:
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"
