"""ROUGE-L recall against Google's rouge_score."""

import itertools
import json
import os
import random
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from unlearn_core import pipeline
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.evaluation import rouge
from unlearn_core.evaluation.rouge import lcs_length, rouge_l_recall
from unlearn_core.store import Store

OFFICIAL = RougeScorer(["rougeL"], use_stemmer=True)
WORDS = ["running", "runs", "run", "the", "Cat", "cats", "happily", "900-51-4344", "été", "relational", "1996", "a",
         "first_last@me.com", "!", "nan", "\n", "İstanbul", "ﬁne"]


def official(reference, generation):
    return OFFICIAL.score(reference, generation)["rougeL"].recall


def naive_lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_two_of_four_reference_tokens_in_order_are_one_half():
    assert rouge_l_recall("the cat sat down", "down the road a cat") == 2 / 4


def test_stemming_and_case_make_running_cats_match_run_cat():
    assert rouge_l_recall("Running cats", "run cat") == official("Running cats", "run cat") == 1.0


def test_text_after_the_right_continuation_costs_nothing():
    assert rouge_l_recall("the cat sat", "the cat sat and then went on for 200 more words") == 1.0


@pytest.mark.parametrize(("reference", "generation"), [("the cat", ""), ("", "the cat"), ("", ""), ("!?", "!?")])
def test_text_without_tokens_scores_zero(reference, generation):
    assert rouge_l_recall(reference, generation) == official(reference, generation) == 0


def test_random_texts_score_as_rouge_score_does():
    rng = random.Random(0)
    for _ in range(300):
        reference, generation = (" ".join(rng.choices(WORDS, k=rng.randrange(0, 30))) for _ in range(2))
        assert rouge_l_recall(reference, generation) == official(reference, generation)


def test_lcs_length_is_that_of_the_quadratic_table():
    rng = random.Random(1)
    for _ in range(300):
        a, b = (rng.choices("abcd", k=rng.randrange(0, 80)) for _ in range(2))
        assert lcs_length(a, b) == naive_lcs(a, b)


@pytest.mark.skipif("LUME_DIR" not in os.environ, reason="the LUME release is needed: set LUME_DIR")
def test_real_documents_score_as_rouge_score_does():
    lines = (Path(os.environ["LUME_DIR"]) / "forget.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    items = [row for row in rows if row["id"][:-1].endswith("sc")][::12]
    for item, other in itertools.pairwise(items):
        assert rouge_l_recall(item["output"], other["input"]) == official(item["output"], other["input"])
        assert rouge_l_recall(item["output"], item["input"]) == official(item["output"], item["input"])


def test_a_machine_that_cannot_score_says_so_before_a_run_and_leaves_none(monkeypatch, tmp_path):
    rouge.require()  # everything is here
    monkeypatch.setattr(rouge, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=r"got no package rouge-score and nltk; .*pip install rouge-score"):
        pipeline.start(recipes.load("smoke"), Store(tmp_path), device="cpu")
    assert Store(tmp_path).runs() == []
