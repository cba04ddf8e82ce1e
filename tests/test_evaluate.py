"""A whole evaluation of a tiny model: rows, scores and progress."""

import json

import pytest

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.data import AttackDocument, Dataset, Item, Question
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.settings import Evaluation
from unlearn_core.vocabulary import METRICS, TASKS

ITEMS = [Item(f"{number}{suffix}", prompt, "the mat", task) for number, task in enumerate(TASKS)
         for suffix, prompt in (("sc1", "the cat sat on"), ("qa0", "what is the capital of France"))]
ATTACK = [AttackDocument("1", "Task1", "the cat sat", True), AttackDocument("2", "Task3", "Paris and London", True),
          AttackDocument("3", "Task1", "a mat", False), AttackDocument("4", "Task3", "on the mat", False),
          AttackDocument("5", "", "what is", False)]
QUIZ = [Question("capitals", "what is the capital", ("Paris", "London", "the cat", "the mat"), 0)]
DATASET = Dataset(forget=ITEMS, retain=ITEMS, holdout=[], general=[], attack=ATTACK, mmlu_dev=[], mmlu_test=QUIZ)
SETTINGS = Evaluation(max_new_tokens=8, mmlu_scoring="texts", mmlu_shots=0)


def test_an_evaluation_has_every_row_column_and_metric_and_fits_into_json():
    seen = []
    result = evaluate(tiny_model(), tiny_tokenizer(), DATASET, SETTINGS, lambda *state: seen.append(state))
    assert [(row["split"], row["id"]) for row in result.answers] == [
        (split, item.id) for split in ("forget", "retain") for item in ITEMS]
    common = {"id", "document", "split", "task", "kind", "prompt", "answer", "generation", "nll", "answer_tokens",
              "new_tokens", "hit_limit"}
    assert result.answers[0].keys() == common | {"rouge_l"}
    assert result.answers[1].keys() == common | {"exact_match"}
    assert result.documents[0].keys() == {"document", "task", "member", "nll", "tokens"}
    assert result.mmlu[0].keys() == {"subject", "question", "options", "correct", "predicted"}
    assert result.scores.keys() == METRICS.keys()
    assert seen == [(12, 12, "answers"), (12, 12, "likelihood"), (5, 5, "attack"), (1, 1, "MMLU")]
    json.dumps([result.answers, result.documents, result.mmlu, result.scores, result.intervals], allow_nan=False)


def test_the_batch_size_changes_no_answer_and_no_score():
    one, many = (evaluate(tiny_model(), tiny_tokenizer(), DATASET, Evaluation(
        max_new_tokens=8, mmlu_scoring="texts", mmlu_shots=0, batch_size=size)) for size in (1, 64))
    assert [row["generation"] for row in one.answers] == [row["generation"] for row in many.answers]
    assert one.scores == many.scores
    assert [row["nll"] for row in one.documents] == pytest.approx([row["nll"] for row in many.documents], rel=1e-5)
