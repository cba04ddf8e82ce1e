"""Sweeps, recipes over settings and seeds: what is planned, what there is of it, and its table. Torch-free."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlearn_core import recipe as recipes
from unlearn_core.advice import HOW
from unlearn_core.errors import InputError
from unlearn_core.evaluation import score
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, Store
from unlearn_core.vocabulary import METRICS

METRIC_KEYS = ("task_aggregate", "mia_auc", "mia_score", "mmlu", "aggregate")
FINISHED, FAILED, DAMAGED, NOT_BEGUN = "finished", "failed", "damaged", "not begun"


@dataclass(frozen=True)
class Configuration:
    """One row of a sweep. `point`: its settings of the grid, as they were typed; `recipe`: with seed 0."""

    name: str
    point: dict[str, str]
    recipe: Recipe


@dataclass(frozen=True)
class Sweep:
    """Every configuration on every seed. `recipe`: the name or path that the configurations were made from."""

    name: str
    recipe: str
    seeds: tuple[int, ...]
    configurations: tuple[Configuration, ...]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, if it is there. `state`: `NOT_BEGUN`, `DAMAGED` or one of `store.STATES`, `FINISHED` as soon
    as it has scores; `message`: why it failed, or which stage it is in."""

    configuration: Configuration
    seed: int
    run: Run | None
    state: str
    message: str


# ---- plans in the runs folder --------------------------------------------------------------------------------

def read(store: Store, name: str) -> Sweep:
    """A planned sweep by its name."""
    return _read(name, store.sweep(name)) or _unknown(store, name)


def add(store: Store, wanted: Sweep) -> Sweep:
    """Write a plan; configurations and seeds that the sweep has already stay. InputError where one of its name has
    other settings."""
    def change(found: dict) -> dict:
        before = _read(wanted.name, found)
        return _written(_together(before, wanted) if before else wanted)
    store.change_sweep(wanted.name, change)
    return read(store, wanted.name)


def _together(before: Sweep, wanted: Sweep) -> Sweep:
    known = {configuration.name: configuration.recipe for configuration in before.configurations}
    for own in wanted.configurations:
        if own.name in known and known[own.name] != own.recipe:
            differing = [f"{key} = {new!r} ({old!r} there)" for key, old, new
                         in recipes.differing(known[own.name], own.recipe)]
            raise InputError(f"sweep {before.name}", got=f"{own.name} with {', '.join(differing)}",
                             expected="the settings that it was planned with", fix="choose another name with --name")
    new = [own for own in wanted.configurations if own.name not in known]
    return dataclasses.replace(before, seeds=tuple(sorted({*before.seeds, *wanted.seeds})),
                               configurations=(*before.configurations, *new))


def _written(sweep: Sweep) -> dict:
    return {"recipe": sweep.recipe, "seeds": list(sweep.seeds),
            "configurations": [{"name": own.name, "point": own.point, "recipe": recipes.as_dict(own.recipe)}
                               for own in sweep.configurations]}


def _read(name: str, found: dict) -> Sweep | None:
    if not found:
        return None
    return Sweep(name, found["recipe"], tuple(found["seeds"]), tuple(
        Configuration(own["name"], own["point"], recipes.parse(own["recipe"], where=f"sweep {name}, {own['name']}"))
        for own in found["configurations"]))


def _unknown(store: Store, name: str) -> Sweep:
    raise InputError("sweep", got=name, expected=f"one of {', '.join(store.sweeps()) or 'none: there are no sweeps'}")


# ---- what there is -------------------------------------------------------------------------------------------

def runs_of(sweep: Sweep, runs: Iterable[Run]) -> dict[tuple[str, int], Run]:
    """{(configuration, seed): run} of these runs, the newest first, which belong to the sweep by their manifest.

    A run that was resumed in another way (see `advice.HOW`) is still the same.
    """
    recipe_of, found = {own.name: own.recipe for own in sweep.configurations}, {}
    for run in runs:
        of, name = run.sweep()
        if of == sweep.name and name in recipe_of:
            own = run.recipe()
            if {key for key, _, _ in recipes.differing(own, recipe_of[name])} <= HOW | {"seed"}:
                found.setdefault((name, own.seed), run)
    return found


def cells(sweep: Sweep, runs: Iterable[Run]) -> list[Cell]:
    """Every planned run, configuration by configuration; `runs` as for `runs_of`."""
    found = runs_of(sweep, runs)
    return [_cell(own, seed, found.get((own.name, seed))) for own in sweep.configurations for seed in sweep.seeds]


def _cell(configuration: Configuration, seed: int, run: Run | None) -> Cell:
    if run is None:
        return Cell(configuration, seed, None, NOT_BEGUN, "")
    try:
        if run.scores():  # also while it is measured again
            return Cell(configuration, seed, run, FINISHED, "")
        status = run.status()
    except InputError as error:
        return Cell(configuration, seed, run, DAMAGED, str(error))
    steps = f" {status['step']}/{status['total']}" if status["total"] else ""
    return Cell(configuration, seed, run, status["state"], status["message"] or f"{status['stage']}{steps}")


def values(planned: Iterable[Cell], model: str) -> dict[str, dict[int, dict[str, float]]]:
    """{configuration: {seed: {metric: score}}} of one model in the finished runs."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for cell in planned:
        own = found.setdefault(cell.configuration.name, {})
        if cell.state == FINISHED and model in (scores := cell.run.scores()):
            own[cell.seed] = scores[model]
    return found


# ---- the table -----------------------------------------------------------------------------------------------

def report(sweep: Sweep, planned: Sequence[Cell], model: str = "merged") -> str:
    """Markdown: the mean of each score over the seeds, differences to the first configuration on the same seeds, and
    what is not finished, with its reason."""
    found = values(planned, model)
    first, *others = found
    rows = {name: _means([own[seed] for seed in own]) for name, own in found.items()}
    lines = [f"Sweep {sweep.name}: recipe {sweep.recipe}, model {model}. {counted(planned)}", "",
             *_markdown({name: [f"{len(found[name])} of {len(sweep.seeds)}", *row] for name, row in rows.items()}),
             "", "Means over seeds ± half of their 95 % t interval; one seed has none."]
    if others:
        lines += ["", f"Less {first}, on the seeds that both have:", "",
                  *_markdown({name: _differences(found[name], found[first]) for name in others}),
                  "", f"Each interval is of one difference alone; {len(others)} x {len(METRIC_KEYS)} stand here."]
    open_cells = [cell for cell in planned if cell.state not in (FINISHED, NOT_BEGUN)]
    return "\n".join([*lines, *([""] if open_cells else []), *map(_line, open_cells)])


def counted(planned: Sequence[Cell]) -> str:
    """How many runs are planned, and how they stand, in words."""
    states = [cell.state for cell in planned]
    return f"{len(states)} runs planned: " + ", ".join(
        f"{states.count(state)} {state}" for state in sorted(set(states), key=lambda s: (s != FINISHED, s))) + "."


def _means(scores: Sequence[dict[str, float]], sign: str = "") -> list[str]:
    """A cell per metric; where fewer seeds have it than others, with their number."""
    return [_spelled([own[key] for own in scores if key in own], len(scores), sign) for key in METRIC_KEYS]


def _differences(own: dict[int, dict], first: dict[int, dict]) -> list[str]:
    common = [seed for seed in own if seed in first]
    return [str(len(common)), *_means([{key: own[seed][key] - first[seed][key] for key in own[seed].keys()
                                        & first[seed].keys()} for seed in common], "+")]


def _spelled(numbers: Sequence[float], expected: int, sign: str) -> str:
    if not numbers:
        return "-"
    mean, _, high = score.t_interval(numbers)
    return (f"{mean:{sign}.3f}" + (f" ± {high - mean:.3f}" if len(numbers) > 1 else " (one seed)")
            + (f" (n = {len(numbers)})" if 1 < len(numbers) < expected else ""))


def _markdown(rows: dict[str, list[str]]) -> list[str]:
    header = ["configuration", "seeds", *(METRICS[key].label for key in METRIC_KEYS)]
    escaped = [[name.replace("|", "\\|"), *cells] for name, cells in rows.items()]
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *escaped)]


def _line(cell: Cell) -> str:
    return f"{cell.state}: {cell.configuration.name}, seed {cell.seed} ({cell.run.id}): {cell.message}"
