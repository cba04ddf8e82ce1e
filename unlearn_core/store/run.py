"""One run at work: how it begins, its state, its job, its log, and what it takes over from another. Torch-free."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import filelock
import psutil

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import damaged, read_json, unreadable, write_json, write_rows
from unlearn_core.settings import Recipe
from unlearn_core.store.checks import JOB_CHECKS, MAX_STEM, STATUS_CHECKS
from unlearn_core.store.folder import SCHEMA_VERSION, now
from unlearn_core.store.results import EVALUATION, TAIL_BYTES, Results
from unlearn_core.vocabulary import UNLEARNED, is_retrained


class Run(Results):
    """One run folder with all that is in it; the writing methods are for the engine."""

    @classmethod
    def create(cls, root: Path, recipe: Recipe, info: dict, state: str = "running") -> Run:
        """A new run folder in `root` with its manifest and recipe; `info` is added to `run.json`.

        `state` is "running" where this process carries it out, "interrupted" where another one will.
        """
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe.name)[:MAX_STEM].strip("-.") or "run"
        base = f"{stem}-seed{recipe.seed}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
        for attempt in itertools.count():
            path = root / (base if attempt == 0 else f"{base}-{attempt}")
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
        run = cls(path)
        try:
            write_json(path / "recipe.json", recipes.as_dict(recipe))
            run.write_status(state, "data")
            write_json(path / "run.json", {"schema_version": SCHEMA_VERSION, "id": run.id, "created": now(), **info})
        except BaseException:  # a full disk or a cancellation: no folder that is half a run
            run.discard()
            raise
        return run

    def discard(self) -> None:
        """Remove the whole folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    # state

    def status(self) -> dict:
        """Where the run stands: what was written last (`last_status`), unless a job for it waits or just begins.

        A run whose job waits for its device is "queued"; from the moment it has it, "running".
        """
        status, job = self.last_status(), self.job()
        if status["state"] == "running" or job is None or not job["lives"]:
            return status
        nothing = {"step": 0, "total": 0, "message": ""}
        if job["started"] is None:
            return status | nothing | {"state": "queued"}
        if datetime.fromisoformat(status.get("updated") or job["queued"]) < datetime.fromisoformat(job["started"]):
            return status | nothing | {"state": "running", "stage": "starting"}
        return status

    def last_status(self) -> dict:
        """What a process wrote last, with `state` corrected to "interrupted" if that process no longer lives.

        Keys: state (one of `STATES`), stage, step, total, message, and, where a process wrote it, updated, pid,
        process_started and, while it works through steps, since and since_step (when and where it began to count);
        while it measures a run that has ended, before (what this gave then); afterwards ended (when the run itself
        ended; measuring it again later does not change that).
        """
        nothing = {"state": "interrupted", "stage": "", "step": 0, "total": 0, "message": ""}
        written = read_json(self.status_path)
        if written is None:
            return nothing
        status = nothing | {"state": None} | written
        for key, holds in STATUS_CHECKS.items():
            if not holds(status.get(key)):
                raise damaged(self.status_path, f"{key} = {status.get(key)!r}")
        if status["state"] == "running" and not _lives(status.get("pid"), status.get("process_started")):
            before = status.pop("before", None)  # of what died while it measured a run, which stays as it was
            status = status | (before or {"state": "interrupted"})
        return status

    def job(self) -> dict | None:
        """`job.json`: the detached process that works on this run, or the last one; None where there was none.

        Keys: command (list), device, kind ("run" or "evaluate"), queued (time), started (time or None: it waits),
        ended (time or None), exit_code (None while it lives, or if it was killed together with its watcher; below 0:
        a signal), cancelled (bool), before (the run's state when it was queued), pid and process_started of the
        watcher, and `lives`.
        """
        job = read_json(self.path / "job.json")
        if job is None:
            return None
        for key, holds in JOB_CHECKS.items():
            if not holds(job.get(key)):
                raise damaged(self.path / "job.json", f"{key} = {job.get(key)!r}")
        return job | {"lives": job["ended"] is None and _lives(job["pid"], job["process_started"])}

    def write_job(self, **changes) -> None:
        """Change keys of `job.json` (see `job`)."""
        self.refuse_if_recorded()
        write_json(self.path / "job.json", {**(read_json(self.path / "job.json") or {}), **changes})

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Nobody else works on the run inside; an InputError where somebody does, and for a recording. A dead process
        claims nothing."""
        self.refuse_if_recorded()
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(f"run {self.id}", got="a process that is still working on it",
                             expected="a run that stopped") from None
        try:
            yield
        finally:
            lock.release()

    def device(self) -> str:
        """Device on which the run was last worked on, such as "cpu" or "cuda:0"; "" where none is recorded."""
        info = self.info()
        device = [info, *info.get("resumed", [])][-1].get("device") or ""
        return {"cuda": "cuda:0", "cpu:0": "cpu"}.get(device, device)  # cpu:0 of several processes

    def write_status(self, state: str, stage: str = "", step: int = 0, total: int = 0, message: str = "",
                     **times: str | int | dict) -> None:
        """Write the state, as this process sees it. `times`: since, since_step and before, or another `ended` than now.
        """
        me, ended = psutil.Process(), {} if state == "running" else {"ended": now()}
        write_json(self.status_path, {
            "state": state, "stage": stage, "step": step, "total": total, "message": message, **ended, **times,
            "updated": now(), "pid": me.pid, "process_started": me.create_time()})

    def restore_status(self, before: dict) -> None:
        """Write a state (`last_status`) that the run had before it was measured again."""
        kept = {"ended": before.get("ended") or before["updated"]} if before.get("updated") else {}
        self.write_status(*(before[key] for key in ("state", "stage", "step", "total", "message")), **kept)

    # what it begins with

    def begin_with(self, source: Run, *, adapters: bool = False) -> None:
        """Begin with what another run has: its data, its base and what was measured on it; with `adapters` also its
        latest adapters.

        Training starts at step 0 with a fresh optimizer. Weights are hard links where the file system can, so that they
        lie on the disk once. What was measured is left where the numbers might differ: by the settings of the
        evaluation, or by threads, device, commit or versions. An InputError where the recipes disagree on what is
        taken, or where the other run has no base yet.
        """
        own, other = self.recipe(), source.recipe()
        taken = ("seed", "precision", "world.", "data.", "base.", "encoding.", "evaluation.mia_members",
                 *(("lora.",) if adapters else ()))
        differing = [name for name, _, _ in recipes.differing(own, other) if name.startswith(taken)]
        if differing:
            raise InputError(f"weights of run {source.id}", got=f"a recipe that differs in {', '.join(differing)}",
                             expected="the same there, since data and base are taken over",
                             fix="change only the settings of unlearning, merge and evaluation")
        if not source.data_dir.is_dir() or not source.model_dir("base").is_dir() or (
                other.base.source != "load" and not source.full_model_dir("base").is_dir()):
            raise InputError(f"weights of run {source.id}", got="no base model in its folder",
                             expected="a run whose base is trained")
        parts = [source.data_dir, *map(source.full_model_dir, source._before_unlearning())]
        for place in filter(Path.is_dir, parts):
            shutil.copytree(place, self.path / place.relative_to(source.path), copy_function=_linked)
        self.model_dir("base").mkdir(parents=True, exist_ok=True)
        write_rows(self.steps_path("base"), source.steps("base"))
        steps = {}
        for name in UNLEARNED if adapters else ():
            last = source.checkpoints(name)[-1:]
            if source.adapter_dir(name).is_dir() or last:
                place = source.adapter_dir(name) if source.adapter_dir(name).is_dir() else last[0][1]
                shutil.copytree(place, self.initial_adapter_dir(name))
                steps[name] = last[0][0] if last else None
        started_from = {"run": source.info()["id"], "adapters": steps}
        measured = self._take_evaluations(source)
        self.note(started_from=started_from | ({"evaluations": measured} if measured else {}))

    def _take_evaluations(self, source: Run) -> list[str]:
        """Copy what was measured on the models that were taken, where it would be the same here; their names."""
        differing = [name for name, _, _ in recipes.differing(self.recipe(), source.recipe())]
        if self._made_with() != source._made_with() or any(
                name == "threads" or name.startswith("evaluation.") for name in differing):
            return []
        taken = [name for name in source._before_unlearning() if source.is_evaluated(name)]
        for name in taken:
            self.model_dir(name).mkdir(parents=True, exist_ok=True)
            for file in EVALUATION:  # the last one means done
                shutil.copy2(source.model_dir(name) / file, self.model_dir(name) / file)
        return taken

    def _before_unlearning(self) -> list[str]:
        """Names of the models that no unlearning has changed."""
        return ["untrained", "base", *filter(is_retrained, self.models())]

    def _made_with(self) -> list:
        """Device, commit and versions with which the run was last worked on."""
        info = self.info()
        last = [info, *info.get("resumed", [])][-1]
        return [last.get(key) for key in ("device", "commit", "versions")]

    @contextmanager
    def shadow(self, recipe: Recipe, info: dict) -> Iterator[Run]:
        """A hidden run inside this one (see `shadows`), gone afterwards with all weights; `info` as for `Store.create`.

        What a process that was killed left there is removed.
        """
        root = self.path / ".shadow"
        shutil.rmtree(root, ignore_errors=True)
        try:
            root.mkdir()
            yield Run.create(root, recipe, info)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    # log

    def log(self, text: str) -> None:
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(f"{now()} {text}\n")

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of `log.txt`, "" where there are none."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise unreadable(self.log_path, error) from None
        return "\n".join(text.splitlines()[-lines:])


def _lives(pid: int | None, started: float | None) -> bool:
    """Whether the process that wrote the status still runs; the start time tells it from a later one of its pid."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - (started or 0.0)) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _linked(source: str, target: str) -> None:
    """A hard link for weights, which nobody changes in place; a copy for all else, and where there are no links."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copy2(source, target)
