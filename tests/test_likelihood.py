"""Likelihoods against Hugging Face's loss on one text at a time."""

import math

import pytest
import torch

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.evaluation import likelihood
from unlearn_core.evaluation.likelihood import answer_nll, document_nll

TEXTS = ["the cat sat on the mat", "what is the capital of France", "ab", "Paris and London and Paris " * 5, "a b c d"]
PAIRS = [("what is the capital of France", "Paris"), ("the cat sat on", "the mat"), ("x", "Paris and London " * 6),
         ("the cat", " sat")]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def official_loss(model, tokenizer, text, masked=0):
    ids = tokenizer(text, return_tensors="pt").input_ids
    labels = ids.clone()
    labels[:, :masked] = -100
    with torch.no_grad():
        return model(ids, labels=labels).loss.item()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_document_nll_is_the_loss_of_all_tokens_for_any_batch_size(tokenizer, batch_size):
    model = tiny_model()
    for text, (nll, tokens) in zip(TEXTS, document_nll(model, tokenizer, TEXTS, batch_size=batch_size), strict=True):
        assert nll == pytest.approx(official_loss(model, tokenizer, text), rel=1e-5)
        assert tokens == len(tokenizer(text).input_ids) - 1


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answer_nll_masks_the_tokens_of_the_prompt_alone(tokenizer, batch_size):
    model = tiny_model(1)
    for (prompt, answer), (nll, tokens) in zip(PAIRS, answer_nll(model, tokenizer, PAIRS, batch_size=batch_size),
                                               strict=True):
        masked = len(tokenizer(prompt).input_ids)
        assert nll == pytest.approx(official_loss(model, tokenizer, prompt + answer, masked), rel=1e-5)
        assert tokens == len(tokenizer(prompt + answer).input_ids) - masked


def test_a_token_that_merges_prompt_and_answer_is_masked_with_the_prompt(tokenizer):
    prompt, answer = "the ca", "t"
    assert len(tokenizer(prompt + answer).input_ids) <= len(tokenizer(prompt).input_ids)
    assert answer_nll(tiny_model(), tokenizer, [(prompt, answer)]) == [(None, 0)]


def test_texts_without_a_predicted_token_have_no_loss_and_no_nan(tokenizer):
    assert document_nll(tiny_model(), tokenizer, ["", "a", "the cat"])[:2] == [(None, 0), (None, 0)]
    assert document_nll(tiny_model(), tokenizer, []) == []
    assert answer_nll(tiny_model(), tokenizer, []) == []


def test_a_small_logits_budget_only_makes_more_batches(tokenizer, monkeypatch):
    whole = document_nll(tiny_model(), tokenizer, TEXTS)
    batches = []
    monkeypatch.setattr(likelihood, "LOGITS_BUDGET", 320 * 30)
    split = document_nll(tiny_model(), tokenizer, TEXTS, progress=lambda *state: batches.append(state))
    assert len(batches) > 1
    assert [n for _, n in split] == [n for _, n in whole]
    assert [nll for nll, _ in split] == pytest.approx([nll for nll, _ in whole], rel=1e-5)


def test_a_document_beyond_the_models_positions_is_scored_on_its_last_tokens(tokenizer):
    model = tiny_model(positions=8)
    ids = tokenizer(TEXTS[3]).input_ids
    (nll, tokens), = document_nll(model, tokenizer, [TEXTS[3]])
    with torch.no_grad():
        tail = torch.tensor([ids[-8:]])
        assert nll == pytest.approx(model(tail, labels=tail).loss.item(), rel=1e-5)
    assert tokens == 7


def test_a_model_of_nans_has_no_losses_but_tokens(tokenizer):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    found = document_nll(model, tokenizer, TEXTS)
    assert [tokens for _, tokens in found] == [tokens for _, tokens in document_nll(tiny_model(), tokenizer, TEXTS)]
    assert {nll for nll, _ in found} == {None}
