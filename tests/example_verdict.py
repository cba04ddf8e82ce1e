"""Runs in which everything that a verdict reads is measured, made by hand; what a model knows is said, not trained."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import example_run
from tests.test_collapse_view import FLUENT
from unlearn_core import data
from unlearn_core.data.dataset import one_text_each
from unlearn_core.evaluation import score
from unlearn_core.evaluation.recall import MEASURES
from unlearn_core.store import Run
from unlearn_core.vocabulary import DOCUMENT, OFFICIAL, SC

DOCUMENTS = 10  # of each task and side
MEMBERS = 80  # of the official attack, and as many others
KNOWS = {"base": ("forget", "retain"), "retrained": ("retain",), "merged": ("retain",)}  # model -> sides it knows
KNOWN, UNKNOWN = 0.9, 0.1  # a measure of recall where a side is known, and where it is not


def measured(root: Path, knows: Mapping[str, Sequence[str]] = KNOWS, documents: int = DOCUMENTS) -> Run:
    """A finished run with answers, losses, memory, quiz and all probes of these models; a model that does not know
    forget does and says exactly what each other one does."""
    run = example_run.create(root)
    items = example_run.write_data(run, documents)
    for model, sides in knows.items():
        answers = [answer(split, item, item.answer if split in sides else f"{FLUENT[n % 20]} No. {n}")
                   for n, (split, item) in enumerate(items)]
        evaluated(run, model, answers, losses("forget" in sides), memory(run, sides))
    run.write_scores()
    probed(run, {model: "forget" in sides for model, sides in knows.items()})
    run.write_status("finished", "done")
    return run


def answer(split: str, item: data.Item, generation: str) -> dict:
    """A row of `Run.answers` that says so."""
    return {"id": item.id, "document": item.document, "split": split, "task": item.task, "kind": item.kind,
            "prompt": item.prompt, "answer": item.answer, "generation": generation,
            OFFICIAL[item.kind]: score.official_value(item.kind, item.answer, generation), "nll": 1.0,
            "answer_tokens": 9, "new_tokens": 9, "hit_limit": False}


def evaluated(run: Run, model: str, answers: list[dict], documents: list[dict], memory: list[dict],
              right: int = 80) -> None:
    """Write an evaluation of these rows, with `right` of 100 questions of the quiz, scored as the engine does."""
    quiz = [{"subject": "geography", "question": f"q{n}", "options": list("abcd"), "correct": 1,
             "predicted": 1 if n < right else 2} for n in range(100)]
    opened = [{"subject": "geography", "question": f"q{n}", "answer": "b", "generation": "b" if n < right else "c",
               "exact": int(n < right), "contained": int(n < right)} for n in range(100)]
    rows = answers, documents, quiz
    run.write_evaluation(model, answers=answers, documents=documents, mmlu=quiz, memory=memory, knowledge=opened,
                         scores=score.scores(*rows), intervals=score.intervals(*rows))


def losses(known: bool) -> list[dict]:
    """Documents of the official attack, whose members are easier where they are known."""
    chance = random.Random(5)
    return [{"document": f"d{n}", "task": "Task1", "member": n < MEMBERS, "tokens": 90,
             "nll": 4 + chance.gauss(0, 1) - (3 if known and n < MEMBERS else 0)} for n in range(2 * MEMBERS)]


def memory(run: Run, sides: Sequence[str]) -> list[dict]:
    """Rows of `Run.memory` of a model that knows these sides."""
    dataset, chance, rows = data.load_saved(run.data_dir), random.Random(7), []
    for split in ("forget", "retain", "holdout"):
        items = getattr(dataset, split)
        texts = [(item.id, item.document, item.task, item.kind) for item in items]
        texts += [(item.document, item.document, item.task, DOCUMENT) for item in one_text_each(items)]
        for name, document, task, kind in texts:
            loss = 3 + chance.gauss(0, 0.5) - (2.5 if split in sides else 0)
            strength = min(max((KNOWN if split in sides else UNKNOWN) + chance.gauss(0, 0.05), 0), 1)
            rows.append({"id": name, "document": document, "split": split, "task": task, "kind": kind, "tokens": 9,
                         **dict.fromkeys(("nll", "min_k", "min_k_plus", "zlib"), loss), "entropy": 2.0,
                         "exact_memorisation": strength, "extraction_strength": strength, "lens": None})
    return rows


def probed(run: Run, known: Mapping[str, bool]) -> None:
    """Probes that bring nothing back: a model gives of forget what it gave before."""
    about = {"adapters": run.adapter_keys(), "brought": run.brought(), "documents": 0, "seed": 0,
             "max_new_tokens": 64, "group": 32, "lora": {"r": 8}, "lr": 1e-3, "batch": 8, "share": 0.5, "asked": 15}
    run.write_probe("quantisation", about, [
        row for model, knows in known.items() for setting in ("fp", "int8", "int4")
        for row in recall(model, setting, "forget", knows)])
    run.write_probe("relearning", about, [
        row | {"on": "forget"} for model, knows in known.items() for step in (0, 5, 20)
        for row in recall(model, step, "asked", knows)])
    run.write_probe("prompts", about, [
        row for model, knows in known.items() for setting in ("original", "paraphrase 1")
        for row in recall(model, setting, "people", knows)])
    run.write_probe("depth", about | {"reference": "retrained"}, [
        {"model": "merged", "setting": "UDS", "measure": "uds", "value": 0.9, "low": 0.8, "high": 1.0, "n": 20,
         "items": 40, "without": 0, "why": ""}])


def recall(model: str, setting: str | int, part: str, known: bool, n: int = 40) -> list[dict]:
    """Rows of a probe: what a model gives of a part that it knows, or does not."""
    value = KNOWN if known else 0.0
    return [{"model": model, "setting": setting, "part": part, "measure": measure, "value": value,
             "low": max(value - 0.05, 0.0), "high": value + 0.05, "n": n} for measure in MEASURES]


def answers_changed(run: Run, model: str, change: Mapping[str, str]) -> None:
    """The run with other answers of a model: {id of an item: what is said to it}."""
    rows = [row | {"generation": change[row["id"]],
                   OFFICIAL[row["kind"]]: score.official_value(row["kind"], row["answer"], change[row["id"]])}
            if row["id"] in change else row for row in run.answers(model)]
    evaluated(run, model, rows, run.documents(model), run.memory(model))
    run.write_scores()


def continuations(run: Run, split: str) -> list[dict]:
    return [row for row in run.answers("merged") if row["split"] == split and row["kind"] == SC]
