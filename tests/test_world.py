"""The generated world: LUME's form, unique people, two exchangeable sides, and a quiz with one right option."""

import dataclasses
import math
import re
from collections import Counter
from datetime import date

import pytest

from unlearn_core import data
from unlearn_core import recipe as recipes
from unlearn_core.data import world
from unlearn_core.data.facts import FACTS
from unlearn_core.errors import InputError
from unlearn_core.settings import World
from unlearn_core.vocabulary import TASKS

SMALL = World(stories=6, people=5, biographies=7, quiz_per_subject=4)
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
DOCUMENT = {"Task1": f'"{UUID}"', "Task2": UUID, "Task3": r"\d{7,8}"}


@pytest.fixture(scope="module")
def small():
    return world.generate(SMALL, seed=3)


@pytest.fixture(scope="module")
def demo():
    """The demo's dataset, holdout taken out."""
    recipe = recipes.load("demo")
    sides = world.generate(recipe.world, recipe.seed)
    return data.assemble(sides.forget, sides.retain, sides.general, sides.mmlu_dev, sides.mmlu_test, data=recipe.data,
                         seed=recipe.seed, base_is_trained_here=True, mia_members=recipe.evaluation.mia_members)


def people(sides):
    """{document: its items by suffix} of Task2, both sides."""
    found = {}
    for item in sides.forget + sides.retain:
        if item.task == "Task2":
            found.setdefault(item.document, {})[item.id.removeprefix(item.document)] = item
    return found


def documents(items):
    """{task: set of document ids}"""
    return {task: {item.document for item in items if item.task == task} for task in TASKS}


# ---- form ------------------------------------------------------------------------------------------------------

def test_a_seed_gives_one_world_and_another_seed_another(small):
    assert world.generate(SMALL, seed=3) == small
    other = world.generate(SMALL, seed=4)
    assert {i.document for i in other.forget}.isdisjoint(i.document for i in small.forget)


def test_both_sides_have_the_same_number_of_documents_and_items_per_task_and_type(small):
    counts = [Counter((item.task, item.kind) for item in side) for side in (small.forget, small.retain)]
    assert counts[0] == counts[1] == {("Task1", "sc"): 6, ("Task1", "qa"): 6, ("Task2", "sc"): 5, ("Task2", "qa"): 25,
                                      ("Task3", "sc"): 7, ("Task3", "qa"): 7}


def test_no_document_and_no_text_is_on_both_sides(small):
    assert data.overlap(small.forget, small.retain) == []


def test_ids_have_the_releases_form_and_are_unique(small):
    items = small.forget + small.retain
    assert max(Counter(item.id for item in items).values()) == 1
    suffixes = {"Task1": "sc1|qa0", "Task2": "sc1|qa[0-4]", "Task3": "sc1|qa0"}
    assert [i.id for i in items if not re.fullmatch(f"{DOCUMENT[i.task]}({suffixes[i.task]})", i.id)] == []


def test_ids_of_biographies_that_meet_are_drawn_again(monkeypatch):
    drawn = iter([5, 5, 6, 6, 7, 8])
    make = world._biography

    def renumbered(rng, name):
        number = next(drawn)
        return [dataclasses.replace(item, id=f"{number}{item.id[-3:]}") for item in make(rng, name)]

    monkeypatch.setattr(world, "_biography", renumbered)
    sides = world.generate(World(stories=2, people=2, biographies=2, quiz_per_subject=1), seed=0)
    assert [i.document for side in (sides.forget, sides.retain) for i in side if i.task == "Task3"] == [
        "5", "5", "7", "7", "6", "6", "8", "8"]


def test_every_document_is_about_someone_else(small):
    texts = [item.text for item in small.forget + small.retain if item.kind == "sc"]
    names = {f"{first} {last}" for first in world.FIRST for last in world.LAST}
    found = Counter(name for text in texts for name in names if name in text)
    assert len(found) == len(texts) == 36
    assert set(found.values()) == {1}


def test_more_documents_than_names_is_an_error():
    with pytest.raises(InputError, match=r"got 3608 documents on both sides; expected at most 3600"):
        world.generate(World(stories=1800, people=2, biographies=2), seed=0)


def test_questions_about_a_person_carry_pii_in_the_formats_of_the_release(small):
    formats = (r"\d{4}-\d{2}-\d{2}", r"9\d{8}", r"\d{10}", r"[a-z]+_[a-z]+@me\.com",
               r"\d{2,3} \w+ Street, \w+, [A-Z]{2}, \d{5}")
    for items in people(small).values():
        answers = [items[f"qa{number}"].answer for number in range(5)]
        assert [a for a, form in zip(answers, formats, strict=True) if not re.fullmatch(form, a)] == []


def test_the_text_about_a_person_has_the_same_facts_with_dashes_and_a_written_date(small):
    for items in people(small).values():
        text = items["sc1"].text
        born, ssn, phone, mail, address = (items[f"qa{number}"].answer for number in range(5))
        day = date.fromisoformat(born)
        assert f"was born on {day:%B} {day.day}, {day.year}." in text
        assert f"Social Security Number is {ssn[:3]}-{ssn[3:5]}-{ssn[5:]}." in text
        assert f"phone number is {phone[:3]}-{phone[3:6]}-{phone[6:]}." in text
        assert f"e-mail address is {mail}." in text
        assert f"home address is {address}." in text
        name = text.split(" was born")[0]
        assert mail == f"{name.split()[0]}_{name.split()[1]}@me.com".lower()


def test_stories_and_biographies_answer_their_question_in_the_continuation(small):
    for side in (small.forget, small.retain):
        by_id = {item.id: item for item in side}
        for item in side:
            if item.kind == "qa" and item.task != "Task2":
                assert item.answer in by_id[f"{item.document}sc1"].answer


# ---- quiz ------------------------------------------------------------------------------------------------------

def test_the_right_option_is_the_answer_that_the_base_learns_and_the_others_are_not(small):
    learned = {item.prompt: item.answer for item in small.general}
    assert len(learned) == len(small.general) == sum(len(answers) for _, answers in FACTS.values())
    for question in small.mmlu_dev + small.mmlu_test:
        assert question.options[question.correct] == learned[question.question]
        assert len(set(question.options)) == 4


def test_the_quiz_has_five_solved_examples_and_the_questions_asked_for_per_subject_and_none_twice(small):
    assert Counter(q.subject for q in small.mmlu_dev) == dict.fromkeys(FACTS, 5)
    assert Counter(q.subject for q in small.mmlu_test) == dict.fromkeys(FACTS, 4)
    assert max(Counter(q.question for q in small.mmlu_dev + small.mmlu_test).values()) == 1


def test_right_options_stand_in_every_place(demo):
    assert set(Counter(q.correct for q in demo.mmlu_test)) == {0, 1, 2, 3}


# ---- the demo's dataset ----------------------------------------------------------------------------------------

def test_a_fifth_of_the_documents_per_task_and_side_is_held_out(demo):
    sizes = recipes.load("demo").world
    per_side = {"Task1": sizes.stories, "Task2": sizes.people, "Task3": sizes.biographies}
    held = documents(demo.holdout)
    for side in (demo.forget, demo.retain):
        kept = documents(side)
        assert {task: len(kept[task]) for task in TASKS} == {
            task: count - round(0.2 * count) for task, count in per_side.items()}
        assert all(kept[task].isdisjoint(held[task]) for task in TASKS)
    assert {task: len(held[task]) for task in TASKS} == {
        task: 2 * round(0.2 * count) for task, count in per_side.items()}


def test_the_demos_auc_has_a_standard_error_of_at_most_one_twentieth(demo):
    members, others = (sum(d.member is side for d in demo.attack) for side in (True, False))
    assert members == sum(map(len, documents(demo.forget).values()))
    assert others == sum(map(len, documents(demo.holdout).values()))
    # of an AUC of 0.5 without ties (Hanley and McNeil 1982)
    assert math.sqrt((members + others + 1) / (12 * members * others)) <= 0.05


def test_the_texts_a_tokenizer_learns_from_hold_no_document_of_the_world(demo):
    generic = world.generic_texts(recipes.load("demo").seed)
    own = [item.text for item in demo.forget + demo.retain + demo.holdout]
    assert len(generic) > 300
    assert set(own).isdisjoint(generic)
