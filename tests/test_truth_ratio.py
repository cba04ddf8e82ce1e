"""The truth ratio: which wrong answers are drawn, the ratio against its definition, and the test of forget quality."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstwo

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.data import Item
from unlearn_core.evaluation import truth_ratio
from unlearn_core.evaluation.truth_ratio import by_document, forget_quality, wrong_answers


def person(name, ssn, mail):
    return [Item(f"{name}sc0", f"{name} was born", "in May.", "Task2"),
            Item(f"{name}qa0", f"What is the Social Security Number of {name} X?", ssn, "Task2"),
            Item(f"{name}qa1", f"What is the e-mail address of {name} X?", mail, "Task2")]


ANA, BEN, CAT = person("Ana", "111", "a@x"), person("Ben", "222", "b@x"), person("Cat", " 111 ", "c@x")
STORY = [Item("s1qa0", "Who took it?", "Tom", "Task1"), Item("s2qa0", "Who sold it?", "Eve", "Task1")]
EVERYTHING = [*ANA, *BEN, *CAT, *STORY]


# ---- wrong answers

def test_a_wrong_answer_is_what_another_document_answers_to_the_same_question():
    found = wrong_answers(EVERYTHING, EVERYTHING)
    assert found.keys() == {"Anaqa0", "Anaqa1", "Benqa0", "Benqa1", "Catqa0", "Catqa1", "s1qa0", "s2qa0"}  # no sc
    assert sorted(found["Anaqa1"]) == ["b@x", "c@x"]  # the same field, and no number
    assert found["Anaqa0"] == ["222"]  # Cat's is the same up to white space: it would be right
    assert len(found["Benqa0"]) == 1  # Ana's and Cat's are one answer
    assert found["s1qa0"] == ["Eve"]


def test_the_field_that_the_data_state_goes_before_the_number_of_the_question():
    stated = [dataclasses.replace(BEN[1], id="Benqa4", field="ssn"), dataclasses.replace(CAT[2], id="Catqa0")]
    assert wrong_answers(ANA, stated) == {"Anaqa0": ["222"], "Anaqa1": ["c@x"]}


def test_questions_of_another_number_or_task_are_no_source():
    others = [Item("s2qa1", "Who?", "Eve", "Task1"), Item("b1qa0", "Who?", "Eve", "Task3")]
    assert wrong_answers(STORY[:1], others) == {}


def test_the_draw_depends_on_the_seed_and_not_on_the_order():
    others = [Item(f"d{n}qa0", "Who?", f"name {n}", "Task1") for n in range(30)]
    found = wrong_answers(STORY[:1], others)["s1qa0"]
    assert len(set(found)) == 5
    assert wrong_answers(STORY[:1], others[::-1])["s1qa0"] == found
    assert wrong_answers(STORY[:1], others, seed=1)["s1qa0"] != found
    assert len(wrong_answers(STORY[:1], others, most=2)["s1qa0"]) == 2


# ---- the ratio

def per_token(model, tokenizer, prompt, answer):
    """p(answer | prompt)^(1 / tokens), one token at a time."""
    start, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(prompt)["input_ids"] + tokenizer(answer)["input_ids"]
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return math.exp(sum(float(log_p[t - 1, ids[t]]) for t in range(start, len(ids))) / (len(ids) - start))


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_ratio_is_the_mean_of_the_wrong_answers_over_the_right_one(batch_size):
    model, tokenizer, wrong = tiny_model(), tiny_tokenizer(), {"Anaqa1": ["b@x", "c@longer.com"], "s1qa0": ["Eve"]}
    rows = truth_ratio.truth_ratios(model, tokenizer, EVERYTHING, wrong, batch_size=batch_size)
    assert [(row["id"], row["document"]) for row in rows] == [("Anaqa1", "Ana"), ("s1qa0", "s1")]
    for row, item in zip(rows, (ANA[2], STORY[0]), strict=True):
        right, *others = (per_token(model, tokenizer, item.prompt, answer) for answer in (item.answer, *wrong[item.id]))
        assert row["ratio"] == pytest.approx(sum(others) / len(others) / right, rel=1e-4)


def test_a_model_that_knows_the_answer_is_far_below_one_and_one_that_avoids_it_far_above():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    item, wrong = Item("aqa0", "the cat sat on", " A", "Task1"), {"aqa0": [" B", " C"]}
    head = model.get_output_embeddings().weight
    token = tokenizer(" A")["input_ids"][0]
    with torch.no_grad():
        state = model(torch.tensor([tokenizer(item.prompt)["input_ids"]]), output_hidden_states=True).hidden_states[-1]
        direction = state[0, -1] / state[0, -1].norm() ** 2
        head[token] += 30 * direction
        [known] = truth_ratio.truth_ratios(model, tokenizer, [item], wrong)
        head[token] -= 60 * direction
        [avoided] = truth_ratio.truth_ratios(model, tokenizer, [item], wrong)
    assert known["ratio"] < 0.01
    assert avoided["ratio"] > 100


def test_an_extreme_loss_gives_a_number_and_a_loss_that_is_none_gives_none():
    assert truth_ratio._ratio(2000.0, [1.0]) == pytest.approx(math.exp(700))
    assert truth_ratio._ratio(1.0, [2000.0, 2001.0]) == pytest.approx(math.exp(-700))
    assert truth_ratio._ratio(None, [1.0]) is None
    assert truth_ratio._ratio(1.0, [1.0, None]) is None


def test_a_document_has_one_ratio_the_geometric_mean_of_its_own():
    rows = [{"document": "a", "ratio": 0.5}, {"document": "a", "ratio": 8.0}, {"document": "b", "ratio": 3.0},
            {"document": "c", "ratio": None}]
    assert by_document(rows) == {"a": pytest.approx(2.0), "b": pytest.approx(3.0)}  # sqrt(0.5 * 8) = 2


# ---- forget quality

def test_forget_quality_is_the_largest_distance_of_the_two_distributions():
    # Shares up to 2: 2 of 4 and 0 of 4; from there on they draw nearer.
    ratios, reference = ({name: value for name, value in zip("abcd", values, strict=True)}
                         for values in ([1, 2, 5, 6], [3, 4, 7, 8]))
    found = forget_quality(ratios, reference)
    assert (found["distance"], found["n"]) == (0.5, 4)


def test_p_is_that_of_the_kolmogorov_smirnov_distribution():
    chance = np.random.default_rng(0)
    a, b = ({str(n): value for n, value in enumerate(chance.normal(shift, 1, 4000))} for shift in (0, 0.03))
    found = forget_quality(a, b)
    grid = np.sort([*a.values(), *b.values()])
    own, other = (np.searchsorted(np.sort(list(side.values())), grid, "right") / 4000 for side in (a, b))
    assert found["distance"] == pytest.approx(np.abs(own - other).max())
    assert found["p"] == pytest.approx(kstwo.sf(found["distance"], 2000), rel=0.05)  # 4000 * 4000 / 8000


def test_only_documents_that_both_have_are_compared():
    found = forget_quality({"a": 1.0, "b": 2.0, "only": 9.0}, {"b": 2.0, "a": 1.0, "other": 0.1})
    assert (found["distance"], found["p"], found["n"]) == (0.0, 1.0, 2)
    with pytest.raises(ValueError, match="no document"):
        forget_quality({"a": 1.0}, {"b": 1.0})


def test_distributions_that_are_all_but_equal_have_a_p_of_1_without_a_warning(recwarn):
    ratios = {str(n): float(n) for n in range(1000)}  # SciPy's exact p would be above 1 by rounding
    found = forget_quality(ratios, {name: value - 0.5 for name, value in ratios.items()})
    assert (found["distance"], found["p"]) == (pytest.approx(0.001), pytest.approx(1.0))
    assert not recwarn.list
