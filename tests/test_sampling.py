"""Sampling against the probabilities it draws from, and token probabilities against one forward per token."""

import math

import pytest
import torch

from unlearn_core import run_models
from unlearn_core.errors import InputError
from unlearn_core.evaluation.generation import generate
from unlearn_core.evaluation.likelihood import answer_nll
from unlearn_core.evaluation.sampling import sample, sampler, token_log_probs

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


@pytest.fixture(scope="module")
def base(smoke_run):
    return run_models.load(smoke_run, smoke_run.recipe(), "base", "cpu")


def shares(choose, rows=20_000):
    """Share of each of four tokens among many draws."""
    return torch.bincount(choose(LOGITS.expand(rows, -1)), minlength=4) / rows


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_the_softmax_says(temperature):
    wanted = (LOGITS / temperature).softmax(-1)
    error = (wanted * (1 - wanted) / 20_000).sqrt()  # of a binomial share
    assert ((shares(sampler(temperature, 1.0, 0, "cpu")) - wanted).abs() < 4.5 * error).all()


def test_top_p_keeps_the_smallest_set_that_is_probable_enough():
    # softmax of (2, 1, 0, -1) = .644 .237 .087 .032: .8 needs the first two, which then share .881
    found = shares(sampler(1.0, 0.8, 0, "cpu"))
    assert found[2:].tolist() == [0, 0]
    assert found[0] == pytest.approx(0.644 / 0.881, abs=0.015)
    assert shares(sampler(1.0, 0.644, 0, "cpu"))[0] < 1  # .6439 is not yet .644
    assert shares(sampler(1.0, 0.64, 0, "cpu"))[0] == 1


def test_near_temperature_zero_sampling_is_greedy(base, smoke_run):
    prompts = [row["prompt"] for row in smoke_run.answers("base")[:4]]
    drawn = sample(*base, prompts, samples=2, temperature=1e-4, max_new_tokens=10)
    assert drawn == [[answer] * 2 for answer in generate(*base, prompts, max_new_tokens=10)]


@pytest.mark.parametrize("odd", [
    {"temperature": 0.0}, {"temperature": 1, "top_p": 0}, {"temperature": 1, "samples": 0}])
def test_settings_that_draw_nothing_are_refused(base, odd):
    with pytest.raises(InputError, match="expected a temperature above 0"):
        sample(*base, ["a"], **{"samples": 1, **odd})


# ---- probabilities of given tokens ----------------------------------------------------------------------------

def one_by_one(model, tokenizer, prompt, answer):
    """log p of each answer token, from a forward of its own over all that stands before it."""
    ids, start = tokenizer(prompt + answer)["input_ids"], len(tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        return [model(torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1)[ids[place]].item()
                for place in range(start, len(ids))]


@pytest.mark.parametrize("answer", [" Zoë, 37 — 900-51-4344 🙂 done.", " x", " a\nb  c"])
def test_token_probabilities_equal_one_forward_per_token_and_their_texts_are_the_answer(base, answer):
    prompt = "Who had it in the end?"
    tokens = token_log_probs(*base, prompt, answer)
    assert [token.log_prob for token in tokens] == pytest.approx(one_by_one(*base, prompt, answer), abs=1e-4)
    assert "".join(token.text for token in tokens) == answer


def test_their_mean_is_the_evaluations_nll(base, smoke_run):
    for row in smoke_run.answers("base")[:6]:
        tokens = token_log_probs(*base, row["prompt"], row["answer"])
        (nll, count), = answer_nll(*base, [(row["prompt"], row["answer"])])
        assert len(tokens) == count
        assert -math.fsum(token.log_prob for token in tokens) / count == pytest.approx(nll, abs=1e-4)


def test_without_a_prompt_the_first_token_has_no_probability(base):
    model, tokenizer = base
    assert len(token_log_probs(model, tokenizer, "", "abc def")) == len(tokenizer("abc def")["input_ids"]) - 1
    assert token_log_probs(model, tokenizer, "abc", "") == []
