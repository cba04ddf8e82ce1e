"""What a recipe will cost before it starts: items, optimizer steps, memory and time. Torch-free.

Items and steps are exact. Memory is the sum of named parts and meant to be right within a factor of two; time is
measured on earlier runs, or said to be unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unlearn_core import data
from unlearn_core.data import Dataset, Item, layout, world
from unlearn_core.data.check import CHARACTERS_PER_TOKEN
from unlearn_core.errors import InputError
from unlearn_core.model_size import Model, base_model
from unlearn_core.settings import Base, Encoding, Recipe, Unlearning
from unlearn_core.store import Run
from unlearn_core.tokens import SavedTokenizer
from unlearn_core.vocabulary import UNLEARNED

MB = 2**20
RUNTIME_MB = 450.0  # of a process that has loaded Python, torch and transformers (measured on a CPU)
CONTEXT_MB = 500.0  # of a GPU's memory for CUDA itself (assumed; `benchmarks/gpu_check.py` measures it)
LOGITS_BUDGET = 2**28  # as in `evaluation.likelihood`
BYTES = {"fp32": 4, "bf16": 2}


# ---- the data ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Workload:
    """What a run of a recipe will read: tokens (prompt + answer + end, as cut) of each item it trains on."""

    forget: tuple[int, ...]
    retain: tuple[int, ...]
    general: tuple[int, ...]
    lost_ends: int  # forget and retain answers that lose their end at max_length
    attack: int  # documents of the membership-inference attack; 0: it is not measured
    counted: bool  # by the base's tokenizer, else estimated from the number of characters

    @property
    def memorised(self) -> tuple[int, ...]:
        """The items that a base trained here memorises."""
        return self.forget + self.retain + self.general


def dataset(recipe: Recipe, source: Run | None = None) -> Dataset | None:
    """The data as the run will use them, or those of `source`, whose weights it begins with.

    None where they would have to be downloaded first; an InputError where they cannot be used.
    """
    if source is not None:
        return data.load_saved(source.data_dir)
    if recipe.data.source == "files":
        named = (getattr(recipe.data, part) for part in ("path", "forget", "retain", "mia", "mmlu"))
        if any(place.startswith(layout.HUB) for place in named):
            return None
        return data.load(recipe.data, seed=recipe.seed, base_is_trained_here=recipe.base.source != "load",
                         mia_members=recipe.evaluation.mia_members)
    sides = world.generate(recipe.world, recipe.seed)
    return data.assemble(sides.forget, sides.retain, sides.general, sides.mmlu_dev, sides.mmlu_test, data=recipe.data,
                         seed=recipe.seed, base_is_trained_here=recipe.base.source != "load",
                         mia_members=recipe.evaluation.mia_members)


def workload(recipe: Recipe, found: Dataset, tokenizer: SavedTokenizer | None = None) -> Workload:
    """Lengths of the items, counted by the tokenizer where there is one."""
    count, more = (tokenizer.count, _beginning(tokenizer)) if tokenizer else (_estimated(recipe.base), 0)
    with _sizes_that_fit():
        whole = {name: [_length(item, recipe.encoding, count, more) for item in getattr(found, name)]
                 for name in ("forget", "retain", "general")}
    limit = recipe.encoding.max_length
    return Workload(**{name: tuple(min(length, limit) for length in lengths) for name, lengths in whole.items()},
                    lost_ends=sum(length > limit for length in whole["forget"] + whole["retain"]),
                    attack=len(found.attack), counted=tokenizer is not None)


def tokenizer_folder(recipe: Recipe, source: Run | None = None) -> Path | None:
    """The folder of the tokenizer that the run will use, where it is on this machine already."""
    folder = source.full_model_dir("base") if source else Path(recipe.base.model)
    known = source is not None or (recipe.base.source != "scratch" and recipe.base.model != "")
    return folder if known and (folder / "tokenizer.json").is_file() else None


def _estimated(base: Base) -> Callable[[str], int]:
    """Tokens of a text by its length. A small vocabulary has shorter tokens: characters per token on LUME's texts,
    measured at 500 to 16,000 tokens of BPE, grow by 0.42 per doubling."""
    characters = CHARACTERS_PER_TOKEN
    if base.source == "scratch":
        characters = min(characters, 1.9 + 0.42 * math.log2(max(base.vocabulary, 300) / 500))
    return lambda text: math.ceil(len(text) / characters)


def _beginning(tokenizer: SavedTokenizer) -> int:
    """How many tokens the tokenizer puts before a text of its own accord."""
    ids = tokenizer("a")["input_ids"]
    return len(ids) - tokenizer.count("a") - (ids[-1] == tokenizer.eos_token_id)


def _length(item: Item, encoding: Encoding, count: Callable[[str], int], more: int) -> int:
    """Tokens of an item as `encoding.encode` cuts its prompt, which has `more` of them, before it cuts the end."""
    prompt = min(count(item.prompt) + more, int(encoding.max_length * encoding.prompt_share))
    return prompt + count(item.answer) + 1


@contextmanager
def _sizes_that_fit() -> Iterator[None]:
    """An InputError where a setting is so large that its product is no number any more."""
    try:
        yield
    except OverflowError:
        raise InputError("recipe", got="a size beyond all numbers", expected="sizes of a model that can be trained",
                         fix="look for a setting with far too many digits") from None


# ---- steps, memory, operations -------------------------------------------------------------------------------

@dataclass(frozen=True)
class Part:
    """One part of the memory that a stage needs at its peak, in MiB."""

    stage: str
    name: str
    mb: float


@dataclass(frozen=True)
class Estimate:
    """`steps` and `operations` (floating-point) by model that is trained; memory only where the base is known."""

    steps: dict[str, int]
    parameters: int | None
    adapter_parameters: int | None
    parts: tuple[Part, ...]
    operations: dict[str, float]

    @property
    def peak(self) -> str | None:
        """The stage that needs most memory."""
        stages = dict.fromkeys(part.stage for part in self.parts)
        return max(stages, key=self.stage_mb, default=None)

    @property
    def memory_mb(self) -> float | None:
        """Memory at the peak, in MiB."""
        return self.stage_mb(self.peak) if self.peak else None

    def stage_mb(self, stage: str) -> float:
        return sum(part.mb for part in self.parts if part.stage == stage)


def estimate(recipe: Recipe, work: Workload, model: Model | None, *, base_is_there: bool = False,
             device: str = "cpu") -> Estimate:
    """What the run of a recipe takes in one process on the device; `base_is_there`: taken from another run, not
    trained."""
    with _sizes_that_fit():
        return _estimate(recipe, work, model, base_is_there, device)


def of_recipe(recipe: Recipe, device: str = "cpu") -> tuple[Model | None, Estimate]:
    """Size of the base and estimate of a recipe; an InputError where its data are not on this machine."""
    found, folder, model = dataset(recipe), tokenizer_folder(recipe), base_model(recipe.base)
    if found is None:
        raise InputError("estimate", got=f"data that the run downloads ({recipe.data.path or recipe.data.forget})",
                         expected="data on this machine")
    work = workload(recipe, found, SavedTokenizer(folder) if folder else None)
    return model, estimate(recipe, work, model, device=device)


def _estimate(recipe: Recipe, work: Workload, model: Model | None, base_is_there: bool, device: str) -> Estimate:
    trains_base = recipe.base.source != "load" and not base_is_there
    steps = {"base": recipe.base.steps(len(work.memorised))} if trains_base else {}
    steps |= {name: getattr(recipe, name).steps(len(work.forget)) for name in UNLEARNED}
    if model is None:
        return Estimate(steps, None, None, (), {})
    adapter = (model.hidden if recipe.lora.kind == "full" else recipe.lora.r) * model.linear
    operations = {"base": 6.0 * model.computing * recipe.base.epochs * sum(work.memorised)} if trains_base else {}
    operations |= {name: _unlearning_operations(getattr(recipe, name), work, model, recipe) for name in UNLEARNED}
    parts = [*(_memorising_parts(recipe, work, model) if trains_base else []),
             *(part for name in UNLEARNED for part in _unlearning_parts(recipe, name, work, model, adapter)),
             *_evaluation_parts(recipe, work, model)]
    stages = dict.fromkeys(stage for stage, _, _ in parts)
    runtime = [Part(stage, *_runtime(device)) for stage in stages]
    return Estimate(steps, model.parameters, adapter, (*runtime, *(Part(s, n, size / MB) for s, n, size in parts)),
                    operations)


def _runtime(device: str) -> tuple[str, float]:
    """What is there before the first weight."""
    return ("CUDA's context", CONTEXT_MB) if device.startswith("cuda") else ("Python, torch and libraries", RUNTIME_MB)


def _memorising_parts(recipe: Recipe, work: Workload, model: Model) -> list[tuple[str, str, float]]:
    base = recipe.base
    tokens = _widest(work.memorised, base.batch_size)
    return [("base", "weights, gradients, Adam's two moments (fp32)", 16.0 * model.parameters),
            ("base", "logits and their gradients", 16.0 * tokens * model.vocabulary),
            ("base", "activations", _activations(tokens, model, base.gradient_checkpointing, 4, lora=False))]


def _unlearning_parts(recipe: Recipe, name: str, work: Workload, model: Model,
                      adapter: int) -> list[tuple[str, str, float]]:
    settings, size = getattr(recipe, name), BYTES[recipe.precision]
    tokens, retained = _largest_forward(settings, work, recipe.encoding)
    # Log-probabilities, their gradient and that of the logits in fp32, the logits themselves; KLR's own in fp32.
    logits = tokens * model.vocabulary * (12.0 + size)
    if settings.klr_weight:
        logits += retained * model.vocabulary * 12
    return [(name, f"weights of the base ({recipe.precision})", float(size * model.parameters)),
            (name, "adapter's weights, gradients, Adam's two moments (fp32)", 16.0 * adapter),
            (name, "logits of the largest forward and their gradients", logits),
            (name, "kept log-probs of the reference on retain", _reference_memory(settings, work, model, recipe)),
            (name, "activations", _activations(tokens, model, settings.gradient_checkpointing, size, lora=True))]


def _evaluation_parts(recipe: Recipe, work: Workload, model: Model) -> list[tuple[str, str, float]]:
    size, evaluation = BYTES[recipe.precision], recipe.evaluation
    longest = max(work.forget + work.retain, default=0)
    kept = evaluation.batch_size * (longest + evaluation.max_new_tokens) * 2 * model.layers * model.key_values * size
    logits = min(evaluation.batch_size * longest * model.vocabulary, LOGITS_BUDGET) * (size + 4.0)
    return [("evaluation", f"weights ({recipe.precision})", float(size * model.parameters)),
            ("evaluation", "keys and values while generating", float(kept)),
            ("evaluation", "logits of a batch", logits)]


def _widest(lengths: tuple[int, ...], rows: int) -> int:
    """Padded tokens of the largest batch: the longest items together."""
    return min(rows, len(lengths)) * max(lengths, default=0)


def _largest_forward(settings: Unlearning, work: Workload, encoding: Encoding) -> tuple[int, int]:
    """Padded tokens of the largest forward of an unlearning step, and how many of them are of retain rows.

    Logits are wanted of fewer tokens (`forward.Reader`): this is an upper bound.
    """
    items = settings.per_step() if settings.joined else settings.batch_size
    padded = settings.klr_positions == "padded"
    width = encoding.max_length if padded else max(work.forget + work.retain, default=0)
    retain = items * settings.retain_per_forget
    answers = (settings.refusal_weight > 0) + (settings.positive_weight > 0)  # rows more for each forget item
    return width * (items * (1 + answers) + retain), width * retain


def _reference_kept(settings: Unlearning, work: Workload, model: Model, recipe: Recipe) -> tuple[str, int]:
    """`Unlearning.kept_reference` of the run. Prompts count too, so for "answer" the bytes are an upper bound."""
    padded = settings.klr_positions == "padded"
    positions = len(work.retain) * recipe.encoding.max_length if padded else sum(work.retain)
    return settings.kept_reference(positions, model.vocabulary, model.hidden * BYTES[recipe.precision])


def _reference_memory(settings: Unlearning, work: Workload, model: Model, recipe: Recipe) -> float:
    kept = _reference_kept(settings, work, model, recipe)[1]
    return float(kept) if settings.klr_reference_place == "memory" else 0.0


def _activations(tokens: int, model: Model, checkpointing: bool, size: int, *, lora: bool) -> float:
    """What a layer keeps for the backward: about 10 hidden and 4 MLP widths a token; LoRA's dropout keeps copies."""
    layer = float(tokens * size * ((16 if lora else 10) * model.hidden + (6 if lora else 4) * model.mlp))
    return tokens * model.hidden * size * model.layers + layer if checkpointing else layer * model.layers


def _unlearning_operations(settings: Unlearning, work: Workload, model: Model, recipe: Recipe) -> float:
    """Forward and backward to the adapters (2 + 2 a parameter and token), and the reference's forwards."""
    tokens = _tokens_of_training(settings, work, recipe.encoding)
    reference = sum(work.forget) + sum(work.retain)
    if settings.klr_weight and _reference_kept(settings, work, model, recipe)[0] == "forward":
        reference += tokens * settings.retain_per_forget / (1 + settings.retain_per_forget)
    return model.computing * (4.0 * tokens + 2.0 * reference)


def _tokens_of_training(settings: Unlearning, work: Workload, encoding: Encoding) -> float:
    items = settings.steps(len(work.forget)) * settings.per_step()
    if settings.klr_positions == "padded":
        return items * (1.0 + settings.retain_per_forget) * encoding.max_length
    return items * (_mean(work.forget) + settings.retain_per_forget * _mean(work.retain))


def _mean(lengths: tuple[int, ...]) -> float:
    return sum(lengths) / max(len(lengths), 1)


# ---- time ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Time:
    """Seconds of training by model, from what `run` took: measured with the `same` shapes, or scaled by operations."""

    seconds: dict[str, float]
    run: str
    same: bool

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def training_time(recipe: Recipe, expected: Estimate, runs: Iterable[Run], device: str) -> Time | None:
    """From the newest earlier run on the device with the same data, base and batches, else, scaled by floating-point
    operations, from the newest one that trained the same models at all; None where there is none. Newest first.
    """
    rough = None
    for run in runs:
        try:
            if run.device() != device or run.info().get("processes", 1) > 1:
                continue
            same = _shapes(run.recipe()) == _shapes(recipe)
            if rough and not same:
                continue
            paces = {name: _pace(run, name) for name in expected.steps}
        except (InputError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue  # a damaged run tells nothing
        if None in paces.values():
            continue
        if same:
            return Time({name: pace * expected.steps[name] for name, pace in paces.items()}, run.id, True)
        rough = rough or _scaled(run, paces, expected)
    return rough


def _pace(run: Run, model: str) -> float | None:
    """Seconds per optimizer step of a model's training."""
    row = run.last_step(model)
    return row["seconds"] / row["step"] if row else None


def _scaled(run: Run, paces: dict[str, float], expected: Estimate) -> Time | None:
    """Seconds at the operations per second that another run reached on each model."""
    other = run.recipe()
    found = dataset(other, run) if run.data_dir.is_dir() else None
    model = base_model(other.base) if found else None
    if model is None or not expected.operations:
        return None
    theirs = estimate(other, workload(other, found, None), model)
    if not set(paces) <= set(theirs.operations):
        return None
    speed = {name: theirs.operations[name] / (pace * theirs.steps[name]) for name, pace in paces.items()}
    return Time({name: expected.operations[name] / speed[name] for name in paces}, run.id, False)


def _shapes(recipe: Recipe) -> tuple:
    """Everything that the time of a training step depends on."""
    base, data_ = recipe.base, recipe.data
    dims = (base.vocabulary, base.hidden_size, base.layers, base.heads, base.mlp_size)
    trained = [(u.batch_size, u.gradient_accumulation, u.joined, u.klr_positions, u.gradient_checkpointing,
                u.klr_weight > 0, u.klr_reference, u.klr_reference_place, u.retain_per_forget, u.packed, u.compiled,
                u.refusal_weight > 0, u.positive_weight > 0) for u in (getattr(recipe, name) for name in UNLEARNED)]
    lora = recipe.lora
    where = recipe.world if data_.source == "world" else (data_.path, data_.forget, data_.retain)
    return (recipe.precision, recipe.threads, base.source, dims if base.source == "scratch" else base.model,
            base.batch_size, base.gradient_checkpointing, base.compiled, (lora.kind, lora.r, lora.layers, lora.modules),
            recipe.encoding, where, data_.documents_per_task, data_.holdout_share, *trained)
