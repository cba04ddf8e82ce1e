"""The command line of a benchmark over many seeds: run the missing ones, some at a time, then report on all."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def main(about: str, run_seed: Callable[[int, Path], Path], report: Callable[[Path], str], *, seeds: str, out: str
         ) -> None:
    """`about`: the help text; `run_seed` makes the file of one seed in a folder; `seeds` (first-last) and `out` are
    the defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--seeds", default=seeds, help="first-last")
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, one thread each")
    options = parser.parse_args()
    if options.command == "run":
        first, last = map(int, options.seeds.split("-"))
        options.out.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(options.jobs) as pool:
            for path in pool.map(run_seed, range(first, last + 1), [options.out] * (last - first + 1)):
                print(path, flush=True)
    print(report(options.out))
