"""Checks a run against itself: hashes, scores from rows, rows from texts and data, the merge from its parents.

What was written consistently by somebody else's hand cannot be told from what a model wrote: only answering again can.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from unlearn_core import data, run_models
from unlearn_core.data import Dataset
from unlearn_core.errors import InputError
from unlearn_core.evaluation import score
from unlearn_core.evaluation.knowledge import contains
from unlearn_core.judging import bring
from unlearn_core.merging.merge import merge
from unlearn_core.merging.task_vectors import Adapter, delta, load_adapter
from unlearn_core.store import Run
from unlearn_core.vocabulary import OFFICIAL, UNLEARNED
from unlearn_core.weight_changes import weights

CLOSE = 1e-9  # of scores, which are sums of the same numbers
ROUNDING = 1e-5  # of a weight change, beside its size: another device adds up in another order
MOST_NAMED = 3
MERGED, BASE, BROUGHT = "merged adapter from its parents", "base weights", "brought models"
GONE, UNTOLD = "a recording comes without weights", "this recording comes without texts"


@dataclass(frozen=True)
class Check:
    """`equal`: True, False, or None where it could not be checked; `where`: what differs, or why it was not checked."""

    what: str
    equal: bool | None
    where: str = ""


def verify(run: Run, device: str = "cpu") -> list[Check]:
    """Everything of a run that can be computed again or has a hash; nothing is written. `device`: of the merge.

    An InputError where a process still works on the run.
    """
    if run.last_status()["state"] == "running":
        raise InputError(f"run {run.id}", got="a process that is still working on it", expected="a run that stopped")
    recorded = bool(run.recorded())
    parts = [*(() if recorded else _weights(run, device)), *_measured(run)]
    not_done = GONE if recorded else f"nobody answered again: python -m unlearn_core evaluate {run.id}"
    absent = (() if not recorded else (BROUGHT,) if run.brought() else (MERGED, BASE))
    told = [Check("data files, rows and scores", None, UNTOLD)] if run.lacks_texts() else [*_data(run), *_scored(run)]
    return [*told, *filter(None, (_tried(what, check) for what, check in parts)),
            *(Check(what, None, GONE) for what in absent), Check("answers from the models", None, not_done)]


def _tried(what: str, check: Callable[[], Check | None]) -> Check | None:
    """The check; what is damaged or does not fit is not equal."""
    try:
        return check()
    except InputError as error:
        return Check(what, False, str(error))


def _found(what: str, wrong: Sequence[str], good: str) -> Check:
    """Not equal where something is wrong; the first ones are named."""
    more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
    return Check(what, not wrong, "; ".join(wrong[:MOST_NAMED]) + more if wrong else good)


# ---- data ------------------------------------------------------------------------------------------------------

def _data(run: Run) -> Iterator[Check]:
    recorded = run.info().get("data_hashes")
    there = data.hashes(run.data_dir) if run.data_dir.is_dir() else {}
    if not recorded or not there:
        yield Check("data files", None, "no hashes were recorded" if there else "no data in the run folder")
        return
    wrong = [f"{name}: {'missing' if name not in there else 'not recorded' if name not in recorded else 'changed'}"
             for name in sorted(recorded.keys() | there.keys()) if recorded.get(name) != there.get(name)]
    yield _found("data files", wrong, f"{len(recorded)} files have the recorded sha256")


def _dataset(run: Run) -> Dataset | None:
    try:
        return data.load_saved(run.data_dir) if run.data_dir.is_dir() else None
    except InputError:  # torn or changed: the hashes tell
        return None


# ---- rows and scores -------------------------------------------------------------------------------------------

def _scored(run: Run) -> Iterator[Check]:
    dataset, scores, intervals = _dataset(run), run.scores(), run.intervals()
    for model in dict.fromkeys([*scores, *filter(run.is_evaluated, run.models())]):
        try:
            rows = run.answers(model), run.documents(model), run.mmlu(model)
            yield _found(f"{model}: rows from their texts", [*_own_scores(rows[0]), *_quizzed(run, model)],
                         f"{len(rows[0])} answers")
            if dataset is not None:
                yield _found(f"{model}: rows from the data", list(_foreign(dataset, *rows)),
                             f"{len(rows[0])} items, {len(rows[1])} texts, {len(rows[2])} questions")
            yield _found(f"{model}: scores from rows", list(_differing(scores.get(model, {}), score.scores(*rows))),
                         f"{len(scores.get(model, {}))} numbers")
            yield _found(f"{model}: intervals from rows",
                         list(_differing(intervals.get(model, {}), score.intervals(*rows))),
                         f"{len(intervals.get(model, {}))} intervals")
        except (InputError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            yield Check(f"{model}: rows", False, f"cannot be scored ({type(error).__name__}: {error})")


def _own_scores(answers: Iterable[Mapping]) -> Iterator[str]:
    """Answers whose score is not that of their texts."""
    for row in answers:
        key = OFFICIAL[row["kind"]]
        again = score.official_value(row["kind"], row["answer"], row["generation"])
        if not _close(row.get(key), again):
            yield f"{row['split']} {row['id']}: {key} {row.get(key)}, its texts give {again:.6g}"


def _quizzed(run: Run, model: str) -> Iterator[str]:
    """Open answers whose scores are not those of their texts."""
    for row in run.knowledge(model):
        again = score.exact_match(row["answer"], row["generation"]), int(contains(row["generation"], row["answer"]))
        if (row["exact"], row["contained"]) != again:
            yield f"open question {row['question'][:40]!r}: exact and contained should be {again}"


def _foreign(dataset: Dataset, answers: list[dict], documents: list[dict], quiz: list[dict]) -> Iterator[str]:
    """What was measured on something else than the run's data, twice, or not at all."""
    asked = Counter((split, i.id, i.document, i.task, i.kind, i.prompt, i.answer)
                    for split in ("forget", "retain") for i in getattr(dataset, split))
    answered = Counter((row["split"], *(row[key] for key in ("id", "document", "task", "kind", "prompt", "answer")))
                       for row in answers)
    attacked = Counter((entry.document, entry.task, entry.member) for entry in dataset.attack)
    read = Counter((row["document"], row["task"], row["member"]) for row in documents)
    known = {(q.subject, q.question, q.options, q.correct) for q in dataset.mmlu_test}
    for what, wanted, found in (("item", asked if answers else Counter(), answered),
                                ("text", attacked if documents else Counter(), read)):
        yield from (f"{what} {key[0]} {key[1]}: no row" for key in wanted - found)
        yield from (f"{what} {key[0]} {key[1]}: a row that is not of the data" for key in found - wanted)
    for row in quiz:
        if (row["subject"], row["question"], tuple(row["options"]), row["correct"]) not in known:
            yield f"question {row['question'][:40]!r}: not of the data"


def _differing(stored: Mapping, again: Mapping) -> Iterator[str]:
    """Numbers or intervals that are not the same."""
    for key in dict.fromkeys([*stored, *again]):
        old, new = stored.get(key), again.get(key)
        if old is None or new is None:
            yield f"{key}: {'not stored' if old is None else 'stored, but the rows give none'}"
        elif not all(map(_close, *((value if isinstance(value, list) else [value]) for value in (old, new)))):
            yield f"{key}: stored {old}, the rows give {new}"


def _close(stored: object, again: float) -> bool:
    return isinstance(stored, int | float) and math.isclose(stored, again, rel_tol=0.0, abs_tol=CLOSE)


# ---- weights ---------------------------------------------------------------------------------------------------

def _weights(run: Run, device: str) -> list[tuple[str, Callable[[], Check | None]]]:
    """What takes the weights themselves."""
    return [(MERGED, lambda: _merged(run, device)), (BASE, lambda: _base(run)), (BROUGHT, lambda: _brought(run))]


def _merged(run: Run, device: str) -> Check | None:
    """The merge by the run's recipe, matrix by matrix."""
    if run.brought():
        return None
    absent = [name for name in (*UNLEARNED, "merged") if not run.adapter_dir(name).is_dir()]
    if absent:
        return Check(MERGED, None, f"no adapter of {', '.join(absent)}")
    stored = load_adapter(run.adapter_dir("merged"))
    again = merge([load_adapter(run.adapter_dir(name)) for name in UNLEARNED], run.recipe().merge, device)
    if _same_bits(stored, again):
        return Check(MERGED, True, f"{len(again.modules)} matrices, to the bit")
    apart = {name: _distance(stored, again, name) for name in dict.fromkeys([*again.modules, *stored.modules])}
    wrong = [f"{name}: differs by {distance:.2g} of its size" for name, distance in apart.items()
             if not distance <= ROUNDING]
    return _found(MERGED, wrong, f"{len(apart)} matrices, up to rounding ({max(apart.values()):.1g} of their size)")


def _same_bits(first: Adapter, second: Adapter) -> bool:
    return first.modules.keys() == second.modules.keys() and first.scaling == second.scaling and all(
        torch.equal(own.A, other.A) and torch.equal(own.B, other.B)
        for own, other in ((first.modules[name], second.modules[name]) for name in first.modules))


def _distance(stored: Adapter, again: Adapter, name: str) -> float:
    """||delta W - delta W'|| / ||delta W'|| of a module; infinite where one does not have it, or in another shape."""
    if name not in stored.modules or name not in again.modules:
        return math.inf
    old, new = delta(stored.modules[name], stored.scaling), delta(again.modules[name], again.scaling)
    if old.shape != new.shape:
        return math.inf
    apart, size = (old - new).norm().item(), new.norm().item()
    return apart / size if size else (math.inf if apart else 0.0)


def _base(run: Run) -> Check | None:
    """The sizes of the base's matrices, as they were measured after the merge."""
    arrays, about = run.arrays("weights")
    if not arrays:
        return None
    before = dict(zip(about["modules"], arrays["base_norm"].tolist(), strict=True))
    known = {name: value for name, value in before.items() if not math.isnan(value)}
    now = weights.base_norms(run_models.base_path(run, run.recipe()), list(known))
    if not known or not now:
        return Check(BASE, None, "the base is not on this machine, or was not when they were measured")
    wrong = [f"{name}: norm {now.get(name)}, was {value}" for name, value in known.items()
             if not math.isclose(now.get(name, math.nan), value, rel_tol=1e-6)]
    return _found(BASE, wrong, f"{len(known)} matrices have the norms measured after the merge")


def _brought(run: Run) -> Check | None:
    if not run.brought():
        return None
    bring.check_unchanged(run)
    return Check(BROUGHT, True, f"{', '.join(run.brought())} have the recorded sha256")


# ---- what was measured on them ---------------------------------------------------------------------------------

def _measured(run: Run) -> Iterator[tuple[str, Callable[[], Check | None]]]:
    """Whether probes, other merges, drawn answers and statistics are of the weights that the run has now."""
    now = run.adapter_keys() | run.brought()  # of a recording those that it had

    def keyed(what: str, keys: Callable[[], Mapping | None]) -> tuple[str, Callable[[], Check | None]]:
        name = f"{what}: of these weights"
        return name, lambda: _on_these(run, name, keys(), now)

    for what, name in (("statistics of weights", "weights"), ("statistics of signs", "signs"), ("balance", "balance")):
        yield keyed(what, lambda name=name: run.arrays(name)[1].get("key"))
    for what, read in (("other merges", run.merges), ("ablations", run.ablations)):
        yield keyed(what, lambda read=read: read().get("key"))
    for model in run.models():
        yield keyed(f"evaluation of {model}", lambda model=model: _keyed(model, run.evaluated_adapter(model)))
        yield keyed(f"drawn answers of {model}", lambda model=model: _keyed(model, run.samples(model)[1].get("key")))
    for name in run.probes():
        yield keyed(f"probe {name}", lambda name=name: _of_probe(run, name))


def _on_these(run: Run, what: str, keys: Mapping | None, now: Mapping) -> Check | None:
    """`keys`, and `now`: {model: sha256 of the adapter, or what was brought}; None where nothing was measured."""
    if not keys:
        return None
    now = now | ({BASE: run.base_key()} if BASE in keys else {})
    wrong = [f"{model}: {'its weights are gone' if model not in now else 'measured on other weights'}"
             for model, key in keys.items() if now.get(model) != key]
    return _found(what, wrong, ", ".join(keys))


def _keyed(model: str, key: str | None) -> dict:
    return {model: key} if key else {}


def _of_probe(run: Run, name: str) -> dict:
    about = run.probe(name).get("about", {})
    base = {BASE: about["base"]} if about.get("base") else {}
    return {**(about.get("adapters") or {}), **(about.get("brought") or {}), **base}
