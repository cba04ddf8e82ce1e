"""Several processes for one run: the line that launches them, and launchers that are refused. Torch-free."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

LAUNCH_FILE = "unlearn_core/launch/processes.yaml"
USE_OURS = f"use --config_file {LAUNCH_FILE}, see docs/devices.md"
# What launchers put into the environment: variable -> (value that is taken, what it is, what to do instead). The rest
# would fail late, or change results without a word in the recipe.
_LAUNCHED = {
    "ACCELERATE_USE_FSDP": ("false", "FSDP", USE_OURS),
    "ACCELERATE_USE_DEEPSPEED": ("false", "DeepSpeed", USE_OURS),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "Megatron-LM", USE_OURS),
    "ACCELERATE_MIXED_PRECISION": ("no", "mixed precision", "set it in the recipe: --set precision=bf16"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "compilation", "set it in the recipe: --set unlearn.compiled=true"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "gradient accumulation",
                                               "set it in the recipe: --set unlearn.gradient_accumulation=4"),
}


def command_line(arguments: Sequence[str], processes: int = 1) -> str:
    """A command of the engine as one would type it in the project's folder, for one process or for several.

    ["run", "demo"] gives python -m unlearn_core run demo.
    """
    start = ["python"] if processes == 1 else ["accelerate", "launch", "--config_file", LAUNCH_FILE,
                                               "--num_processes", str(processes)]
    return shlex.join([*start, "-m", "unlearn_core", *arguments])


def needed(run: Run) -> int | None:
    """How many processes a run needs to go on: as many as it began with, whose number says what a step reads. None
    where any number will do, since all is trained; what is left the main process does alone."""
    if run.brought() or all(run.adapter_dir(name).is_dir() for name in UNLEARNED):
        return None
    return run.info().get("processes", 1)


def count() -> int:
    """How many processes this one was launched among; 1 where it is alone."""
    return int(os.environ.get("WORLD_SIZE", 1))


def check(device: str, gpus: int) -> None:
    """An InputError for a launcher that asks for what Lethe does not do, or does by its recipe.

    `device` as in `pipeline.make_accelerator`; `gpus`: how many this process sees.
    """
    for variable, (taken, name, fix) in _LAUNCHED.items():
        value = os.environ.get(variable, taken).lower()
        if value != taken:
            raise InputError(f"launcher: {name}", got=value, expected=taken, fix=fix)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if count() > 1 and device.startswith("cuda:"):
        raise InputError("--device", got=f"{device} for {count()} processes", expected="auto, cuda or cpu",
                         fix="each process takes the GPU of its number; CUDA_VISIBLE_DEVICES chooses among them")
    if gpus and device != "cpu" and here > gpus:
        raise InputError("--num_processes", got=f"{here} on this machine", expected=f"at most {gpus}, one for each GPU")
    # accelerate sets both for several processes on a CPU, and then starts one.
    if count() == 1 and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys():
        raise InputError("launcher", got="one process, where accelerate was asked for several", fix=USE_OURS)
