"""Whether the merge is better than simpler updates at matched AUC: `balance` with all controls on fresh seeds.

    python -m benchmarks.balance_seeds run --seeds 200-207 --out runs/balance-seeds --jobs 2
    python -m benchmarks.balance_seeds report --out runs/balance-seeds

The demo with twice as many people, so that each half has enough of them to conclude. Per seed three trainings on one
base: the run, a second model_1 of the same configuration, and one model_1 with loss weights halfway between model_1's
and model_2's. A finished seed is kept, so a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from pathlib import Path

from benchmarks import seeds

os.environ.setdefault("OMP_NUM_THREADS", "1")

WORLD = ("world.people=24",)
NO_SECOND_MODEL = ("model_2.epochs=0.1", "model_2.warmup_epochs=0", "model_2.checkpoints=0")
BESIDE = {  # of the second trainings only model_1 is used
    "another seed": ("model_1.seed=43",),
    "weights between": ("model_1.npo_weight=0.35", "model_1.gdr_weight=0.3", "model_1.klr_weight=0.35")}


def run_seed(seed: int, out: Path) -> Path:
    """Train and balance one seed; the JSON file with what was found."""
    from unlearn_core.files import write_json
    from unlearn_core.store import Store
    from unlearn_core.trials import weighing

    target = out / f"seed-{seed}.json"
    if target.is_file():
        return target
    warnings.filterwarnings("ignore", category=FutureWarning)
    store, started = Store(out / "runs"), time.process_time()
    run = _trained(store, (f"seed={seed}", *WORLD))
    beside = {label: _trained(store, (f"seed={seed}", *WORLD, *changes, *NO_SECOND_MODEL), source=run)
              for label, changes in BESIDE.items()}
    weighing.balance(run, beside=list(beside.values()), device="cpu")
    found = run.balance()
    for row in found["families"]:
        row["family"] = _named(row["family"], {other.id: label for label, other in beside.items()})
    write_json(target, {"seed": seed, "cpu_seconds": round(time.process_time() - started), "run": run.id,
                        "scores": run.scores(), "balance": found, "commit": run.info()["commit"]})
    return target


def _trained(store, changes: tuple[str, ...], source=None):
    """The run of the demo with these changes, taken up where it was left."""
    from unlearn_core import pipeline, recipe

    chosen = recipe.load("demo", list(changes))
    begun = next((run for run in store.runs() if run.recipe() == chosen), None)
    if begun is None:
        return pipeline.start(chosen, store, device="cpu", source=source, until="train" if source else "scores")
    finished = begun.adapter_dir("model_2").is_dir() if source else "merged" in begun.scores()
    return begun if finished else pipeline.resume(begun, device="cpu")


def _named(family: str, labels: dict[str, str]) -> str:
    """The family without the id of a run, which differs from seed to seed."""
    for name, label in labels.items():
        family = family.replace(name, f"\"{label}\"")
    return family


# ---- report --------------------------------------------------------------------------------------------------

def report(out: Path) -> str:
    """Markdown: each family over the seeds, paired with the balanced merge, with 95 % t intervals."""
    from analysis import intervals
    from unlearn_core.files import read_json
    from unlearn_core.trials.balance import AS_IT_IS, BALANCED

    rows = sorted((read_json(path) for path in out.glob("seed-*.json")), key=lambda row: row["seed"])
    if not rows:
        raise SystemExit(f"no seed-*.json in {out}: run the benchmark first")
    tables = [{family["family"]: family for family in row["balance"]["families"]} for row in rows]
    targets = [row["balance"]["target"] for row in rows]
    lines = ["| update | Task Aggregate | AUC | distance of the AUC from its target | Task Aggregate less the balanced "
             "merge's | better on |", "|---|---|---|---|---|---|"]
    for name in tables[0]:
        scores = [table[name]["task_aggregate"] for table in tables]
        differences = [score - table[BALANCED]["task_aggregate"] for score, table in zip(scores, tables, strict=True)]
        off = [sum(abs(fold["test"]["mia_auc"] - target) for fold in table[name]["folds"]) / 2
               for table, target in zip(tables, targets, strict=True)]
        mean, low, high = intervals.mean(differences)
        against = "" if name == BALANCED else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        better = "" if name == BALANCED else f"{sum(value > 0 for value in differences)} of {len(rows)}"
        auc = _mean([table[name]["mia_auc"] for table in tables])
        lines.append(f"| {name} | {_mean(scores):.3f} | {auc:.2f} | {_mean(off):.2f} | {against} | {better} |")
    refused = [str(row["seed"]) for row in rows if row["balance"]["refused"]]
    counts = sorted({row["balance"]["configurations"] for row in rows})
    smallest = {key: min(row["balance"]["n"][key] for row in rows) for key in rows[0]["balance"]["n"]}
    bracket = sum(row["scores"]["model_1"]["mia_auc"] < target < row["scores"]["model_2"]["mia_auc"]
                  for row, target in zip(rows, targets, strict=True))
    lines += ["", f"Seeds {', '.join(str(row['seed']) for row in rows)}; configurations tried per seed: "
              f"{', '.join(map(str, counts))}; smallest half: {smallest['units']} documents or people of a sub-score, "
              f"{smallest['members']} members, {smallest['nonmembers']} non-members; refused: "
              f"{', '.join(refused) or 'none'}. Target (the untrained model's AUC): {min(targets):.2f} to "
              f"{max(targets):.2f}; model_1 and model_2 bracket it on {bracket} of {len(rows)}. \"{AS_IT_IS}\" was not "
              f"chosen. CPU seconds per seed: {_mean([row['cpu_seconds'] for row in rows]):.0f}."]
    return "\n".join(lines)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


if __name__ == "__main__":
    seeds.main(__doc__, run_seed, report, seeds="200-207", out="runs/balance-seeds")
