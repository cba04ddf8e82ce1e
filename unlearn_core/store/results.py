"""What was measured on a run: each kind of result written in one way and read back checked. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unlearn_core.errors import InputError
from unlearn_core.files import damaged, read_json, read_rows, replacing, write_json, write_rows
from unlearn_core.store.checks import (
    SAMPLING,
    holds_all,
    is_ablation,
    is_checkpoint,
    is_count,
    is_interval,
    is_merge,
    is_n,
    is_number,
    is_probe,
    is_sample,
    is_time,
    subset_rows,
)
from unlearn_core.store.folder import Folder, now

if TYPE_CHECKING:
    import numpy as np

EVALUATION = ("memory.jsonl", "knowledge.jsonl", "answers.jsonl", "documents.jsonl", "mmlu.jsonl", "scores.json")
TEXTS = ("answers.jsonl", "mmlu.jsonl", "knowledge.jsonl", "samples.jsonl")
TAIL_BYTES = 64 * 1024  # read of a file of which the end is wanted


class Results(Folder):
    """A run folder with its results; the writing methods are for the engine."""

    # training

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
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return None
        return json.loads(lines[-1]) if lines else None

    def keep_steps(self, model: str, last: int) -> None:
        """Drop the rows after step `last`: a resumed training writes them again."""
        write_rows(self.steps_path(model), [r for r in self.steps(model) if r["step"] <= last])

    # evaluation

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
        the first position from which all do), lens (for forget and holdout: mean log p after each layer, 0 to L, None
        after those that a deep model is not read at).
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
        if about and not (all(is_number(about.get(key)) for key in SAMPLING) and all(map(is_sample, rows))):
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
        return self._per_model("scores.json", is_number)

    def intervals(self) -> dict[str, dict[str, list[float]]]:
        """{model: {metric key: [low, high]}}, 95 %, for the metrics that have one."""
        return self._per_model("intervals.json", is_interval)

    def _per_model(self, name: str, holds: Callable[[object], bool]) -> dict:
        found = read_json(self.path / name) or {}
        for model, values in found.items():
            if not holds_all(values, holds):
                raise damaged(self.path / name, f"{model} = {values!r}")
        return found

    # other updates and probes

    def trajectory(self) -> dict:
        """Scores of adapter checkpoints, {} where none were taken.

        Keys: documents_per_task, seed, mmlu_limit (-1: not asked), max_new_tokens, half of the documents (all where it
        is missing), n (`halves.counts`), replaced (names of what was scored on others before), and rows, each with
        model, step (0: the base), epoch, scores and intervals ({metric key: ...}, as in `scores` and `intervals`).
        """
        return self._on_a_subset("trajectory.json", is_checkpoint)

    def write_trajectory(self, trajectory: dict) -> None:
        write_json(self.path / "trajectory.json", trajectory)

    def merges(self) -> dict:
        """Scores of other merges of the run's adapters, {} where none were taken.

        Keys: those of `trajectory` for the subset, and rows, each with kind and name (see `variants`), norm_ratio,
        cosines ({model: number}), scores and intervals, and what identifies it: method, level and density, or
        weights, or position.
        """
        return self._on_a_subset("merges.json", is_merge)

    def write_merges(self, merges: dict) -> None:
        write_json(self.path / "merges.json", merges)

    def ablations(self) -> dict:
        """Scores of the merged update with a part changed, {} where none were taken.

        Keys: those of `trajectory` for the subset, and rows, each with kind, part, mode, draw (0: the part itself,
        others: a random part of its size and norm), share (of all entries, None for directions), norm_share (of the
        whole update's norm), leak (share of forget's people with a field given away, None without people), scores and
        intervals; see `ablation`. The row of kind "whole" is the update as it is.
        """
        return self._on_a_subset("ablations.json", is_ablation)

    def write_ablations(self, ablations: dict) -> None:
        write_json(self.path / "ablations.json", ablations)

    def _on_a_subset(self, name: str, holds: Callable[[dict], bool]) -> dict:
        """What was scored on a subset, {} where nothing was; an InputError for a row that is not what it should be."""
        path = self.path / name
        found = read_json(path) or {}
        for row in subset_rows(found, path):
            if not (isinstance(row, dict) and holds(row) and holds_all(row.get("scores"), is_number)
                    and holds_all(row.get("intervals"), is_interval)):
                raise damaged(path, f"a row {row!r}")
        return found

    def balance(self) -> dict:
        """What `weighing.balance` read, {} where it was not: see `balance.read`; also target_from and readings."""
        path = self.path / "balance.json"
        found = read_json(path) or {}
        families = found.get("families", [])
        if found and not (isinstance(families, list) and isinstance(found.get("readings"), list)
                          and is_number(found.get("target")) and all(
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
                          and all(map(is_probe, rows))):
            raise damaged(path, json.dumps(found)[:100])
        return found

    def write_probe(self, name: str, about: dict, rows: list[dict]) -> None:
        """Replace what `probe` gives."""
        write_json(self._probe_path(name), {"about": about, "rows": rows})

    def probes(self) -> list[str]:
        """Names of the probes that were run, sorted."""
        return sorted(path.stem for path in (self.path / "probes").glob("[!.]*.json"))

    # the verdict

    def gates(self) -> dict:
        """Thresholds of the verdict, {} before the first one: `thresholds` ({gate: number}), `locked` (time) and
        `changes` (list of {at, gate, before, after, readings}: how often the locked half had been read by then)."""
        path = self.path / "gates.json"
        found = read_json(path) or {}
        if found and not (holds_all(found.get("thresholds"), is_number) and is_time(found.get("locked"))
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
                isinstance(row, dict) and is_time(row.get("at")) and isinstance(row.get("what"), str)
                and is_count(row.get("configurations")) and holds_all(row.get("scores"), is_number)
                and holds_all(row.get("intervals"), is_interval) and is_n(row.get("n")) for row in rows)):
            raise damaged(path, json.dumps(found)[:100])
        return rows

    def add_reading(self, **reading) -> None:
        """Append one look to `readings`; its time is now."""
        write_json(self.path / "readings.json", {"rows": [*self.readings(), {"at": now(), **reading}]})

    # weights

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

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray], about: dict) -> None:
        """Replace the arrays of that name; `about` is JSON: what they were measured on, names of their axes."""
        from safetensors.numpy import save
        with replacing(self.arrays_path(name), binary=True) as file:
            file.write(save(arrays, {"about": json.dumps(about)}))

    # files to watch

    def result_files(self) -> list[Path]:
        """Every file of results but model weights; not those of checkpoints, nor what tells how a process stands."""
        patterns = ("*.json*", "*.safetensors", "probes/*.json", "data/**/*.json*", "models/*/*.json*",
                    "models/*/*/*.json")
        found = [path for pattern in patterns for path in self.path.glob(pattern)]
        return sorted(path for path in found if path.name not in ("status.json", "job.json"))

    def text_files(self) -> list[Path]:
        """Every file with texts of the data or of what models wrote."""
        found = [path for path in self.data_dir.rglob("*") if path.is_file()]
        found += [self.model_dir(model) / name for model in self.models() for name in TEXTS]
        return [path for path in found if path.is_file()]

    def lacks_texts(self) -> bool:
        """Whether it is a recording without what was asked and answered (`recorded.record`)."""
        return bool(self.recorded()) and not self.data_dir.is_dir()

    def long_files(self) -> list[Path]:
        """Files of many measured numbers that no hash covers and no stored score is computed from: steps, memory,
        checkpoints, other merges, ablations, balance and probes."""
        found = [self.path / name for name in ("trajectory.json", "merges.json", "ablations.json", "balance.json")]
        found += [self._probe_path(name) for name in self.probes()]
        found += [path for model in self.models()
                  for path in (self.steps_path(model), self.model_dir(model) / "memory.jsonl")]
        return [path for path in found if path.is_file()]


def _drawable(array: np.ndarray) -> np.ndarray:
    """Half precision, in which a recording stores pictures, is nothing to compute or draw with."""
    return array.astype("float32") if array.dtype == "float16" else array
