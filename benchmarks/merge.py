"""How fast merging is beside PEFT: python -m benchmarks.merge [--shapes 135m 1b 7b] [--layers N] [--device cpu]

    factors   TIES of two adapters of rank 32, all seven linears of a layer      against peft.utils.merge_utils.ties
    delta     TIES of their dense weight changes, one matrix at a time           against the same function on them
    svd       their sum, compressed to rank 32                                   against add_weighted_adapter("svd")

Both sides run in one process, one matrix after the other, on the same random factors; the results must agree. CPU
seconds are the process's, so threads count; peak memory is what a side needs for one of the largest matrices above
what was there before.
Whole adapters for "factors"; for the two others `--layers` layers of them (1: the ratio is that of a layer).
"""

from __future__ import annotations

import argparse
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import merge_utils

from unlearn_core.merging.merge import combine, compressed
from unlearn_core.merging.task_vectors import Factors, concatenated_factors, delta
from unlearn_core.settings import Merge

RANK, DENSITY = 32, 0.8
MEASURABLE = 64 * 2**20  # bytes, below which what the allocator keeps decides
SHAPES = {"135m": (30, 576, 192, 1536), "1b": (16, 2048, 2048, 8192), "7b": (32, 4096, 4096, 11008)}
WORK = {"factors": 3.5, "delta": 5.0, "svd": 50.0}  # the ratio that is wanted


def matrices(hidden: int, key_value: int, mlp: int) -> dict[str, tuple[int, int]]:
    """(out, in) of the linears of one layer."""
    return {"q_proj": (hidden, hidden), "k_proj": (key_value, hidden), "v_proj": (key_value, hidden),
            "o_proj": (hidden, hidden), "gate_proj": (mlp, hidden), "up_proj": (mlp, hidden),
            "down_proj": (hidden, mlp)}


def pairs(layers: int, shapes: dict[str, tuple[int, int]], device: str) -> Iterator[tuple[str, list[Factors]]]:
    """Module after module the factors of two adapters with a common past, as after training from one initial A."""
    for layer in range(layers):
        for number, (name, (rows, columns)) in enumerate(shapes.items()):
            generator = torch.Generator().manual_seed(1000 * layer + number)
            draw = lambda *size, generator=generator: torch.randn(*size, generator=generator)  # noqa: E731
            common = draw(RANK, columns)
            yield name, [Factors(common + draw(RANK, columns), draw(rows, RANK)).to(device) for _ in range(2)]


@dataclass
class Side:
    """What one side took."""

    name: str
    cpu: float = 0.0
    wall: float = 0.0
    peak: int = 0
    result: list[torch.Tensor] = field(default_factory=list)

    def run(self, work: Callable[[], list[torch.Tensor]], device: str) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        self.result = work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        self.cpu, self.wall = self.cpu + time.process_time() - cpu, self.wall + time.perf_counter() - wall

    def weigh(self, work: Callable[[], list[torch.Tensor]], device: str) -> None:
        """The same once more, for its memory alone."""
        self.result = []
        with Memory(device) as memory:
            work()
        self.peak = max(self.peak, memory.more)


def main() -> None:
    """Print one table of both sides, and a ratio per shape and kind of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--layers", type=int, default=1, help="layers for delta and svd (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    for what in options.work:
        for shape in options.shapes:
            if what == "svd" and shape == "7b":
                continue  # PEFT's side takes an hour
            report(what, shape, options.layers, options.device)


def report(what: str, shape: str, layers: int, device: str) -> None:
    """Both sides of one kind of work on one shape."""
    all_layers, *sizes = SHAPES[shape]
    layers = all_layers if what == "factors" else min(layers, all_layers)
    theirs, ours = Side("PEFT"), Side("ours")
    linears = matrices(*sizes)
    for number, (name, parts) in enumerate(pairs(layers, linears, device)):
        for side, work in zip((theirs, ours), WORKERS[what](name, parts), strict=True):
            side.run(work, device)
        for expected, got in zip(theirs.result, ours.result, strict=True):
            torch.testing.assert_close(got, expected, atol=2e-3 if what == "svd" else 1e-5, rtol=1e-4)
        if number + 1 == len(linears) * layers:  # the last one, down_proj, is as large as any
            for side, work in zip((theirs, ours), WORKERS[what](name, parts), strict=True):
                side.weigh(work, device)
    print(f"{what}, {shape}, {layers} of {all_layers} layers, rank {RANK}, density {DENSITY}, {device}")
    for side in (theirs, ours):
        print(f"  {side.name:5} {side.cpu:8.2f} CPU s {side.wall:8.2f} s wall, peak {side.peak / 2**20:7.0f} MiB more")
    wall = device.startswith("cuda")
    ratio = theirs.wall / ours.wall if wall else theirs.cpu / ours.cpu
    if theirs.peak > MEASURABLE:
        print(f"  memory {ours.peak / theirs.peak:.2f} of PEFT's")
    print(f"  {what} {shape} ratio {ratio:.2f}x"
          f" ({'wall' if wall else 'CPU'} time; wanted {WORK[what]:g}x)", flush=True)


# ---- both sides --------------------------------------------------------------------------------------------------

def _factors(name: str, parts: list[Factors]) -> tuple[Callable, Callable]:
    one, ones = Merge(density=DENSITY), torch.ones(2, device=parts[0].A.device)
    sides = [[part.A for part in parts], [part.B for part in parts]]
    return (lambda: [merge_utils.ties(side, ones, DENSITY) for side in sides],
            lambda: [combine(side, one) for side in sides])


def _delta(name: str, parts: list[Factors]) -> tuple[Callable, Callable]:
    one, ones = Merge(density=DENSITY), torch.ones(2, device=parts[0].A.device)
    return (lambda: [merge_utils.ties([delta(part) for part in parts], ones, DENSITY)],
            lambda: [combine([delta(part) for part in parts], one)])


def _svd(name: str, parts: list[Factors]) -> tuple[Callable, Callable]:
    model = _peft_model(name, parts)

    def theirs() -> list[torch.Tensor]:
        model.add_weighted_adapter(["p", "q"], [1.0, 1.0], "merged", combination_type="svd", svd_rank=RANK)
        layer = model.base_model.model.get_submodule(name)
        return [layer.lora_B["merged"].weight.detach() @ layer.lora_A["merged"].weight.detach()]

    def ours() -> list[torch.Tensor]:
        merged = compressed(concatenated_factors(parts, [1.0, 1.0]), RANK)
        return [merged.B @ merged.A]

    return theirs, ours


WORKERS = {"factors": _factors, "delta": _delta, "svd": _svd}


def _peft_model(name: str, parts: list[Factors]):
    """PEFT around one linear layer with both adapters, scaling 1."""
    (rows, _), columns = parts[0].B.shape, parts[0].A.shape[1]
    linear = torch.nn.Linear(columns, rows, bias=False, device=parts[0].A.device)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[name])
    model = get_peft_model(torch.nn.ModuleDict({name: linear}), config, adapter_name="p")
    model.add_adapter("q", config)
    layer = model.base_model.model.get_submodule(name)
    for adapter, part in zip("pq", parts, strict=True):
        layer.lora_A[adapter].weight.data, layer.lora_B[adapter].weight.data = part.A, part.B
    return model


# ---- memory ------------------------------------------------------------------------------------------------------

class Memory:
    """The highest memory within a block above what was there before, in bytes: of the GPU, or of this process, which
    a thread looks at every millisecond."""

    def __init__(self, device: str):
        self.gpu, self.more = device.startswith("cuda"), 0

    def __enter__(self) -> Memory:
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.before, self.ended = self._now(), threading.Event()
            self.watcher = threading.Thread(target=self._watch)
            self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.gpu:
            self.more = torch.cuda.max_memory_allocated() - self.before
        else:
            self.ended.set()
            self.watcher.join()

    def _watch(self) -> None:
        while not self.ended.wait(0.001):
            self.more = max(self.more, self._now() - self.before)

    @staticmethod
    def _now() -> int:
        return psutil.Process().memory_info().rss


if __name__ == "__main__":
    main()
