"""Measures of repetition: worked examples, what a collapsed model writes, and that ordinary text is not flagged."""

import os
import random
from pathlib import Path

import pytest

from unlearn_core.data import readers, world
from unlearn_core.evaluation import collapse
from unlearn_core.evaluation.collapse import Repetition, is_repetitive, repeated_share, repetition
from unlearn_core.settings import World

NOTHING = Repetition(0.0, 0, 0)
REFERENCE = repetition("At night Carla carried it off to Harwell.")


def test_repetition_is_the_share_of_3_grams_that_were_there_before():
    # abc bca cab abc bca: five 3-grams, three of them distinct
    assert repeated_share("abcabca") == pytest.approx(1 - 3 / 5)
    assert repeated_share("abc") == 0
    assert repeated_share("ab") == 0  # no 3-gram at all
    assert repeated_share("aab", n=1) == pytest.approx(1 / 3)


def test_runs_are_counted_in_words_of_any_case_and_in_signs_without_white_space():
    assert repetition("Cha cha CHA boo") == Repetition(0.0, 3, 2)
    assert repetition("6 66\n6, end") == Repetition(0.0, 1, 4)
    assert repetition("") == repetition(" \n") == NOTHING


@pytest.mark.parametrize("text", ["666666666", "6 6 6 6 6 6", "aaaaaaaaaaaaaa", ". . . . . . . .", "the the the the",
                                  "the sea, the sea, the sea, the sea"])
def test_what_a_collapsed_model_writes_is_repetitive(text):
    assert is_repetitive(repetition(text), REFERENCE)


@pytest.mark.parametrize("text", ["", "666", "At night Carla carried it off to Harwell.", "APT 000001", "Cha cha cha",
                                  "It was Kaja who stole it, and it was Kaja who sold it."])
def test_ordinary_text_is_not(text):
    assert not is_repetitive(repetition(text), REFERENCE)


@pytest.mark.parametrize("text", ["row, row, row your boat, " * 4, "no no no no no", "0000000"])
def test_a_text_that_repeats_no_more_than_its_reference_is_not_repetitive(text):
    assert is_repetitive(repetition(text), NOTHING)
    assert not is_repetitive(repetition(text), repetition(text))


def test_no_reference_answer_of_a_generated_world_is_repetitive():
    sides = world.generate(World(stories=30, people=30, biographies=30), 0)
    answers = [item.answer for item in sides.forget + sides.retain]
    assert [answer for answer in answers if is_repetitive(repetition(answer), NOTHING)] == []


@pytest.mark.skipif("LUME_DIR" not in os.environ, reason="LUME_DIR is not set: the LUME release is not here")
def test_the_flags_lie_just_above_what_the_reference_answers_of_lume_reach():
    found = [repetition(item.answer) for split in ("forget", "retain")
             for item in readers.read_items(Path(os.environ["LUME_DIR"]) / f"{split}.jsonl")]
    assert 0.25 < max(own.share for own in found) < collapse.REPETITION
    assert max(own.words for own in found) == collapse.WORD_RUN - 1
    assert max(own.signs for own in found) == collapse.SIGN_RUN - 1


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_run_of_signs_is_the_run_of_any_values(seed):
    chance = random.Random(seed)
    text = "".join(chance.choice("aab\u00e9\n6") for _ in range(chance.randrange(40)))
    assert collapse.longest_sign_run(text) == collapse.longest_run(text)
