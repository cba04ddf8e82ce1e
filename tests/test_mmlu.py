"""MMLU scoring: the official prompt and letters, and the likelihood of the answer texts."""

import csv
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.data.items import LETTERS, Question
from unlearn_core.errors import InputError
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
