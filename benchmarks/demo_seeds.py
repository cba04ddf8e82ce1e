"""How often the demo shows the paper's pattern: the frozen recipe on fresh seeds, beside two honest controls.

    python -m benchmarks.demo_seeds run --seeds 100-119 --out runs/demo-seeds --jobs 2
    python -m benchmarks.demo_seeds report --out runs/demo-seeds

Controls per seed, from the same two adapters: the plain mean of the two weight changes, and model_1's weight change
alone; each scaled by the factor (bisection) at which its MIA AUC equals that of the TIES merge, so that Task
Aggregates are compared at matched forgetting. A finished seed is kept, so a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks import seeds

os.environ.setdefault("OMP_NUM_THREADS", "1")

MEMORISED = 0.95  # mean over the twelve sub-scores of the base, and its AUC, from which it counts as memorised
REFERENCE_AUC = 0.5  # forget and holdout are exchangeable in the generated world
LARGEST_SCALE, BISECTIONS = 2.0, 9


def run_seed(seed: int, out: Path) -> Path:
    """Run the demo on one seed and its controls; the JSON file with what was found."""
    from unlearn_core import pipeline, recipe, run_models
    from unlearn_core.data import load_saved
    from unlearn_core.evaluation.evaluate import document_rows, evaluate
    from unlearn_core.evaluation.mia import auc
    from unlearn_core.files import write_json
    from unlearn_core.merging.task_vectors import Adapter, concatenated, delta, load_adapter, norm, scaled
    from unlearn_core.store import Store

    target = out / f"seed-{seed}.json"
    if target.is_file():
        return target
    warnings.filterwarnings("ignore", category=FutureWarning)
    chosen, store = recipe.load("demo", [f"seed={seed}"]), Store(out / "runs")
    begun = next((r for r in store.runs() if r.recipe() == chosen), None)
    started = time.process_time()
    run = pipeline.resume(begun, device="cpu") if begun else pipeline.start(chosen, store, device="cpu")
    seconds = None if begun else round(time.process_time() - started, 1)

    dataset = load_saved(run.data_dir)
    base, tokenizer = run_models.load(run, chosen, "base", "cpu")

    def shipped(adapter: Adapter):
        model = copy.deepcopy(base)
        for name, factors in adapter.modules.items():
            model.get_submodule(name).weight.data += delta(factors, adapter.scaling)
        return model

    def attack(adapter: Adapter) -> float:
        rows = document_rows(shipped(adapter), tokenizer, dataset.attack, batch_size=chosen.evaluation.batch_size)
        return auc([r["nll"] for r in rows if r["member"]], [r["nll"] for r in rows if not r["member"]])

    first, second, merged = (load_adapter(run.adapter_dir(name)) for name in ("model_1", "model_2", "merged"))
    scores = run.scores()
    mean = concatenated([first, second], [0.5, 0.5])
    controls = {"plain_mean": (mean, 1.0)}
    for name, adapter in (("plain_mean_matched", mean), ("model_1_scaled_matched", first)):
        controls[name] = (adapter, _scale_for(lambda s, a=adapter: attack(scaled(a, s)), scores["merged"]["mia_auc"]))
    found = {}
    for name, (adapter, scale) in controls.items():
        evaluated = evaluate(shipped(scaled(adapter, scale)), tokenizer, dataset, chosen.evaluation)
        found[name] = {**evaluated.scores, "scale": scale, "norm": norm(adapter) * abs(scale)}
    write_json(target, {"seed": seed, "cpu_seconds": seconds, "run": run.id, "scores": scores,
                        "intervals": run.intervals(), "controls": found,
                        "norms": {"model_1": norm(first), "model_2": norm(second), "merged": norm(merged)},
                        "sizes": {"members": sum(d.member for d in dataset.attack),
                                  "nonmembers": sum(not d.member for d in dataset.attack)},
                        "recipe": dataclasses.asdict(chosen), "versions": run.info()["versions"],
                        "commit": run.info()["commit"]})
    return target


def _scale_for(auc_at: Callable[[float], float], target: float) -> float:
    """The scale whose AUC meets the target, by bisection: the AUC falls as the update grows."""
    low, high = 0.0, LARGEST_SCALE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if auc_at(middle) > target else (low, middle)
    return (low + high) / 2


# ---- report --------------------------------------------------------------------------------------------------

def report(out: Path) -> str:
    """Markdown: the summary with 95 % intervals, then one row per seed."""
    from analysis import intervals
    from unlearn_core.evaluation.score import passes_gate
    from unlearn_core.files import read_json
    from unlearn_core.vocabulary import SUB_SCORES

    rows = sorted((read_json(path) for path in out.glob("seed-*.json")), key=lambda row: row["seed"])
    if not rows:
        raise SystemExit(f"no seed-*.json in {out}: run the benchmark first")

    def get(row: dict, model: str, key: str) -> float:
        return (row["controls"] if model in row["controls"] else row["scores"])[model][key]

    def memorised(row: dict) -> bool:
        base = row["scores"]["base"]
        return base["mia_auc"] >= MEMORISED and sum(base[m.key] for m in SUB_SCORES) / 12 >= MEMORISED

    def above_both(row: dict) -> bool:
        return get(row, "merged", "task_aggregate") > max(get(row, m, "task_aggregate") for m in ("model_1", "model_2"))

    def off(row: dict, model: str) -> float:
        return abs(get(row, model, "mia_auc") - REFERENCE_AUC)

    questions = [
        (f"base has memorised (mean sub-score and AUC >= {MEMORISED})", memorised),
        (f"model_1 AUC < {REFERENCE_AUC} < model_2 AUC",
         lambda r: get(r, "model_1", "mia_auc") < REFERENCE_AUC < get(r, "model_2", "mia_auc")),
        ("model_1 AUC < untrained model's AUC < model_2 AUC",
         lambda r: get(r, "model_1", "mia_auc") < get(r, "untrained", "mia_auc") < get(r, "model_2", "mia_auc")),
        ("merged Task Aggregate above both parents", above_both),
        ("merged AUC nearer 0.5 than both parents",
         lambda r: off(r, "merged") < min(off(r, "model_1"), off(r, "model_2"))),
        ("both of the last two", lambda r: above_both(r) and off(r, "merged") < min(off(r, "model_1"),
                                                                                  off(r, "model_2"))),
        ("merged keeps MMLU at or above 0.75 of the base's",
         lambda r: passes_gate(get(r, "merged", "mmlu"), get(r, "base", "mmlu"))),
    ]
    lines = ["| on how many seeds | count | 95 % interval |", "|---|---|---|"]
    for name, holds in questions:
        count = sum(map(holds, rows))
        low, high = intervals.share(count, len(rows))
        lines.append(f"| {name} | {count} of {len(rows)} | {low:.0%} to {high:.0%} |")
    lines += ["", "| paired difference in Task Aggregate | mean | 95 % interval (t) | TIES better on |",
              "|---|---|---|---|"]
    pairs = [("TIES - plain mean, at matched AUC", "plain_mean_matched"),
             ("TIES - model_1 scaled, at matched AUC", "model_1_scaled_matched"),
             ("TIES - plain mean, unscaled (its AUC differs)", "plain_mean"),
             ("TIES - model_1", "model_1"), ("TIES - model_2", "model_2")]
    for name, other in pairs:
        differences = [get(r, "merged", "task_aggregate") - get(r, other, "task_aggregate") for r in rows]
        mean, low, high = intervals.mean(differences)
        lines.append(f"| {name} | {mean:+.3f} | {low:+.3f} to {high:+.3f} | "
                     f"{sum(d > 0 for d in differences)} of {len(rows)} |")
    shown = ("model_1", "model_2", "merged", "plain_mean_matched", "model_1_scaled_matched")
    lines += ["", "Task Aggregate / MIA AUC:", "",
              "| seed | memorised | " + " | ".join(shown) + " | merged MMLU | CPU s |",
              "|---|---|" + "---|" * (len(shown) + 2)]
    for row in rows:
        cells = [f"{get(row, m, 'task_aggregate'):.3f} / {get(row, m, 'mia_auc'):.3f}" for m in shown]
        lines.append(f"| {row['seed']} | {'yes' if memorised(row) else 'no'} | " + " | ".join(cells)
                     + f" | {get(row, 'merged', 'mmlu'):.2f} | {_seconds(row)} |")
    means = [" / ".join(f"{_mean([get(r, m, key) for r in rows]):.3f}" for key in ("task_aggregate", "mia_auc"))
             for m in shown]
    lines.append("| mean | | " + " | ".join(means) + f" | {_mean([get(r, 'merged', 'mmlu') for r in rows]):.2f} | "
                 f"{_mean([r['cpu_seconds'] for r in rows if r['cpu_seconds']] or [math.nan]):.0f} |")
    off_match = max(abs(get(r, m, "mia_auc") - get(r, "merged", "mia_auc")) for r in rows for m in shown[3:])
    sizes = rows[0]["sizes"]
    lines += ["", f"{sizes['members']} member and {sizes['nonmembers']} non-member documents per seed; largest "
              f"remaining AUC difference of a matched control: {off_match:.3f}."]
    return "\n".join(lines)


def _seconds(row: dict) -> str:
    """CPU seconds of the run alone; unknown for a run that went on after a stop."""
    return f"{row['cpu_seconds']:.0f}" if row["cpu_seconds"] else "-"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    seeds.main(__doc__, run_seed, report, seeds="100-119", out="runs/demo-seeds")
