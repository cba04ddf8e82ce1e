"""The command line: python -m unlearn_core run | train | merge | evaluate | score | data | list | show."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

from unlearn_core import recipe as recipes
from unlearn_core import tables
from unlearn_core.errors import InputError
from unlearn_core.store import DEFAULT_RUNS_DIR, Store

FAILED, BAD_INPUT, CANCELLED = 1, 2, 130  # exit codes beside 0

EXAMPLES = """
examples:
  python -m unlearn_core run demo                         the whole method on the embedded default (minutes, CPU)
  python -m unlearn_core run demo --set merge.density=0.6 --seed 3
  python -m unlearn_core run --resume RUN                 go on with a run that was stopped
  python -m unlearn_core show RUN                         its recipe, state and scores
  python -m unlearn_core data check data/lume             what is in your files, and every bad row
  python -m unlearn_core score answers/                   official scores of answers generated elsewhere

RUN is the id of a run (see `list`) or a run folder. Exit codes: 0 done, 1 failed, 2 bad input, 130 cancelled.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    _quiet_libraries()
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        options.command(options)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("cancelled; a run goes on with: python -m unlearn_core run --resume RUN", file=sys.stderr)
        return CANCELLED
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is left to tell it, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder without permission
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return 0


# ---- commands ------------------------------------------------------------------------------------------------

def run(options: argparse.Namespace) -> None:
    """The whole method, from data to scores; with --resume, what is left of it."""
    from unlearn_core import pipeline
    store = Store(options.runs_dir)
    with tables.progress() as report:
        if options.resume:
            if options.recipe or options.set or options.seed is not None or options.weights_of:
                raise InputError("run --resume", got="a recipe or settings too", expected="only the run",
                                 fix="a run keeps its recipe; start a new one to change it")
            done = pipeline.resume(store.open(options.resume), device=options.device, report=report)
        else:
            if options.adapters and not options.weights_of:
                raise InputError("--adapters-too", got="no --weights-of", expected="the run whose adapters to take")
            source = store.open(options.weights_of) if options.weights_of else None
            done = pipeline.start(_recipe(options), store, device=options.device, report=report, source=source,
                                  adapters=options.adapters)
    if pipeline.is_main_process():
        tables.print_run(done)


def train(options: argparse.Namespace) -> None:
    """Base, model_1 and model_2 only."""
    from unlearn_core import pipeline
    with tables.progress() as report:
        done = pipeline.start(_recipe(options), Store(options.runs_dir), device=options.device, report=report,
                              until="train")
    if pipeline.is_main_process():
        print(f"trained: {done.path}\nmerge and evaluate it with: python -m unlearn_core run --resume {done.path}")


def merge(options: argparse.Namespace) -> None:
    """Two or more adapter folders become one, and if asked a full model."""
    from unlearn_core import pipeline
    from unlearn_core.merge import merge as merge_adapters
    from unlearn_core.merge import norm_ratio
    from unlearn_core.task_vectors import cosine, load_adapter, save_adapter
    for name, folder in (("--out", options.out), ("--full-model", options.full_model)):
        if folder and folder.exists():
            raise InputError(f"{name} {folder}", got="something that exists", expected="a new folder")
    if (options.base is None) != (options.full_model is None):
        raise InputError("merge", got="only one of --base and --full-model", expected="both, or neither")
    device = str(pipeline.make_accelerator(options.device).device)
    adapters = [load_adapter(folder) for folder in options.adapters]
    merged = merge_adapters(adapters, method=options.method, level=options.level, density=options.density,
                            weights=options.weights, rank=options.rank, device=device)
    save_adapter(merged, options.out)
    size = norm_ratio(merged, adapters)
    if options.full_model:
        try:
            pipeline.export(options.base, options.out, options.full_model)
        except InputError:
            shutil.rmtree(options.out)
            raise
    print(f"merged adapter: {options.out}")
    print(f"its update is {size:.2f} times as large as its parents' on average; cosine to each: "
          + ", ".join(f"{cosine(merged, parent):.2f}" for parent in adapters))
    if options.full_model:
        print(f"full model: {options.full_model}")


def evaluate(options: argparse.Namespace) -> None:
    """Official scores of models of a run, measured anew."""
    from unlearn_core import pipeline
    run = Store(options.runs_dir).open(options.run)
    with tables.progress() as report:
        if options.checkpoints:
            pipeline.evaluate_checkpoints(run, options.models, documents_per_task=options.documents, seed=options.seed,
                                          mmlu_limit=options.mmlu, device=options.device, report=report)
        else:
            pipeline.evaluate_again(run, options.models, device=options.device, report=report)
    if options.checkpoints:
        tables.print_trajectory(run)
    else:
        tables.print_run(run)


def score(options: argparse.Namespace) -> None:
    """Official JSON for answers in the official script's CSV files."""
    from unlearn_core.evaluation import official
    result = official.official_scores(options.folder)
    print(json.dumps(result, indent=2))
    if official.warning(result):
        print(f"warning: {official.warning(result)}", file=sys.stderr)


def data_check(options: argparse.Namespace) -> None:
    """Counts, lengths, duplicates, overlap and every bad row."""
    from unlearn_core.data.check import check, format_report
    count_tokens = None
    if options.tokenizer:
        from transformers import AutoTokenizer
        try:
            tokenizer = AutoTokenizer.from_pretrained(options.tokenizer, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError("--tokenizer", got=options.tokenizer, expected="a model folder or a hub id",
                             fix=str(error).splitlines()[0]) from None
        count_tokens = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    report = check(options.path, count_tokens=count_tokens, max_length=options.max_length,
                   prompt_share=options.prompt_share)
    print(format_report(report))
    if not report.ok:
        raise InputError(str(options.path), got=f"{len(report.errors)} errors", expected="data without errors")


def data_fetch(options: argparse.Namespace) -> None:
    """Download a public release."""
    from unlearn_core.data.fetch import fetch
    print(f"fetched: {fetch(options.name, options.out or Path('data') / options.name)}")


def list_runs(options: argparse.Namespace) -> None:
    """All runs of the runs folder."""
    tables.print_runs(Store(options.runs_dir))


def show(options: argparse.Namespace) -> None:
    """One run."""
    tables.print_run(Store(options.runs_dir).open(options.run), recipe=True)


# ---- arguments -----------------------------------------------------------------------------------------------

def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unlearn_core", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES,
        description="Unlearn by merging an over- and an under-forgetting LoRA adapter, and measure what is left.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    known = ", ".join(sorted(path.stem for path in recipes.RECIPES.glob("*.toml")))
    for name, command, help in (("run", run, "data -> base -> two models -> merge -> scores"),
                                ("train", train, "only the base and the two unlearned models")):
        p = _command(commands, name, command, help)
        p.add_argument("recipe", nargs="?" if name == "run" else None, metavar="RECIPE",
                       help=f"{known}, or a path to a TOML file")
        p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                       help="change a setting, such as model_1.lr=2e-4, or unlearn.lr for both models; repeatable")
        p.add_argument("--seed", type=int, help="the run's seed (default: the recipe's)")
        if name == "run":
            p.add_argument("--resume", metavar="RUN", help="go on with this run instead of starting one")
            p.add_argument("--weights-of", metavar="RUN",
                           help="begin with the data and the base of this run, training from step 0")
            p.add_argument("--adapters-too", action="store_true", dest="adapters",
                           help="with --weights-of: begin with its latest adapters, too")
        _common(p, device=True)

    p = _command(commands, "merge", merge, "adapter folders -> one adapter (and a full model)")
    p.add_argument("--adapters", nargs="+", required=True, type=Path, metavar="DIR", help="two or more adapters (PEFT)")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the merged adapter")
    usual = recipes.Merge()
    about = {field.name: field.metadata for field in recipes.fields(recipes.Merge)}
    p.add_argument("--method", default=usual.method, choices=about["method"]["choices"],
                   help="ties alone is PEFT's dialect: factors, trim per matrix, weights 1 1")
    p.add_argument("--level", default=usual.level, choices=about["level"]["choices"], help=about["level"]["help"])
    p.add_argument("--density", type=float, default=usual.density, help=about["density"]["help"])
    p.add_argument("--weights", nargs="+", type=float, help="one number per adapter (default: 1 each)")
    p.add_argument("--rank", type=int, default=usual.rank, help=about["rank"]["help"])
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--base", metavar="MODEL", help="base model (folder or hub id), for --full-model")
    p.add_argument("--full-model", type=Path, metavar="DIR", help="also write base + merged adapter as a full model")

    p = _command(commands, "evaluate", evaluate, "official scores of a run's models, measured anew")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--models", nargs="+", metavar="MODEL", help="for example base merged (default: all)")
    p.add_argument("--checkpoints", action="store_true",
                   help="the adapter checkpoints of model_1 and model_2 instead: how the scores went during training")
    p.add_argument("--documents", type=_count, default=0, metavar="N",
                   help="with --checkpoints: documents per task and side (default: all)")
    p.add_argument("--seed", type=_count, default=0, help="with --checkpoints: seed that chooses the documents")
    p.add_argument("--mmlu", type=_count, default=-1, metavar="N",
                   help="with --checkpoints: general-knowledge questions per subject, 0 for all (default: none)")
    _common(p, device=True)

    p = _command(commands, "score", score, "official scores of answers generated elsewhere")
    p.add_argument("folder", type=Path, metavar="DIR", help="forget_*.csv, retain_*.csv, mia_results/, metrics.json")

    data = commands.add_parser("data", help="check your files, or fetch the public releases").add_subparsers(
        metavar="WHAT", required=True)
    p = _command(data, "check", data_check, "counts, lengths, overlap and every bad row")
    p.add_argument("path", metavar="PATH", help="a file, a folder in LUME or SemEval layout, or hf://datasets/...")
    p.add_argument("--tokenizer", metavar="MODEL", help="count tokens with this model's tokenizer (else estimated)")
    p.add_argument("--max-length", type=int, default=256, help="tokens of prompt + answer (default 256)")
    p.add_argument("--prompt-share", type=float, default=0.8, help="share of them that a prompt keeps (default 0.8)")
    p = _command(data, "fetch", data_fetch, "download lume, semeval or mmlu")
    p.add_argument("name", choices=("lume", "semeval", "mmlu"), help="the release")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: data/NAME)")

    p = _command(commands, "list", list_runs, "all runs")
    _common(p)
    p = _command(commands, "show", show, "one run: recipe, state, scores")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    _common(p)
    return parser


def _command(commands, name: str, command, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=command.__doc__)
    parser.set_defaults(command=command)
    return parser


def _common(parser: argparse.ArgumentParser, device: bool = False) -> None:
    parser.add_argument("--runs-dir", default=os.environ.get("LETHE_RUNS", DEFAULT_RUNS_DIR), metavar="DIR",
                        help="folder of the runs (default: $LETHE_RUNS or runs)")
    if device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"got {text}, expected 0 or more")
    return value


def _recipe(options: argparse.Namespace) -> recipes.Recipe:
    if not options.recipe:
        raise InputError("run", got="no recipe", expected="a recipe such as demo, or --resume RUN")
    seed = [f"seed={options.seed}"] if options.seed is not None else []
    return recipes.load(options.recipe, [*options.set, *seed])


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _quiet_libraries() -> None:
    """Their progress bars and notices about their own future are not ours to show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|peft|accelerate")
