"""The paper's method beside other ways to unlearn, on the demo over seeds: as they come, and at one AUC.

    python -m benchmarks.baselines tune --seeds 0-0 --out runs/baselines      # every try, on seeds that are then spent
    python -m benchmarks.baselines run --seeds 300-304 --out runs/baselines   # the chosen settings, on fresh seeds
    python -m benchmarks.baselines report --out runs/baselines

Every method trains one adapter on the base of the demo's run of the same seed and is scored as a model of a run is. As
the size of an update is most of what its scores show, each is also scaled down until its AUC is that of the untrained
model (where it over-forgets; an update that under-forgets stays as it is). For each method three settings are tried; by
the rule the one with the best Aggregate (mean of Task Aggregate, MIA score and MMLU) over the tuning seeds is taken. A
finished file is kept, so a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

BISECTIONS = 8
TUNED, FRESH = "tune", "run"
NO_TERMS = ("model_1.npo_weight=0", "model_1.gdr_weight=0", "model_1.klr_weight=0")
SOME_RATES = ("3e-4", "1e-3", "3e-3")
PAPER = ("model_1", "model_2", "merged")  # of the demo's own run, settings frozen long before


@dataclass(frozen=True)
class Method:
    """A way to unlearn: what it changes in the demo's model_1, the settings tried, and which paper it is from."""

    settings: tuple[str, ...]
    tries: tuple[str, ...]
    source: str


def _terms(**weights: float) -> tuple[str, ...]:
    return (*NO_TERMS, *(f"model_1.{term}_weight={weight}" for term, weight in weights.items()))


def _rates(*rates: str) -> tuple[str, ...]:
    return tuple(f"model_1.lr={rate}" for rate in rates or SOME_RATES)


METHODS = {
    "NPO+GDR+KLR": Method((), _rates(), "arXiv 2503.21088"),
    "NPO alone": Method(_terms(npo=1), _rates("1e-4", "3e-4", "1e-3"), "arXiv 2404.05868"),
    "GA": Method(_terms(ga=1), _rates("3e-5", "1e-4", "3e-4"), "arXiv 2401.06121"),
    "GradDiff": Method(_terms(ga=1, gdr=1), _rates(), "arXiv 2203.12817"),
    "GA+KL": Method(_terms(ga=1, klr=1), _rates("1e-4", "3e-4", "1e-3"), "arXiv 2401.06121"),
    "SimNPO+GDR": Method(_terms(simnpo=1, gdr=1), _rates(), "arXiv 2410.07163"),
    "refusal (IDK)+GDR": Method(_terms(refusal=1, gdr=1), _rates(), "arXiv 2401.06121"),
    "positive targets+GDR": Method(_terms(positive=1, gdr=1), _rates(), "arXiv 2409.13474"),
    "positive targets+NPO+GDR": Method(_terms(positive=0.5, npo=0.5, gdr=1), _rates(), "arXiv 2409.13474"),
    "uniform target+GDR": Method(_terms(uniform=1, gdr=1), _rates(), "arXiv 2410.08109"),
    "task-vector negation": Method(_terms(ga=-1), ("model_1.scale=-0.5", "model_1.scale=-1", "model_1.scale=-2"),
                                   "arXiv 2212.04089"),
    "SUGD": Method((*_terms(ga=0.125, gdr=0.4375), "model_1.retain_per_forget=7", "model_1.chunk=32",
                    "model_1.epochs=7", "model_1.batch_size=1", "model_1.warmup_epochs=0"), _rates(),
                   "AILS-NTUA, SemEval-2025 Task 4"),
    "all weights": Method(('lora.kind="full"',), _rates("1e-4", "3e-4", "1e-3"), "Cyber for AI, SemEval-2025 Task 4"),
    "last layer only": Method(("lora.layers=[-1]",), _rates(), "as AILS-NTUA restrict layers"),
    "MLPs of the first layer": Method(("lora.layers=[0]", 'lora.modules=["gate_proj","up_proj","down_proj"]'), _rates(),
                                      "as SHA256, SemEval-2025 Task 4"),
}
# By the rule on seed 0; which of a method's tries.
CHOSEN = {
    "NPO+GDR+KLR": 1, "NPO alone": 0, "GA": 1, "GradDiff": 1, "GA+KL": 1, "SimNPO+GDR": 2, "refusal (IDK)+GDR": 2,
    "positive targets+GDR": 2, "positive targets+NPO+GDR": 2, "uniform target+GDR": 1, "task-vector negation": 2,
    "SUGD": 1, "all weights": 1, "last layer only": 2, "MLPs of the first layer": 1}


# ---- one training ------------------------------------------------------------------------------------------------

def base_run(seed: int, out: Path) -> Path:
    """The demo's run of the seed, taken up where it was left."""
    from unlearn_core import pipeline, recipe
    from unlearn_core.store import Store

    chosen, store = recipe.load("demo", [f"seed={seed}"]), Store(out / "runs")
    begun = next((run for run in store.runs() if run.recipe() == chosen), None)
    if begun is None:
        return pipeline.start(chosen, store, device="cpu").path
    return begun.path if "merged" in begun.scores() else pipeline.resume(begun, device="cpu").path


def measure(seed: int, out: Path, name: str, number: int, run_path: Path) -> Path:
    """Train one method with one of its tries on the run's base, score it as it comes and scaled; the JSON file."""
    from unlearn_core import models, pipeline, recipe, run_models
    from unlearn_core.data import load_saved
    from unlearn_core.files import write_json
    from unlearn_core.merging.task_vectors import load_adapter, norm
    from unlearn_core.store import Run
    from unlearn_core.training import train

    target = out / f"seed-{seed}" / f"{_slug(name)}-{number}.json"
    if target.is_file():
        return target
    warnings.filterwarnings("ignore", category=FutureWarning)
    run, method = Run(run_path), METHODS[name]
    chosen = recipe.load("demo", [f"seed={seed}", "model_1.checkpoints=0", *method.settings, method.tries[number]])
    models.set_threads(1)
    dataset, accelerator = load_saved(run.data_dir), pipeline.make_accelerator("cpu")
    base, tokenizer = run_models.load(run, run.recipe(), "base", "cpu")
    model, rows, started = models.add_adapter(copy.deepcopy(base), chosen.lora, seed + 42), [], time.process_time()
    train.unlearn(model, tokenizer, dataset.forget, dataset.retain, chosen.model_1, chosen.encoding, seed=seed + 42,
                  accelerator=accelerator, log=rows.append)
    seconds = time.process_time() - started
    folder = target.with_suffix("")
    models.save_adapter(model, folder, str(run_path), chosen.model_1.scale)
    adapter = load_adapter(folder)
    found = {"seed": seed, "method": name, "try": number, "setting": method.tries[number], "steps": len(rows),
             "cpu_seconds": round(seconds, 1), "norm": norm(adapter),
             **_scored(base, tokenizer, adapter, dataset, chosen.evaluation, run.scores()["untrained"]["mia_auc"])}
    write_json(target, found)
    return target


def _scored(base, tokenizer, adapter, dataset, evaluation, wanted: float) -> dict:
    """`scores` of the update as it comes, and `matched` those of it scaled down to the AUC `wanted`, with `scale`."""
    from unlearn_core.evaluation.evaluate import document_rows, evaluate
    from unlearn_core.evaluation.mia import auc
    from unlearn_core.merging.task_vectors import delta

    def shipped(scale: float):
        model = copy.deepcopy(base)
        for name, factors in adapter.modules.items():
            model.get_submodule(name).weight.data += scale * delta(factors, adapter.scaling)
        return model

    def attack(scale: float) -> float:
        rows = document_rows(shipped(scale), tokenizer, dataset.attack, batch_size=evaluation.batch_size)
        return auc([r["nll"] for r in rows if r["member"]], [r["nll"] for r in rows if not r["member"]])

    scores = evaluate(shipped(1.0), tokenizer, dataset, evaluation).scores
    if scores["mia_auc"] >= wanted:
        return {"scores": scores, "matched": scores, "scale": 1.0}
    low, high = 0.0, 1.0  # the AUC falls from the base's as the scale grows
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if attack(middle) > wanted else (low, middle)
    return {"scores": scores, "matched": evaluate(shipped(high), tokenizer, dataset, evaluation).scores, "scale": high}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


# ---- what was found ----------------------------------------------------------------------------------------------

def _found(out: Path) -> list[dict]:
    from unlearn_core.files import read_json

    return [read_json(path) for path in sorted(out.glob("seed-*/*.json"))]


def best_tries(rows: list[dict], seeds: list[int]) -> dict[str, int]:
    """{method: the try with the best mean Aggregate over the tuning seeds}."""
    best = {}
    for name in METHODS:
        means = {}
        for number in range(len(METHODS[name].tries)):
            own = [row["scores"]["aggregate"] for row in rows
                   if (row["method"], row["try"]) == (name, number) and row["seed"] in seeds]
            if len(own) == len(seeds):
                means[number] = sum(own) / len(own)
        if means:
            best[name] = max(means, key=means.get)
    return best


def report(out: Path, tuned: list[int], fresh: list[int]) -> str:
    """Markdown: every try on the tuning seeds, then the chosen ones on the fresh seeds with 95 % t intervals."""
    rows = _found(out)
    lines = ["| method | tried | Aggregate on the tuning seeds | taken |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        for number, setting in enumerate(method.tries):
            own = [row["scores"]["aggregate"] for row in rows
                   if (row["method"], row["try"]) == (name, number) and row["seed"] in tuned]
            taken = "yes" if CHOSEN.get(name) == number else ""
            lines.append(f"| {name} | {setting} | {' '.join(f'{value:.3f}' for value in own) or '-'} | {taken} |")
    return "\n".join([*lines, "", *_table(out, rows, fresh)])


def _table(out: Path, rows: list[dict], seeds: list[int]) -> list[str]:
    shown = {name: [row for row in rows if row["method"] == name and row["seed"] in seeds
                    and row["try"] == CHOSEN.get(name)] for name in METHODS}
    own = {f"the paper's {model}": _of_runs(out, model, seeds) for model in PAPER}
    merged = {row["seed"]: row for row in own["the paper's merged"]}
    lines = ["| method | seeds | Task Aggregate | AUC | MMLU | Aggregate | less the merge's | Task Aggregate at the "
             "untrained AUC | scale |", "|---|---|---|---|---|---|---|---|---|"]
    for name, found in (own | shown).items():
        if not found:
            continue
        cells = [_interval([row["scores"][key] for row in found]) for key in ("task_aggregate", "mia_auc", "mmlu",
                                                                             "aggregate")]
        apart = [row["scores"]["aggregate"] - merged[row["seed"]]["scores"]["aggregate"] for row in found
                 if row["seed"] in merged]
        matched = [row["matched"]["task_aggregate"] for row in found if "matched" in row]
        scales = [row["scale"] for row in found if "scale" in row]
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} | {_interval(apart, '+.3f')} | "
                     f"{_interval(matched)} | {_interval(scales, '.2f')} |")
    return lines


def _of_runs(out: Path, model: str, seeds: list[int]) -> list[dict]:
    """Scores of a model of the demo's own runs."""
    from unlearn_core.store import Store

    return [{"seed": run.recipe().seed, "scores": run.scores()[model]} for run in Store(out / "runs").runs()
            if run.recipe().seed in seeds and model in run.scores()]


def _interval(values: list[float], form: str = ".3f") -> str:
    from analysis import intervals

    if not values:
        return "-"
    if len(values) == 1:
        return format(values[0], form)
    mean, low, high = intervals.mean(values)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=(TUNED, FRESH, "report"))
    parser.add_argument("--seeds", help="first-last (default: 0-0 to tune, 300-304 to run)")
    parser.add_argument("--out", type=Path, default=Path("runs/baselines"))
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    options = parser.parse_args()
    spans = {TUNED: "0-0", FRESH: "300-304"} | ({options.command: options.seeds} if options.seeds else {})
    seeds = {key: list(range(int(span.split("-")[0]), int(span.split("-")[1]) + 1)) for key, span in spans.items()}
    if options.command != "report":
        options.out.mkdir(parents=True, exist_ok=True)
        work = [(name, number) for name, method in METHODS.items() for number in range(len(method.tries))
                if options.command == TUNED or CHOSEN.get(name) == number]
        with ProcessPoolExecutor(options.jobs) as pool:
            own = seeds[options.command]
            runs = dict(zip(own, pool.map(base_run, own, [options.out] * len(own)), strict=True))
            todo = [(seed, options.out, name, number, runs[seed]) for seed, (name, number) in product(own, work)]
            for path in pool.map(measure, *zip(*todo, strict=True)):
                print(path, flush=True)
    print(report(options.out, seeds[TUNED], seeds[FRESH]))
    if options.command == TUNED:
        print(f"CHOSEN = {best_tries(_found(options.out), seeds[TUNED])}")


if __name__ == "__main__":
    main()
