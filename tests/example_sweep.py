"""Builds sweeps whose runs have scores that were written down, not trained.

To look at them in the dashboard: python -m tests.example_sweep runs-example, then LETHE_RUNS=runs-example make app
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unlearn_core.store import Run, Store
from unlearn_core.sweep import sweep_grid, sweeps
from unlearn_core.sweep.sweeps import Sweep

BASELINES = [["paper"], ["GA", "unlearn.npo_weight=1", "unlearn.gdr_weight=0", "unlearn.klr_weight=0"],
             ["GradDiff", "unlearn.npo_weight=0.5", "unlearn.klr_weight=0"],
             ["GA + KL", "unlearn.gdr_weight=0"], ["NPO alone", "unlearn.klr_weight=0", "unlearn.gdr_weight=0"],
             ["eight times the learning rate", "unlearn.lr=1.6e-1"], ["sum", "unlearn.npo_reduction=sequence_sum"],
             ["density 0.4", "merge.density=0.4"], ["plain mean", "merge.method=linear", "merge.weights=[0.5,0.5]"]]


def planned(root: Path, settings: Sequence[str] = ("merge.density=0.4,0.8",), seeds: Sequence[int] = (0, 1),
            variants: Sequence[Sequence[str]] = (), name: str = "") -> Sweep:
    """A sweep of the smoke recipe with no run yet."""
    return sweeps.add(Store(root), sweep_grid.plan("smoke", settings, variants, seeds, name=name))


def begun(root: Path, sweep: Sweep, number: int, seed: int) -> Run:
    """A run of the configuration of that number, nothing in it."""
    own = sweep.configurations[number]
    return Store(root).create(replace(own.recipe, seed=seed), {
        "seed": seed, "sweep": {"name": sweep.name, "configuration": own.name}}, state="interrupted")


def finished(root: Path, sweep: Sweep, number: int, seed: int, scores: dict[str, dict[str, float]]) -> Run:
    """A run whose models have these scores."""
    run = begun(root, sweep, number, seed)
    for model, found in scores.items():
        run.write_evaluation(model, answers=[], documents=[], mmlu=[], scores=found, intervals={})
    run.write_scores()
    run.write_status("finished", "done")
    return run


def scored(root: Path, sweep: Sweep) -> None:
    """Plausible scores for all runs but two of the last configuration: one failed, one was not begun."""
    for number, own in enumerate(sweep.configurations):
        for seed in sweep.seeds:
            if number == len(sweep.configurations) - 1 and seed in sweep.seeds[-2:]:
                continue
            finished(root, sweep, number, seed, _invented(own.name, number / len(sweep.configurations), seed))
    run = begun(root, sweep, len(sweep.configurations) - 1, sweep.seeds[-1])
    run.write_status("failed", "model_2", 12, 40, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.5 GiB")


def _invented(name: str, place: float, seed: int) -> dict[str, dict[str, float]]:
    of_seed, chance = random.Random(seed).gauss(0, 0.05), random.Random(f"{name}{seed}")
    found = {"base": {"task_aggregate": 0.02 + abs(of_seed) / 4, "mia_auc": 0.98, "mmlu": 0.82 + of_seed / 2}}
    for model, shift in (("model_1", -0.15), ("model_2", 0.15), ("merged", 0.0)):
        auc = min(max(0.35 + 0.4 * place + shift + chance.gauss(0, 0.06), 0), 1)
        found[model] = {"task_aggregate": 0.45 + 0.3 * place * (1 - place) + of_seed + chance.gauss(0, 0.03),
                        "mia_auc": auc, "mmlu": 0.7 + of_seed / 2 + chance.gauss(0, 0.02)}
    for scores in found.values():
        scores["mia_score"] = 1 - 2 * abs(scores["mia_auc"] - 0.5)
        scores["aggregate"] = (scores["task_aggregate"] + scores["mia_score"] + scores["mmlu"]) / 3
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    scored(folder, planned(folder, ["merge.density=0.2,0.4,0.6,0.8,1.0"], range(5)))
    scored(folder, planned(folder, ["model_1.lr=1e-4,1e-3,1e-2", "merge.density=0.4,0.8"], range(3)))
    scored(folder, planned(folder, ["unlearn.lr=2e-2"], range(5), BASELINES, "baselines"))
    planned(folder, ["model_1.lr=1e-3,1e-2"], range(5), name="planned-only")
