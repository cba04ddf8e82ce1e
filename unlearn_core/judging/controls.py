"""The controls of a run: models retrained without forget, and what all models are measured against them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from unlearn_core import data, models, pipeline, run_models
from unlearn_core.data import Item
from unlearn_core.errors import InputError
from unlearn_core.evaluation import depth, score, truth_ratio
from unlearn_core.judging import probes
from unlearn_core.progress import Progress, Report, measuring
from unlearn_core.provenance import surroundings
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, now
from unlearn_core.vocabulary import QA, SC, control, is_retrained

SEED_STEP = 100_003  # from one retrained model to the next: the order of an epoch follows from seed + epoch
UDS = "UDS"  # setting of the row that sums all layers up
Drops = Sequence[Sequence[float] | None]  # per item, per layer
Summary = Callable[[Sequence[float], Sequence[str]], dict]  # (values, their documents) -> value, low, high, n


# ---- means -----------------------------------------------------------------------------------------------------

def spread(values: Sequence[float], documents: Sequence[str]) -> dict:
    """The mean as value, low and high (95 %, Student's t over the documents; None for less than two), n (documents)."""
    n = len(set(documents))
    mean, *ends = score.t_interval(values, documents) if n else (None, None, None)
    low, high = ends if n > 1 else (None, None)
    return {"value": mean, "low": low, "high": high, "n": n}


def _share(values: Sequence[float], documents: Sequence[str], prior: float) -> dict:
    """As `spread`, for values between 0 and 1 (see `score.mean_interval`)."""
    low, high = score.mean_interval(values, documents, prior) if values else (None, None)
    return {"value": sum(values) / len(values) if values else None, "low": low, "high": high, "n": len(set(documents))}


# ---- the model that never saw forget ---------------------------------------------------------------------------

def retrain(run: Run, *, seeds: int = 1, device: str = "auto", report: Report = lambda *_: None) -> None:
    """Train and evaluate the models `retrained`, `retrained-2` ... up to so many `seeds`: as the base was, on retain
    and the general facts alone.

    The first starts from the weights and the seed of the base; the others have an order of the data, and where the base
    is trained from scratch initial weights, of their own. What is there is kept, a stopped training goes on.
    """
    recipe, accelerator = run.recipe(), pipeline.make_accelerator(device)
    _check_base(run, recipe)
    if seeds < 1:
        raise InputError("retrain", got=f"{seeds} seeds", expected="at least one")
    names = ["retrained", *(f"retrained-{number}" for number in range(2, seeds + 1))]
    with measuring(run, recipe, report) as progress:
        dataset = data.load_saved(run.data_dir)
        items = dataset.retain + dataset.general
        for number, name in enumerate(names):
            if not run.full_model_dir(name).is_dir():
                progress(name, 0, 0)
                seed = recipe.seed + number * SEED_STEP
                model, tokenizer = _untrained(run, recipe, seed, accelerator.device)
                pipeline.memorise(run, recipe, name, model, tokenizer, items, seed, accelerator, progress)
                run.note(retrained={**run.info().get("retrained", {}), name: {
                    "at": now(), "seed": seed, "items": len(items), **surroundings(str(accelerator.device))}})
            if not run.is_evaluated(name):
                pipeline.evaluate_model(run, recipe, name, dataset, str(accelerator.device), progress)
        run.write_scores()


def _check_base(run: Run, recipe: Recipe) -> None:
    if run.brought() or recipe.base.source == "load":
        raise InputError(f"run {run.id}", got="a base that was not trained here",
                         expected="base.source scratch or memorise, to train another without forget",
                         fix="train it where the base was trained, and bring it with evaluate --retrained")
    if not run.data_dir.is_dir() or (recipe.base.source == "scratch" and not run.full_model_dir("untrained").is_dir()):
        raise InputError(f"run {run.id}", got="no data or no untrained model in its folder",
                         expected="a run that has trained its base",
                         fix="resume the run; recorded runs come without weights")


def _untrained(run: Run, recipe: Recipe, seed: int, device):
    """(model, tokenizer) as they were before the base was trained; from scratch, another seed has other weights."""
    if recipe.base.source == "memorise":
        return models.load_model(recipe.base.model, "fp32", device)
    model, tokenizer = models.load_model(str(run.full_model_dir("untrained")), "fp32", device)
    return (model if seed == recipe.seed else models.new_model(recipe.base, tokenizer, seed).to(device)), tokenizer


# ---- truth ratio -----------------------------------------------------------------------------------------------

def measure_truth_ratio(run: Run, names: list[str] | None = None, *, seed: int = 0, device: str = "auto",
                        report: Report = lambda *_: None) -> None:
    """The truth ratio of forget's questions (see `evaluation.truth_ratio`) under models of the run, all by default; the
    wrong answers are those of all other documents of the run, drawn by the seed.

    Probe "truth_ratio": per model one row with setting "forget", the geometric mean over documents with its 95 %
    interval, n (documents) and `ratios` ({document: its own}). Written after each model; what was measured before on
    the same model is kept.
    """
    recipe, device = run.recipe(), str(pipeline.make_accelerator(device).device)
    names = probes.probed(run, names or run_models.evaluated_models(run, recipe))
    dataset = data.load_saved(run.data_dir)
    wrong = truth_ratio.wrong_answers(dataset.forget, [*dataset.forget, *dataset.retain, *dataset.holdout], seed=seed)
    if not wrong:
        raise InputError(f"run {run.id}", got="no question of forget with a wrong answer in another document",
                         expected="two documents whose questions ask the same, with different answers")
    about = _about(run, seed=seed, wrong=truth_ratio.WRONG, items=len(wrong))
    rows = _kept(run, "truth_ratio", about)
    with measuring(run, recipe, report) as progress:
        for name in names:
            if any(row["model"] == name for row in rows):
                continue
            progress(f"truth ratio: {name}", 0, 0)
            model, tokenizer = run_models.load(run, recipe, name, device)
            found = truth_ratio.truth_ratios(
                model, tokenizer, dataset.forget, wrong, batch_size=recipe.evaluation.batch_size,
                progress=lambda done, total, _, name=name: progress(f"truth ratio: {name}", done, total))
            rows.append(_truth_ratio_row(name, truth_ratio.by_document(found)))
            run.write_probe("truth_ratio", about, rows)


def _truth_ratio_row(name: str, ratios: dict[str, float]) -> dict:
    logs = spread([math.log(ratio) for ratio in ratios.values()], list(ratios))
    back = {key: None if logs[key] is None else math.exp(min(logs[key], truth_ratio.LARGEST))
            for key in ("value", "low", "high")}
    return {"model": name, "setting": "forget", "measure": "truth_ratio", **back, "n": logs["n"], "ratios": ratios}


# ---- depth -----------------------------------------------------------------------------------------------------

def measure_depth(run: Run, names: list[str] | None = None, *, documents: int = 0, seed: int = 0,
                  device: str = "auto", report: Report = lambda *_: None) -> None:
    """The unlearning depth score of models of the run over the answers of forget, or of so many documents per task (0:
    all) chosen by the seed; see `evaluation.depth`. The reference is the retrained model, else the untrained one, whose
    states lack all that was learned and not these answers alone. By default all others but the base are measured, and
    where it is trained from scratch no controls: other initial weights make their states a foreign language.

    Probe "depth"; settings: the layer's number as in the names of its modules, from 0, or `UDS`. Rows of the reference:
    d1 (mean drop, nats per token) and encoding (share of the items that the layer encodes); of each model: d2 and uds,
    with `items` (that have a score) and `without` (that no layer encodes). d1_retain and d2_retain are the same drops
    on answers of retain: what an exchange costs where nothing was to be forgotten. n: documents; `why`: why there is no
    value. Written after each model; what was measured before on the same models is kept.
    """
    recipe, device = run.recipe(), str(pipeline.make_accelerator(device).device)
    reference, names = _whose_depth(run, recipe, names)
    dataset = data.load_saved(run.data_dir)
    forget, retain = (data.subset(side, documents, seed) for side in (dataset.forget, dataset.retain))
    about = _about(run, reference=reference, documents=documents, seed=seed, threshold=depth.THRESHOLD)
    rows = _kept(run, "depth", about)
    todo = [name for name in names if name not in {row["model"] for row in rows}]
    if not todo:
        return
    with measuring(run, recipe, report) as progress:
        progress("load the base", 0, 0)
        drops = _measure_of_drops(run, recipe, [*forget, *retain], device, progress)
        d1, of_reference = drops(reference)
        d1, kept = d1[:len(forget)], d1[len(forget):]
        rows = [row for row in rows if row["model"] != reference]
        rows += [*_layers(reference, "d1", forget, d1), *_layers(reference, "encoding", forget, d1, _encoding),
                 *_layers(reference, "d1_retain", retain, kept)]
        for name in todo:
            d2, why = drops(name)
            d2, kept = d2[:len(forget)], d2[len(forget):]
            rows += [*_layers(name, "d2", forget, d2), *_layers(name, "d2_retain", retain, kept),
                     _uds(name, forget, d1, d2, of_reference or why)]
            run.write_probe("depth", about, rows)


def _whose_depth(run: Run, recipe: Recipe, names: list[str] | None) -> tuple[str, list[str]]:
    """(the reference, the models to measure)."""
    known = run_models.evaluated_models(run, recipe)
    reference = control(known)
    if reference is None or "base" not in known:
        raise InputError(f"run {run.id}", got=f"only {', '.join(known)}",
                         expected="the base, and a retrained or untrained model that never saw forget",
                         fix="bring them with evaluate --base and --retrained or --untrained")
    others = [name for name in known if name != reference]
    run_models.check_names(names, others)
    foreign = [name for name in others if name == "untrained" or is_retrained(name)]
    left_out = ["base", *(foreign if recipe.base.source == "scratch" else ())]
    chosen = names or [name for name in others if name not in left_out]
    probes.probed(run, ["base", reference, *chosen])
    return reference, chosen


def _measure_of_drops(run: Run, recipe: Recipe, items: Sequence[Item], device: str, progress: Progress
                      ) -> Callable[[str], tuple[Drops, str]]:
    """A function that gives `depth.drops` of a model of the run, or nothing and why; the base is loaded once."""
    base, tokenizer = run_models.load(run, recipe, "base", device)

    def drops(name: str) -> tuple[Drops, str]:
        progress(f"depth: {name}", 0, 0)
        source, theirs = run_models.load(run, recipe, name, device)
        if why := depth.obstacle(base, source) or _other_tokens(tokenizer, theirs):
            return [None] * len(items), why
        return depth.drops(base, source, tokenizer, items, batch_size=recipe.evaluation.batch_size,
                           progress=lambda done, total, _: progress(f"depth: {name}", done, total)), ""

    return drops


def _other_tokens(tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str:
    return "" if tokenizer.get_vocab() == other.get_vocab() else "the model's tokens are not the base's"


def _layers(name: str, measure: str, items: Sequence[Item], drops: Drops, summed_up: Summary = spread) -> list[dict]:
    """A row per layer that sums up the drops of the items."""
    documents = [item.document for item, values in zip(items, drops, strict=True) if values]
    return [{"model": name, "setting": layer, "measure": measure, **summed_up(values, documents)}
            for layer, values in enumerate(zip(*filter(None, drops), strict=True))]


def _encoding(values: Sequence[float], documents: Sequence[str]) -> dict:
    return _share([float(value > depth.THRESHOLD) for value in values], documents, score.PRIOR[QA])


def _uds(name: str, items: Sequence[Item], d1: Drops, d2: Drops, why: str) -> dict:
    both = [(item.document, first, second) for item, first, second in zip(items, d1, d2, strict=True)
            if first and second]
    scored = [(document, value) for document, first, second in both
              if (value := depth.depth_score(first, second)) is not None]
    found = _share([value for _, value in scored], [document for document, _ in scored], score.PRIOR[SC])
    why = why or ("" if scored else "no layer of the base encodes an answer" if both else "no answer has a token")
    return {"model": name, "setting": UDS, "measure": "uds", **found, "items": len(scored),
            "without": len(both) - len(scored), "why": why}


# ---- what a probe belongs to -------------------------------------------------------------------------------------

def _about(run: Run, **settings: object) -> dict:
    """Settings, and what is measured on: the base's weights, each model's adapter, what was brought."""
    return {**settings, "base": run.base_key(), "adapters": run.adapter_keys(), "brought": run.brought()}


def _kept(run: Run, probe: str, about: dict) -> list[dict]:
    """Rows that were measured with the same settings on the same models before."""
    before = run.probe(probe)
    if not before or {**before["about"], "adapters": None} != {**about, "adapters": None}:
        return []
    theirs = before["about"].get("adapters", {})
    return [row for row in before["rows"] if theirs.get(row["model"]) == about["adapters"].get(row["model"])]
