"""Batched greedy generation against Hugging Face's own `generate`, one prompt at a time."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.evaluation.generation import Generation, _read, generate

PROMPTS = ["the cat", "what is the capital of France", "a", "Paris and London", "on the mat on the mat on the mat",
           "cat?", "what", "London and the cat sat", "xyz 123", "the the the"]
LIMIT = 24


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def one_at_a_time(model, tokenizer, prompt):
    """New token ids, as the official script asks Hugging Face for them."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    return model.generate(ids, max_new_tokens=LIMIT, do_sample=False, use_cache=True,
                          attention_mask=torch.ones_like(ids), pad_token_id=0)[0, ids.shape[1]:].tolist()


def model_that_ends(tokenizer, seed):
    """A random model and its end tokens: the tokenizer's, and one that some answers reach early and others never."""
    model = tiny_model(seed)
    written = [one_at_a_time(model, tokenizer, prompt) for prompt in PROMPTS]
    tokens = sorted({token for answer in written for token in answer})
    reached = {token: sum(token in answer for answer in written) for token in tokens}
    end = next(t for t in tokens if t and 2 <= reached[t] <= 6)
    model.generation_config.eos_token_id = [end, tokenizer.eos_token_id]
    return model, [end, tokenizer.eos_token_id]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batched_answers_equal_those_of_hugging_face_one_at_a_time(tokenizer, seed, batch_size):
    model, ends = model_that_ends(tokenizer, seed)
    answers = generate(model, tokenizer, PROMPTS, max_new_tokens=LIMIT, batch_size=batch_size)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = one_at_a_time(model, tokenizer, prompt)
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.hit_limit == (expected[-1] not in ends)
        assert answer.new_tokens == len(expected) - (expected[-1] in ends)
    assert {answer.hit_limit for answer in answers} == {True, False}


def test_a_model_with_a_sliding_window_is_batched_right_too(tokenizer):
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, initializer_range=0.3, eos_token_id=0, bos_token_id=None)).eval()
    for prompt, answer in zip(PROMPTS, generate(model, tokenizer, PROMPTS, max_new_tokens=LIMIT), strict=True):
        assert answer.text == tokenizer.decode(one_at_a_time(model, tokenizer, prompt), skip_special_tokens=True)


def test_answers_longer_than_the_reserved_cache_are_those_of_hugging_face(tokenizer, monkeypatch):
    monkeypatch.setattr("unlearn_core.evaluation.cache.RESERVED", 5)
    model, _ = model_that_ends(tokenizer, 3)
    for prompt, answer in zip(PROMPTS, generate(model, tokenizer, PROMPTS, max_new_tokens=LIMIT), strict=True):
        assert answer.text == tokenizer.decode(one_at_a_time(model, tokenizer, prompt), skip_special_tokens=True)


def test_the_tokenizers_end_token_also_ends_an_answer(tokenizer):
    model, (end, _) = model_that_ends(tokenizer, 0)
    model.generation_config.eos_token_id = 319
    tokenizer_of_that_end = tiny_tokenizer()
    tokenizer_of_that_end.eos_token = tokenizer.convert_ids_to_tokens(end)
    answers = generate(model, tokenizer_of_that_end, PROMPTS, max_new_tokens=LIMIT)
    assert not all(answer.hit_limit for answer in answers)


def test_an_empty_prompt_starts_from_the_end_token_where_there_is_no_begin_token(tokenizer):
    model = tiny_model()
    empty, = generate(model, tokenizer, [""], max_new_tokens=5)
    started, = generate(model, tokenizer, ["<|end|>"], max_new_tokens=5)
    assert empty == started


def test_a_prompt_beyond_the_models_positions_keeps_its_last_tokens_and_leaves_room_for_one(tokenizer):
    model = tiny_model(positions=16)
    ids = tokenizer("the cat sat on the mat " * 10).input_ids
    long, tail = tokenizer.decode(ids), tokenizer.decode(ids[-15:])
    assert tokenizer(tail).input_ids == ids[-15:]
    answers = generate(model, tokenizer, [long, tail, "cat"], max_new_tokens=LIMIT)
    assert answers[0] == answers[1]
    assert answers[0].new_tokens <= 1
    assert answers[2].new_tokens <= 16 - len(tokenizer("cat").input_ids)


def test_an_adapted_model_generates_as_its_merged_weights_do(tokenizer):
    torch.manual_seed(1)
    adapted = get_peft_model(tiny_model(), LoraConfig(r=4, lora_alpha=64, target_modules="all-linear",
                                                      init_lora_weights=False, lora_dropout=0.5))
    adapted.train()
    answers = generate(adapted, tokenizer, PROMPTS, max_new_tokens=LIMIT)
    assert adapted.training
    assert answers != generate(tiny_model(), tokenizer, PROMPTS, max_new_tokens=LIMIT)
    assert answers == generate(adapted.merge_and_unload(), tokenizer, PROMPTS, max_new_tokens=LIMIT)


def test_the_mode_of_the_model_is_restored_after_an_error(tokenizer):
    model = tiny_model().train()
    with pytest.raises(ZeroDivisionError):
        generate(model, tokenizer, PROMPTS, max_new_tokens=2, progress=lambda done, total, label: 1 / 0)
    assert model.training


def test_spaces_before_punctuation_are_cleaned_up_as_officially(tokenizer):
    tokens = tokenizer("Paris , is n't it ?").input_ids
    assert _read(tokenizer, [*tokens, 0], {0}) == Generation("Paris, isn't it?", len(tokens), False)
    assert _read(tokenizer, tokens, {0}) == Generation("Paris, isn't it?", len(tokens), True)


def test_progress_counts_up_to_all_prompts_and_no_prompts_are_no_work(tokenizer):
    seen = []
    generate(tiny_model(), tokenizer, PROMPTS, max_new_tokens=2, batch_size=4,
             progress=lambda *state: seen.append(state))
    assert seen == [(4, 10, "answers"), (8, 10, "answers"), (10, 10, "answers")]
    assert generate(tiny_model(), tokenizer, []) == []
