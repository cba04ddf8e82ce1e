"""Makes the bundled example runs by the engine's own commands: python examples/make.py, or make example.

One run of a recipe with everything measured that a page shows, one of NPO alone beside it, and a recording of each in
this folder. Stopped, it goes on: a command that ended is listed in done.txt of the working folder and not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from unlearn_core.store import Run, Store  # noqa: E402  (of this checkout, wherever one stands)

# What is measured on the run, in this order: thresholds are locked before anything is read on the test half, the
# control is there before what is compared with it, and the best is read before anything else looks at that half.
MEASURED = [
    "thresholds RUN --lock",
    "train RUN --without forget --seeds 1",
    "evaluate RUN --checkpoints --documents 8",
    "merge-sweep RUN --density 0.2:1.0:0.1 --methods --path --surface --documents 8",
    "read-test RUN --best",
    "balance RUN",
    "ablate RUN --parts layer module sign direction --draws 2 --documents 8",
    "samples RUN --models base merged --samples 3",
    "probe RUN depth",
    "probe RUN truth_ratio",
    "probe RUN quantisation",
    "probe RUN prompts",
    "probe RUN relearning --steps 25",
    "shadows RUN --shadows 4",
]
BESIDE = ["evaluate RUN --checkpoints --documents 8"]  # on NPO alone
NPO_ALONE = ["--set", "unlearn.gdr_weight=0", "--set", "unlearn.klr_weight=0"]


def main() -> None:
    options = _options()
    store = Store(options.work.resolve())
    first = _made(store, options, beside=None)
    for command in MEASURED:
        _once(store, command.replace("RUN", first.id))
    second = _made(store, options, beside=first)
    for command in BESIDE:
        _once(store, command.replace("RUN", second.id))
    name = f"{options.recipe}, seed {options.seed}"
    for run, title in ((first, name), (second, f"{name}, NPO alone")):
        run.write_meta(title=title)
        _engine(store, ["record", run.id, "--out", str(options.out.resolve())])
    _remove_older(options, {first.id, second.id})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="demo", help="(default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / ".examples", metavar="DIR",
                        help="where the runs themselves are made and stay (default: runs/.examples)")
    parser.add_argument("--out", type=Path, default=ROOT / "examples", metavar="DIR",
                        help="folder of the recordings (default: examples)")
    return parser.parse_args()


def _made(store: Store, options: argparse.Namespace, beside: Run | None) -> Run:
    """The run of the recipe, or with `beside` that of NPO alone on its base: finished now, if it was not before."""
    if run := _there(store, options, beside):
        if run.status()["state"] != "finished":
            _engine(store, ["run", "--resume", run.id])
        return run
    changes = [] if beside is None else ["--weights-of", beside.id, *NPO_ALONE]
    _engine(store, ["run", options.recipe, "--seed", str(options.seed), *changes])
    return _there(store, options, beside)


def _there(store: Store, options: argparse.Namespace, beside: Run | None) -> Run | None:
    """The newest such run in the working folder."""
    source = None if beside is None else beside.id
    return next((run for run in store.runs() if _is_of(run, options)
                 and (run.info().get("started_from") or {}).get("run") == source), None)


def _is_of(run: Run, options: argparse.Namespace) -> bool:
    return (run.recipe().name, run.recipe().seed) == (options.recipe, options.seed)


def _once(store: Store, command: str) -> None:
    """Run a command unless it is listed as done."""
    done = store.root / "done.txt"
    if not done.is_file() or command not in done.read_text(encoding="utf-8").splitlines():
        _engine(store, command.split())
        with done.open("a", encoding="utf-8") as file:
            file.write(command + "\n")


def _engine(store: Store, arguments: list[str]) -> None:
    """A command of the engine; where it fails, so does this."""
    print(" ".join(["$ python -m unlearn_core", *arguments]), flush=True)
    done = subprocess.run([sys.executable, "-m", "unlearn_core", *arguments, "--runs-dir", str(store.root)],
                          stdout=subprocess.DEVNULL, cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def _remove_older(options: argparse.Namespace, new: set[str]) -> None:
    """Remove older recordings of this recipe and seed."""
    for run in Store(options.out).runs():
        if run.recorded() and _is_of(run, options) and run.id not in new:
            run.discard()


if __name__ == "__main__":
    main()
