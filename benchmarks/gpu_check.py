"""Whether a GPU gives what a CPU gives, on the smoke recipe: python -m benchmarks.gpu_check [--out DIR] [--device cuda]

    weights    one run's models, made on the CPU, are scored again on the GPU
    run        the whole recipe on both, without dropout, whose draws differ between devices
    merging    every merge method on both levels, of the run's two adapters
    bf16       what rounding the base to bf16 does to the losses, on the GPU
    memory     a run whose GPU is really full ends with advice, and is finished once there is room
    context    memory that CUDA takes for itself, which `estimate` assumes

Each check writes its numbers to DIR/NAME.json as soon as it has them, so that a machine that goes away takes little
with it. Exit code 1 where a number is out of its bounds. tests/test_gpu.py makes the same checks with pytest; this is
for a machine without it. Scores need rouge-score and nltk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from unlearn_core import cli, data, estimate, pipeline, run_models
from unlearn_core import recipe as recipes
from unlearn_core.errors import DeviceError
from unlearn_core.evaluation.evaluate import answer_rows
from unlearn_core.merging.merge import merge
from unlearn_core.merging.task_vectors import delta, load_adapter
from unlearn_core.settings import Merge
from unlearn_core.store import Run, Store
from unlearn_core.vocabulary import MERGE_METHODS, SUB_SCORES, UNLEARNED

Numbers = dict[str, float]
RECIPE = ("smoke", ["lora.dropout=0"])
# Largest values that are no error. On a CPU, sums in another order change losses of this recipe by up to 0.002, losses
# of documents by 0.009 nats per token and one answer of nine; bf16 changes answers' losses by 0.003 on average and by
# 0.019 at most (1 to 2 % of them).
BOUNDS = {
    "weights": {"nll": 1e-3, "changed_answers": 0.05, "sub_score": 0.34},
    "run": {"first_losses": 1e-3, "losses": 0.05, "nll": 0.1, "sub_score": 0.34},
    "merging": dict.fromkeys((f"{method} {level}" for method in MERGE_METHODS for level in ("factors", "delta")), 1e-4),
    "bf16": {"mean_nll": 0.02, "nll": 0.1},
    "memory": {"unlike_advice": 0.0, "unfinished": 0.0},
    "context": {"mb": 2 * estimate.CONTEXT_MB},
}


def cpu_run(folder: Path) -> Run:
    """The recipe, carried out on the CPU."""
    return pipeline.start(recipes.load(*RECIPE), Store(folder / "cpu"), device="cpu")


# ---- the checks: numbers of a device beside those of a run on the CPU --------------------------------------------

def weights(run: Run, device: str, folder: Path) -> Numbers:
    """Losses in nats per token; share of the answers that are written otherwise; the largest step of a sub-score."""
    copy = Run(shutil.copytree(run.path, folder / "weights" / run.id))
    pipeline.evaluate_again(copy, device=device)
    pairs = [(ours, theirs) for model in run.scores()
             for ours, theirs in zip(run.answers(model), copy.answers(model), strict=True)]
    changed = sum(ours["generation"] != theirs["generation"] for ours, theirs in pairs) / len(pairs)
    return {"nll": _nll_apart(run, copy), "changed_answers": changed, "sub_score": _scores_apart(run, copy)}


def whole_run(run: Run, device: str, folder: Path) -> Numbers:
    """Losses of the first ten steps of the base (relative) and of all steps, then as `weights`."""
    other = pipeline.start(recipes.load(*RECIPE), Store(folder / "device"), device=device)
    losses = [(ours["loss"], theirs["loss"]) for model in ("base", *UNLEARNED)
              for ours, theirs in zip(run.steps(model), other.steps(model), strict=True)]
    return {"first_losses": max(abs(a - b) / a for a, b in losses[:10]), "losses": max(abs(a - b) for a, b in losses),
            "nll": _nll_apart(run, other), "sub_score": _scores_apart(run, other)}


def merging(run: Run, device: str, folder: Path) -> Numbers:
    """Per method and level: the largest difference of the two merges, in parts of the largest entry."""
    adapters = [load_adapter(run.adapter_dir(name)) for name in UNLEARNED]
    found = {}
    for method in MERGE_METHODS:
        for level in ("factors", "delta"):
            choice = replace(Merge(), method=method, level=level)
            here, there = (merge(adapters, choice, place) for place in ("cpu", device))
            dense = [(delta(here.modules[name], here.scaling), delta(there.modules[name], there.scaling))
                     for name in here.modules]
            found[f"{method} {level}"] = max(((a - b).abs().max() / a.abs().max()).item() for a, b in dense)
    return found


def bf16(run: Run, device: str, folder: Path) -> Numbers:
    """Losses of the merged model's answers with a bf16 base beside those in fp32, both on the device, in nats."""
    dataset, losses = data.load_saved(run.data_dir), []
    for precision in ("fp32", "bf16"):
        model, tokenizer = run_models.load(run, replace(run.recipe(), precision=precision), "merged", device)
        rows = answer_rows(model, tokenizer, {"forget": dataset.forget, "retain": dataset.retain}, max_new_tokens=8,
                           batch_size=64)
        losses.append([row["nll"] for row in rows])
    apart = [abs(a - b) for a, b in zip(*losses, strict=True)]
    return {"mean_nll": sum(apart) / len(apart), "nll": max(apart)}


def memory(run: Run, device: str, folder: Path) -> Numbers:
    """0 where a run that finds no room says so with a setting that helps, and where it is finished afterwards."""
    copy = Run(shutil.copytree(run.path, folder / "memory" / run.id))
    for name in (*UNLEARNED, "merged"):
        shutil.rmtree(copy.model_dir(name))
    copy.write_status("interrupted", "model_1")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6, device)
    message = ""
    try:
        pipeline.resume(copy, device=device)
    except DeviceError as error:
        message = str(error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    print(f"  {message}")
    told = all(words in message for words in ("model_1: out of memory (", "asked for", "--set model_1.joined=false"))
    ended = cli.main(["run", "--resume", str(copy.path), "--device", device, "--set", "model_1.joined=false"])
    return {"unlike_advice": float(not told), "unfinished": float(ended)}


def context(run: Run, device: str, folder: Path) -> Numbers:
    """MiB of the GPU's memory that are in use and not torch's."""
    torch.ones(1, device=device) @ torch.ones(1, device=device)
    free, total = torch.cuda.mem_get_info(device)
    return {"mb": (total - free - torch.cuda.memory_reserved(device)) / 2**20}


CHECKS: dict[str, Callable[[Run, str, Path], Numbers]] = {
    "weights": weights, "run": whole_run, "merging": merging, "bf16": bf16, "memory": memory, "context": context}
GPU_ONLY = ("memory", "context")


def beyond(name: str, numbers: Numbers) -> list[str]:
    """What is larger than its bound, or no number, in words."""
    return [f"{key} = {value:.3g}, at most {BOUNDS[name][key]:g}" for key, value in numbers.items()
            if not value <= BOUNDS[name][key]]


def _nll_apart(run: Run, other: Run) -> float:
    """The largest difference of a document's loss under any model."""
    return max(abs(ours["nll"] - theirs["nll"]) for model in run.scores()
               for ours, theirs in zip(run.documents(model), other.documents(model), strict=True))


def _scores_apart(run: Run, other: Run) -> float:
    """The largest difference of a sub-score of any model."""
    keys = [metric.key for metric in SUB_SCORES]
    return max(abs(scores[key] - other.scores()[model][key]) for model, scores in run.scores().items()
               for key in keys if key in scores)


# ---- the program -------------------------------------------------------------------------------------------------

def main() -> int:
    """Make all checks; 1 where one is out of its bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), metavar="DIR", help="folder (default gpu_check)")
    parser.add_argument("--device", default="cuda:0", help="(default cuda:0)")
    parser.add_argument("--checks", nargs="+", choices=tuple(CHECKS), default=list(CHECKS))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|peft")
    torch.backends.cuda.matmul.allow_tf32 = False
    options.out.mkdir(parents=True, exist_ok=True)
    scratch = options.out / "scratch"
    run, failed = cpu_run(scratch), False
    for name in options.checks:
        started = time.perf_counter()
        numbers = CHECKS[name](run, options.device, scratch)
        problems = beyond(name, numbers)
        failed = failed or bool(problems)
        about = {"check": name, "device": options.device, "gpu": _gpu(options.device), "torch": torch.__version__,
                 "seconds": round(time.perf_counter() - started, 1), "numbers": numbers, "bounds": BOUNDS[name],
                 "problems": problems}
        (options.out / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        print(f"{'OUT OF BOUNDS' if problems else 'ok':<14}{name:<9}{about['seconds']:>6} s  "
              + ", ".join(problems or (f"{key} {value:.3g}" for key, value in numbers.items())), flush=True)
    shutil.rmtree(scratch)
    return int(failed)


def _gpu(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else ""


if __name__ == "__main__":
    sys.exit(main())
