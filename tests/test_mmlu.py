"""MMLU scoring: the official prompt and letters, and the likelihood of the answer texts."""

import csv
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.data.items import LETTERS, Question
from unlearn_core.errors import InputError
from unlearn_core.evaluation import mmlu
from unlearn_core.evaluation.likelihood import endings_nll
from unlearn_core.evaluation.mmlu import answer_questions, choose, letter_prompt

QUESTIONS = [Question("world_capitals", f"What is the capital of {country}?", (*cities,), correct)
             for country, cities, correct in [
                 ("France", ("Paris", "London", "Rome", "Oslo"), 0), ("Italy", ("Madrid", "Rome", "Cairo", "Oslo"), 1),
                 ("a very long country name, longer than others", ("A city", "B", "the mat", "it"), 2)]]
SOLVED = [Question("world_capitals", f"What is the capital of {i}?", ("a", "b", "c", "d"), i % 4) for i in range(5)]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def next_letter(model, tokenizer, prompt):
    """Arg max over the four letter tokens, one prompt without padding."""
    letters = [tokenizer.encode(f" {letter}", add_special_tokens=False)[-1] for letter in LETTERS]
    with torch.no_grad():
        logits = model(tokenizer(prompt, return_tensors="pt").input_ids).logits[0, -1]
    return int(logits[letters].argmax())


def test_the_prompt_is_the_official_one_with_its_double_space():
    assert letter_prompt(QUESTIONS[0], SOLVED[1:2]) == (
        "The following are multiple choice questions (with answers) about  world capitals.\n\n"
        "What is the capital of 1?\nA. a\nB. b\nC. c\nD. d\nAnswer: B\n\n"
        "What is the capital of France?\nA. Paris\nB. London\nC. Rome\nD. Oslo\nAnswer:")


@pytest.mark.parametrize("shots", [0, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_batched_letter_is_the_one_of_each_prompt_alone(tokenizer, seed, shots):
    model = tiny_model(seed, positions=2048)
    rows = answer_questions(model, tokenizer, QUESTIONS, SOLVED, shots=shots)
    assert [row["predicted"] for row in rows] == [
        next_letter(model, tokenizer, letter_prompt(question, SOLVED[:shots])) for question in QUESTIONS]
    assert rows[1] == {"subject": "world_capitals", "question": "What is the capital of Italy?",
                       "options": ["Madrid", "Rome", "Cairo", "Oslo"], "correct": 1, "predicted": rows[1]["predicted"]}


# ---- the examples of a subject are read once ---------------------------------------------------------------------

SIZES = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "eos_token_id": 0,
         "bos_token_id": None, "max_position_embeddings": 2048}
MODELS = {
    "rotary positions": lambda: tiny_model(positions=2048),
    "grouped keys": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "learned positions": lambda: GPT2LMHeadModel(GPT2Config(
        vocab_size=320, n_positions=2048, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, eos_token_id=0,
        bos_token_id=None)),
    "a sliding window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=40)),
}
OTHER = Question("opposites", "hot?", ("cold", "warm", "the cat", "it"), 0)
OTHERS = [Question("opposites", f"{i}?", ("a", "b", "c", "d"), i % 4) for i in range(5)]


def prompts_of(tokenizer, questions, shots=5):
    return [tokenizer(letter_prompt(question, SOLVED[:shots])).input_ids for question in questions]


def letter_ids(tokenizer):
    return [tokenizer.encode(f" {letter}", add_special_tokens=False)[-1] for letter in LETTERS]


def logits_of_each_alone(model, prompts, letters):
    with torch.no_grad():
        return torch.stack([model(torch.tensor([ids])).logits[0, -1, letters] for ids in prompts])


def shared_logits(model, prompts, letters, batch_size=64):
    """`_letter_logits` in the order of the prompts."""
    with torch.no_grad():
        return mmlu._letter_logits(model, prompts, letters, batch_size)


def tokens_read(model, work):
    """Number of tokens of each forward, padding included."""
    seen = []
    hook = model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    work()
    hook.remove()
    return seen


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_logits_are_those_of_each_whole_prompt_alone(tokenizer, name, batch_size):
    torch.manual_seed(0)
    model, prompts = MODELS[name]().eval(), prompts_of(tokenizer, [*QUESTIONS, QUESTIONS[0]])
    letters = letter_ids(tokenizer)
    torch.testing.assert_close(shared_logits(model, prompts, letters, batch_size),
                               logits_of_each_alone(model, prompts, letters), atol=1e-4, rtol=1e-4)


def test_what_all_prompts_begin_with_is_read_once_for_all_batches(tokenizer):
    prompts = [[5] * 100 + tail for tail in ([1, 2, 3], [1, 2, 4], [2, 2])]  # then at most 3 tokens of their own
    model = tiny_model()
    assert tokens_read(model, lambda: shared_logits(model, prompts, [1, 2, 3, 4])) == [100, 6, 2]  # 2 < 0.8 * 3
    assert tokens_read(model, lambda: shared_logits(model, prompts, [1, 2, 3, 4], 1)) == [100, 3, 3, 2]
    assert tokens_read(model, lambda: shared_logits(model, prompts[:1], [1, 2, 3, 4])) == [103]  # shared with none


def test_a_model_with_a_sliding_window_reads_every_prompt_whole():
    prompts, model = [[5] * 100 + [i] for i in range(3)], MODELS["a sliding window"]()
    assert tokens_read(model, lambda: shared_logits(model, prompts, [1, 2, 3, 4])) == [303]


def test_a_prompt_that_another_begins_with_keeps_its_last_token_to_be_read(tokenizer):
    prompts, model = [[5, 6, 7], [5, 6, 7], [5, 6, 7, 8]], tiny_model()
    torch.testing.assert_close(shared_logits(model, prompts, [1, 2, 3, 4]),
                               logits_of_each_alone(model, prompts, [1, 2, 3, 4]), atol=1e-4, rtol=1e-4)
    assert tokens_read(model, lambda: shared_logits(model, prompts, [1, 2, 3, 4])) == [2, 2, 2]


def test_a_token_across_the_end_of_the_examples_belongs_to_its_own_prompt():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["\n\nWhat is"])  # token 320, the examples' end with the question's beginning
    model = tiny_model(positions=2048)
    model.resize_token_embeddings(321)
    other = Question("world_capitals", "Which city?", ("a", "b", "c", "d"), 0)
    prompts = prompts_of(tokenizer, [QUESTIONS[0], other, QUESTIONS[1]])
    examples = tokenizer(letter_prompt(other, SOLVED).removesuffix(mmlu._asked(other))).input_ids
    assert prompts[1][:len(examples)] == examples
    assert prompts[0][:len(examples)] != examples
    letters = letter_ids(tokenizer)
    torch.testing.assert_close(shared_logits(model, prompts, letters), logits_of_each_alone(model, prompts, letters),
                               atol=1e-4, rtol=1e-4)


def test_batches_shrink_until_keys_and_values_fit(tokenizer, monkeypatch):
    model, prompts, letters = tiny_model(), [[5] * 100 + [i, i + 1] for i in range(6)], [1, 2, 3, 4]
    whole = shared_logits(model, prompts, letters)
    monkeypatch.setattr(mmlu, "KEYS_BUDGET", 4 * 2 * 32 * 102)  # four rows of 102 tokens, keys and values of 32 numbers
    assert tokens_read(model, lambda: shared_logits(model, prompts, letters)) == [100, 8, 4]
    torch.testing.assert_close(shared_logits(model, prompts, letters), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("begin", [False, True])
def test_questions_of_one_subject_each_get_the_examples_that_fit(begin):
    tokenizer = tiny_tokenizer()
    if begin:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    asked = [*QUESTIONS, OTHER, Question("world_capitals", "Where? " * 100, ("a", "b", "c", "d"), 1)]
    limit = len(prompts_of(tokenizer, [QUESTIONS[0]], 3)[0])  # the longest of the others has room for fewer
    model = tiny_model(4, positions=limit)
    rows = answer_questions(model, tokenizer, asked, [*SOLVED, *OTHERS])
    counts = []
    for question, row in zip(asked, rows, strict=True):
        solved = [example for example in [*SOLVED, *OTHERS] if example.subject == question.subject]
        count = next((n for n in range(5, 0, -1) if len(tokenizer(
            letter_prompt(question, solved[:n]), add_special_tokens=False).input_ids) <= limit), 0)
        ids = tokenizer(letter_prompt(question, solved[:count])).input_ids[-limit:]
        logits = logits_of_each_alone(model, [ids], letter_ids(tokenizer))
        assert row["predicted"] == int(logits.argmax())
        counts.append(count)
    assert counts[0] == 3 > counts[2] > counts[4] == 0


def test_progress_counts_the_questions_of_all_subjects(tokenizer):
    seen = []
    answer_questions(tiny_model(positions=2048), tokenizer, [QUESTIONS[0], OTHER, *QUESTIONS[1:]], [*SOLVED, *OTHERS],
                     progress=lambda *state: seen.append(state))
    assert seen[-1] == (4, 4, "MMLU")
    assert sorted(seen) == seen


def test_examples_are_dropped_from_the_end_until_the_prompt_fits(tokenizer):
    question = QUESTIONS[0]
    two = len(tokenizer(letter_prompt(question, SOLVED[:2])).input_ids)
    assert two < len(tokenizer(letter_prompt(question, SOLVED[:3])).input_ids)
    model = tiny_model(2, positions=two)
    row, = answer_questions(model, tokenizer, [question], SOLVED)
    assert row["predicted"] == next_letter(model, tokenizer, letter_prompt(question, SOLVED[:2]))


@pytest.mark.parametrize("seed", range(4))
def test_texts_takes_the_option_with_the_lowest_mean_loss_including_the_end_token(tokenizer, seed):
    model = tiny_model(seed)
    rows = answer_questions(model, tokenizer, QUESTIONS, [], scoring="texts", batch_size=3)
    for question, row in zip(QUESTIONS, rows, strict=True):
        losses = []
        for option in question.options:
            prompt = tokenizer(question.question).input_ids
            ids = prompt + tokenizer(option, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
            labels = [-100] * len(prompt) + ids[len(prompt):]
            with torch.no_grad():
                losses.append(model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item())
        assert row["predicted"] == losses.index(min(losses))


PROMPTS = [[5, 6, 7] * 20, [8, 9], [7, 5, 11, 12] * 12]
ENDINGS = [[[11, 0], [12, 13, 14, 0]], [[15, 0], [0]], [[16, 17, 0], [5, 0]]]


def nll_of_each_alone(model):
    with torch.no_grad():
        return [[model(torch.tensor([prompt + ending]),
                       labels=torch.tensor([[-100] * len(prompt) + ending])).loss.item() for ending in own]
                for prompt, own in zip(PROMPTS, ENDINGS, strict=True)]


@pytest.mark.parametrize("batch_size", [2, 64])  # one prompt with its two endings, and all three together
@pytest.mark.parametrize("kind", MODELS)
def test_an_ending_has_the_loss_that_it_has_alone(kind, batch_size):
    model = MODELS[kind]().eval()
    found = endings_nll(model, PROMPTS, ENDINGS, batch_size)
    assert [pytest.approx(own, abs=2e-5) for own in nll_of_each_alone(model)] == found


def test_a_prompt_is_read_once_for_all_of_its_endings():
    prompt, endings = [5] * 100, [[6, 7, 0], [8, 9, 0], [5, 0], [6, 0]]
    shared = tokens_read(model := tiny_model(positions=2048), lambda: endings_nll(model, [prompt], [endings]))
    assert shared == [99, 4 * 3]  # all but its last token; that and the endings but for their ends, padded
    sliding = tokens_read(model := MODELS["a sliding window"](), lambda: endings_nll(model, [prompt], [endings]))
    assert sum(sliding) == 4 * 103


def test_prompts_of_one_token_or_beyond_the_positions_are_read_with_each_ending():
    model = tiny_model(positions=64)
    (one,), (long,) = endings_nll(model, [[5]], [[[6, 0]]]), endings_nll(model, [[5, 6] * 40], [[[7, 0]]])
    cut = [*[5, 6] * 31, 7, 0]  # 64 tokens
    for loss, ids in ((one[0], [5, 6, 0]), (long[0], cut)):
        with torch.no_grad():
            alone = model(torch.tensor([ids]), labels=torch.tensor([[-100] * (len(ids) - 2) + ids[-2:]])).loss.item()
        assert loss == pytest.approx(alone, abs=1e-5)


def test_a_model_that_knows_the_answer_texts_scores_all_of_them(tokenizer):
    model = tiny_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    rows = [(tokenizer(q.question).input_ids, [*tokenizer(q.options[q.correct]).input_ids, 0]) for q in QUESTIONS]
    for _ in range(60):
        for prompt, answer in rows:
            labels = torch.tensor([[-100] * len(prompt) + answer])
            model(torch.tensor([prompt + answer]), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    rows = answer_questions(model, tokenizer, QUESTIONS, [], scoring="texts")
    assert [row["predicted"] for row in rows] == [0, 1, 2]


def test_too_few_solved_examples_are_an_error_that_names_the_subject(tokenizer):
    with pytest.raises(InputError, match="world_capitals; got 4 solved examples"):
        answer_questions(tiny_model(), tokenizer, QUESTIONS, SOLVED[:4], shots=5)


def test_a_tokenizer_that_cannot_tell_letters_apart_is_refused():
    words = Tokenizer(WordLevel({"<unk>": 0, "France": 1}, unk_token="<unk>"))
    with pytest.raises(InputError, match="mmlu_scoring to texts"):
        answer_questions(tiny_model(), PreTrainedTokenizerFast(tokenizer_object=words), QUESTIONS, [], shots=0)


def test_choose_keeps_the_first_questions_of_the_named_subjects():
    other = Question("opposites", "hot?", ("cold", "b", "c", "d"), 0)
    assert choose([*QUESTIONS, other]) == [*QUESTIONS, other]
    assert choose([*QUESTIONS, other], limit=1) == [QUESTIONS[0], other]
    assert choose([*QUESTIONS, other], subjects=("opposites",)) == [other]
    with pytest.raises(InputError, match="did you mean opposites"):
        choose([*QUESTIONS, other], subjects=("oposites",))


@pytest.mark.skipif("MMLU_DIR" not in os.environ, reason="the MMLU release is needed: set MMLU_DIR")
def test_a_random_model_answers_real_subjects_near_chance(tokenizer):
    def read(part, subject):
        with (Path(os.environ["MMLU_DIR"]) / part / f"{subject}_{part}.csv").open(encoding="utf-8", newline="") as file:
            return [Question(subject, row[0], tuple(row[1:5]), LETTERS.index(row[5])) for row in csv.reader(file)]

    questions = read("test", "anatomy")
    rows = answer_questions(tiny_model(positions=2048), tokenizer, questions[:40], read("dev", "anatomy"), shots=1)
    assert len(rows) == 40
    assert sum(row["correct"] == row["predicted"] for row in rows) < 24  # 0.25 + 5 standard errors


@pytest.mark.parametrize("scoring", ["letters", "texts"])
def test_a_model_of_nans_chooses_nothing(scoring):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    rows = answer_questions(model, tiny_tokenizer(), QUESTIONS, [], scoring=scoring, shots=0)
    assert {row["predicted"] for row in rows} == {-1}
