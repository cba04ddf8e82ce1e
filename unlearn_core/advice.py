"""A device that is full or gone: which errors say so, and what to do then, computed from the recipe. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil

from unlearn_core import recipe as recipes
from unlearn_core.errors import DeviceError, InputError
from unlearn_core.settings import Recipe
from unlearn_core.vocabulary import UNLEARNED, is_retrained

_FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_GONE = re.compile(r"CUDA (driver )?error|(cuDNN|NCCL) error|CUDNN_STATUS|CUBLAS_STATUS|No CUDA GPUs|no NVIDIA driver",
                   re.IGNORECASE)
# Settings that say how a run computes and not what: its results stay the same up to rounding and the draws of dropout.
HOW = frozenset({"threads", "base.gradient_checkpointing", "base.compiled", "evaluation.batch_size",
                 *(f"{name}.{key}" for name in UNLEARNED
                   for key in ("joined", "gradient_checkpointing", "compiled", "klr_reference_place"))})
_NO_RECIPE = "close what else needs memory, take a smaller batch or model, or give another --device"


# ---- which errors --------------------------------------------------------------------------------------------

def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's allocator (torch.OutOfMemoryError), the CPU's (RuntimeError) or Python found no room."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_FULL.search(str(error))))


def is_device_gone(error: BaseException) -> bool:
    """Whether a GPU failed other than by memory: it fell off the bus, a kernel crashed, the driver is gone."""
    return isinstance(error, RuntimeError) and not is_out_of_memory(error) and (
        type(error).__name__ == "AcceleratorError" or bool(_GONE.search(str(error))))


@contextmanager
def explained(recipe: Recipe, stage: Callable[[], str], again: str) -> Iterator[None]:
    """Whatever of this is raised inside becomes a DeviceError with advice for the stage that `stage` names by then.

    `again`: the command that goes on.
    """
    try:
        yield
    except Exception as error:
        told = device_error(error, recipe, stage(), again)
        if told is None:
            raise
        raise told from error


def device_error(error: BaseException, recipe: Recipe | None = None, stage: str = "",
                 again: str = "") -> DeviceError | None:
    """The error as a sentence with advice; None for an error of another kind."""
    place = f"{stage}: " if stage else ""
    if is_out_of_memory(error):
        fix = _remedies(recipe, stage, again, "CUDA" in str(error)) if recipe else _NO_RECIPE
        return DeviceError(f"{place}out of memory ({_shortage(str(error))})", fix=fix)
    if is_device_gone(error):
        go_on = f"what was done is kept; go on with: {again}; " if again else ""
        return DeviceError(f"{place}the GPU stopped working", got=_first_line(error), expected="a device that answers",
                           fix=f"{go_on}nvidia-smi and the system's log say what it has, --device names another one")
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _shortage(message: str) -> str:
    """How much was asked for, and how much there was, as far as the message or the machine says."""
    asked = re.search(r"(?:[Tt]ried|Unable) to allocate ([\d.]+ ?\w+)", message)
    free = re.search(r"of which ([\d.]+ \w+) is free", message)
    available = free[1] if free else "" if "CUDA" in message else _size(psutil.virtual_memory().available)
    parts = [f"{_in_words(asked[1])} asked for" if asked else "", f"{available} free" if available else ""]
    return ", ".join(filter(None, parts)) or message.strip().partition("\n")[0]


def _in_words(size: str) -> str:
    number, _, unit = size.partition(" ")
    return _size(int(number)) if unit == "bytes" else size


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


# ---- what to do ----------------------------------------------------------------------------------------------

def settings(recipe: Recipe, stage: str) -> tuple[list[list[str]], list[list[str]]]:
    """Settings with which the stage needs less memory, each alternative a list of KEY=VALUE: those with which a run
    goes on as it began (of `HOW`), and those that give other results and so need a new run."""
    if stage in UNLEARNED:
        return _for_unlearning(recipe, stage)
    if is_retrained(stage) or (stage == "base" and recipe.base.source != "load"):
        base = recipe.base
        return ([["base.gradient_checkpointing=true"]] * (not base.gradient_checkpointing),
                [[f"base.batch_size={base.batch_size // 2}"]] * (base.batch_size > 1) + _shorter(recipe))
    # An evaluation has halved its batch by itself, down to one row; what else there is loads a model and merges.
    return [], _coarser(recipe)


def _for_unlearning(recipe: Recipe, name: str) -> tuple[list[list[str]], list[list[str]]]:
    u = getattr(recipe, name)
    same = [["joined=false"]] * (u.joined and u.gradient_accumulation > 1)
    same += [["gradient_checkpointing=true"]] * (not u.gradient_checkpointing)
    kept = u.klr_weight > 0 and u.klr_reference not in ("auto", "forward") and u.klr_reference_place == "memory"
    same += [["klr_reference_place=disk"]] * kept
    other = []
    if u.batch_size > 1:
        # As many items a step; where a loss is a mean over a micro-batch, it is one over fewer items then.
        half = next(size for size in range(u.batch_size // 2, 0, -1) if u.batch_size % size == 0)
        other.append([f"batch_size={half}", f"gradient_accumulation={u.gradient_accumulation * u.batch_size // half}"])
    other += [["klr_positions=real"]] * (u.klr_positions == "padded" and u.klr_weight > 0)
    own = [[[f"{name}.{change}" for change in changes] for changes in listed] for listed in (same, other)]
    return own[0], own[1] + _shorter(recipe) + _coarser(recipe)


def _shorter(recipe: Recipe) -> list[list[str]]:
    return [[f"encoding.max_length={recipe.encoding.max_length // 2}"]] * (recipe.encoding.max_length >= 64)


def _coarser(recipe: Recipe) -> list[list[str]]:
    return [["precision=bf16"]] * (recipe.precision == "fp32")


def _remedies(recipe: Recipe, stage: str, again: str, on_gpu: bool) -> str:
    same, other = settings(recipe, stage)
    changes = [change for alternative in same for change in alternative]
    parts = []
    if again:
        parts.append(f"what was done is kept; go on with: {again}{_sets(changes)}"
                     + ("" if changes else " where more memory is free" + " (or with --device cpu)" * on_gpu))
    if other:
        parts.append(f"a new run needs less, with other results, {in_words(other)}")
    return "; ".join(parts)


def in_words(alternatives: Sequence[Sequence[str]]) -> str:
    """Alternatives of `settings` as options of the command line; "" without any."""
    return "by " + ", or ".join(_sets(each).strip() for each in alternatives) if alternatives else ""


def _sets(changes: Sequence[str]) -> str:
    return "".join(f" --set {change}" for change in changes)


def resumed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe of a run that goes on with other settings (KEY=VALUE); an InputError for one that would change what
    its results are."""
    changed = recipes.changed(recipe, changes)
    for name, _, _ in recipes.differing(recipe, changed):
        if name not in HOW:
            raise InputError("run --resume", got=f"--set {name}", expected="settings that do not change results: "
                             + ", ".join(sorted(HOW)), fix="a run keeps the rest of its recipe; start a new one")
    return changed
