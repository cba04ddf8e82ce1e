"""Forget requests: what is named stays in forget with all that carries it, the rest is retained, and it runs."""

import json
import os
import random
import shlex

import pytest

from unlearn_core import recipe as recipes
from unlearn_core.data import Item, load, persons, request, world
from unlearn_core.data.persons import FIELDS, occurrences
from unlearn_core.data.readers import read_items
from unlearn_core.data.request import DOCUMENT, OTHER, QUESTION, TEXT, Request, apply, explain
from unlearn_core.errors import InputError
from unlearn_core.settings import World

LUME = os.environ.get("LUME_DIR")


def person(document, name, birth, ssn, *, prompt="{name} was born on {birth}.", answer="The number is {dashed}."):
    """One person with a text and two questions, as LUME writes them."""
    dashed = f"{ssn[:3]}-{ssn[3:5]}-{ssn[5:]}"
    parts = {"name": name, "birth": birth, "dashed": dashed}
    return [Item(f"{document}sc1", prompt.format(**parts), answer.format(**parts), "Task2"),
            Item(f"{document}qa0", f"What is the birth date of {name}?", birth, "Task2"),
            Item(f"{document}qa1", f"What is the Social Security Number of {name}?", ssn, "Task2")]


STORY = [Item('"s"sc1', "Once in Rome", "there was a cat.", "Task1"), Item('"s"qa0', "Where?", "Rome", "Task1")]
ADA = person("ada", "Ada Blue", "1984-12-31", "900514344")
BOB = person("bob", "Bob Grey", "1970-01-02", "900112222")
SILENT = person("sil", "Sil Ent", "1971-05-06", "900999999", answer="She says no more.")  # text without the number
FORGET = [*STORY, *ADA, *BOB]
RETAIN = [Item("rsc1", "Far away", "a dog ran.", "Task1")]


def ids(items):
    return [item.id for item in items]


# ---- by document, by person, by field ------------------------------------------------------------------------

def test_by_document_the_document_stays_and_the_rest_goes_to_retain():
    outcome = apply(FORGET, RETAIN, Request(documents=('"s"',)))
    assert ids(outcome.forget) == ['"s"sc1', '"s"qa0']
    assert ids(outcome.retain) == ["rsc1", *ids(ADA), *ids(BOB)]
    assert set(outcome.reasons.values()) == {DOCUMENT}
    assert not outcome.overlaps


def test_by_person_all_of_the_person_stays():
    outcome = apply(FORGET, RETAIN, Request(persons=("ada",)))
    assert ids(outcome.forget) == ids(ADA)
    assert ids(outcome.moved) == ids([*STORY, *BOB])


def test_by_field_its_questions_stay_and_the_texts_that_hold_it_and_the_rest_is_retained():
    asked = Request(fields=("ssn",))
    outcome = apply([*FORGET, *SILENT], RETAIN, asked)
    assert outcome.reasons == {"adasc1": TEXT, "adaqa1": QUESTION, "bobsc1": TEXT, "bobqa1": QUESTION,
                               "silqa1": QUESTION}
    assert ids(outcome.moved) == ['"s"sc1', '"s"qa0', "adaqa0", "bobqa0", "silsc1", "silqa0"]
    assert outcome.overlaps  # documents ada, bob and sil now stand on both sides
    told = explain(outcome, asked)
    assert told[0] == "5 items stay in forget, 6 go to retain, which then has 7."
    assert told[1] == "3 questions ask for the Social Security number."
    assert told[2] == ("2 texts stay in forget because they hold the Social Security number in some form; they hold "
                       "other fields as well, whose text is then unlearned too: birth date (2).")
    assert "data.allow_overlap=true" in told[3]
    assert told[4].startswith("Forget then has no Task1 SC, Task1 QA, Task3 SC, Task3 QA: ")


def test_a_field_of_one_person_leaves_the_others_alone():
    outcome = apply(FORGET, RETAIN, Request(persons=("bob",), fields=("birth_date",)))
    assert outcome.reasons == {"bobsc1": TEXT, "bobqa0": QUESTION}


def test_documents_persons_and_fields_add_up():
    outcome = apply(FORGET, RETAIN, Request(documents=('"s"',), persons=("ada",), fields=("ssn",)))
    assert outcome.reasons == {'"s"sc1': DOCUMENT, '"s"qa0': DOCUMENT, "adasc1": TEXT, "adaqa1": QUESTION}


def test_a_value_across_the_cut_between_prompt_and_answer_keeps_its_text():
    cut = person("cut", "Cut Off", "1984-12-31", "900514344", prompt="Her number is 900-51-", answer="4344.")
    assert apply([*cut, *BOB], RETAIN, Request(persons=("cut",), fields=("ssn",))).reasons["cutsc1"] == TEXT


def test_what_others_hold_of_the_value_stays_too_and_what_retain_held_before_is_told():
    twin = person("twin", "Twin Red", "1984-12-31", "900777777")
    asked = Request(persons=("ada",), fields=("birth_date",))
    outcome = apply([*ADA, *twin], [*RETAIN, Item("qsc1", "Born on 12/31/1984", "in Rome.", "Task3")], asked)
    assert outcome.reasons == {"adasc1": TEXT, "adaqa0": QUESTION, "twinsc1": OTHER, "twinqa0": OTHER}
    assert ids(outcome.still_in_retain) == ["qsc1"]
    assert any("the first qsc1" in sentence for sentence in explain(outcome, asked))
    assert any("2 items of others" in sentence for sentence in explain(outcome, asked))


@pytest.mark.parametrize(("asked", "named"), [
    (Request(), "no document, person or field"), (Request(documents=("gone",)), "gone"),
    (Request(persons=('"s"',)), '"s"'), (Request(fields=("shoe",)), "shoe")])
def test_a_request_for_nothing_or_for_what_is_not_there_says_so(asked, named):
    with pytest.raises(InputError) as caught:
        apply(FORGET, RETAIN, asked)
    assert named in str(caught.value)


def test_fields_without_people_are_refused():
    with pytest.raises(InputError, match="nothing of forget"):
        apply(STORY, RETAIN, Request(fields=("ssn",)))


def test_one_id_for_two_contents_is_refused_and_the_same_item_is_kept_once():
    assert ids(apply(FORGET, [ADA[0]], Request(documents=('"s"',))).retain) == [*ids(ADA), *ids(BOB)]
    with pytest.raises(InputError, match="adasc1"):
        apply(FORGET, [Item("adasc1", "other", "text", "Task2")], Request(documents=('"s"',)))


# ---- properties ----------------------------------------------------------------------------------------------

def random_request(chance, forget, people):
    documents = sorted({item.document for item in forget})
    pick = lambda of, most: tuple(chance.sample(of, chance.randint(0, most)))  # noqa: E731
    return Request(pick(documents, 3), pick(sorted(people), 3), pick(list(FIELDS), 2))


def forgotten(asked, people):
    """(field, value) that the request names, straight from its meaning."""
    values = []
    for document, one in people.items():
        for key, value in one.values.items():
            whole = document in asked.documents or (document in asked.persons and not asked.fields)
            if whole or (key in asked.fields and (not asked.persons or document in asked.persons)):
                values.append((key, value))
    return values


@pytest.mark.parametrize("seed", range(15))
def test_nothing_is_lost_and_nothing_that_is_moved_holds_a_value_to_be_forgotten(seed):
    chance = random.Random(seed)
    sides = world.generate(World(stories=4, people=8, biographies=4), seed)
    people = persons.persons(sides.forget)
    asked = random_request(chance, sides.forget, people)
    if asked == Request():
        asked = Request(fields=("email",))
    outcome = apply(sides.forget, sides.retain, asked)
    assert sorted(ids(outcome.forget + outcome.moved)) == sorted(ids(sides.forget))
    assert outcome.retain == sides.retain + outcome.moved
    assert set(outcome.reasons) == set(ids(outcome.forget))
    for key, value in forgotten(asked, people):
        assert [item.id for item in outcome.moved if occurrences(item.text, key, value)] == []
    named = set(asked.documents) | (set() if asked.fields else set(asked.persons))
    assert {item.id for item in sides.forget if item.document in named} <= set(ids(outcome.forget))


def test_a_request_for_everything_moves_nothing():
    sides = world.generate(World(stories=2, people=2, biographies=2), 1)
    everything = Request(documents=tuple({item.document for item in sides.forget}))
    assert apply(sides.forget, sides.retain, everything).moved == []


@pytest.mark.skipif(not LUME, reason="LUME_DIR is not set: the LUME release is not here")
def test_all_numbers_of_lume_are_asked_for_and_the_texts_without_one_go_to_retain():
    forget, retain = (read_items(f"{LUME}/{split}.jsonl") for split in ("forget", "retain"))
    outcome = apply(forget, retain, Request(fields=("ssn",)))
    reasons = list(outcome.reasons.values())
    assert (reasons.count(QUESTION), reasons.count(TEXT)) == (250, 241)  # nine texts leave the number out
    assert outcome.besides == {"birth_date": 241, "phone": 241, "email": 240, "address": 241}
    assert len(outcome.moved) == 2732 - 491


# ---- as a data set -------------------------------------------------------------------------------------------

def test_the_saved_request_is_read_back_and_runs_with_the_command_that_is_shown(tmp_path):
    sides = world.generate(World(stories=4, people=6, biographies=4), 7)
    asked = Request(fields=("ssn",))
    outcome = apply(sides.forget, sides.retain, asked)
    folder = tmp_path / "a data set"
    note = request.note(asked, source="run x", asked_by="Ada", created="2026-01-01")
    request.save(folder, outcome.forget, outcome.retain, note)
    assert read_items(folder / "forget.jsonl") == outcome.forget
    assert read_items(folder / "retain.jsonl") == outcome.retain
    assert request.origin(folder) == json.loads((folder / "request.json").read_text()) == {
        "source": "run x", "asked_by": "Ada", "created": "2026-01-01",
        "documents": [], "persons": [], "fields": ["ssn"]}

    words = shlex.split(request.command(folder, recipe="smoke", overlaps=outcome.overlaps))
    assert words[:5] == ["python", "-m", "unlearn_core", "run", "smoke"]
    recipe = recipes.load("smoke", [word for word in words[5:] if word != "--set"])
    data = load(recipe.data, seed=recipe.seed, base_is_trained_here=True, mia_members="forget")
    both = {item.document for item in outcome.forget} & {item.document for item in outcome.retain}
    assert len(both) == 6  # every person's number stays, the rest of the person is retained
    assert {item.document for item in data.forget} >= both
    assert not both & {item.document for item in data.holdout}
    kept = {item.id for item in data.forget} | {item.id for item in data.retain} | {item.id for item in data.holdout}
    assert kept == {item.id for item in sides.forget + sides.retain}


def test_without_the_declared_overlap_a_run_refuses_the_split_documents(tmp_path):
    outcome = apply(FORGET, RETAIN, Request(fields=("ssn",)))
    request.save(tmp_path / "x", outcome.forget, outcome.retain, {})
    recipe = recipes.load("smoke", ["data.source=files", f"data.path={tmp_path / 'x'}"])
    with pytest.raises(InputError, match="allow_overlap=true"):
        load(recipe.data, seed=0, base_is_trained_here=True, mia_members="forget")


def test_a_whole_document_request_needs_no_declared_overlap(tmp_path):
    outcome = apply(FORGET, RETAIN, Request(persons=("ada",)))
    assert "allow_overlap" not in request.command(tmp_path / "x", overlaps=outcome.overlaps)


def test_an_older_data_set_is_never_replaced_and_a_folder_that_cannot_be_written_is_named(tmp_path):
    request.save(tmp_path / "x", ADA, RETAIN, {"source": "one"})
    with pytest.raises(InputError, match="expected a new name"):
        request.save(tmp_path / "x", BOB, RETAIN, {})
    assert request.origin(tmp_path / "x") == {"source": "one"}
    assert request.origin(tmp_path) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="data set y"):
        request.save(tmp_path / "file" / "y", ADA, RETAIN, {})
