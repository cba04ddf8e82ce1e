"""Every family of updates weighed against the others at one AUC: what `balance` chooses from and reads is measured."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core import data, pipeline
from unlearn_core.data import Dataset
from unlearn_core.errors import InputError
from unlearn_core.evaluation.evaluate import document_rows
from unlearn_core.evaluation.generation import generate
from unlearn_core.evaluation.score import official_value
from unlearn_core.merging.task_vectors import Adapter, load_adapter
from unlearn_core.progress import Report, measuring
from unlearn_core.settings import Evaluation
from unlearn_core.store import Run, now
from unlearn_core.trials import balance as balances
from unlearn_core.trials import halves, variants
from unlearn_core.trials.experiments import Measure, Subset, adapter_keys, load_parents, scorer
from unlearn_core.trials.variants import Parents, Variant
from unlearn_core.vocabulary import UNLEARNED, is_retrained, never_saw


def balance(run: Run, *, beside: Sequence[Run] = (), seed: int = 0, subset: Subset | None = None, device: str = "auto",
            report: Report = lambda *_: None) -> None:
    """Attack the families of `variants.families`, ask those of them that may be chosen, choose on one half of the
    documents and read on the other (see `balance.read`); what was measured on the same subset and adapters before is
    kept.

    The target of the AUC is that of a retrained or of the untrained model, where one was scored, else 0.5. `seed`: of
    the halves, which are those of `halves` with seed 0; each reading is counted. `subset.half` is not used. `beside`:
    runs on the same base whose model_1 are controls, too (see `variants.families_beside`).
    """
    subset, recipe = dataclasses.replace(subset or Subset(), half=halves.ALL), run.recipe()
    device = str(pipeline.make_accelerator(device).device)
    parents = load_parents(run, recipe, device)
    wanted = _wanted(run, beside, parents)
    documents = {name: value for name, value in dataclasses.asdict(subset).items() if name != "half"}
    about = {"subset": documents, "max_new_tokens": recipe.evaluation.max_new_tokens,
             "key": adapter_keys(run, UNLEARNED), "merge": dataclasses.asdict(recipe.merge)}
    whole = data.load_saved(run.data_dir)
    axes = halves.axes(subset.of(whole), whole)
    losses, values = _known_of_balance(run, about)
    with measuring(run, recipe, report) as progress:
        progress("load the base", 0, 0)
        score = scorer(run, recipe, subset, device, [run.adapter_dir(name) for name in UNLEARNED])

        def measure(todo: Sequence[Variant], known: dict[str, np.ndarray], what: str, how: Measure) -> None:
            for number, variant in enumerate(todo):
                if variant.name in known:
                    continue
                progress(f"balance, {what}: {variant.name}", number, len(todo))
                update = variant.make()
                known[variant.name] = score(update.modules, variants.dense(update, device), how)
                done = [one for one in wanted if one.name in losses]
                unasked = np.full(len(axes["unit"]), math.nan)
                run.write_arrays("balance", {"nll": np.stack([losses[one.name] for one in done]),
                                             "values": np.stack([values.get(one.name, unasked) for one in done]),
                                             **axes},
                                 about | {"names": [one.name for one in done], "families": [one.kind for one in done]})

        target, source = _target(run)
        measure(wanted, losses, "losses", _attack_losses)
        chosen = balances.eligible(balances.measured(run), target, seed)
        measure([wanted[number] for number in chosen], values, "answers", _official_values)
        looks = [*run.balance().get("readings", []), {"at": now(), "seed": seed}]
        result = balances.read(balances.measured(run), target, seed)
        run.write_balance(result | {"target_from": source, "readings": looks})
        run.add_reading(**_reading(result), configurations=halves.tried(run))


def _wanted(run: Run, beside: Sequence[Run], parents: Parents) -> list[Variant]:
    """Every configuration of every family, those of the runs beside, too."""
    wanted = list(variants.families(parents, [(step, load_adapter(folder))
                                              for step, folder in run.checkpoints("model_1")]))
    for other in beside:
        _check_base(run, other)
        wanted += variants.families_beside(
            parents, other.id, _adopted(other.adapter_dir("model_1"), parents),
            [(step, _adopted(folder, parents)) for step, folder in other.checkpoints("model_1")])
    return wanted


def _reading(result: dict) -> dict:
    """What this look at the test half says of the balanced merge, for `Run.readings`. Halves of another seed mix the
    locked ones; then it is the mean over both."""
    row = next(row for row in result["families"] if row["family"] == balances.BALANCED)
    if result["seed"] == halves.SEED:
        fold = row["folds"][0]  # chosen on the first half
        what, found = f"balance, chosen on the development half: {fold['chosen']}", fold["test"]
    else:
        what = f"balance on halves of seed {result['seed']}, which mix both: the balanced merge, mean of both"
        found = {key: row[key] for key in ("task_aggregate", "mia_auc")}
    interval = found.get("mia_auc_interval")
    return {"what": what, "n": result["n"], "intervals": {"mia_auc": interval} if interval else {},
            "scores": {key: found[key] for key in ("task_aggregate", "mia_auc") if found[key] is not None}}


def _known_of_balance(run: Run, about: dict) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(losses, values) by configuration that were measured before on the very same, as `balance.Measured` has them."""
    arrays, before = run.arrays("balance")
    if not before or before | json.loads(json.dumps(about)) != before:
        return {}, {}
    losses, values = (dict(zip(before["names"], arrays[name], strict=True)) for name in ("nll", "values"))
    return losses, {name: row for name, row in values.items() if not np.isnan(row).any()}


def _check_base(run: Run, other: Run) -> None:
    """InputError unless both runs have the very same base, so that an adapter of one is one of the other."""
    loaded = [one.recipe().base.model if one.recipe().base.source == "load" else one.base_key() for one in (run, other)]
    if loaded[0] != loaded[1]:
        raise InputError(f"balance --beside {other.id}", got="a run on another base",
                         expected=f"one on that of {run.id}",
                         fix=f"make it with run RECIPE --weights-of {run.id}")


def _adopted(folder: Path, parents: Parents) -> Adapter:
    """An adapter of another run on the same base, which calls that base by a name of its own."""
    adapter, name = load_adapter(folder), parents.adapters[0].config.get("base_model_name_or_path")
    return dataclasses.replace(adapter, config=adapter.config | {"base_model_name_or_path": name})


def _attack_losses(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset,
                   evaluation: Evaluation) -> np.ndarray:
    """Per document of the attack its NLL, NaN where it has none."""
    rows = document_rows(model, tokenizer, dataset.attack, batch_size=evaluation.batch_size)
    return np.array([math.nan if row["nll"] is None else row["nll"] for row in rows])


def _official_values(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset,
                     evaluation: Evaluation) -> np.ndarray:
    """Per item of forget, then of retain, its ROUGE-L recall or exact match."""
    items = [*dataset.forget, *dataset.retain]
    written = generate(model, tokenizer, [item.prompt for item in items], max_new_tokens=evaluation.max_new_tokens,
                       batch_size=evaluation.batch_size)
    return np.array([official_value(item.kind, item.answer, generation.text)
                     for item, generation in zip(items, written, strict=True)])


def _target(run: Run) -> tuple[float, str]:
    """(AUC that a model has which never saw forget, the mean over retrained ones; where that comes from)."""
    known = {name: scores["mia_auc"] for name, scores in run.scores().items() if "mia_auc" in scores}
    references = never_saw(known)
    if not references:
        return 0.5, "chance"
    return fmean(known[name] for name in references), "retrained" if is_retrained(references[0]) else "untrained"
