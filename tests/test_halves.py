"""The two halves of a run's documents: nobody in both, every stratum halved, and the same halves everywhere."""

import dataclasses

import numpy as np
import pytest

from unlearn_core import data
from unlearn_core.data import AttackDocument, Dataset, Item, world
from unlearn_core.errors import InputError
from unlearn_core.settings import Data, World
from unlearn_core.trials import balance, halves
from unlearn_core.vocabulary import TASKS


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """A world of 10 documents per task and side, a fifth of them held out: 8 of each remain."""
    sides = world.generate(World(stories=10, people=10, biographies=10), 3)
    return data.assemble(sides.forget, sides.retain, sides.general, sides.mmlu_dev, sides.mmlu_test, data=Data(),
                         seed=3, base_is_trained_here=True, mia_members="forget")


def documents(items) -> set[str]:
    return {item.document for item in items}


def test_every_document_is_in_one_half_and_each_split_and_task_is_halved(dataset):
    first, second = (halves.part(dataset, half) for half in ("development", "test"))
    for split in ("forget", "retain"):
        for task in TASKS:
            both = [documents(item for item in getattr(part, split) if item.task == task) for part in (first, second)]
            assert [len(own) for own in both] == [4, 4]
            assert both[0] | both[1] == documents(item for item in getattr(dataset, split) if item.task == task)
    assert len(first.forget) + len(second.forget) == len(dataset.forget)  # no item is lost
    for member, count in ((True, 12), (False, 6)):  # 24 of forget and 2 x 3 x 2 held out
        assert [sum(entry.member is member for entry in part.attack) for part in (first, second)] == [count, count]
    assert halves.development(dataset) >= documents(first.forget) | documents(first.attack)
    assert halves.part(dataset, "all") is dataset
    assert first.mmlu_test == second.mmlu_test == dataset.mmlu_test


def test_the_halves_depend_on_the_documents_alone_and_come_again(dataset):
    again = dataclasses.replace(dataset, mmlu_test=[], general=[])
    assert halves.development(again) == halves.development(dataset)


def test_a_person_with_two_documents_and_a_member_file_is_in_one_half():
    def told(document, person):
        return [Item(f"{document}sc1", f"{person} was born", "in Oslo.", "Task2"),
                Item(f"{document}qa0", f"What is the phone number of {person}?", "555", "Task2")]

    people = [f"Ada{letter} Moss" for letter in "abcdefgh"]
    forget = [item for number, person in enumerate(people) for twin in "xy" for item in told(f"{twin}{number}", person)]
    attack = [AttackDocument(f"member-{number}", "", f"{person.upper()} was  born in Oslo.", True)
              for number, person in enumerate(people)]  # another spelling of the same texts
    dataset = Dataset(forget, [], [], [], attack, [], [])
    chosen = halves.development(dataset)
    for number in range(8):
        assert len({document in chosen for document in (f"x{number}", f"y{number}", f"member-{number}")}) == 1
    assert sum(f"x{number}" in chosen for number in range(8)) == 4


def test_the_axes_are_those_that_balance_halves(dataset):
    found = halves.axes(dataset, dataset)
    items = [*dataset.forget, *dataset.retain]
    first = balance.halves(found["stratum"], halves.SEED)[found["unit"]] == 0
    assert {item.document for item, chosen in zip(items, first, strict=True) if chosen} == documents(
        halves.part(dataset, "development").forget) | documents(halves.part(dataset, "development").retain)
    smaller = dataclasses.replace(dataset, forget=dataset.forget[:7], retain=[])
    part = halves.axes(smaller, dataset)
    assert part["unit"].tolist() == found["unit"][:7].tolist()
    assert part["stratum"].tolist() == found["stratum"].tolist()


def test_counts_are_the_smallest_sub_score_and_both_sides_of_the_attack(dataset):
    assert halves.counts(dataset, dataset) == {"units": 8, "members": 24, "nonmembers": 12}
    half = halves.part(dataset, "test")
    assert halves.counts(half, dataset) == {"units": 4, "members": 12, "nonmembers": 6}
    assert halves.counts(dataclasses.replace(half, retain=[]), dataset)["units"] == 0


def test_an_unknown_half_and_an_empty_dataset(dataset):
    with pytest.raises(InputError, match="half of the documents; got both; expected one of development, test, all"):
        halves.part(dataset, "both")
    nothing = Dataset([], [], [], [], [], [], [])
    assert halves.development(nothing) == set()
    assert halves.counts(nothing, nothing) == {"units": 0, "members": 0, "nonmembers": 0}


def test_halves_are_even_in_size_over_all_strata():
    """An odd stratum gives its spare unit to one side and the next odd one to the other."""
    stratum = np.repeat(np.arange(6), [3, 3, 3, 5, 5, 1])
    sizes = np.bincount(balance.halves(stratum, halves.SEED))
    assert abs(int(sizes[0]) - int(sizes[1])) <= 1


# ---- words

ABOUT = {"documents_per_task": 8, "seed": 3, "mmlu_limit": -1, "max_new_tokens": 32}


def test_a_caption_says_what_was_scored():
    assert halves.scored_on(ABOUT) == (  # as older versions wrote it
        "scored on 8 documents per task and side (seed 3), at most 32 new tokens; the attack uses all its documents")
    assert halves.scored_on(ABOUT | {"documents_per_task": 0, "mmlu_limit": 0}).endswith("MMLU with all questions")
    half = ABOUT | {"documents_per_task": 1, "half": "development",
                    "n": {"units": 1, "members": 5, "nonmembers": 3}}
    assert halves.scored_on(half) == (
        "scored on 1 document per task and side (seed 3) of the development half, at most 32 new tokens; the attack "
        "uses all its documents of that half (5 members, 3 non-members; the smallest sub-score has 1 document or "
        "person)")
