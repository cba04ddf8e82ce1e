"""Findings on the models of a run: what the base knew, how each model went wrong, when, and where the merge landed.

Torch-free.
"""

from __future__ import annotations

import math

import pandas as pd

from analysis import balancing, merging, training, trajectory
from analysis.findings_parts import CELLS, NOTHING_TRAINED, Facts, Finding, Span, label, missing, said, spans
from unlearn_core.evaluation import score
from unlearn_core.trials import balance
from unlearn_core.vocabulary import MERGE_LABELS, UNLEARNED

MEANT = {"over": "over-forgetting", "under": "under-forgetting"}
DOES = {"over-forgetting": "over-forgets", "under-forgetting": "under-forgets", "balanced": "is balanced"}
LAST = 10  # a training's end is the mean of its last tenth of steps
SMOOTHED = 40  # the loss is averaged over this part of the steps on either side
ROUNDING = 1e-9  # distances that differ by less are the same
BEST = "balance"  # of `trajectory.CRITERIA`


# ---- before, and two ways to go wrong --------------------------------------------------------------------------

def knew(facts: Facts) -> Finding:
    """The base's mean forget score and AUC, beside a model that never saw forget."""
    base, other = facts.mean("base", CELLS["forget"]), facts.control
    if base is None:
        return missing("knew", "the base has not been scored on all of forget", facts.evaluation())
    beside, auc = facts.mean(other, CELLS["forget"]), facts.score("base", "mia_auc")
    numbers = spans({"base": base, "control": beside, "auc": auc})
    attack = "" if auc is None else f"; the attack's AUC is {auc}"
    if beside is None:
        return said("knew", f"The base has a mean forget score of {base.value:.2f}{attack}. No model that never saw "
                    "forget was scored on it.", numbers)
    words = ("The base had memorised forget" if base.low > beside.high else
             "The base is not told apart from a model that never saw forget" if base.low <= beside.high else
             "Without intervals nobody can tell what the base had memorised")
    return said("knew", f"{words}: its mean score is {base.value:.2f}, that of {label(other)}, which never saw it, "
                f"{beside.value:.2f}{attack}.", numbers)


def over(facts: Facts) -> Finding:
    """Model 1: its AUC, and what it lost of retain."""
    return _wrong(facts, "over", "model_1", "retain")


def under(facts: Facts) -> Finding:
    """Model 2: its AUC, and what it kept of forget."""
    return _wrong(facts, "under", "model_2", "forget")


def _wrong(facts: Facts, key: str, model: str, split: str) -> Finding:
    if facts.brought:
        return missing(key, NOTHING_TRAINED)
    if model not in facts.scores:
        return missing(key, f"{label(model)} has not been scored", facts.evaluation())
    auc = facts.score(model, "mia_auc")
    words, numbers = (_lost if split == "retain" else _kept)(facts, model)
    if auc is None and not numbers:
        return missing(key, f"neither the attack nor all {split} scores of {label(model)}", facts.evaluation())
    text = f"{_direction(label(model), auc, MEANT[key])}; {words}."
    return said(key, text, spans({"auc": auc}) | numbers)


def _direction(name: str, auc: Span | None, meant: str) -> str:
    """What the AUC says of a model, and whether it was meant so."""
    if auc is None:
        return f"Whether {name} {DOES[meant]} is not measured"
    if math.isnan(auc.low):
        return f"{name} has AUC {auc}, without an interval to judge it by"
    found = score.verdict((auc.low, auc.high))
    if found == "undecided":
        return f"Whether {name} {DOES[meant]} is undecided, its AUC {auc} is too uncertain"
    where = {"over-forgetting": " lies below 0.5", "under-forgetting": " lies above 0.5"}.get(found, " holds 0.5")
    aim = ", as it was meant to" if found == meant else f", though meant for {meant}"
    return f"{name} {DOES[found]}{aim}: its AUC {auc}{where}"


def _lost(facts: Facts, model: str) -> tuple[str, dict[str, float]]:
    """Retain scores beside the base's."""
    own, base = facts.mean(model, CELLS["retain"]), facts.mean("base", CELLS["retain"])
    if own is None:
        return "its retain scores are not all measured", {}
    if base is None:
        return f"its mean retain score is {own.value:.2f}, the base's not measured", spans({"retain": own})
    count = facts.apart("base", model, CELLS["retain"])
    return (f"{_of_six(count, 'retain')} clearly below the base's, the mean {own.value:.2f} beside {base.value:.2f}",
            spans({"retain": own, "base_retain": base}) | {"lost": count, "scores": len(CELLS["retain"])})


def _kept(facts: Facts, model: str) -> tuple[str, dict[str, float]]:
    """Forget scores beside those of a model that never saw them, else beside the base's."""
    own, other = facts.mean(model, CELLS["forget"]), facts.control
    if own is None:
        return "its forget scores are not all measured", {}
    beside = facts.mean(other, CELLS["forget"])
    if beside is None:
        base = facts.mean("base", CELLS["forget"])
        known = "not measured" if base is None else f"{base.value:.2f}"
        return (f"its mean forget score is {own.value:.2f}, the base's {known}",
                spans({"forget": own, "base_forget": base}))
    count = facts.apart(model, other, CELLS["forget"])
    return (f"{_of_six(count, 'forget')} clearly above those of {label(other)}, the mean "
            f"{own.value:.2f} beside {beside.value:.2f}",
            spans({"forget": own, "control": beside}) | {"kept": count, "scores": len(CELLS["forget"])})


def _of_six(count: int, split: str) -> str:
    return f"{count or 'none'} of {len(CELLS[split])} {split} scores {'is' if count == 1 else 'are'}"


# ---- training --------------------------------------------------------------------------------------------------

def trained(facts: Facts) -> Finding:
    """When the loss on forget rose, NPO's brake at the end, the best scored checkpoint."""
    if facts.brought:
        return missing("training", NOTHING_TRAINED)
    steps = training.steps(facts.run)
    models = [model for model in UNLEARNED if (steps["model"] == model).any()]
    if not models:
        return missing("training", "no unlearning is logged", "" if facts.finished else facts.evaluation())
    scored = trajectory.checkpoints(trajectory.trajectory(facts.run))
    sentences, numbers = [], {}
    for model in models:
        words, own = _one_training(steps[steps["model"] == model], scored, model)
        sentences.append(words)
        numbers |= {f"{model}_{name}": value for name, value in own.items()}
    todo = "" if len(scored) else facts.command("evaluate", "--checkpoints")
    return said("training", " ".join(sentences), numbers, todo)


def _one_training(steps: pd.DataFrame, scored: pd.DataFrame, model: str) -> tuple[str, dict[str, float]]:
    last, half, brake = int(steps["step"].max()), half_of_rise(steps), steps["npo_brake"].dropna()
    numbers = {"steps": last}
    parts = ["the loss on forget did not rise" if half is None else
             f"half of the rise of the forget loss by step {half} of {last}"]
    if half is not None:
        numbers["half"] = half
    if len(brake):
        numbers["brake"] = _end(brake)
        parts.append(f"NPO's brake at {numbers['brake']:.2f} in the end")
    best = trajectory.best_checkpoint(scored, model, BEST)
    if best is not None:
        numbers["best"] = best
        parts.append(f"best of its scored checkpoints: step {best}")
    return f"{label(model)}: {', '.join(parts)}.", numbers


def half_of_rise(steps: pd.DataFrame) -> int | None:
    """The first step by which the loss on forget, less the reference's, has half of the rise that it ends with.

    It is smoothed over a fortieth of the steps on either side; the end is the mean of the last tenth. None where it
    does not end higher, or was not logged. `steps`: rows of one model of `training.steps`.
    """
    rise = (steps["forget_nll"] - steps["forget_nll_reference"]).dropna()
    if rise.empty or not _end(rise) > 0:
        return None
    high = training.smooth(rise, len(rise) // SMOOTHED) >= _end(rise) / 2
    return int(steps.loc[high.idxmax(), "step"])


def _end(values: pd.Series) -> float:
    return float(values.iloc[-max(len(values) // LAST, 1):].mean())


# ---- the merge -------------------------------------------------------------------------------------------------

def merged(facts: Facts) -> Finding:
    """Task Aggregate and AUC beside the parents', and honest controls where they were measured."""
    if facts.brought:
        return missing("merge", NOTHING_TRAINED)
    own = {key: facts.score("merged", key) for key in ("task_aggregate", "mia_auc")}
    parents = [{key: facts.score(model, key) for key in own} for model in UNLEARNED]
    if own["task_aggregate"] is None or any(parent["task_aggregate"] is None for parent in parents):
        return missing("merge", "the merge and both of its parents have not all been scored", facts.evaluation())
    values = [parent["task_aggregate"].value for parent in parents]
    better = sum(own["task_aggregate"].value > value for value in values)
    text = (f"The merge has Task Aggregate {own['task_aggregate'].value:.3f}, "
            f"{('above neither of its parents', 'above one of its parents', 'above both parents')[better]} "
            f"({' and '.join(f'{value:.3f}' for value in values)})")
    numbers = {"task_aggregate": own["task_aggregate"].value, "model_1": values[0], "model_2": values[1]}
    aucs = [parent["mia_auc"] for parent in parents]
    if own["mia_auc"] is not None and None not in aucs:
        text += f"; {_landed(own['mia_auc'], [span.value for span in aucs])}"
        numbers |= spans({"auc": own["mia_auc"]}) | {"auc_1": aucs[0].value, "auc_2": aucs[1].value}
    honest, more, todo = _controls(facts)
    return said("merge", f"{text}. {honest}".strip(), numbers | more, todo)


def _landed(own: Span, parents: list[float]) -> str:
    inside = min(parents) <= own.value <= max(parents)
    nearer = sum(abs(own.value - 0.5) < abs(value - 0.5) - ROUNDING for value in parents)
    how = ("no nearer to 0.5 than either", "nearer to 0.5 than one of them", "nearer to 0.5 than both")[nearer]
    return (f"its AUC {own} lies {'between' if inside else 'outside'} theirs "
            f"({' and '.join(f'{value:.2f}' for value in parents)}), {how}")


def _controls(facts: Facts) -> tuple[str, dict[str, float], str]:
    """(sentence, its numbers, what to run): the merge at one AUC, else at one norm, beside what needs no TIES."""
    found = facts.run.balance()
    if found.get("refused"):
        return "Beside simpler updates at one AUC too little can be said, the documents are too few.", {}, ""
    if found:
        return *_at_one_auc(balancing.families(found).set_index("family")), ""
    return *_at_one_norm(facts), facts.command("balance")


def _at_one_norm(facts: Facts) -> tuple[str, dict[str, float]]:
    """The run's own method beside the plain mean of both weight changes, from the sweep over methods."""
    rows = merging.methods(merging.table(facts.run))
    rows = rows[rows["kind"] == "method at one norm"].dropna(subset=["task_aggregate"]).set_index(["method", "level"])
    choice, score_of = facts.run.recipe().merge, rows["task_aggregate"].to_dict()
    own, mean = (choice.method, choice.level), ("linear", "delta")
    if own == mean or not {own, mean} <= score_of.keys():
        return "", {}
    return (f"At one norm {MERGE_LABELS[choice.method]} has {score_of[own]:.3f}, the plain mean of both weight changes "
            f"{score_of[mean]:.3f}.", {"own_at_norm": score_of[own], "mean_at_norm": score_of[mean]})


def _at_one_auc(table: pd.DataFrame) -> tuple[str, dict[str, float]]:
    """The balanced merge beside the best control; a family without a knob could not be brought to that AUC."""
    balanced = table.loc[balance.BALANCED, "task_aggregate"]
    controls = table.drop(index=[balance.AS_IT_IS, balance.BALANCED, *balance.MERGES], errors="ignore")
    values = controls.loc[controls["configurations"] > 1, "task_aggregate"].dropna()
    if values.empty or math.isnan(balanced):
        return "At one AUC no control stands beside it.", {}
    return (f"At one AUC the best of {len(values)} controls, {values.idxmax()}, has {values.max():.3f}, the "
            f"balanced merge {balanced:.3f}.",
            {"control": values.max(), "balanced": balanced, "controls": len(values)})
