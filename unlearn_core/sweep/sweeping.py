"""Carrying out a sweep: run after run, or several seeds at a time, each base trained once and taken over by the others.

Runs of one seed that agree in everything that data and base come from share them: the first one that is carried out
makes them, the others take them over, and what was measured on them too. So seeds are what several processes share.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from unlearn_core import launching, pipeline
from unlearn_core import recipe as recipes
from unlearn_core.advice import is_device_gone
from unlearn_core.errors import InputError
from unlearn_core.progress import Report
from unlearn_core.provenance import surroundings
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, Store
from unlearn_core.sweep import sweeps
from unlearn_core.sweep.sweeps import Cell, Configuration, Sweep

POLL_S = 0.2  # between two looks at processes
LONGEST_TITLE = 120  # characters
# What data and base come from, beside the code; `Run.begin_with` asks for a part of it.
SHARED = ("seed", "precision", "threads", "world.", "data.", "base.", "encoding.", "evaluation.mia_members")
Told = Callable[[str], None]  # one line about what is going on
Shown = Callable[[], AbstractContextManager[Report]]  # around one run: what it reports to


def carry_out(store: Store, sweep: Sweep, seeds: Sequence[int] = (), *, device: str = "auto",
              shown: Shown = lambda: nullcontext(lambda *_: None), told: Told = lambda _: None) -> None:
    """Every configuration on these seeds (all by default), one run after the other, seed by seed.

    What is finished stays, what was stopped goes on, what failed is tried once more. A run that fails is told and does
    not end the sweep. A seed that another process works on is left to it.
    """
    if launching.count() > 1:
        raise InputError("sweep", got="several processes that share a run", expected="one process",
                         fix="use --jobs, or launch single runs")
    made_with = surroundings(str(pipeline.make_accelerator(device).device))
    for seed in seeds or sweep.seeds:
        with store.sweep_claimed(sweep.name, seed) as ours:
            if ours:
                _carry_out_seed(store, sweep, seed, made_with, device, shown, told)
            else:
                told(f"seed {seed}: another process works on it")


def _carry_out_seed(store: Store, sweep: Sweep, seed: int, made_with: dict, device: str, shown: Shown, told: Told
                    ) -> None:
    cells = sweeps.cells(replace(sweep, seeds=(seed,)), store.runs())
    there = [cell.run for cell in cells if cell.run is not None]
    for number, cell in enumerate(cells, start=1):
        label = f"seed {seed}, {number}/{len(cells)}: {cell.configuration.name}"
        if cell.state == sweeps.FINISHED:
            continue
        if cell.state in ("queued", "running", sweeps.DAMAGED):
            told(f"left alone: {label} ({cell.run.id} is {cell.state})")
            continue
        run = cell.run
        if run is not None and _never_begun(cell):
            there.remove(run)
            run.discard()
            run = None
        if run is None:
            run = _begin(store, sweep, cell.configuration, seed, there, made_with)
            there.append(run)
        _go_on(run, device, label, shown, told)


def _never_begun(cell: Cell) -> bool:
    """Whether its process died while it made the folder, before any work: what lies there may be half of something."""
    return cell.state == "interrupted" and not cell.run.info().get("resumed")


def _begin(store: Store, sweep: Sweep, own: Configuration, seed: int, others: Sequence[Run], made_with: dict) -> Run:
    """A new run of the sweep, with data and base of one of the `others` where they share them."""
    recipe = replace(own.recipe, seed=seed)
    run = store.create(recipe, {
        "seed": seed, "processes": 1, "command": ["unlearn_core", *sys.argv[1:]], **made_with,
        "sweep": {"name": sweep.name, "configuration": own.name}}, state="interrupted")
    try:
        run.write_meta(title=f"{own.name}, seed {seed}"[:LONGEST_TITLE], tags=[sweep.name])
        sources = [other for other in others if _shared(other.recipe()) == _shared(recipe) and _has_base(other)]
        if sources:
            run.begin_with(max(sources, key=lambda other: other.is_evaluated("base")))
    except BaseException:
        run.discard()
        raise
    return run


def _shared(recipe: Recipe) -> dict:
    return {key: value for key, value in recipes.flat(recipe).items() if key.startswith(SHARED)}


def _has_base(run: Run) -> bool:
    loaded = run.recipe().base.source == "load"
    return (run.model_dir("base") if loaded else run.full_model_dir("base")).is_dir()


def _go_on(run: Run, device: str, label: str, shown: Shown, told: Told) -> None:
    """Finish a run; one that fails says so, and its status too."""
    try:
        with shown() as report:
            report(label, 0, 0)
            pipeline.resume(run, device=device, report=lambda _, done, total: report(label, done, total))
    except Exception as error:  # whatever one configuration does wrong, the others can be carried out
        told(f"failed: {label} ({run.id}): {type(error).__name__}: {error}")
        if is_device_gone(error.__cause__):  # on which the others would fail, too
            raise


# ---- several processes ---------------------------------------------------------------------------------------

def carry_out_apart(store: Store, sweep: Sweep, seeds: Sequence[int] = (), *, jobs: int, device: str = "auto",
                    told: Told = lambda _: None) -> None:
    """`carry_out` with so many processes at a time, each with one seed; they end with this one."""
    if jobs < 1:
        raise InputError("--jobs", got=jobs, expected="1 or more")
    for own in sweep.configurations:
        if not own.recipe.threads and not device.startswith("cuda"):
            raise InputError("--jobs", got=f"{own.name} with threads = 0, all of this machine's, in each process",
                             expected="a number of threads", fix="--set threads=1")
    waiting, working, listeners = list(seeds or sweep.seeds), [], []
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                working.append(_process(store, sweep, waiting.pop(0), device))
                listeners.append(threading.Thread(target=_forward, args=(working[-1].stderr, told), daemon=True))
                listeners[-1].start()
            time.sleep(POLL_S)
            working = [process for process in working if process.poll() is None]
    except BaseException:
        for process in working:
            process.terminate()
        raise
    finally:
        for process in working:
            process.wait()
        for listener in listeners:
            listener.join()


def _process(store: Store, sweep: Sweep, seed: int, device: str) -> subprocess.Popen:
    """The same command for one seed."""
    command = [sys.executable, "-m", "unlearn_core", "sweep", "--resume", sweep.name, "--seeds", str(seed),
               "--runs-dir", str(store.root), "--device", device]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _forward(lines: Iterable[str], told: Told) -> None:
    for line in lines:
        told(line.rstrip())
