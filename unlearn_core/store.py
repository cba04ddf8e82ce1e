"""The run folder: the only file that knows the names inside it. Torch-free.

    runs/<run_id>/
      run.json        schema version, id, created, command, commit, package versions, device, seed, data hashes
      recipe.json     the recipe exactly as run
      status.json     state, stage, step, total, process: replaced atomically
      data/           the data as used: forget, retain, holdout, general and attack.jsonl, quiz/ in MMLU's CSV form
      models/<name>/  steps.jsonl, adapter/, checkpoints/step-N/, resume/, model/ (full weights where trained here),
                      answers.jsonl, documents.jsonl, mmlu.jsonl, memory.jsonl, knowledge.jsonl,
                      scores.json (last file of its evaluation), samples.jsonl (drawn later, its first line about them)
      scores.json     {model: {metric: number}}      intervals.json  {model: {metric: [low, high]}}
      trajectory.json scores of the adapter checkpoints: {documents_per_task, seed, ..., rows}
      merges.json, ablations.json   scores of other merges of the adapters, and of the merge without a part of it
      balance.json    what was chosen on one half of the documents and read on the other; balance.safetensors: its items
      probes/<name>.json      what a model does under an attack or a change, beside its controls (see `probe`)
      readings.json   each look at the locked half of the documents      gates.json  thresholds of the verdict
      weights.safetensors, signs.safetensors   statistics of the weight changes (see `geometry`, `signs`)
      shadows.safetensors   what models trained for the attack of `shadows` say of each document
      job.json        the detached process that works on the run, or the last one that did (see `jobs`)
      log.txt         messages of the process
      meta.json       title, tags, archived: the one file that the interface writes
    runs/.data/<name>/      data sets made in the dashboard        runs/.recipes/<name>.toml   saved recipes
    runs/.sweeps/<name>.json   what a sweep plans (see `sweeps`); its runs say in run.json that they belong to it

Logs are append-only JSON lines and a reader skips a last line without a newline; small files are written beside
their place and moved over it, so a crash or a full disk leaves the old state. A recording (see `recorded`) is a run
folder without weights and log that says so in run.json; nothing changes it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import psutil

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import damaged, read_json, read_rows, replacing, unreadable, write_json, write_rows
from unlearn_core.recipe import Recipe
from unlearn_core.vocabulary import MODELS, UNLEARNED, is_retrained

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = 1
DEFAULT_RUNS_DIR = "runs"
MAX_STEM = 60  # characters of the recipe's name in a run's id
STATES = ("queued", "running", "trained", "finished", "failed", "cancelled", "interrupted")
LOG_TAIL_BYTES = 64 * 1024
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

    def change_recipe(self, recipe: Recipe) -> None:
        """Replace the recipe of a run that goes on with settings which do not change its results."""
        write_json(self.path / "recipe.json", recipes.as_dict(recipe))
        self._recipe = recipe

    def meta(self) -> dict:
        """What a person gave the run: title (str), tags (list of str), archived (bool)."""
        meta = _NO_META | (read_json(self.path / "meta.json") or {})
        for key, holds in _META_CHECKS.items():
            if not holds(meta[key]):
                raise damaged(self.path / "meta.json", f"{key} = {meta[key]!r}")
        return meta

    def write_meta(self, **changes: str | list[str] | bool) -> None:
        """Change some of what `meta` gives."""
        self.refuse_if_recorded()
        write_json(self.path / "meta.json", self.meta() | changes)

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
        for key, holds in _STATUS_CHECKS.items():
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
        for key, holds in _JOB_CHECKS.items():
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

    def note(self, **facts) -> None:
        """Add facts to `run.json`."""
        self.refuse_if_recorded()
        write_json(self.path / "run.json", {**(read_json(self.path / "run.json") or {}), **facts})

    def recorded(self) -> dict:
        """What a recording says of itself (see `recorded.record`), {} for any other run.

        Keys: when (time), command (that recorded it), again (the command that makes a run like it), scale (a sentence),
        sizes ({what: number}), and adapters ({model: sha256}) and base (sha256 or None) of the weights that it had.
        """
        found = (read_json(self.path / "run.json") or {}).get("recorded") or {}
        if found and not (isinstance(found, dict) and _is_time(found.get("when"))
                          and all(isinstance(found.get(key), str) for key in ("command", "again", "scale"))
                          and _holds(found.get("sizes"), _is_number)
                          and _holds(found.get("adapters"), lambda value: isinstance(value, str))
                          and isinstance(found.get("base"), str | None)):
            raise damaged(self.path / "run.json", f"recorded = {found!r}")
        return found

    def refuse_if_recorded(self) -> None:
        """InputError for a recording; whatever changes or measures a run calls this first."""
        if recorded := self.recorded():
            raise InputError(f"run {self.id}", got="a recording, which has no weights and stays as it is",
                             expected="a run that was made here", fix=f"make one with: {recorded['again']}")

    def brought(self) -> dict[str, dict]:
        """{model: {"model": folder or hub id, "adapter": folder or None, ...}} of models that were brought for
        evaluation; {} for a run that makes its own."""
        found = self.info().get("brought") or {}
        if not (isinstance(found, dict) and all(
                isinstance(one, dict) and isinstance(one.get("model"), str)
                and isinstance(one.get("adapter"), str | None) for one in found.values())):
            raise damaged(self.path / "run.json", f"brought = {found!r}")
        return found

    def sweep(self) -> tuple[str, str]:
        """(name, configuration) of the sweep that the run belongs to (see `Store.sweep`); ("", "") for any other."""
        found = self.info().get("sweep") or {"name": "", "configuration": ""}
        if not (_holds(found, lambda value: isinstance(value, str))
                and {"name", "configuration"} <= set(found)):
            raise damaged(self.path / "run.json", f"sweep = {found!r}")
        return found["name"], found["configuration"]

    def take_over(self, source: Run, *, adapters: bool = False) -> None:
        """Begin with what another run has: its data and its base; with `adapters` also its latest adapters.

        Training starts at step 0 with a fresh optimizer. Weights are hard links where the file system can, so that they
        lie on the disk once. An InputError where the recipes disagree on what is taken, or where the other run has no
        base yet.
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
        self.note(started_from={"run": source.info()["id"], "adapters": steps})

    def take_evaluations(self, source: Run) -> None:
        """After `take_over`, also what was measured there on the models that were taken.

        Nothing where the numbers might differ: by the settings of the evaluation, or by threads, device, commit or
        versions.
        """
        differing = [name for name, _, _ in recipes.differing(self.recipe(), source.recipe())]
        if self._made_with() != source._made_with() or any(
                name == "threads" or name.startswith("evaluation.") for name in differing):
            return
        taken = [name for name in source._before_unlearning() if source.is_evaluated(name)]
        for name in taken:
            self.model_dir(name).mkdir(parents=True, exist_ok=True)
            for file in _EVALUATION:  # the last one means done
                shutil.copy2(source.model_dir(name) / file, self.model_dir(name) / file)
        self.note(started_from={**self.info()["started_from"], "evaluations": taken})

    def _before_unlearning(self) -> list[str]:
        """Names of the models that no unlearning has changed."""
        return ["untrained", "base", *filter(is_retrained, self.models())]

    def _made_with(self) -> list:
        """Device, commit and versions with which the run was last worked on."""
        info = self.info()
        last = [info, *info.get("resumed", [])][-1]
        return [last.get(key) for key in ("device", "commit", "versions")]

    def discard(self) -> None:
        """Remove the whole folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def log(self, text: str) -> None:
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(f"{now()} {text}\n")

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of `log.txt`, "" where there are none."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise unreadable(self.log_path, error) from None
        return "\n".join(text.splitlines()[-lines:])

    # files to watch

    def identity_files(self) -> list[Path]:
        """Files whose change may change what `Store.scan` says about the folder."""
        return [self.path / "run.json", self.path / "recipe.json"]

    def result_files(self) -> list[Path]:
        """Every file of results but model weights; not those of checkpoints, nor what tells how a process stands."""
        patterns = ("*.json*", "*.safetensors", "probes/*.json", "data/**/*.json*", "models/*/*.json*",
                    "models/*/*/*.json")
        found = [path for pattern in patterns for path in self.path.glob(pattern)]
        return sorted(path for path in found if path.name not in ("status.json", "job.json"))

    def long_files(self) -> list[Path]:
        """Files of many measured numbers that no hash covers and no stored score is computed from: steps, memory,
        checkpoints, other merges, ablations, balance and probes."""
        found = [self.path / name for name in ("trajectory.json", "merges.json", "ablations.json", "balance.json")]
        found += [self._probe_path(name) for name in self.probes()]
        found += [path for model in self.models()
                  for path in (self.steps_path(model), self.model_dir(model) / "memory.jsonl")]
        return [path for path in found if path.is_file()]

    # places

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    @property
    def status_path(self) -> Path:
        return self.path / "status.json"

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

    def initial_adapter_dir(self, model: str) -> Path:
        """The adapter of another run that this model's training started from, where it did."""
        return self.model_dir(model) / "initial"

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

    def steps_path(self, model: str) -> Path:
        """The file behind `steps`, to which a running training appends whole lines."""
        return self.model_dir(model) / "steps.jsonl"

    def append_step(self, model: str, row: dict) -> None:
        path = self.steps_path(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def steps(self, model: str) -> list[dict]:
        """One row per optimizer step; empty where the model was not trained here."""
        return read_rows(self.steps_path(model))

    def last_step(self, model: str) -> dict | None:
        """The last row of `steps`, without reading the others."""
        try:
            with self.steps_path(model).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return None
        return json.loads(lines[-1]) if lines else None

    def keep_steps(self, model: str, last: int) -> None:
        """Drop the rows after step `last`: a resumed training writes them again."""
        write_rows(self.steps_path(model), [r for r in self.steps(model) if r["step"] <= last])

    def write_evaluation(self, model: str, *, answers: list[dict], documents: list[dict], mmlu: list[dict],
                         scores: dict, intervals: dict, memory: Sequence[dict] = (), knowledge: Sequence[dict] = ()
                         ) -> None:
        """Everything an evaluation found about one model; its `scores.json` is written last and means done, and says
        on which adapter (`evaluated_adapter`)."""
        folder = self.model_dir(model)
        write_rows(folder / "memory.jsonl", memory)
        write_rows(folder / "knowledge.jsonl", knowledge)
        write_rows(folder / "answers.jsonl", answers)
        write_rows(folder / "documents.jsonl", documents)
        write_rows(folder / "mmlu.jsonl", mmlu)
        write_json(folder / "scores.json", {"scores": scores, "intervals": intervals,
                                            "adapter": self.adapter_keys().get(model)})

    def is_evaluated(self, model: str) -> bool:
        return (self.model_dir(model) / "scores.json").is_file()

    def evaluated_adapter(self, model: str) -> str | None:
        """sha256 of the adapter that a model had when it was evaluated; None for one without, or where an older version
        did not say."""
        return (read_json(self.model_dir(model) / "scores.json") or {}).get("adapter")

    def answers(self, model: str) -> list[dict]:
        """One row per forget and retain item: id, document, split, task, kind, prompt, answer, generation,
        rouge_l (SC) or exact_match (QA), nll (nats per answer token), answer_tokens, new_tokens, hit_limit."""
        return read_rows(self.model_dir(model) / "answers.jsonl")

    def documents(self, model: str) -> list[dict]:
        """One row per document of the attack: document, task, member (bool), nll (nats per token), tokens."""
        return read_rows(self.model_dir(model) / "documents.jsonl")

    def mmlu(self, model: str) -> list[dict]:
        """One row per general-knowledge question: subject, question, options, correct, predicted (indices; -1 where the
        model's logits are no numbers)."""
        return read_rows(self.model_dir(model) / "mmlu.jsonl")

    def memory(self, model: str) -> list[dict]:
        """One row per text that the model was led through token by token (`evaluation.memory`); [] where it was not.

        id (of the item or document), document, split (holdout, too), task, kind (sc, qa or document), tokens (scored
        ones) and, each None where no token is left: nll (nats per token), min_k (the same over the least likely 20 %),
        min_k_plus (that of z-scores against the vocabulary), zlib (nats per byte of the compressed text), entropy (of
        the next token, nats), exact_memorisation (share of tokens that come first), extraction_strength (1 - k / T, k
        the first position from which all do), lens (for forget and holdout: mean log p after each layer, 0 to L).
        nll, min_k, min_k_plus and zlib are oriented as a loss: smaller is more like a member.
        """
        return read_rows(self.model_dir(model) / "memory.jsonl")

    def knowledge(self, model: str) -> list[dict]:
        """One row per general question asked openly: subject, question, answer, generation, exact and contained (0 or
        1: the answer stands in what was generated)."""
        return read_rows(self.model_dir(model) / "knowledge.jsonl")

    def samples(self, model: str) -> tuple[list[dict], dict]:
        """(rows, about): answers drawn at random to the prompts about forget's people, one row per item and sample: id,
        document, split, sample (from 0), generation; ([], {}) where none were drawn.

        about: samples (per item), temperature, top_p, seed, max_new_tokens, people (0: all) and key, the sha256 of the
        adapter that answered (None for a model without one).
        """
        path = self.model_dir(model) / "samples.jsonl"
        about, *rows = read_rows(path) or [{}]
        if about and not (all(_is_number(about.get(key)) for key in _SAMPLING) and all(map(_is_sample, rows))):
            raise damaged(path, json.dumps(about))
        return rows, about

    def write_samples(self, model: str, rows: list[dict], about: dict) -> None:
        """Replace what `samples` gives."""
        write_rows(self.model_dir(model) / "samples.jsonl", [about, *rows])

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
            if not _holds(values, holds):
                raise damaged(self.path / name, f"{model} = {values!r}")
        return found

    def trajectory(self) -> dict:
        """Scores of adapter checkpoints, {} where none were taken.

        Keys: documents_per_task, seed, mmlu_limit (-1: not asked), max_new_tokens, half of the documents (all where it
        is missing), n (`halves.counts`), replaced (names of what was scored on others before), and rows, each with
        model, step (0: the base), epoch, scores and intervals ({metric key: ...}, as in `scores` and `intervals`).
        """
        path = self.path / "trajectory.json"
        found = read_json(path) or {}
        for row in _subset_rows(found, path):
            if not (isinstance(row, dict) and isinstance(row.get("model"), str) and _is_count(row.get("step"))
                    and (row.get("epoch") is None or _is_number(row["epoch"]))
                    and _holds(row.get("scores"), _is_number) and _holds(row.get("intervals"), _is_interval)):
                raise damaged(path, f"a row {row!r}")
        return found

    def write_trajectory(self, trajectory: dict) -> None:
        write_json(self.path / "trajectory.json", trajectory)

    def merges(self) -> dict:
        """Scores of other merges of the run's adapters, {} where none were taken.

        Keys: those of `trajectory` for the subset, and rows, each with kind and name (see `variants`), norm_ratio,
        cosines ({model: number}), scores and intervals, and what identifies it: method, level and density, or
        weights, or position.
        """
        path = self.path / "merges.json"
        found = read_json(path) or {}
        for row in _subset_rows(found, path):
            if not (isinstance(row, dict) and isinstance(row.get("kind"), str) and isinstance(row.get("name"), str)
                    and _is_number(row.get("norm_ratio")) and _holds(row.get("cosines"), _is_number)
                    and _holds(row.get("scores"), _is_number) and _holds(row.get("intervals"), _is_interval)):
                raise damaged(path, f"a row {row!r}")
        return found

    def write_merges(self, merges: dict) -> None:
        write_json(self.path / "merges.json", merges)

    def ablations(self) -> dict:
        """Scores of the merged update with a part changed, {} where none were taken.

        Keys: those of `trajectory` for the subset, and rows, each with kind, part, mode, draw (0: the part itself,
        others: a random part of its size and norm), share (of all entries, None for directions), norm_share (of the
        whole update's norm), leak (share of forget's people with a field given away, None without people), scores and
        intervals; see `ablation`. The row of kind "whole" is the update as it is.
        """
        path = self.path / "ablations.json"
        found = read_json(path) or {}
        for row in _subset_rows(found, path):
            if not (isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("kind", "part", "mode"))
                    and _is_count(row.get("draw")) and _is_number(row.get("norm_share"))
                    and all(row.get(key) is None or _is_number(row[key]) for key in ("share", "leak"))
                    and _holds(row.get("scores"), _is_number) and _holds(row.get("intervals"), _is_interval)):
                raise damaged(path, f"a row {row!r}")
        return found

    def write_ablations(self, ablations: dict) -> None:
        write_json(self.path / "ablations.json", ablations)

    def balance(self) -> dict:
        """What `weighing.balance` read, {} where it was not: see `balance.read`; also target_from and readings."""
        path = self.path / "balance.json"
        found = read_json(path) or {}
        families = found.get("families", [])
        if found and not (isinstance(families, list) and isinstance(found.get("readings"), list)
                          and _is_number(found.get("target")) and all(
                              isinstance(row, dict) and isinstance(row.get("family"), str)
                              and isinstance(row.get("folds"), list) for row in families)):
            raise damaged(path, json.dumps(found)[:100])
        return found

    def write_balance(self, balance: dict) -> None:
        write_json(self.path / "balance.json", balance)

    def probe(self, name: str) -> dict:
        """What a probe found, {} where it was not run.

        Keys: about (JSON: settings, and what it was run on: `adapters`, the sha256 of each model's adapter) and rows,
        each with model, setting (str or number: what was varied), measure, value (None: not measured), low and high
        (None: no interval), n (documents or persons) and what else the probe says of it.
        """
        path = self._probe_path(name)
        found = read_json(path) or {}
        rows = found.get("rows", [])
        if found and not (isinstance(found.get("about"), dict) and isinstance(rows, list)
                          and all(map(_is_probe, rows))):
            raise damaged(path, json.dumps(found)[:100])
        return found

    def write_probe(self, name: str, about: dict, rows: list[dict]) -> None:
        """Replace what `probe` gives."""
        write_json(self._probe_path(name), {"about": about, "rows": rows})

    def probes(self) -> list[str]:
        """Names of the probes that were run, sorted."""
        return sorted(path.stem for path in (self.path / "probes").glob("[!.]*.json"))

    def _probe_path(self, name: str) -> Path:
        return self.path / "probes" / f"{_safe(name, 'name of a probe')}.json"

    def gates(self) -> dict:
        """Thresholds of the verdict, {} before the first one: `thresholds` ({gate: number}), `locked` (time) and
        `changes` (list of {at, gate, before, after, readings}: how often the locked half had been read by then)."""
        path = self.path / "gates.json"
        found = read_json(path) or {}
        if found and not (_holds(found.get("thresholds"), _is_number) and _is_time(found.get("locked"))
                          and isinstance(found.get("changes"), list)):
            raise damaged(path, json.dumps(found)[:100])
        return found

    def write_gates(self, gates: dict) -> None:
        self.refuse_if_recorded()
        write_json(self.path / "gates.json", gates)

    def readings(self) -> list[dict]:
        """Each look at the locked half of the documents, in order: at, what (in words), configurations (tried by
        then), scores and intervals; where one was scored also n (`halves.counts`) and p_zero, see `readings`."""
        path = self.path / "readings.json"
        found = read_json(path) or {}
        rows = found.get("rows", [])
        if found and not (isinstance(rows, list) and all(
                isinstance(row, dict) and _is_time(row.get("at")) and isinstance(row.get("what"), str)
                and _is_count(row.get("configurations")) and _holds(row.get("scores"), _is_number)
                and _holds(row.get("intervals"), _is_interval) and _is_n(row.get("n")) for row in rows)):
            raise damaged(path, json.dumps(found)[:100])
        return rows

    def add_reading(self, **reading) -> None:
        """Append one look to `readings`; its time is now."""
        write_json(self.path / "readings.json", {"rows": [*self.readings(), {"at": now(), **reading}]})

    def arrays(self, name: str) -> tuple[dict[str, np.ndarray], dict]:
        """Arrays of numbers that were measured on the weights, by their names, and what they are about; ({}, {})
        where nothing was measured. See `geometry` (name "weights") and `signs` (name "signs")."""
        path = self.arrays_path(name)
        if not path.is_file():
            return {}, {}
        from safetensors import SafetensorError, safe_open
        try:
            with safe_open(path, "numpy") as file:
                about = json.loads(file.metadata()["about"])
                return {key: _drawable(file.get_tensor(key)) for key in list(file.keys())}, about
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}", got=f"a damaged file ({error})", expected="arrays written by Lethe",
                             fix="remove it and measure again") from None

    def adapter_keys(self) -> dict[str, str]:
        """sha256 of the LoRA weights of each model that has an adapter, or had one when it was recorded: what was
        measured belongs to these."""
        keys = dict(self.recorded().get("adapters", {}))
        for model, path in self.adapter_weights().items():
            with path.open("rb") as file:
                keys[model] = hashlib.file_digest(file, "sha256").hexdigest()
        return keys

    def base_key(self) -> str | None:
        """sha256 over the weights of the base that this run has, or had when it was recorded; None where it has none.
        """
        digest, files = hashlib.sha256(), sorted(self.full_model_dir("base").glob("*.safetensors"))
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest() if files else self.recorded().get("base")

    def adapter_weights(self) -> dict[str, Path]:
        """The file of LoRA weights of each model that has an adapter."""
        files = {model: self.adapter_dir(model) / "adapter_model.safetensors" for model in self.models()}
        return {model: path for model, path in files.items() if path.is_file()}

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray], about: dict) -> None:
        """Replace the arrays of that name; `about` is JSON: what they were measured on, names of their axes."""
        from safetensors.numpy import save
        with replacing(self.arrays_path(name), binary=True) as file:
            file.write(save(arrays, {"about": json.dumps(about)}))

    def arrays_path(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"

    @contextmanager
    def shadow(self, recipe: Recipe, info: dict) -> Iterator[Run]:
        """A hidden run inside this one (see `shadows`), gone afterwards with all weights; `info` as for `Store.create`.

        What a process that was killed left there is removed.
        """
        root = self.path / ".shadow"
        shutil.rmtree(root, ignore_errors=True)
        try:
            yield Store(root).create(recipe, info)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def models(self) -> list[str]:
        """Names of the models that have a folder, known ones first and in order, further seeds beside the first."""
        folder = self.path / "models"
        try:
            names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        except OSError as error:
            raise unreadable(folder, error) from None
        kinds = {name: "retrained" if is_retrained(name) else name for name in names}
        return sorted(names, key=lambda name: MODELS.index(kinds[name]) if kinds[name] in MODELS else len(MODELS))


# ---- all runs ------------------------------------------------------------------------------------------------

class Store:
    """A folder of runs and, read only, a second one of recordings, the examples."""

    def __init__(self, root: str | Path = DEFAULT_RUNS_DIR, examples: str | Path | None = None):
        self.root = Path(root)
        self.examples = None if examples is None else Path(examples)
        self._roots = [self.root, *(() if self.examples is None else (self.examples,))]

    def scan(self) -> tuple[list[Run], list[str]]:
        """Readable runs, newest first, then the examples by name; and one line for each folder that looks like a run
        and cannot be read."""
        dated, problems = [], []
        for run in self.folders():
            try:
                if RUN_FILES.isdisjoint(os.listdir(run.path)):
                    continue
                run.recipe()
                dated.append((run.info()["created"], run.id, run))
            except InputError as error:
                problems.append(f"{run.id}: {error}")
            except OSError as error:
                problems.append(f"{run.id}: {unreadable(run.path, error)}")
        examples = [run for _, _, run in dated if self.is_example(run)]
        dated.sort(key=lambda entry: entry[:2], reverse=True)
        return [run for _, _, run in dated if not self.is_example(run)] + examples, problems

    def is_example(self, run: Run) -> bool:
        return run.path.parent == self.examples

    def runs(self) -> list[Run]:
        """Readable runs in the order of `scan`."""
        return self.scan()[0]

    def problems(self) -> list[str]:
        """One line for each folder that looks like a run and cannot be read; see `scan`."""
        return self.scan()[1]

    def folders(self) -> list[Run]:
        """Every folder that is not hidden, by name, whether it is a readable run or not; an example has no name of an
        own run."""
        found: dict[str, Path] = {}
        for root in self._roots:
            for path in _folders(root):
                found.setdefault(path.name, path)
        return [Run(path) for path in found.values()]

    def open(self, name_or_path: str) -> Run:
        """A run by id (inside this store, the examples last) or by the path of its folder."""
        named = [root / name_or_path for root in self._roots] if _SAFE_NAME.fullmatch(name_or_path) else []
        path = next(filter(Path.is_dir, named), Path(name_or_path))
        if not path.is_dir():
            raise InputError("run", got=name_or_path, expected=f"the id of a run in {self.root} or a run folder",
                             fix="list the runs with: python -m unlearn_core list")
        run = Run(path)
        run.info()
        return run

    def create(self, recipe: Recipe, info: dict, state: str = "running") -> Run:
        """A new run folder with its manifest and recipe; `info` is added to `run.json`.

        `state` is "running" where this process carries it out, "interrupted" where another one will.
        """
        self._make_root()
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
            run.write_status(state, "data")
            write_json(path / "run.json", {"schema_version": SCHEMA_VERSION, "id": run.id, "created": now(), **info})
        except BaseException:  # a full disk or a cancellation: no folder that is half a run
            run.discard()
            raise
        return run

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"runs folder {self.root}", got=error.strerror or str(error),
                             expected="a folder that can be written",
                             fix="choose another one with --runs-dir") from None

    # sweeps

    def sweeps(self) -> list[str]:
        """Names of the sweeps, sorted."""
        return sorted(path.stem for path in (self.root / ".sweeps").glob("[!.]*.json"))

    def sweep(self, name: str) -> dict:
        """What a sweep plans, {} where there is none of that name.

        Keys: recipe (its name or path), seeds, and configurations, each with name, point ({setting: value as it was
        typed}) and recipe (as `recipes.as_dict`, with seed 0).
        """
        path = self._sweep_path(name)
        found = read_json(path) or {}
        if found and not (isinstance(found.get("recipe"), str) and isinstance(found.get("seeds"), list)
                          and all(map(_is_count, found["seeds"])) and isinstance(found.get("configurations"), list)
                          and all(map(_is_configuration, found["configurations"]))):
            raise damaged(path, json.dumps(found)[:100])
        return found

    def change_sweep(self, name: str, change: Callable[[dict], dict]) -> None:
        """Replace what `sweep` gives by what `change` makes of it; of two processes one waits for the other."""
        path = self._sweep_path(name)
        self._make_root()
        path.parent.mkdir(exist_ok=True)
        with filelock.FileLock(path.with_name(f".{name}.lock")):
            write_json(path, change(self.sweep(name)))

    @contextmanager
    def sweep_claimed(self, name: str, seed: int) -> Iterator[bool]:
        """Whether nobody else works on a seed of a sweep inside; a dead process claims nothing."""
        lock = filelock.FileLock(self._sweep_path(name).with_name(f".{name}.seed-{seed}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _sweep_path(self, name: str) -> Path:
        return self.root / ".sweeps" / f"{_safe(name, 'name of a sweep')}.json"

    # what the dashboard makes: data sets and recipes

    def datasets(self) -> list[str]:
        """Names of the data sets made in the dashboard, sorted."""
        folder = self.root / ".data"
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and _SAFE_NAME.fullmatch(p.name)
                      ) if folder.is_dir() else []

    def dataset_dir(self, name: str) -> Path:
        """Folder of a data set made in the dashboard, in LUME's layout; it need not exist."""
        return self.root / ".data" / _safe(name, "name of a data set")

    def saved_recipes(self) -> list[Path]:
        """Recipes saved in the dashboard, sorted by name."""
        return sorted((self.root / ".recipes").glob("[!.]*.toml"))

    def save_recipe(self, name: str, text: str) -> Path:
        """Write a recipe's TOML under a name; an older one of that name is replaced."""
        path = self.root / ".recipes" / f"{_safe(name, 'name of a recipe')}.toml"
        with replacing(path) as file:
            file.write(text)
        return path


def _drawable(array: np.ndarray) -> np.ndarray:
    """Half precision, in which a recording stores pictures, is nothing to compute or draw with."""
    return array.astype("float32") if array.dtype == "float16" else array


def _folders(root: Path) -> list[Path]:
    """Folders in `root` that are not hidden, by name."""
    found = os.scandir(root) if root.is_dir() else ()
    return [root / name for name in sorted(e.name for e in found if e.is_dir() and e.name[0] != ".")]


def _safe(name: str, what: str) -> str:
    if not _SAFE_NAME.fullmatch(name) or len(name) > MAX_STEM:
        raise InputError(what, got=name, expected=f"at most {MAX_STEM} letters, digits, dots, hyphens and underscores, "
                                                  "the first a letter or digit")
    return name


def _linked(source: str, target: str) -> None:
    """A hard link for weights, which nobody changes in place; a copy for all else, and where there are no links."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copy2(source, target)


def now() -> str:
    """Current time, UTC, to the microsecond, so that runs started in one second keep their order."""
    return datetime.now(UTC).isoformat()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _holds(values: object, holds: Callable[[object], bool]) -> bool:
    return isinstance(values, dict) and all(map(holds, values.values()))


def _subset_rows(found: dict, path: Path) -> list:
    rows = found.get("rows", [])
    replaced = found.get("replaced", [])
    if found and not (isinstance(rows, list) and all(map(_is_number, (found.get(key) for key in _SUBSET)))
                      and isinstance(found.get("half", ""), str) and _is_n(found.get("n"))
                      and isinstance(replaced, list) and all(isinstance(name, str) for name in replaced)):
        raise damaged(path, json.dumps(found)[:100])
    return rows


def _is_n(value: object) -> bool:
    """Whether it is None, as before documents were halved, or counts as `halves.counts` gives them."""
    return value is None or (_holds(value, _is_count) and {"units", "members", "nonmembers"} <= set(value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_probe(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("model"), str) and isinstance(row.get("measure"), str) and (
        isinstance(row.get("setting"), str) or _is_number(row.get("setting"))) and all(
        row.get(key) is None or _is_number(row[key]) for key in ("value", "low", "high", "n"))


def _is_configuration(entry: object) -> bool:
    return (isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("recipe"), dict)
            and _holds(entry.get("point"), lambda value: isinstance(value, str)))


def _is_sample(row: dict) -> bool:
    return _is_count(row.get("sample")) and all(
        isinstance(row.get(key), str) for key in ("id", "document", "split", "generation"))


_EVALUATION = ("memory.jsonl", "knowledge.jsonl", "answers.jsonl", "documents.jsonl", "mmlu.jsonl", "scores.json")
_SAMPLING = ("samples", "temperature", "top_p", "seed", "max_new_tokens", "people")
_SUBSET = ("documents_per_task", "seed", "mmlu_limit", "max_new_tokens")
_NO_META = {"title": "", "tags": [], "archived": False}
_META_CHECKS = {
    "title": lambda value: isinstance(value, str), "archived": lambda value: isinstance(value, bool),
    "tags": lambda value: isinstance(value, list) and all(isinstance(tag, str) for tag in value),
}
_JOB_CHECKS = {
    "pid": lambda value: _is_count(value) and value > 0, "process_started": _is_number,
    "command": lambda value: isinstance(value, list) and all(isinstance(part, str) for part in value),
    **dict.fromkeys(("device", "kind"), lambda value: isinstance(value, str)), "queued": _is_time,
    **dict.fromkeys(("started", "ended"), lambda value: value is None or _is_time(value)),
    "exit_code": lambda value: value is None or isinstance(value, int),
    "cancelled": lambda value: isinstance(value, bool), "before": lambda value: isinstance(value, dict),
}
_STATUS_CHECKS = {
    "state": STATES.__contains__, "step": _is_count, "total": _is_count,
    **dict.fromkeys(("stage", "message"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("updated", "since", "ended"), lambda value: value is None or _is_time(value)),
    "before": lambda value: value is None or (isinstance(value, dict) and value.get("state") in STATES),
    "since_step": lambda value: value is None or _is_count(value),
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
