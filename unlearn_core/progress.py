"""What a run tells of itself while it works: stage and step, to the caller and to its status file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

from unlearn_core import advice, launching, models
from unlearn_core.errors import InputError
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, now

Report = Callable[[str, int, int], None]  # (stage, done, total)
STATUS_EVERY_S = 0.5


class Progress:
    """Tells the caller and the status file what is going on, the file at most every STATUS_EVERY_S seconds.

    Without a run (in a process that is not the main one) it tells nobody.
    """

    def __init__(self, run: Run | None, report: Report, before: dict | None = None):
        self.run, self.report = run, report
        self.before = {} if before is None else {"before": before}  # how a run stood that is only measured
        self.stage, self.done, self.total, self.written = "data", 0, 0, 0.0
        self.since, self.since_step = now(), 0  # when these steps began to be counted, and at which

    def __call__(self, stage: str, done: int, total: int) -> None:
        changed = stage != self.stage
        if changed or total != self.total:
            self.since, self.since_step = now(), done
        self.stage, self.done, self.total = stage, done, total
        self.report(stage, done, total)
        if self.run is None:
            return
        if changed or time.monotonic() - self.written > STATUS_EVERY_S:
            self.run.write_status("running", stage, done, total, since=self.since, since_step=self.since_step,
                                  **self.before)
            self.written = time.monotonic()

    def logger(self, model: str, steps: int) -> Callable[[dict], None]:
        """What training calls after each optimizer step."""
        def log(row: dict) -> None:
            if self.run is not None:
                self.run.append_step(model, row)
            self(model, row["step"], steps)
        return log


@contextmanager
def measuring(run: Run, recipe: Recipe, report: Report) -> Iterator[Progress]:
    """Around an evaluation of a run that has ended: measuring, whether it works or not, does not change how."""
    if launching.count() > 1:
        raise InputError("launcher", got=f"{launching.count()} processes",
                         expected="one: only run and train are shared")
    refuse_if_running(run)
    with run.claimed():
        before = run.last_status()
        models.set_threads(recipe.threads)
        transformers_logging.disable_progress_bar()
        progress = Progress(run, report, before)
        try:
            with advice.explained(recipe, lambda: progress.stage, "the same command"):
                yield progress
        finally:
            run.restore_status(before)


def refuse_if_running(run: Run) -> None:
    if run.last_status()["state"] == "running":
        raise InputError(f"run {run.id}", got="a process that is still working on it", expected="a run that stopped")
