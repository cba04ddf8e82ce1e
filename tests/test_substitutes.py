"""Other answers for forget's prompts: refusals, and plausible answers taken from retain."""

import pytest

from unlearn_core.data.items import Item
from unlearn_core.data.substitutes import REFUSALS, plausible, refusals

FORGET = [Item("aqa0", "When was Ann born?", " 1984-12-31", "Task2"), Item("aqa1", "SSN of Ann?", "900514344", "Task2"),
          Item("bsc1", "Once upon", " a time", "Task1")]
RETAIN = [Item("cqa0", "When was Bob born?", "1970-01-01", "Task2"), Item("cqa1", "SSN of Bob?", "911000000", "Task2"),
          Item("dqa0", "Who wins?", "Eve", "Task1"), Item("esc1", "It was", " night", "Task3")]


def test_a_refusal_takes_the_answers_place_and_its_leading_space():
    found = refusals(FORGET, seed=0)
    assert [(item.id, item.prompt, item.task) for item in found] == [(i.id, i.prompt, i.task) for i in FORGET]
    assert all(item.answer.strip() in REFUSALS for item in found)
    assert [item.answer[0] == " " for item in found] == [True, False, True]


def test_a_plausible_answer_is_one_to_the_same_question_else_to_the_same_kind():
    answers = [item.answer for item in plausible(FORGET, RETAIN, seed=0)]
    assert answers == [" 1970-01-01", "911000000", " night"]  # no story completion in retain: another completion


def test_an_item_never_gets_its_own_answer_where_there_is_another():
    same = [Item("xqa0", "?", "1984-12-31", "Task2"), Item("yqa0", "?", "1999-09-09", "Task2")]
    asked = [Item(f"{i}qa0", "?", "1984-12-31", "Task2") for i in range(20)]
    assert {item.answer for item in plausible(asked, same, seed=0)} == {"1999-09-09"}


@pytest.mark.parametrize("make", [refusals, lambda items, seed: plausible(items, RETAIN * 5, seed)])
def test_a_seed_gives_the_same_answers_whatever_the_other_items_are(make):
    assert make(FORGET, 3) == make(FORGET, 3)
    assert make(FORGET[1:], 3) == make(FORGET, 3)[1:]
