"""One optimisation loop for memorising and unlearning: AdamW, a learning-rate rule, exact resuming."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unlearn_core.errors import InputError
from unlearn_core.files import recovered, replacing_dir
from unlearn_core.models import peak_memory_mb

Row = dict[str, float]


def optimise(model: torch.nn.Module, losses: Callable[[int], Iterable[tuple[torch.Tensor, Row]]], *, steps: int,
             lr_at: Callable[[int], float], weight_decay: float, clip: float, beta2: float = 0.999,
             accelerator: Accelerator, log: Callable[[Row], None], state_dir: Path | None = None,
             save_at: frozenset[int] = frozenset(), on_save: Callable[[int], None] = lambda step: None) -> None:
    """Run optimizer steps 1..steps on the trainable parameters.

    `losses(step)` yields (loss, row) for each part of the step; gradients and rows are averaged over the parts and
    the processes, so accumulated and joined micro-batches give the same update. Rows need the count `tokens`; every
    logged row adds step, lr, grad_norm (before clipping), cumulative tokens, seconds, tokens_per_second, memory_mb.
    `clip` 0 is off.
    After the steps in `save_at`, `on_save(step)` is called and the whole state then goes to `state_dir`; a state found
    there at the start is continued, random numbers included.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr_at(0), weight_decay=weight_decay, betas=(0.9, beta2),
                                  fused=True)
    done, tokens, seconds = _load_state(state_dir, parameters, optimizer) if state_dir else (0, 0, 0.0)
    model.train()
    for step in range(done, steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        rows = []
        for loss, row in losses(step):
            rows.append(row)
            accelerator.backward(loss)
        for p in parameters.values():
            if p.grad is not None and len(rows) > 1:
                p.grad.div_(len(rows))
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        elapsed = time.perf_counter() - started
        step_tokens = sum(row.pop("tokens") for row in rows)
        means = {key: sum(float(row[key]) for row in rows) / len(rows) for key in rows[0]}
        if accelerator.num_processes > 1:
            means, step_tokens = _over_processes(means, step_tokens, accelerator)
        tokens, seconds = tokens + step_tokens, seconds + elapsed
        log({"step": step + 1, **means, "lr": lr_at(step), "grad_norm": float(norm), "tokens": tokens,
             "seconds": round(seconds, 3), "tokens_per_second": round(step_tokens / elapsed, 1),
             "memory_mb": round(peak_memory_mb(accelerator.device), 1)})
        if step + 1 in save_at:
            on_save(step + 1)  # before the state: what a kill takes between the two is then made again
            if state_dir and step + 1 < steps and accelerator.is_main_process:
                _save_state(state_dir, parameters, optimizer, step + 1, tokens, seconds)
    model.eval()
    if state_dir and accelerator.is_main_process:
        shutil.rmtree(state_dir, ignore_errors=True)


def _over_processes(means: Row, tokens: int, accelerator: Accelerator) -> tuple[Row, int]:
    """Means of the rows and sum of the tokens over all processes, the same in each."""
    values = torch.tensor([*means.values(), tokens], dtype=torch.float64, device=accelerator.device)
    *sums, total = accelerator.reduce(values, "sum").tolist()
    return {key: value / accelerator.num_processes for key, value in zip(means, sums, strict=True)}, int(total)


def linear_schedule(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """Learning rate before step i (from 0): i / warmup of the peak, then linearly down to 0 at `steps`."""
    def lr_at(step: int) -> float:
        if step < warmup:
            return peak * step / max(warmup, 1)
        return peak * (steps - step) / max(steps - warmup, 1)
    return lr_at


def cosine_schedule(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """As `linear_schedule`, but up from one step's share and down along half a cosine to a tenth of the peak."""
    def lr_at(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        share = (step - warmup) / max(steps - warmup, 1)
        return peak * (0.1 + 0.45 * (1 + float(torch.cos(torch.tensor(torch.pi * share)))))
    return lr_at


def _save_state(folder: Path, parameters: dict, optimizer, step: int, tokens: int, seconds: float) -> None:
    """Parameters, AdamW's moments and the random state, as safetensors and JSON, whole or not at all."""
    tensors = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        tensors[f"parameter/{name}"] = parameter.detach()
        tensors[f"exp_avg/{name}"] = state["exp_avg"]
        tensors[f"exp_avg_sq/{name}"] = state["exp_avg_sq"]
    with replacing_dir(folder) as temporary:
        save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, temporary / "state.safetensors")
        (temporary / "state.json").write_text(json.dumps({"step": step, "tokens": tokens, "seconds": seconds}))


def saved_step(folder: Path) -> int:
    """The step after which the state in `folder` was saved; 0 where there is none."""
    try:
        return _about_state(folder)["step"]
    except FileNotFoundError:
        return 0


def _about_state(folder: Path) -> dict:
    """`state.json` of a state folder: the step it was saved after, tokens and seconds so far."""
    try:
        about = json.loads((recovered(folder) / "state.json").read_text(encoding="utf-8"))
        return {key: about[key] for key in ("step", "tokens", "seconds")}
    except (ValueError, KeyError, TypeError) as error:
        raise _broken_state(folder / "state.json", error) from None


def _broken_state(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}", got=str(error), expected="the state of an unfinished training",
                      fix="remove its folder to start this training again")


def _check_state(path: Path, tensors: dict, parameters: dict) -> None:
    """An InputError where the state is not one of these parameters: of another model, another rank or precision."""
    kept = (f"{part}/{name}" for part in ("parameter", "exp_avg", "exp_avg_sq") for name in parameters)
    for key in (*kept, "rng/cpu"):
        if key not in tensors:
            raise _broken_state(path, KeyError(key))
    for name, parameter in parameters.items():
        found = tensors[f"parameter/{name}"]
        if (found.shape, found.dtype) != (parameter.shape, parameter.dtype):
            raise InputError(f"{path}: {name}", got=f"{tuple(found.shape)} in {found.dtype}",
                             expected=f"{tuple(parameter.shape)} in {parameter.dtype}",
                             fix="it is of another model or precision; remove its folder to start this training again")


def _load_state(folder: Path, parameters: dict, optimizer) -> tuple[int, int, float]:
    if not saved_step(folder):
        return 0, 0, 0.0
    about = _about_state(folder)
    step = about["step"]
    try:
        tensors = load_file(folder / "state.safetensors")
    except (OSError, SafetensorError) as error:
        raise _broken_state(folder / "state.safetensors", error) from None
    _check_state(folder / "state.safetensors", tensors, parameters)
    torch.set_rng_state(tensors["rng/cpu"])
    if torch.cuda.is_available() and "rng/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng/cuda"])
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device if parameter.is_cuda else "cpu"),
                "exp_avg": tensors[f"exp_avg/{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(parameter.device)}
    return step, about["tokens"], about["seconds"]
