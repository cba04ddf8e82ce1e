"""Sign statistics of two 7B adapters at 20 densities: time, peak memory, and how much a naive way would take.

    python -m benchmarks.signs

Both adapters are held whole (32 layers x 7 modules, r 32, random); one layer of them is measured and the rest
extrapolated. The naive way trims once per density and adds up under six masks; it measures one 4096 x 4096 matrix.
Needs about 2 GB of memory and some minutes.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from unlearn_core.merging.merge import trim
from unlearn_core.merging.task_vectors import Adapter, Factors, delta
from unlearn_core.weight_changes import signs

LAYERS, RANK, HIDDEN, MLP = 32, 32, 4096, 11008
SHAPES = {**{f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}, "mlp.gate_proj": (MLP, HIDDEN),
          "mlp.up_proj": (MLP, HIDDEN), "mlp.down_proj": (HIDDEN, MLP)}  # (out, in)


def main() -> None:
    torch.set_num_threads(1)  # as `signs.statistics` does
    adapters = [_adapter(seed) for seed in (1, 2)]
    held = _peak_gb()
    layer = [Adapter({name: f for name, f in a.modules.items() if ".layers.0." in name}, a.config) for a in adapters]
    print(f"two adapters of {len(adapters[0].modules)} modules: {held:.2f} GB resident")
    for name in ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"):
        one = [Adapter({key: f for key, f in a.modules.items() if key.endswith(name)}, a.config) for a in layer]
        _, wall, cpu = _timed(lambda one=one: signs.statistics(*one))
        print(f"{name:20} {SHAPES[name]!s:15} {wall:6.1f} s wall {cpu:6.1f} s CPU")
    for spaces in (("A", "B"), ("dW",)):
        _, wall, cpu = _timed(lambda spaces=spaces: signs.statistics(*layer, spaces=spaces))
        print(f"one layer, {' and '.join(spaces)}: {wall:.1f} s wall, {cpu:.1f} s CPU; {LAYERS} layers, extrapolated: "
              f"{LAYERS * wall:.0f} s wall, {LAYERS * cpu:.0f} s CPU")
    print(f"peak memory, both adapters included: {_peak_gb():.2f} GB")

    t1, t2 = (delta(a.modules["model.layers.0.self_attn.q_proj"], a.scaling) for a in layer)
    found, _, ours = _timed(lambda: signs.classes(t1, t2, signs.GRID))
    expected, _, naive = _timed(lambda: _naive(t1, t2))
    np.testing.assert_allclose(found[:, :, 0], expected[:, :, 0], atol=1e-5 * t1.numel())  # equal magnitudes
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.max(axis=(0, 1)).min())
    print(f"{len(signs.GRID)} densities of one {HIDDEN} x {HIDDEN} matrix: {ours:.1f} CPU s, naive {naive:.1f} CPU s")
    print(f"ratio {naive / ours:.2f}x")


def _adapter(seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    modules = {f"model.layers.{layer}.{name}": Factors(A=torch.randn(RANK, columns, generator=generator),
                                                       B=torch.randn(rows, RANK, generator=generator))
               for layer in range(LAYERS) for name, (rows, columns) in SHAPES.items()}
    return Adapter(modules, {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK})


def _naive(t1: torch.Tensor, t2: torch.Tensor) -> np.ndarray:
    """`signs.classes` with one trim and six masks per density."""
    found, values = [], (t1 * t1, t2 * t2, t1 * t2, t1.abs(), t2.abs())
    for density in signs.GRID:
        kept1, kept2 = trim(t1, density) != 0, trim(t2, density) != 0
        both, same, first = kept1 & kept2, (t1 > 0) == (t2 > 0), (t1 > 0) == (t1 + t2 >= 0)
        masks = (~kept1 & ~kept2, kept1 & ~kept2, kept2 & ~kept1, both & same, both & ~same & first,
                 both & ~same & ~first)
        found.append([[mask.sum().item(), *(value[mask].sum(dtype=torch.float64).item() for value in values)]
                      for mask in masks])
    return np.array(found)


def _timed(work: Callable) -> tuple[object, float, float]:
    """(result, wall seconds, CPU seconds of all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
