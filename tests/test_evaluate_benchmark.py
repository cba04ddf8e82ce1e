"""The evaluation benchmark: both of its sides on a tiny model, and what it takes of the data."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from benchmarks import evaluate as benchmark
from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core import data
from unlearn_core.data import world
from unlearn_core.evaluation.mmlu import letter_prompt
from unlearn_core.settings import Data, World

LIMIT = 12


@pytest.fixture(scope="module")
def dataset():
    sides = world.generate(World(stories=2, people=2, biographies=2), 0)
    return data.assemble(sides.forget, sides.retain, [], [], [], data=Data(holdout_share=0.5), seed=0,
                         base_is_trained_here=True, mia_members="forget")


def model_that_ends(tokenizer, prompts):
    """A random model with an end token that some of its answers reach and others don't."""
    model = tiny_model(3, positions=1024)
    written = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        written.append(model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=LIMIT, do_sample=False,
                                      pad_token_id=0)[0, ids.shape[1]:].tolist())
    counts = {token: sum(token in answer for answer in written) for answer in written for token in answer}
    model.generation_config.eos_token_id = next(t for t, n in counts.items() if t and 1 < n < len(prompts))
    return model


def test_both_sides_find_the_same_and_only_one_writes_on_after_the_end(dataset, monkeypatch):
    monkeypatch.setattr(benchmark, "NEW_TOKENS", LIMIT)
    tokenizer, few = tiny_tokenizer(), benchmark.few(dataset, 6)
    model = model_that_ends(tokenizer, [item.prompt for item in few.forget])
    fast = benchmark.ours(few, model, tokenizer)
    always, ending = (benchmark.released(few, model, tokenizer, ends) for ends in (False, True))
    assert always.tokens == 12 * LIMIT > ending.tokens == fast.tokens
    assert all(fast.texts.values())
    for slow in (always, ending):
        benchmark.check(slow, fast)
    with pytest.raises(AssertionError, match="texts differ"):
        benchmark.check(always, replace(fast, texts={**fast.texts, next(iter(fast.texts)): "?"}))
    with pytest.raises(AssertionError, match="mia_auc"):
        benchmark.check(always, replace(fast, scores={**fast.scores, "mia_auc": 2.0}))


def test_items_are_taken_of_tasks_and_kinds_in_turn(dataset):
    few = benchmark.few(dataset, 6)
    assert len({(item.task, item.kind) for item in few.forget}) == len(few.forget) == 6
    assert [entry.member for entry in few.attack] == [True, True, False, False]  # a third of 6 each


def test_full_prompts_and_shared_examples_predict_the_same_letters():
    tokenizer, model = tiny_tokenizer(), tiny_model(1, positions=2048)
    dev, test = benchmark.quiz(None, 2, 3)
    found = benchmark.answer_questions(model, tokenizer, test, dev)
    for size in (1, 64):
        assert benchmark.full_prompts(model, tokenizer, test, dev, size) == [row["predicted"] for row in found]


def test_made_up_questions_are_about_as_long_as_those_of_mmlu():
    dev, test = benchmark.made_up(3, 100)
    assert len(dev) == 15
    empty = len(letter_prompt(replace(test[0], question="", options=("",) * 4), []))  # header and letters
    assert 400 < fmean(len(letter_prompt(question, [])) - empty for question in test) < 480  # MMLU: 466 - 24


def test_options_read_with_their_question_each_give_the_same_choices(capsys):
    _, test = benchmark.made_up(2, 3)
    benchmark.texts(tiny_model(positions=2048), tiny_tokenizer(), test)
    assert "predictions equal" in capsys.readouterr().out
