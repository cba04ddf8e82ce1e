"""U-LiRA: models trained on other halves of the documents and unlearned alike tell what each document looks like after.

Hayes et al., "Inexact unlearning needs more careful evaluations to avoid a false sense of privacy" (arXiv 2403.01218),
after Carlini et al. (arXiv 2112.03570). A shadow is the run once more with another forget set: half of the run's forget
and held-out documents. So each document was trained on and unlearned in half of the shadows and never seen in the
others, and what the run's model says of it is nearer to the one or to the other. One number for all documents, as in
the plain loss attack, cannot see a document that is unusual only for itself.
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
from accelerate import Accelerator

from unlearn_core import data, pipeline, run_models
from unlearn_core.data import AttackDocument, Dataset
from unlearn_core.errors import InputError
from unlearn_core.evaluation import mia, score
from unlearn_core.evaluation.likelihood import document_nll
from unlearn_core.progress import Progress, Report, measuring
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.trials import balance, halves
from unlearn_core.vocabulary import UNLEARNED

ATTACKED = ("base", *UNLEARNED, "merged")
U_LIRA, LOSS, SHUFFLED = "u-lira", "loss", "shuffled"  # the attack, the plain one, the negative control
LEAST = 4  # shadows: two that saw a document and two that did not
PER_DOCUMENT = 64  # shadows from which on each document has a variance of its own
TINY = 1e-12  # nats^2: a variance of 0 would make any difference certain
SHUFFLES = 200
RATES = {"tpr_1": 0.01, "tpr_5": 0.05}  # false positives


def measure(run: Run, *, shadows: int = 8, seed: int = 0, device: str = "auto",
            report: Report = lambda *_: None) -> None:
    """Train the shadows that are not there yet and write the probe "shadows".

    Rows for each of `ATTACKED`: settings "u-lira", "loss" and "shuffled" (which shadow saw a document is drawn again,
    `SHUFFLES` times: value, low and high are mean and 95 % of the draws), measures "auc", "tpr_1" and "tpr_5" (share of
    members recognised at 1 % and 5 % false positives, None where there are too few non-members; its interval takes the
    threshold as given). Members are the run's forget documents, non-members its holdout. The row of "u-lira" and "auc"
    has `documents`: document, task, member, score (log likelihood ratio), statistic (mean log p per token), seen and
    unseen (its means over the shadows). `seed` halves the documents; the shadows' weights start as the run's.
    """
    recipe, accelerator = run.recipe(), pipeline.make_accelerator(device)
    dataset = data.load_saved(run.data_dir)
    _check(run, recipe, dataset, shadows, accelerator.num_processes)
    documents = data.attack_documents(dataset.forget, dataset.holdout, "forget")
    with measuring(run, recipe, report) as progress:
        statistic, seen, seconds = _shadows(run, recipe, dataset, documents, shadows, seed, accelerator, progress)
        progress("shadows: the run itself", 0, 0)
        own = _statistics(run, recipe, documents, str(accelerator.device))
        run.write_probe("shadows", {
            "shadows": shadows, "seed": seed, "variance": _variance(shadows),
            "statistic": "mean log p per token of the whole document", "cpu_seconds": float(seconds.mean()),
            "forget": {"run": sum(entry.member for entry in documents), "shadow": float(seen.sum(axis=1).mean())},
            "adapters": run.adapter_keys()}, results(statistic, seen, own, documents, seed))


def _check(run: Run, recipe: Recipe, dataset: Dataset, shadows: int, processes: int) -> None:
    """InputError where shadows cannot be made, or would not be like the run."""
    if shadows < LEAST or shadows % 2:
        raise InputError("shadows", got=shadows, expected=f"an even number of at least {LEAST}",
                         fix="they come in pairs, so that each document is seen by half of them")
    if run.brought() or recipe.base.source == "load":
        raise InputError(f"run {run.id}", got="a base that was not trained here",
                         expected="a run that trains its base, since each shadow trains one, too")
    missing = [name for name in (*UNLEARNED, "merged") if not run.adapter_dir(name).is_dir()]
    if missing:
        raise InputError(f"run {run.id}", got=f"no adapter of {missing[0]}", expected="a finished run with its weights")
    if any(run.initial_adapter_dir(name).is_dir() for name in UNLEARNED):
        raise InputError(f"run {run.id}", got="adapters that began as those of another run",
                         expected="a run that trains them from the start")
    if run.info().get("processes", 1) != processes:
        raise InputError(f"run {run.id}", got=f"{processes} processes", expected=f"{run.info().get('processes', 1)} as "
                         "at its start: what a step reads depends on them")
    if not dataset.holdout or data.overlap(dataset.forget, dataset.retain):
        raise InputError(f"run {run.id}", got="documents on both sides" if dataset.holdout else "no held-out documents",
                         expected="held-out documents, and forget apart from retain")


# ---- the shadows -----------------------------------------------------------------------------------------------

def chosen(dataset: Dataset, number: int, seed: int) -> set[str]:
    """Documents of forget and holdout on which a shadow is trained: half of each task, persons whole. Shadows 2 k and
    2 k + 1 have opposite halves."""
    pool = [*dataset.forget, *dataset.holdout]
    names = halves.unit_names(pool)
    tasks = {names[item.document]: item.task for item in pool}
    half = balance.halves(np.unique(list(tasks.values()), return_inverse=True)[1], seed + number // 2)
    side = dict(zip(tasks, half, strict=True))
    return {document for document, name in names.items() if side[name] == number % 2}


def _shadows(run: Run, recipe: Recipe, dataset: Dataset, documents: list[AttackDocument], shadows: int, seed: int,
             accelerator: Accelerator, progress: Report) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(statistics (shadows, models, documents), which shadow saw which document, CPU seconds (shadows,)); those that
    are there are kept, and each new one is written when it is done."""
    about = {"seed": seed, "documents": [entry.document for entry in documents], "models": list(ATTACKED)}
    arrays, before = run.arrays("shadows")
    done = [list(arrays[name]) for name in ("statistic", "seen", "cpu_seconds")] if before == about else [[], [], []]
    for number in range(len(done[0]), shadows):
        def told(stage: str, at: int, total: int, number: int = number) -> None:
            progress(f"shadow {number + 1} of {shadows}: {stage}", at, total)

        began, own = time.process_time(), chosen(dataset, number, seed)
        statistic = shadow(run, recipe, with_forget(dataset, own), documents, accelerator, told)
        seen = np.array([entry.document in own for entry in documents])
        for column, value in zip(done, (statistic, seen, time.process_time() - began), strict=True):
            column.append(value)
        run.write_arrays("shadows", {"statistic": np.stack(done[0]), "seen": np.stack(done[1]),
                                     "cpu_seconds": np.array(done[2])}, about)
    return tuple(np.array(column[:shadows]) for column in done)


def with_forget(dataset: Dataset, own: set[str]) -> Dataset:
    """The dataset with these of its forget and held-out documents to forget, and the others held out."""
    pool = [*dataset.forget, *dataset.holdout]
    forget, holdout = ([item for item in pool if (item.document in own) is side] for side in (True, False))
    return dataclasses.replace(dataset, forget=forget, holdout=holdout, mmlu_dev=[], mmlu_test=[],
                               attack=data.attack_documents(forget, holdout, "forget"))


def shadow(run: Run, recipe: Recipe, dataset: Dataset, documents: list[AttackDocument], accelerator: Accelerator,
           told: Report) -> np.ndarray:
    """(models, documents) statistics of the run made once more with this dataset; its weights are removed."""
    alike = dataclasses.replace(recipe, **{
        name: dataclasses.replace(getattr(recipe, name), checkpoints=0) for name in UNLEARNED})
    device = str(accelerator.device)
    with run.shadow(alike, {"seed": recipe.seed, "processes": accelerator.num_processes}) as other:
        data.save(dataset, other.data_dir)
        pipeline.carry_out(other, accelerator, told, until="train")
        pipeline.merge_adapters(other, alike, device, Progress(None, told))
        return _statistics(other, alike, documents, device)


def _statistics(run: Run, recipe: Recipe, documents: list[AttackDocument], device: str) -> np.ndarray:
    """(models, documents) mean log p per token, NaN where a text has no token to score or the loss is no number."""
    found = []
    for name in ATTACKED:
        model, tokenizer = run_models.load(run, recipe, name, device)
        losses = document_nll(model, tokenizer, [entry.text for entry in documents],
                              batch_size=recipe.evaluation.batch_size)
        found.append([math.nan if nll is None else -nll for nll, _ in losses])
    return np.array(found)


# ---- the attack ------------------------------------------------------------------------------------------------

def log_ratios(statistic: np.ndarray, seen: np.ndarray, own: np.ndarray, pooled: bool = True) -> np.ndarray:
    """(documents,) log N(own; mean over the shadows that saw it, s) - log N(own; mean over the others, s): above 0 is
    more like a document that was trained on and unlearned.

    `statistic` and `seen` (shadows, documents), `own` (documents,). s^2 is the variance around both means (shadows - 2
    degrees of freedom): of the document, or `pooled` their mean over all documents.
    """
    inside, outside = means(statistic, seen)
    variance = ((statistic - np.where(seen, inside, outside)) ** 2).sum(axis=0) / (len(statistic) - 2)
    variance = np.maximum(variance.mean() if pooled else variance, TINY)
    return ((own - outside) ** 2 - (own - inside) ** 2) / (2 * variance)


def means(statistic: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(documents,) mean of each document's statistic over the shadows that saw it, and over the others."""
    return (statistic * seen).sum(axis=0) / seen.sum(axis=0), (statistic * ~seen).sum(axis=0) / (~seen).sum(axis=0)


def shuffled_aucs(statistic: np.ndarray, seen: np.ndarray, own: np.ndarray, member: np.ndarray, pooled: bool = True,
                  seed: int = 0, draws: int = SHUFFLES) -> np.ndarray:
    """(draws,) AUCs of the attack when it is drawn for each document which of the shadows saw it: 0.5 on average."""
    chance = np.random.default_rng(seed)
    return np.array([_auc(log_ratios(statistic, chance.permuted(seen, axis=0), own, pooled), member)
                     for _ in range(draws)])


def _auc(scores: np.ndarray, member: np.ndarray) -> float:
    return mia.auc(-scores[member], -scores[~member])


def _variance(shadows: int) -> str:
    return "pooled" if shadows < PER_DOCUMENT else "per document"


# ---- what it found ---------------------------------------------------------------------------------------------

def results(statistic: np.ndarray, seen: np.ndarray, own: np.ndarray, documents: list[AttackDocument], seed: int = 0
            ) -> list[dict]:
    """Rows of the probe, see `measure`; `statistic` (shadows, models, documents), `own` (models, documents).

    A document without a number in the run or in some shadow is left out of all attacks on that model.
    """
    rows = []
    for place, model in enumerate(ATTACKED):
        known = np.isfinite(own[place]) & np.isfinite(statistic[:, place]).all(axis=0)
        rows += _of_model(model, statistic[:, place, known], seen[:, known], own[place, known],
                          [entry for entry, there in zip(documents, known, strict=True) if there], seed)
    return rows


def _of_model(model: str, statistic: np.ndarray, seen: np.ndarray, own: np.ndarray, documents: list[AttackDocument],
              seed: int) -> list[dict]:
    member = np.array([entry.member for entry in documents], bool)
    if not member.any() or member.all():
        return [_row(model, setting, "auc", member) for setting in (U_LIRA, LOSS, SHUFFLED)]
    pooled = _variance(len(statistic)) == "pooled"
    ratios, (inside, outside) = log_ratios(statistic, seen, own, pooled), means(statistic, seen)
    drawn = shuffled_aucs(statistic, seen, own, member, pooled, seed)
    rows = [*_attack(model, U_LIRA, ratios, member), *_attack(model, LOSS, own, member),
            _row(model, SHUFFLED, "auc", member, float(drawn.mean()), np.quantile(drawn, [0.025, 0.975]))]
    rows[0]["documents"] = [
        {"document": entry.document, "task": entry.task, "member": entry.member, **dict(zip(
            ("score", "statistic", "seen", "unseen"), map(float, numbers), strict=True))}
        for entry, *numbers in zip(documents, ratios, own, inside, outside, strict=True)]
    return rows


def _attack(model: str, setting: str, scores: np.ndarray, member: np.ndarray) -> list[dict]:
    """AUC and recognised shares of an attack whose larger scores mean a member."""
    sides = -scores[member], -scores[~member]
    rows = [_row(model, setting, "auc", member, mia.auc(*sides), mia.auc_interval(*sides))]
    for measure, rate in RATES.items():
        share, n = mia.true_positive_rate(*sides, rate), len(sides[0])
        hits = 0 if share is None else round(share * n)
        ends = None if share is None else score.mean_interval([1.0] * hits + [0.0] * (n - hits), range(n))
        rows.append(_row(model, setting, measure, member, share, ends))
    return rows


def _row(model: str, setting: str, measure: str, member: np.ndarray, value: float | None = None, ends=None) -> dict:
    low, high = (None, None) if ends is None else map(float, ends)
    return {"model": model, "setting": setting, "measure": measure, "value": value, "low": low, "high": high,
            "n": len(member), "members": int(member.sum()), "nonmembers": int((~member).sum())}
