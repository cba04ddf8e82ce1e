"""How long the weight statistics of a whole run take: python -m benchmarks.weights [--layers 32] [--entries]

Three adapters of random factors (model_1, model_2, merged) on every linear layer of a 7B model, rank 32, made module
by module so that memory stays small; what making them takes is not counted. Prints seconds of the statistics that are
taken from the factors alone and, with --entries, of those that need each entry of delta W.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Mapping

import torch

from unlearn_core.merging.task_vectors import Adapter, Factors
from unlearn_core.weight_changes import geometry

SHAPES = {"1b": (2048, 8192, 16), "7b": (4096, 11008, 32)}  # hidden size, MLP size, layers
RANK, BOUND_S = 32, 10.0


class Made(Mapping):
    """Random factors of each module of a model, made when they are asked for; `seconds` says how long that took."""

    seconds = 0.0

    def __init__(self, hidden: int, mlp: int, layers: int, seed: int):
        attention = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
        own = attention | {"mlp.gate_proj": (mlp, hidden), "mlp.up_proj": (mlp, hidden), "mlp.down_proj": (hidden, mlp)}
        self.shapes = {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in own.items()}
        self.random = torch.Generator().manual_seed(seed)

    def __getitem__(self, name: str) -> Factors:
        started = time.perf_counter()
        rows, columns = self.shapes[name]
        factors = Factors(torch.randn(RANK, columns, generator=self.random),
                          torch.randn(rows, RANK, generator=self.random))
        Made.seconds += time.perf_counter() - started
        return factors

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def main() -> int:
    """Print the seconds; 1 if the factor-only statistics of a 7B shape take longer than they may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--layers", type=int, help="only so many layers (default: all)")
    parser.add_argument("--entries", action="store_true", help="also the entry-wise statistics")
    options = parser.parse_args()
    hidden, mlp, layers = SHAPES[options.shape]
    layers = options.layers or layers
    seconds = {}
    for entries in (False, True) if options.entries else (False,):
        adapters = {name: Adapter(Made(hidden, mlp, layers, seed), {"r": RANK, "lora_alpha": RANK})
                    for seed, name in enumerate(("model_1", "model_2", "merged"))}
        Made.seconds, started, cpu = 0.0, time.perf_counter(), time.process_time()
        arrays = geometry.statistics(adapters, entries=entries)
        seconds[entries] = time.perf_counter() - started - Made.seconds
        print(f"{options.shape}, {layers} layers, {arrays['norm'].shape[1]} modules, rank {RANK}, 3 adapters, "
              f"{'with entries' if entries else 'factors only'} {seconds[entries]:.1f} s "
              f"({time.process_time() - cpu:.1f} CPU-seconds with making the factors), peak memory "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")
    kept = seconds[False] <= BOUND_S
    print(f"bound: factors only {BOUND_S:g} s: {'kept' if kept else 'missed'}")
    return int(not kept and options.shape == "7b")


if __name__ == "__main__":
    sys.exit(main())
