"""The whole method on one screen: data -> base -> two unlearned models -> merge -> evaluation, stage by stage.

A stage is done when its last file is in the run folder, so running a run again skips what is finished: that is how
a killed run resumes.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from transformers.utils import logging as transformers_logging

from unlearn_core import advice, data, launching, models, processes, run_models
from unlearn_core.data import Dataset, Item, world
from unlearn_core.data.dataset import one_text_each
from unlearn_core.data.lists import whole_texts
from unlearn_core.encoding import encode_all
from unlearn_core.errors import InputError
from unlearn_core.evaluation import knowledge, memory, mmlu, rouge
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.evaluation.likelihood import Losses
from unlearn_core.merging.merge import merge
from unlearn_core.merging.merge import warnings as merge_warnings
from unlearn_core.merging.task_vectors import load_adapter, save_adapter
from unlearn_core.progress import Progress, Report, measuring, refuse_if_running
from unlearn_core.provenance import surroundings
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, Store, now
from unlearn_core.training import train
from unlearn_core.training.optimise import saved_step
from unlearn_core.training.schedule import Schedule
from unlearn_core.vocabulary import UNLEARNED
from unlearn_core.weight_changes import weights

SAME_VERSIONS = ("torch", "transformers", "peft", "accelerate", "tokenizers")  # in all processes that share a run


def start(recipe: Recipe, store: Store, *, device: str = "auto", report: Report = lambda *_: None,
          until: str = "scores", source: Run | None = None, adapters: bool = False) -> Run:
    """Create a run of the recipe and carry it out. Bad input found before a model exists leaves no run behind.

    `source` and `adapters`: the weights of another run to begin with, see `Run.begin_with`.
    """
    accelerator = make_accelerator(device)
    run = Run(Path(processes.of_main(accelerator, lambda: str(store.create(recipe, {
        "seed": recipe.seed, "processes": accelerator.num_processes, "command": ["unlearn_core", *sys.argv[1:]],
        **surroundings(str(accelerator.device))}).path))))
    try:
        if source is not None:
            processes.of_main(accelerator, lambda: run.begin_with(source, adapters=adapters))
        return carry_out(run, accelerator, report, until)
    except InputError:
        if accelerator.is_main_process and (not run.models() or run.last_status()["state"] == "running"):
            run.discard()
        raise


def resume(run: Run, *, settings: Sequence[str] = (), device: str = "auto",
           report: Report = lambda *_: None) -> Run:
    """Finish a run that was stopped: at its last checkpoint, with the same scores as an unbroken run on one device.

    `settings`: KEY=VALUE of `advice.HOW`, which say how it computes; they become part of its recipe, and `run.json`
    says since when.
    """
    accelerator = make_accelerator(device)
    processes.of_main(accelerator, lambda: _go_on(run, settings, accelerator))
    return carry_out(Run(run.path), accelerator, report)


def _go_on(run: Run, settings: Sequence[str], accelerator: Accelerator) -> None:
    """Note in the run that it goes on, and how; an InputError where it must not."""
    refuse_if_running(run)
    recipe = advice.resumed(run.recipe(), settings)
    if settings and run.last_status()["state"] == "finished":
        raise InputError(f"run {run.id}", got="settings for a finished run", expected="a run that stopped before")
    info, count = run.info(), launching.needed(run)
    if count not in (None, accelerator.num_processes):
        raise InputError(f"run {run.id}", got=f"{accelerator.num_processes} processes",
                         expected=f"{count} as at its start: what a step reads depends on them",
                         fix=f"go on with: {_again(run, count)}")
    changes = {"set": list(settings)} if settings else {}
    run.note(resumed=[*info.get("resumed", []), {"at": now(), **changes, **surroundings(str(accelerator.device))}])
    if settings:
        run.change_recipe(recipe)


def _again(run: Run, count: int) -> str:
    """The command with which so many processes go on with a run."""
    return launching.command_line(["run", "--resume", str(run.path)], count)


def carry_out(run: Run, accelerator: Accelerator, report: Report, until: str = "scores") -> Run:
    """Run all stages that are not done yet; the status file always says which one is under way.

    Of several processes all train and the main one alone writes, merges and evaluates.
    """
    transformers_logging.disable_progress_bar()
    with ExitStack() as claims:
        processes.of_main(accelerator, lambda: claims.enter_context(run.claimed()))
        if accelerator.is_main_process:
            return _write_all(run, run.recipe(), accelerator, Progress(run, report), until)
        _train(run, accelerator, Progress(None, lambda *_: None))
        return run


def _write_all(run: Run, recipe: Recipe, accelerator: Accelerator, progress: Progress, until: str) -> Run:
    """The stages as the main process sees them, which alone writes."""
    run.write_status("running", "data")
    try:
        with advice.explained(recipe, lambda: progress.stage, _again(run, accelerator.num_processes)):
            if until != "train":
                rouge.require()
            dataset = _train(run, accelerator, progress)
            if until == "train":
                run.write_status("trained", "train")
                return run
            if not run.brought():
                merge_adapters(run, recipe, str(accelerator.device), progress)
                measure_weights(run, recipe, str(accelerator.device), progress)
            for name in run_models.evaluated_models(run, recipe):
                if not run.is_evaluated(name):
                    evaluate_model(run, recipe, name, dataset, str(accelerator.device), progress)
            run.write_scores()
    except KeyboardInterrupt:
        run.write_status("cancelled", progress.stage, progress.done, progress.total)
        raise
    except BaseException as error:
        run.log(f"failed in {progress.stage}: {type(error).__name__}: {error}")
        run.write_status("failed", progress.stage, progress.done, progress.total, f"{type(error).__name__}: {error}")
        raise
    run.write_status("finished", "done")
    return run


def _train(run: Run, accelerator: Accelerator, progress: Progress) -> Dataset:
    """The stages in which every process takes part; none goes on before the main one has written the results."""
    with processes.waited_for(accelerator, f"go on with: {_again(run, accelerator.num_processes)}"):
        processes.of_main(accelerator, lambda: prepare_data(run, run.recipe()))
        processes.agree(accelerator, lambda: _seen(run))
        recipe, dataset = run.recipe(), data.load_saved(run.data_dir)
        models.set_threads(recipe.threads)
        if run.brought():  # its models are somebody's: there is nothing to train
            return dataset
        prepare_base(run, recipe, dataset, accelerator, progress)
        accelerator.wait_for_everyone()
        for name in UNLEARNED:
            unlearn(run, recipe, name, dataset, accelerator, progress)
            accelerator.wait_for_everyone()
        return dataset


def _seen(run: Run) -> dict[str, str]:
    """What a process sees of a run, and works with."""
    made_with = surroundings("")
    try:
        found = {"the run folder": run.info()["id"]}
    except InputError:
        found = {}
    return {**found, **{f"{name} of the run's data": key for name, key in data.hashes(run.data_dir).items()},
            # Written a moment ago by the main process: only in the same folder it is the same.
            "time of the run's status": run.last_status().get("updated", ""),
            **{name: made_with["versions"][name] for name in SAME_VERSIONS}, "commit of the code": made_with["commit"]}


# ---- stages --------------------------------------------------------------------------------------------------

def prepare_data(run: Run, recipe: Recipe) -> None:
    """The items as used, kept in the run folder so that every later stage and page reads the same."""
    if not run.data_dir.is_dir():
        trained_here = recipe.base.source != "load"
        if recipe.data.source == "world":
            sides = world.generate(recipe.world, recipe.seed)
            dataset = data.assemble(sides.forget, sides.retain, sides.general, sides.mmlu_dev, sides.mmlu_test,
                                    data=recipe.data, seed=recipe.seed, base_is_trained_here=trained_here,
                                    mia_members=recipe.evaluation.mia_members)
        else:
            dataset = data.load(recipe.data, seed=recipe.seed, base_is_trained_here=trained_here,
                                mia_members=recipe.evaluation.mia_members)
        mmlu.choose(dataset.mmlu_test, recipe.evaluation.mmlu_subjects)  # a wrong subject must not wait for hours
        data.save(dataset, run.data_dir)
    if "data_hashes" not in run.info():
        run.note(data_hashes=data.hashes(run.data_dir))


def prepare_base(run: Run, recipe: Recipe, dataset: Dataset, accelerator: Accelerator, progress: Progress) -> None:
    """The model that has memorised: trained here, or checked to load."""
    base = recipe.base
    if run.full_model_dir("base").is_dir():
        return
    progress("base", 0, 0)
    if base.source == "load":
        if not run.model_dir("base").is_dir():
            models.load_model(base.model, recipe.precision)  # says now what is wrong with it
            run.model_dir("base").mkdir(parents=True, exist_ok=True)
        return
    if base.source == "scratch":
        # From retain or another world: the tokenizer must not tell the attack's members from its non-members.
        texts = (world.generic_texts(recipe.seed) if recipe.data.source == "world"
                 else [item.text for item in dataset.retain])
        tokenizer = models.train_tokenizer(texts, base.vocabulary)
        model = models.new_model(base, tokenizer, recipe.seed).to(accelerator.device)
        if accelerator.is_main_process and not run.full_model_dir("untrained").is_dir():
            models.save_model(model, tokenizer, run.full_model_dir("untrained"))
    else:
        model, tokenizer = models.load_model(base.model, "fp32", accelerator.device)
    memorise(run, recipe, "base", model, tokenizer, dataset.forget + dataset.retain + dataset.general, recipe.seed,
             accelerator, progress)


def memorise(run: Run, recipe: Recipe, name: str, model, tokenizer, items: list[Item], seed: int,
             accelerator: Accelerator, progress: Progress) -> None:
    """Train a model until it has memorised the items, as the recipe's base is, and keep it as the run's `name`."""
    base = recipe.base
    processes.agree(accelerator, lambda: processes.fingerprint(model, tokenizer))
    if base.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if accelerator.is_main_process:
        run.keep_steps(name, saved_step(run.resume_dir(name)))
    train.memorise(model, tokenizer, items, base, recipe.encoding, seed=seed, accelerator=accelerator,
                   log=progress.logger(name, base.steps(len(items))), state_dir=run.resume_dir(name))
    if accelerator.is_main_process:
        models.save_model(model, tokenizer, run.full_model_dir(name))


def unlearn(run: Run, recipe: Recipe, name: str, dataset: Dataset, accelerator: Accelerator,
            progress: Progress) -> None:
    """One of the two unlearning runs, with adapter checkpoints on the way."""
    if run.adapter_dir(name).is_dir():
        return
    progress(name, 0, 0)
    settings = getattr(recipe, name)
    model, tokenizer = models.load_model(run_models.base_path(run, recipe), recipe.precision, accelerator.device)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if accelerator.is_main_process and "truncated_answers" not in run.info():
        rows = encode_all(tokenizer, dataset.forget + dataset.retain, recipe.encoding)
        run.note(truncated_answers=sum(row.truncated for row in rows))
    seed = recipe.seed + settings.seed
    model = models.add_adapter(model, recipe.lora, seed).to(accelerator.device)
    if run.initial_adapter_dir(name).is_dir():
        models.set_adapter(model, run.initial_adapter_dir(name))
    processes.agree(accelerator, lambda: processes.fingerprint(model, tokenizer))
    base_name = run_models.base_identity(run, recipe)
    steps = Schedule(len(dataset.forget), len(dataset.retain), settings, seed, accelerator.num_processes).steps

    def save(folder: Path) -> None:
        if accelerator.is_main_process:
            models.save_adapter(model, folder, base_name, settings.scale)

    if accelerator.is_main_process:
        run.keep_steps(name, saved_step(run.resume_dir(name)))
    if not saved_step(run.resume_dir(name)):
        save(run.checkpoint_dir(name, 0))
    train.unlearn(model, tokenizer, dataset.forget, dataset.retain, settings, recipe.encoding, seed=seed,
                  accelerator=accelerator, log=progress.logger(name, steps), state_dir=run.resume_dir(name),
                  on_checkpoint=lambda step: save(run.checkpoint_dir(name, step)))
    save(run.adapter_dir(name))


def merge_adapters(run: Run, recipe: Recipe, device: str, progress: Progress) -> None:
    """model_1 and model_2 become one adapter."""
    if run.adapter_dir("merged").is_dir():
        return
    progress("merge", 0, 1)
    adapters = [load_adapter(run.adapter_dir(name)) for name in UNLEARNED]
    for warning in merge_warnings(adapters, recipe.merge):
        run.log(f"warning: {warning}")
    save_adapter(merge(adapters, recipe.merge, device), run.adapter_dir("merged"))
    progress("merge", 1, 1)


def measure_weights(run: Run, recipe: Recipe, device: str, progress: Progress) -> None:
    """Where and in which directions the adapters change the weights, and where they disagree in sign."""
    if not weights.is_current(run):
        weights.measure(run, run_models.base_path(run, recipe), device=device, progress=progress)
    if not weights.signs_are_current(run):
        weights.measure_signs(run, device=device, progress=progress)


def evaluate_model(run: Run, recipe: Recipe, name: str, dataset: Dataset, device: str, progress: Progress) -> None:
    """Official scores of one model of the run and what lies beside them, as the model would be shipped: adapters are
    merged into the weights."""
    progress(f"evaluate {name}", 0, 0)
    model, tokenizer = run_models.load(run, recipe, name, device)
    settings = recipe.evaluation

    def told(done: int, total: int, label: str) -> None:
        progress(f"evaluate {name}: {label}", done, total)

    # Random weights answer every prompt with noise up to the length limit; only their losses are a control.
    answers = not (name == "untrained" and recipe.base.source == "scratch")
    asked = dataset if answers else dataclasses.replace(dataset, forget=[], retain=[])
    losses: Losses = {}  # the attack reads documents, and the scores answers, that are led through token by token first
    held = memory.memory_rows(model, tokenizer, dataset, batch_size=settings.batch_size, progress=told,
                              texts=whole_texts if run.brought() else one_text_each, losses=losses)
    told(0, 0, "answers")
    found = evaluate(model, tokenizer, asked, settings, told, losses)
    quiz = mmlu.choose(dataset.mmlu_test, settings.mmlu_subjects) if answers else []
    run.write_evaluation(
        name, answers=found.answers, documents=found.documents, mmlu=found.mmlu, scores=found.scores,
        intervals=found.intervals, memory=held,
        knowledge=knowledge.knowledge_rows(model, tokenizer, knowledge.open_questions(quiz, settings.open_questions),
                                           batch_size=settings.batch_size, progress=told))


def evaluate_again(run: Run, names: list[str] | None = None, *, device: str = "auto",
                   report: Report = lambda *_: None) -> None:
    """Measure models of a run anew (all by default); the old results stay until the new ones are there."""
    recipe, accelerator = run.recipe(), make_accelerator(device)
    known = run_models.evaluated_models(run, recipe)
    run_models.check_names(names, known)
    with measuring(run, recipe, report) as progress:
        dataset = data.load_saved(run.data_dir)
        for name in names or known:
            evaluate_model(run, recipe, name, dataset, str(accelerator.device), progress)
        run.write_scores()


def measure_weights_again(run: Run, *, entries: bool | None = None, device: str = "auto",
                          report: Report = lambda *_: None) -> None:
    """Measure the weight changes of a run's adapters anew, see `weights.measure`."""
    recipe, accelerator = run.recipe(), make_accelerator(device)
    with measuring(run, recipe, report) as progress:
        weights.measure(run, run_models.base_path(run, recipe), device=str(accelerator.device), entries=entries,
                        progress=progress)
        weights.measure_signs(run, device=str(accelerator.device), entries=entries, progress=progress)


# ---- processes ----------------------------------------------------------------------------------------------

def is_main_process() -> bool:
    """Whether this process, of several that share a run, is the one that writes and speaks."""
    return PartialState().is_main_process


def make_accelerator(device: str = "auto") -> Accelerator:
    """Accelerate on the device asked for: auto, cpu, cuda or cuda:N."""
    import torch
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise InputError("--device", got=device, expected="auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and int(device[5:] or 0) >= torch.cuda.device_count():
        raise InputError("--device", got=device, expected=f"one of the {torch.cuda.device_count()} CUDA devices that "
                         "torch sees", fix="use --device cpu")
    launching.check(device, torch.cuda.device_count())
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    # Processes may need different numbers of forwards for a step (train.Reader), so no forward may wait for the others.
    # The buffers that would be exchanged there are constants of the model.
    cpu = device == "cpu" or (launching.count() > 1 and not torch.cuda.is_available())  # else each would be alone
    return Accelerator(cpu=cpu, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
