"""The command line: python -m unlearn_core COMMAND, from `run` and `merge` to `balance` and `ablate`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unlearn_core import recipe as recipes
from unlearn_core import tables
from unlearn_core.errors import InputError
from unlearn_core.store import DEFAULT_RUNS_DIR, Run, Store

if TYPE_CHECKING:
    from unlearn_core.experiments import Subset

FAILED, BAD_INPUT, CANCELLED = 1, 2, 130  # exit codes beside 0

EXAMPLES = """
examples:
  python -m unlearn_core run demo                         the whole method on the embedded default (minutes, CPU)
  python -m unlearn_core run demo --set merge.density=0.6 --seed 3
  python -m unlearn_core run --resume RUN                 go on with a run that was stopped
  python -m unlearn_core show RUN                         its recipe, state and scores
  python -m unlearn_core data check data/lume             what is in your files, and every bad row
  python -m unlearn_core balance RUN                      which scale or mix is balanced, beside honest controls
  python -m unlearn_core evaluate --model M --forget F --retain R   somebody's model on your lists
  python -m unlearn_core score answers/                   official scores of answers generated elsewhere

RUN is the id of a run (see `list`) or a run folder. Exit codes: 0 done, 1 failed, 2 bad input, 130 cancelled.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    _quiet_libraries()
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        code = options.command(options)
        sys.stdout.flush()
        return code or 0
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
    """Base, model_1 and model_2 only; with --without forget, the models of a run that never see forget."""
    from unlearn_core import pipeline
    if options.without:
        _retrain(options)
        return
    if options.seeds != 1:
        raise InputError("train", got="--seeds", expected="it with --without forget only", fix="use --seed")
    with tables.progress() as report:
        done = pipeline.start(_recipe(options), Store(options.runs_dir), device=options.device, report=report,
                              until="train")
    if pipeline.is_main_process():
        print(f"trained: {done.path}\nmerge and evaluate it with: python -m unlearn_core run --resume {done.path}")


def _retrain(options: argparse.Namespace) -> None:
    from unlearn_core import controls
    if options.set or options.seed is not None:
        raise InputError("train --without forget", got="settings", expected="a run, whose recipe is trained again")
    run = Store(options.runs_dir).open(options.recipe)
    with tables.progress() as report:
        controls.retrain(run, seeds=options.seeds, device=options.device, report=report)
    tables.print_run(run)


def merge(options: argparse.Namespace) -> None:
    """Two or more adapter folders become one, and if asked a full model."""
    from unlearn_core import pipeline
    from unlearn_core.merge import merge as merge_adapters
    from unlearn_core.merge import norm_ratio
    from unlearn_core.merge import warnings as merge_warnings
    from unlearn_core.task_vectors import cosine, load_adapter, save_adapter
    for name, folder in (("--out", options.out), ("--full-model", options.full_model)):
        if folder and folder.exists():
            raise InputError(f"{name} {folder}", got="something that exists", expected="a new folder")
    if (options.base is None) != (options.full_model is None):
        raise InputError("merge", got="only one of --base and --full-model", expected="both, or neither")
    device = str(pipeline.make_accelerator(options.device).device)
    adapters = [load_adapter(folder) for folder in options.adapters]
    choice = _merge_choice(options, len(adapters))
    merged = merge_adapters(adapters, choice, device)
    for warning in merge_warnings(adapters, choice):
        print(f"warning: {warning}", file=sys.stderr)
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
    """Official scores of models of a run, measured anew; or, with --model, of somebody's models in a run of theirs."""
    from unlearn_core import bring, experiments, pipeline
    if options.model is not None:
        tables.print_run(_brought(options))
        return
    if options.run is None:
        raise InputError("evaluate", got="no run", expected="RUN, or --model with --forget and --retain")
    _refuse(options, ("adapter", "base", "untrained", "retrained", "forget", "retain", "holdout", "name", "set",
                      "allow_overlap"), "it only with --model")
    _questions(options.mmlu)
    run = Store(options.runs_dir).open(options.run)
    bring.check_unchanged(run)
    with tables.progress() as report:
        if options.checkpoints:
            experiments.evaluate_checkpoints(run, options.models, subset=_subset(options), device=options.device,
                                             report=report)
        else:
            pipeline.evaluate_again(run, options.models, device=options.device, report=report)
    if options.checkpoints:
        tables.print_trajectory(run)
    else:
        tables.print_run(run)


def _brought(options: argparse.Namespace) -> Run:
    """The run of `evaluate --model`."""
    from unlearn_core import bring
    _refuse(options, ("run", "models", "checkpoints", "documents"), "it only without --model")
    for side in ("forget", "retain"):
        if not getattr(options, side):
            raise InputError("evaluate --model", got=f"no --{side}", expected=f"a file of what to {side}")
    settings = [*options.set, *([f"seed={options.seed}"] if options.seed else []),
                *(["data.allow_overlap=true"] if options.allow_overlap else [])]
    models = bring.Models(options.model, options.adapter, options.base, options.untrained, options.retrained)
    lists = bring.Lists(options.forget, options.retain, options.holdout, options.mmlu and Path(options.mmlu))
    with tables.progress() as report:
        return bring.evaluate(models, lists, Store(options.runs_dir), name=options.name, overrides=settings,
                              device=options.device, report=report)


def _refuse(options: argparse.Namespace, names: Sequence[str], expected: str) -> None:
    """InputError for the first of these options that was given."""
    for name in names:
        if getattr(options, name):
            raise InputError("evaluate", got="RUN" if name == "run" else f"--{name.replace('_', '-')}",
                             expected=expected)


def merge_sweep(options: argparse.Namespace) -> None:
    """Other merges of a run's adapters, scored on a subset: what the choice of density, method and mix does."""
    from unlearn_core import experiments
    run = Store(options.runs_dir).open(options.run)
    densities = experiments.grid(options.density) if options.density else []
    with tables.progress() as report:
        experiments.sweep(run, custom=options.set, densities=densities, methods=options.methods, path=options.path,
                          surface=options.surface, subset=_subset(options), device=options.device, report=report)
    tables.print_merges(run)


def balance(options: argparse.Namespace) -> None:
    """The merge whose AUC meets its target, chosen on one half of the documents, read on the other, beside controls."""
    from unlearn_core import weighing
    run = Store(options.runs_dir).open(options.run)
    with tables.progress() as report:
        weighing.balance(run, beside=[Store(options.runs_dir).open(name) for name in options.beside],
                         seed=options.halves_seed, subset=_subset(options), device=options.device, report=report)
    tables.print_balance(run)


def read_test(options: argparse.Namespace) -> None:
    """One configuration, scored on the half of the documents that nothing is chosen on; each reading is counted."""
    from unlearn_core import readings
    run = Store(options.runs_dir).open(options.run)
    with tables.progress() as report:
        readings.read_test(run, model=options.model, custom=options.set, best=options.best, device=options.device,
                           report=report)
    tables.print_readings(run)


def shadows(options: argparse.Namespace) -> None:
    """A likelihood-ratio attack per document (U-LiRA): models trained on other halves of the documents and unlearned
    alike tell how a document looks that was forgotten, and one that was never seen."""
    from unlearn_core import shadows as attack
    run = Store(options.runs_dir).open(options.run)
    with tables.progress() as report:
        attack.measure(run, shadows=options.shadows, seed=options.seed, device=options.device, report=report)
    tables.print_shadows(run)


def ablate(options: argparse.Namespace) -> None:
    """Parts of the merged update removed, kept alone or flipped, beside random parts of equal size and norm."""
    from unlearn_core import experiments
    run = Store(options.runs_dir).open(options.run)
    kinds = [*options.parts, *(["matrix"] if options.matrix else [])]
    with tables.progress() as report:
        experiments.ablate(run, kinds=kinds, modes=options.mode, draws=options.draws, matrices=options.matrix,
                           directions=options.directions, subset=_subset(options), device=options.device,
                           report=report)
    tables.print_ablations(run)


def samples(options: argparse.Namespace) -> None:
    """Several answers to each prompt about the people to forget, drawn at random: what leaks in k of them."""
    from unlearn_core import asking
    run = Store(options.runs_dir).open(options.run)
    with tables.progress() as report:
        asking.sample_answers(run, options.models, samples=options.samples, temperature=options.temperature,
                              top_p=options.top_p, seed=options.seed, people=options.people, device=options.device,
                              report=report)
    tables.print_samples(run)


def probe(options: argparse.Namespace) -> None:
    """What brings back what a model was to forget: training on a part of it, coarser weights, or other prompts; how
    deep it is gone, and how sure the model is of wrong answers; beside the base and a model that never saw it."""
    from unlearn_core import controls, probes
    run = Store(options.runs_dir).open(options.run)
    known = {name for names in probes.SETTINGS.values() for name in names} | {"documents"}
    own = {*probes.SETTINGS.get(options.what, ()), *([] if options.what == "truth_ratio" else ["documents"])}
    given = {name: getattr(options, name) for name in sorted(known) if getattr(options, name) is not None}
    for name in given.keys() - own:
        raise InputError(f"probe {options.what}", got=f"--{name}", expected="only settings of this probe")
    measure = {"depth": controls.measure_depth, "truth_ratio": controls.measure_truth_ratio,
               **{name: getattr(probes, name) for name in probes.SETTINGS}}[options.what]
    with tables.progress() as report:
        measure(run, options.models, **given, seed=options.seed, device=options.device, report=report)
    tables.print_probe(run, options.what)


def verify(options: argparse.Namespace) -> int:
    """A run checked against itself: data and weights by hash, scores from answers, the merge from its parents.
    Exit code 1 where something is not equal."""
    from unlearn_core.verify import verify as checked
    checks = checked(Store(options.runs_dir).open(options.run), options.device)
    for check in checks:
        word = {True: "equal", False: "NOT EQUAL", None: "not checked"}[check.equal]
        print(f"{word:<12} {check.what:<44} {check.where}")
    wrong = sum(check.equal is False for check in checks)
    print(f"{wrong} of {len(checks)} checks are not equal" if wrong else "nothing differs")
    return FAILED if wrong else 0


def thresholds(options: argparse.Namespace) -> None:
    """The thresholds of a run's verdict; --lock stores them, --set changes one, which is logged."""
    from unlearn_core import gates
    run = Store(options.runs_dir).open(options.run)
    for change in options.set:
        gate, _, value = change.partition("=")
        try:
            gates.change(run, gate.strip(), float(value))
        except ValueError:
            raise InputError("--set", got=change, expected="GATE=NUMBER, such as retention=0.8") from None
    if options.lock:
        gates.lock(run)
    tables.print_thresholds(run)


def weights(options: argparse.Namespace) -> None:
    """Sizes, angles, singular values and entries of the weight changes of a run's adapters, for the page Weights."""
    from unlearn_core import pipeline
    run = Store(options.runs_dir).open(options.run)
    with tables.progress() as report:
        pipeline.measure_weights_again(run, entries=options.entries or None, device=options.device, report=report)
    about = run.arrays("weights")[1]
    print(f"measured {len(about['modules'])} matrices of {', '.join(about['adapters'])}: {run.path}")
    if not about["entries"]:
        print("their entries were left out, since they are many: --entries takes them, too")


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


def export(options: argparse.Namespace) -> None:
    """A model of a run with its adapter merged into the weights, in Hugging Face's layout."""
    from unlearn_core import pipeline
    pipeline.export_of_run(Store(options.runs_dir).open(options.run), options.model, options.out)
    print(f"full model: {options.out}")


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
                       help=f"{known}, or a path to a TOML file"
                            + ("; with --without forget: a run" if name == "train" else ""))
        p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                       help="change a setting, such as model_1.lr=2e-4, or unlearn.lr for both models; repeatable")
        p.add_argument("--seed", type=int, help="the run's seed (default: the recipe's)")
        if name == "train":
            p.add_argument("--without", choices=("forget",), default="",
                           help="of a run, whose base is trained again on all but forget: the retrained control")
            p.add_argument("--seeds", type=_count, default=1, help="with --without: how many such models (default 1)")
        else:
            p.add_argument("--resume", metavar="RUN", help="go on with this run instead of starting one")
            p.add_argument("--weights-of", metavar="RUN",
                           help="begin with the data and the base of this run, training from step 0")
            p.add_argument("--adapters-too", action="store_true", dest="adapters",
                           help="with --weights-of: begin with its latest adapters, too")
        _common(p, device=True)

    p = _command(commands, "merge", merge, "adapter folders -> one adapter (and a full model)")
    p.add_argument("--adapters", nargs="+", required=True, type=Path, metavar="DIR", help="two or more adapters (PEFT)")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the merged adapter")
    _merge_settings(p)
    p.add_argument("--weights", nargs="+", type=float, help="one number per adapter (default: 1 each)")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--base", metavar="MODEL", help="base model (folder or hub id), for --full-model")
    p.add_argument("--full-model", type=Path, metavar="DIR", help="also write base + merged adapter as a full model")

    p = _command(commands, "evaluate", evaluate, "official scores of a run's models, measured anew, or of your own")
    p.add_argument("run", nargs="?", metavar="RUN", help="id or folder of the run")
    p.add_argument("--models", nargs="+", metavar="MODEL", help="for example base merged (default: all)")
    p.add_argument("--checkpoints", action="store_true",
                   help="the adapter checkpoints of model_1 and model_2 instead: how the scores went during training")
    _subset_settings(p, "with --checkpoints: ", mmlu=False, half=True)
    p.add_argument("--mmlu", default="", metavar="N|DIR",
                   help="with --checkpoints: general-knowledge questions per subject, 0 for all (default: none); with "
                        "--model: a folder with MMLU's dev/ and test/")
    _model_settings(p)
    _common(p, device=True)

    p = _command(commands, "merge-sweep", merge_sweep, "scores of other merges of a run's adapters")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="one merge that changes the run's own, such as merge.weights=[1,0.5]; repeatable")
    p.add_argument("--density", metavar="GRID", help="the run's method at these densities, as 0.2:1.0:0.1 or 0.6,0.8")
    p.add_argument("--methods", action="store_true", help="every method, as it comes and at the parents' mean norm")
    p.add_argument("--path", action="store_true", help="in straight lines from model_1 over merged to model_2")
    p.add_argument("--surface", action="store_true", help="w1 delta W_1 + w2 delta W_2 on a grid of weights")
    _subset_settings(p, half=True)
    _common(p, device=True)

    p = _command(commands, "balance", balance, "scale, mix and controls at one AUC, chosen and read on other documents")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--beside", nargs="+", default=[], metavar="RUN",
                   help="runs on the same base (made with --weights-of) whose model_1 are controls, too")
    p.add_argument("--halves-seed", type=_count, default=0, help="seed that halves the documents (default 0)")
    _subset_settings(p)
    _common(p, device=True)

    p = _command(commands, "read-test", read_test, "one configuration on the documents that nothing is chosen on")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--model", default="", help="a model of the run (default: merged)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="instead, one merge that changes the run's own, such as merge.density=0.6; repeatable")
    p.add_argument("--best", action="store_true",
                   help="instead, the best Task Aggregate of the merges and checkpoints scored on the development half")
    _common(p, device=True)

    p = _command(commands, "shadows", shadows, "a likelihood-ratio attack per document with models trained for it")
    p.add_argument("run", metavar="RUN", help="id or folder of the run, whose base was trained here")
    p.add_argument("--shadows", type=_count, default=8, metavar="N",
                   help="models to train, an even number; each takes as long as the run's training (default 8)")
    p.add_argument("--seed", type=_count, default=0, help="seed that halves the documents for them (default 0)")
    _common(p, device=True)

    p = _command(commands, "ablate", ablate, "what the merged update does without a part of it")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--parts", nargs="*", choices=("layer", "module", "sign", "direction"), default=["layer", "module"],
                   help="each layer, each type of module, each of the six sign classes of the two parents, the first "
                        "singular directions (default: layer module)")
    p.add_argument("--matrix", nargs="+", default=[], metavar="MODULE",
                   help="single matrices, such as model.layers.0.mlp.up_proj")
    p.add_argument("--directions", nargs="+", type=int, default=[1, 4, 16], metavar="K", help="(default: 1 4 16)")
    p.add_argument("--mode", nargs="+", choices=("remove", "keep", "flip"), default=["remove"],
                   help="what is done with the part (default: remove)")
    p.add_argument("--draws", type=_count, default=3, help="random parts for each (default 3)")
    _subset_settings(p)
    _common(p, device=True)

    p = _command(commands, "samples", samples, "several answers to each prompt about the people to forget")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--models", nargs="+", metavar="MODEL", help="for example base merged (default: all)")
    p.add_argument("--samples", type=_count, default=8, metavar="N", help="answers to each prompt (default 8)")
    p.add_argument("--temperature", type=float, default=0.7, help="of the draws, above 0 (default 0.7)")
    p.add_argument("--top-p", type=float, default=1.0,
                   help="draw from the likeliest tokens with this probability together (default 1: all)")
    p.add_argument("--people", type=_count, default=0, metavar="N", help="how many people (default: all)")
    p.add_argument("--seed", type=_count, default=0, help="seed of the draws and of the choice of people (default 0)")
    _common(p, device=True)

    p = _command(commands, "probe", probe, "what brings back what was forgotten: relearning, rounding, other prompts")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("what", choices=("relearning", "quantisation", "prompts", "depth", "truth_ratio"),
                   help="fine-tune on a part and ask about the rest; round the weights to int8 and int4; ask in other "
                        "words; exchange the states of each layer; weigh wrong answers")
    p.add_argument("--models", nargs="+", metavar="MODEL",
                   help="(default: the one that would be handed out, the base, and one that never saw forget)")
    p.add_argument("--steps", type=_count, help="relearning: most steps of training (default 50)")
    p.add_argument("--on", choices=("forget", "retain"),
                   help="relearning: what is learned; retain is the control for any such training (default: forget)")
    p.add_argument("--share", type=float, help="relearning: share of the documents that is learned (default 0.5)")
    p.add_argument("--lr", type=float, help="relearning: constant learning rate (default: that of model_1)")
    p.add_argument("--batch", type=_count, help="relearning: items per step (default 8)")
    p.add_argument("--group", type=_count, help="quantisation: weights that share a scale in int4 (default 32)")
    p.add_argument("--documents", type=_count, metavar="N", help="documents per task and side (default: all)")
    p.add_argument("--seed", type=_count, default=0,
                   help="seed that chooses documents, the part that is learned, and its order (default 0)")
    _common(p, device=True)

    p = _command(commands, "weights", weights, "sizes, angles and spectra of a run's weight changes")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--entries", action="store_true",
                   help="take histograms and maps of the entries however many they are (default: up to 2e9)")
    _common(p, device=True)

    p = _command(commands, "thresholds", thresholds, "what the gates of a run's verdict ask; lock or change it")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--lock", action="store_true", help="store them with the run")
    p.add_argument("--set", action="append", default=[], metavar="GATE=NUMBER",
                   help="change one, such as retention=0.8; logged, and shown with the verdict; repeatable")
    _common(p)

    p = _command(commands, "verify", verify, "hashes, scores and the merge of a run computed again and compared")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--device", default="cpu", help="where the merge is computed again: cpu or cuda")
    _common(p)

    p = _command(commands, "export", export, "one model of a run as a full model, which needs no adapter")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--model", default="merged", help="base, model_1, model_2 or merged (default: merged)")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    _common(p)

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


def _model_settings(parser: argparse.ArgumentParser) -> None:
    """Somebody's models and lists."""
    parser.add_argument("--model", metavar="MODEL", help="somebody's unlearned model, a folder or hub id: makes a run")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="a LoRA on it, merged into it before it is tested")
    for name, what in (("base", "the model that has memorised (default with --adapter: the model without it)"),
                       ("untrained", "a control that never saw the documents"),
                       ("retrained", "a control that learned the same without forget")):
        parser.add_argument(f"--{name}", default="", metavar="MODEL", help=what)
    for name, what in (("forget", "what should be gone"), ("retain", "what should stay"),
                       ("holdout", "texts like forget that no model saw: without them the attack is not measured")):
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="FILE",
                            help=f"{what}: prompts and answers, also in LUME's, TOFU's or MUSE's layout")
    parser.add_argument("--allow-overlap", action="store_true", help="accept documents in forget and in retain")
    parser.add_argument("--name", default="", help="of the run (default: that of the model)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change a setting of the evaluation, such as evaluation.max_new_tokens=64; repeatable")


def _subset_settings(parser: argparse.ArgumentParser, when: str = "", mmlu: bool = True, half: bool = False) -> None:
    """What is scored; `mmlu`: also how many questions; `half`: of which half of the documents, else all."""
    if half:
        parser.add_argument("--half", choices=("development", "all"), default="development",
                            help=f"{when}the documents to choose on, or all of them, which counts as a look at the "
                                 "test half (default: development)")
    else:
        parser.set_defaults(half="all")
    parser.add_argument("--documents", type=_count, default=0, metavar="N",
                        help=f"{when}documents per task and side (default: all)")
    parser.add_argument("--seed", type=_count, default=0, help=f"{when}seed that chooses the documents")
    if mmlu:
        parser.add_argument("--mmlu", type=_count, default=-1, metavar="N",
                            help=f"{when}general-knowledge questions per subject, 0 for all (default: none)")


def _subset(options: argparse.Namespace) -> Subset:
    from unlearn_core.experiments import Subset
    return Subset(options.documents, options.seed, _questions(options.mmlu), options.half)


def _questions(mmlu: int | str) -> int:
    """Questions per subject; --mmlu of `evaluate` is text, since it may name a folder."""
    if isinstance(mmlu, str) and not re.fullmatch(r"\d*", mmlu):
        raise InputError("--mmlu", got=mmlu, expected="a number of questions with --checkpoints",
                         fix="a folder is for --model")
    return int(mmlu if mmlu != "" else -1)


def _merge_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of a merge but its weights, and the presets that they change."""
    parser.add_argument("--preset", choices=recipes.MERGE_PRESETS, default="peft",
                        help="whose dialect to begin with (default: peft)")
    for setting in recipes.fields(recipes.Merge):
        if setting.name != "weights":
            parser.add_argument(f"--{setting.name.replace('_', '-')}", type=type(setting.default),
                                choices=setting.metadata["choices"], help=setting.metadata["help"])


def _merge_choice(options: argparse.Namespace, adapters: int) -> recipes.Merge:
    """The preset with the settings that were given; weight 1 each where none are."""
    given = {setting.name: getattr(options, setting.name) for setting in recipes.fields(recipes.Merge)}
    given |= {"weights": tuple(options.weights or (1.0,) * adapters)}
    preset = recipes.merge_preset(options.preset, options.method or recipes.Merge.method)
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


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
