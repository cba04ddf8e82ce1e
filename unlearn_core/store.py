"""The run folder: the only file that knows the names inside it. Torch-free.

    runs/<run_id>/
      run.json        schema version, id, created, command, commit, package versions, device, seed, data hashes
      recipe.json     the recipe exactly as run
      status.json     state, stage, step, total, process: replaced atomically
      data/           the data as used: forget, retain, holdout, general and attack.jsonl, quiz/ in MMLU's CSV form
      models/<name>/  steps.jsonl, adapter/, checkpoints/step-N/, resume/, model/ (full weights where trained here),
                      answers.jsonl, documents.jsonl, mmlu.jsonl, scores.json (last file of its evaluation)
      scores.json     {model: {metric: number}}      intervals.json  {model: {metric: [low, high]}}
      log.txt         messages of the process
      meta.json       title, tags, archived: the one file that the interface writes

Logs are append-only JSON lines and a reader skips a last line without a newline; small files are written beside
their place and moved over it, so a crash or a full disk leaves the old state.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import damaged, read_json, read_rows, unreadable, write_json, write_rows
from unlearn_core.recipe import Recipe
from unlearn_core.vocabulary import MODELS

SCHEMA_VERSION = 1
DEFAULT_RUNS_DIR = "runs"
MAX_STEM = 60  # characters of the recipe's name in a run's id
STATES = ("running", "trained", "finished", "failed", "cancelled", "interrupted")
RUN_FILES = {"run.json", "recipe.json", "status.json"}  # a folder with none of them is no run
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


# ---- one run -------------------------------------------------------------------------------------------------

class Run:
    """One run folder. Reading never changes it; the writing methods are for the engine."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._recipe: Recipe | None = None

    @property
    def id(self) -> str:
        return self.path.name

    # identity

    def info(self) -> dict:
        """`run.json`; an InputError where it is missing or of a newer schema."""
        info = read_json(self.path / "run.json")
        if info is None:
            raise InputError(f"run {self.path}", got="no run.json", expected="a run folder made by Lethe",
                             fix="list the runs with: python -m unlearn_core list")
        if info.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"run {self.id}", got=f"schema version {info.get('schema_version')}",
                             expected=f"version {SCHEMA_VERSION}",
                             fix="open it with the version of Lethe that wrote it")
        if not _is_time(info.get("created")):
            raise damaged(self.path / "run.json", f"created = {info.get('created')!r}")
        return info

    def recipe(self) -> Recipe:
        """The frozen recipe of the run."""
        if self._recipe is None:
            raw = read_json(self.path / "recipe.json")
            if raw is None:
                raise InputError(f"run {self.id}", got="no recipe.json", expected="the recipe that was run",
                                 fix="the folder is incomplete: restore it or remove it")
            self._recipe = recipes.parse(raw, where=f"{self.id}/recipe.json")
        return self._recipe

    def meta(self) -> dict:
        """Title, tags and archived flag that a person gave the run."""
        meta = read_json(self.path / "meta.json") or {}
        if not isinstance(meta.get("title", ""), str):
            raise damaged(self.path / "meta.json", f"title = {meta['title']!r}")
        return meta

    # state

    def status(self) -> dict:
        """What the process wrote last, with `state` corrected to "interrupted" if that process no longer lives.

        Keys: state (one of `STATES`), stage, step, total, message, and, where a process wrote it, updated, pid and
        process_started.
        """
        nothing = {"state": "interrupted", "stage": "", "step": 0, "total": 0, "message": ""}
        written = read_json(self.path / "status.json")
        if written is None:
            return nothing
        status = nothing | {"state": None} | written
        for key, holds in _STATUS_CHECKS.items():
            if not holds(status.get(key)):
                raise damaged(self.path / "status.json", f"{key} = {status.get(key)!r}")
        if status["state"] == "running" and not _lives(status.get("pid"), status.get("process_started")):
            status = {**status, "state": "interrupted"}
        return status

    def write_status(self, state: str, stage: str = "", step: int = 0, total: int = 0, message: str = "") -> None:
        me = psutil.Process()
        write_json(self.path / "status.json", {
            "state": state, "stage": stage, "step": step, "total": total, "message": message,
            "updated": now(), "pid": me.pid, "process_started": me.create_time()})

    def note(self, **facts) -> None:
        """Add facts to `run.json`."""
        write_json(self.path / "run.json", {**(read_json(self.path / "run.json") or {}), **facts})

    def discard(self) -> None:
        """Remove the whole folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def log(self, text: str) -> None:
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{now()} {text}\n")

    # places

    @property
    def data_dir(self) -> Path:
        return self.path / "data"

    def model_dir(self, model: str) -> Path:
        return self.path / "models" / model

    def full_model_dir(self, model: str) -> Path:
        """Full weights in Hugging Face's layout, where this run trained them."""
        return self.model_dir(model) / "model"

    def adapter_dir(self, model: str) -> Path:
        """The LoRA adapter in PEFT's layout."""
        return self.model_dir(model) / "adapter"

    def resume_dir(self, model: str) -> Path:
        """Optimizer and random state of an unfinished training."""
        return self.model_dir(model) / "resume"

    def checkpoint_dir(self, model: str, step: int) -> Path:
        return self.model_dir(model) / "checkpoints" / f"step-{step:06d}"

    def checkpoints(self, model: str) -> list[tuple[int, Path]]:
        """(optimizer step, adapter folder) of each checkpoint, in order."""
        found = (self.model_dir(model) / "checkpoints").glob("step-*")
        return sorted((int(path.name.removeprefix("step-")), path) for path in found)

    # results

    def append_step(self, model: str, row: dict) -> None:
        path = self.model_dir(model) / "steps.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def steps(self, model: str) -> list[dict]:
        """One row per optimizer step; empty where the model was not trained here."""
        return read_rows(self.model_dir(model) / "steps.jsonl")

    def keep_steps(self, model: str, last: int) -> None:
        """Drop the rows after step `last`: a resumed training writes them again."""
        write_rows(self.model_dir(model) / "steps.jsonl", [r for r in self.steps(model) if r["step"] <= last])

    def write_evaluation(self, model: str, *, answers: list[dict], documents: list[dict], mmlu: list[dict],
                         scores: dict, intervals: dict) -> None:
        """Everything an evaluation found about one model; its `scores.json` is written last and means done."""
        folder = self.model_dir(model)
        write_rows(folder / "answers.jsonl", answers)
        write_rows(folder / "documents.jsonl", documents)
        write_rows(folder / "mmlu.jsonl", mmlu)
        write_json(folder / "scores.json", {"scores": scores, "intervals": intervals})

    def is_evaluated(self, model: str) -> bool:
        return (self.model_dir(model) / "scores.json").is_file()

    def answers(self, model: str) -> list[dict]:
        """One row per forget and retain item: id, document, split, task, kind, prompt, answer, generation,
        rouge_l (SC) or exact_match (QA), nll (nats per answer token), answer_tokens, new_tokens, hit_limit."""
        return read_rows(self.model_dir(model) / "answers.jsonl")

    def documents(self, model: str) -> list[dict]:
        """One row per document of the attack: document, task, member (bool), nll (nats per token), tokens."""
        return read_rows(self.model_dir(model) / "documents.jsonl")

    def mmlu(self, model: str) -> list[dict]:
        """One row per general-knowledge question: subject, question, options, correct, predicted (indices)."""
        return read_rows(self.model_dir(model) / "mmlu.jsonl")

    def write_scores(self) -> None:
        """Assemble the run's `scores.json` and `intervals.json` from its evaluated models."""
        found = {m: read_json(self.model_dir(m) / "scores.json") for m in self.models() if self.is_evaluated(m)}
        write_json(self.path / "intervals.json", {m: v["intervals"] for m, v in found.items()})
        write_json(self.path / "scores.json", {m: v["scores"] for m, v in found.items()})

    def scores(self) -> dict[str, dict[str, float]]:
        """{model: {metric key: number}}; a metric that was not measured is absent."""
        return self._per_model("scores.json", _is_number)

    def intervals(self) -> dict[str, dict[str, list[float]]]:
        """{model: {metric key: [low, high]}}, 95 %, for the metrics that have one."""
        return self._per_model("intervals.json", _is_interval)

    def _per_model(self, name: str, holds: Callable[[object], bool]) -> dict:
        found = read_json(self.path / name) or {}
        for model, values in found.items():
            if not isinstance(values, dict) or not all(map(holds, values.values())):
                raise damaged(self.path / name, f"{model} = {values!r}")
        return found

    def models(self) -> list[str]:
        """Names of the models that have a folder, the known ones first and in order."""
        folder = self.path / "models"
        try:
            names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        except OSError as error:
            raise unreadable(folder, error) from None
        return [m for m in MODELS if m in names] + [m for m in names if m not in MODELS]


# ---- all runs ------------------------------------------------------------------------------------------------

class Store:
    """A folder of runs."""

    def __init__(self, root: str | Path = DEFAULT_RUNS_DIR):
        self.root = Path(root)

    def scan(self) -> tuple[list[Run], list[str]]:
        """Readable runs, newest first, and one line for each folder that looks like a run and cannot be read."""
        dated, problems = [], []
        for run in map(Run, self._folders()):
            try:
                if RUN_FILES.isdisjoint(os.listdir(run.path)):
                    continue
                run.recipe()
                dated.append((run.info()["created"], run.id, run))
            except InputError as error:
                problems.append(f"{run.id}: {error}")
            except OSError as error:
                problems.append(f"{run.id}: {unreadable(run.path, error)}")
        dated.sort(key=lambda entry: entry[:2], reverse=True)
        return [run for _, _, run in dated], problems

    def runs(self) -> list[Run]:
        """Readable runs, newest first; see `scan`."""
        return self.scan()[0]

    def problems(self) -> list[str]:
        """One line for each folder that looks like a run and cannot be read; see `scan`."""
        return self.scan()[1]

    def _folders(self) -> list[Path]:
        found = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))

    def open(self, name_or_path: str) -> Run:
        """A run by id (inside this store) or by the path of its folder."""
        inside = self.root / name_or_path
        path = inside if _SAFE_NAME.fullmatch(name_or_path) and inside.is_dir() else Path(name_or_path)
        if not path.is_dir():
            raise InputError("run", got=name_or_path, expected=f"the id of a run in {self.root} or a run folder",
                             fix="list the runs with: python -m unlearn_core list")
        run = Run(path)
        run.info()
        return run

    def create(self, recipe: Recipe, info: dict) -> Run:
        """A new run folder with its manifest and recipe; `info` is added to `run.json`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"runs folder {self.root}", got=error.strerror or str(error),
                             expected="a folder that can be written",
                             fix="choose another one with --runs-dir") from None
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe.name)[:MAX_STEM].strip("-.") or "run"
        base = f"{stem}-seed{recipe.seed}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
        for attempt in itertools.count():
            path = self.root / (base if attempt == 0 else f"{base}-{attempt}")
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
        run = Run(path)
        try:
            write_json(path / "recipe.json", recipes.as_dict(recipe))
            run.write_status("running", "data")
            write_json(path / "run.json", {"schema_version": SCHEMA_VERSION, "id": run.id, "created": now(), **info})
        except BaseException:  # a full disk or a cancellation: no folder that is half a run
            run.discard()
            raise
        return run


def now() -> str:
    """Current time, UTC, to the microsecond, so that runs started in one second keep their order."""
    return datetime.now(UTC).isoformat()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


_STATUS_CHECKS = {
    "state": STATES.__contains__, "step": _is_count, "total": _is_count,
    **dict.fromkeys(("stage", "message"), lambda value: isinstance(value, str)),
    "updated": lambda value: value is None or _is_time(value),
    "pid": lambda value: value is None or (_is_count(value) and value > 0),
    "process_started": lambda value: value is None or _is_number(value),
}


def _lives(pid: int | None, started: float | None) -> bool:
    """Whether the process that wrote the status still runs; the start time tells it from a later one of its pid."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - (started or 0.0)) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
