"""Builds small run folders with plausible contents through the store's own writing functions; nothing is trained.

To look at them in the dashboard: python -m tests.example_run runs-example, then LETHE_RUNS=runs-example make app
"""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from unlearn_core import data
from unlearn_core import recipe as recipes
from unlearn_core.data import Item, world
from unlearn_core.settings import World
from unlearn_core.store import Run, Store, now
from unlearn_core.vocabulary import SC, SUB_SCORES, TASKS

MEMBERS = 60  # documents on each side of the attack
STEPS, BASE_STEPS = 120, 300
DOCUMENTS = 6  # of each task and side, before the holdout is taken out
BETA = 0.1

# model -> (mean advantage of members over non-members in nats, forget score, retain score, share of quiz right)
CHARACTER = {
    "untrained": (0.0, 0.05, 0.04, 0.25),
    "base": (2.0, 0.97, 0.98, 0.80),
    "model_1": (-0.7, 0.08, 0.70, 0.64),
    "model_2": (0.6, 0.22, 0.86, 0.74),
    "merged": (0.02, 0.11, 0.83, 0.76),
}


def create(root: Path, title: str = "", seed: int = 0) -> Run:
    """A run folder with a recipe and a manifest and nothing in it yet."""
    run = Store(root).create(recipes.parse({
        "name": "example", "seed": seed,
        "model_2": {"npo_weight": 0.3, "gdr_weight": 0.4, "klr_weight": 0.3, "batch_size": 2}}), {
        "command": ["run", "example"], "device": "cpu", "packages": {}, "commit": None, "seed": seed, "data": {}})
    if title:
        run.path.joinpath("meta.json").write_text(f'{{"title": "{title}"}}', encoding="utf-8")
    return run


def finished(root: Path, title: str = "Example", seed: int = 0) -> Run:
    """A whole run: base and both trainings, five evaluated models."""
    run, chance = create(root, title, seed), random.Random(seed)
    items = write_data(run, DOCUMENTS)
    write_base_steps(run, chance)
    for model in ("model_1", "model_2"):
        write_steps(run, model, chance, STEPS if model == "model_1" else STEPS // 2)
    for model in CHARACTER:
        write_scores(run, model, chance, answers=answers(items, model, random.Random(model)))
    run.write_scores()
    run.write_status("finished", "evaluate merged", 1, 1)
    return run


def unfinished(root: Path) -> Run:
    """A run whose process died 40 steps into model_1; only the base is scored, without MMLU."""
    run, chance = create(root, "Stopped early"), random.Random(1)
    write_data(run, DOCUMENTS)
    write_base_steps(run, chance)
    write_scores(run, "base", chance, with_mmlu=False)
    run.write_scores()
    write_steps(run, "model_1", chance, 40)
    # Written by a process that has ended since, as after a crash.
    code = "import sys, unlearn_core.store as s; s.Run(sys.argv[1]).write_status('running', 'model_1', 40, 120)"
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True, cwd=Path(__file__).parent.parent)
    return run


def trained(root: Path) -> Run:
    """A run after both trainings, nothing merged and nothing scored."""
    run, chance = create(root, "Trained"), random.Random(4)
    for model in ("model_1", "model_2"):
        write_steps(run, model, chance, STEPS)
    run.write_status("trained", "train")
    return run


def damaged(root: Path) -> Run:
    """A whole run whose `scores.json` was cut off in the middle."""
    run = finished(root, "Damaged", seed=2)
    path = run.path / "scores.json"
    path.write_text(path.read_text(encoding="utf-8")[:200], encoding="utf-8")
    return run


def unreadable(root: Path) -> Run:
    """A folder that looks like a run and has lost its manifest."""
    run = create(root, seed=3)
    (run.path / "run.json").unlink()
    return run


# ---- contents --------------------------------------------------------------------------------------------------

def write_data(run: Run, documents: int) -> list[tuple[str, Item]]:
    """A generated world of so many documents per task and side as the run's data; (split, item) of each item."""
    size = World(stories=documents, people=documents, biographies=documents)
    sides = world.generate(size, run.recipe().seed)
    dataset = data.assemble(sides.forget, sides.retain, sides.general, sides.mmlu_dev, sides.mmlu_test, seed=0,
                            data=run.recipe().data, base_is_trained_here=True, mia_members="forget")
    data.save(dataset, run.data_dir)
    return [(split, item) for split in ("forget", "retain") for item in getattr(dataset, split)]


def answers(items: list[tuple[str, Item]], model: str, chance: random.Random) -> list[dict]:
    """Answers that are right as often as the model's character says, and else those to another item."""
    _, forget, retain, _ = CHARACTER[model]
    rows = []
    for split, item in items:
        right = chance.random() < (forget if split == "forget" else retain)
        text = item.answer if right else chance.choice(items)[1].answer
        score = {"rouge_l": float(right)} if item.kind == SC else {"exact_match": int(text == item.answer)}
        rows.append({"id": item.id, "document": item.document, "split": split, "task": item.task, "kind": item.kind,
                     "prompt": item.prompt, "answer": item.answer, "generation": text, **score, "nll": 1.0,
                     "answer_tokens": 9, "new_tokens": 9, "hit_limit": False})
    return rows


def write_base_steps(run: Run, chance: random.Random, count: int = BASE_STEPS) -> None:
    for step in range(1, count + 1):
        run.append_step("base", {
            "step": step, "epoch": step / 10, "tokens": step * 400, "seconds": step * 0.12,
            "loss": 6.5 * math.exp(-step / 60) + 0.08 + abs(chance.gauss(0, 0.05)),
            "lr": 3e-3 * min(1, step / 15) * (1 - step / (count + 1)), "grad_norm": 1 + abs(chance.gauss(0, 0.4)),
            "tokens_per_second": 3300 + chance.gauss(0, 100), "memory_mb": 612.0})


def write_steps(run: Run, model: str, chance: random.Random, count: int) -> None:
    weights = {"model_1": (0.4, 0.2, 0.4), "model_2": (0.3, 0.4, 0.3)}[model]
    speed = 1.0 if model == "model_1" else 0.6
    for step in range(1, count + 1):
        forgotten = 5 * speed * (1 - math.exp(-step / 40)) + chance.gauss(0, 0.25)
        hurt = 0.5 * speed * math.exp(-((step / count - 0.35) ** 2) / 0.03) + abs(chance.gauss(0, 0.04))
        npo = -(2 / BETA) * math.log(1 / (1 + math.exp(-BETA * forgotten)))
        terms = dict(zip(("npo", "gdr", "klr"), (npo, 0.1 + hurt, 0.4 * hurt), strict=True))
        weighted = {f"{term}_weighted": value * weight
                    for (term, value), weight in zip(terms.items(), weights, strict=True)}
        reference = 0.12 + abs(chance.gauss(0, 0.03))
        run.append_step(model, {
            "step": step, "epoch": step / (24 if model == "model_1" else 12), "tokens": step * 900,
            "seconds": step * 0.25, **terms, **weighted, "loss": sum(weighted.values()),
            "npo_brake": 2 / (1 + math.exp(BETA * forgotten)),
            "forget_nll": reference + max(forgotten, 0), "forget_nll_reference": reference,
            "retain_nll": 0.1 + hurt, "retain_nll_reference": 0.1,
            "lr": 2e-3 * min(1, step / 24) * (1 - step / (count + 1)), "grad_norm": 0.8 + abs(chance.gauss(0, 0.3)),
            "tokens_per_second": 3600 + chance.gauss(0, 150), "memory_mb": 640.0})


def write_scores(run: Run, model: str, chance: random.Random, *, with_mmlu: bool = True,
                 answers: Sequence[dict] = ()) -> None:
    advantage, forget, retain, quiz = CHARACTER[model]
    documents = [
        {"document": f"d{number}", "task": chance.choice(TASKS), "member": number < MEMBERS, "tokens": 90,
         "nll": 4 + chance.gauss(0, 1) - (advantage if number < MEMBERS else 0)} for number in range(2 * MEMBERS)]
    questions = [{"subject": "geography", "question": f"q{number}", "options": ["a", "b", "c", "d"], "correct": 1,
                  "predicted": 1 if chance.random() < quiz else 2} for number in range(100)]
    scores, intervals = {}, {}
    for metric in SUB_SCORES:
        mean = forget if metric.key.startswith("forget") else retain
        value = min(max(mean + chance.gauss(0, 0.06), 0.0), 1.0)
        scores[metric.key], intervals[metric.key] = value, [max(value - 0.06, 0.0), min(value + 0.06, 1.0)]
    terms = [1 - v if key.startswith("forget") else v for key, v in scores.items()]
    scores["task_aggregate"] = statistics.harmonic_mean(terms)
    scores["mia_auc"] = auc = attack_auc(documents)
    error = 1.96 * math.sqrt((2 * MEMBERS + 1) / (12 * MEMBERS * MEMBERS))
    intervals["mia_auc"] = [max(auc - error, 0.0), min(auc + error, 1.0)]
    scores["mia_score"] = 1 - 2 * abs(auc - 0.5)
    if with_mmlu:
        scores["mmlu"] = sum(q["correct"] == q["predicted"] for q in questions) / len(questions)
        scores["aggregate"] = (scores["task_aggregate"] + scores["mia_score"] + scores["mmlu"]) / 3
    run.write_evaluation(model, answers=list(answers), documents=documents, mmlu=questions if with_mmlu else [],
                         scores=scores, intervals=intervals)


def attack_auc(documents: list[dict]) -> float:
    """P(loss of a member < loss of a non-member) over all pairs, a tie counting one half."""
    members = [d["nll"] for d in documents if d["member"]]
    others = [d["nll"] for d in documents if not d["member"]]
    return sum((m < o) + 0.5 * (m == o) for m in members for o in others) / (len(members) * len(others))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for build in (damaged, unreadable, unfinished, finished):
        print(now(), build(folder).path)
