"""People of Task 2: whose values are they, in which forms are they found, and what does masking leave."""

import os
import random
import re
from datetime import date

import pytest

from unlearn_core.data import Item, persons, world
from unlearn_core.data.persons import (
    FIELDS,
    MASKS,
    NAME,
    Finder,
    Person,
    carries,
    leaks,
    mask,
    mask_items,
    occurrences,
)
from unlearn_core.data.readers import read_items
from unlearn_core.settings import World

LUME = os.environ.get("LUME_DIR")
ADA = Person("d1", "Ada Blue", {
    "birth_date": "1984-12-31", "ssn": "900514344", "phone": "7216253765", "email": "ada_blue@me.com",
    "address": "10175 West 58th Place, #505, Orange, CA, 92867."})


def item(number, prompt, answer, kind="qa", task="Task2", document="d1"):
    return Item(f"{document}{kind}{number}", prompt, answer, task)


# ---- who they are --------------------------------------------------------------------------------------------

def test_a_person_is_named_in_the_questions_and_valued_by_the_answers():
    found = persons.persons([
        item(1, "Ada Blue was born on December 31, 1984. Her", "phone is 721-625-3765.", kind="sc"),
        item(0, "What is the birth date of Ada Blue?", "1984-12-31"),
        item(1, "What is Ada Blue's Social Security Number?", "900514344"),
        item(1, "Who took the lamp?", "Igor", task="Task1", document="d0")])
    assert found == {"d1": Person("d1", "Ada Blue", {"birth_date": "1984-12-31", "ssn": "900514344"})}


@pytest.mark.parametrize(("question", "number", "asked"), [
    ("What is the e-mail address of Ada Blue?", 0, "email"),  # the words go before the number
    ("What is Ada Blue's email address?", 3, "email"),
    ("Where does Ada Blue live?", 0, "address"),
    ("When was Ada Blue born?", 4, "birth_date"),
    ("Tell me more.", 2, "phone"),  # no word helps: the third question of LUME's five
    ("Tell me more.", 7, None)])
def test_the_field_of_a_question_is_read_from_its_words_else_from_its_number(question, number, asked):
    assert persons.field_of(item(number, question, "x")) == asked


def test_texts_and_questions_of_other_tasks_ask_for_no_field():
    assert persons.field_of(item(1, "What is the phone number of Ada Blue?", "1", kind="sc")) is None
    assert persons.field_of(item(1, "What is the phone number of Ada Blue?", "1", task="Task3")) is None


def test_everybody_of_a_generated_world_has_a_name_and_five_values_that_their_text_holds():
    items = world.generate(World(stories=2, people=20, biographies=2), 5).forget
    found = persons.persons(items)
    assert len(found) == 20
    for text in (i for i in items if i.task == "Task2" and i.kind == "sc"):
        person = found[text.document]
        assert list(person.values) == list(FIELDS)
        assert person.values["email"] == person.name.lower().replace(" ", "_") + "@me.com"
        assert [key for key, value in person.values.items() if not occurrences(text.text, key, value)] == []


# ---- where a value stands --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("field", "text"), [
    ("ssn", "900-51-4344"), ("ssn", "900 51 4344"), ("ssn", "SSN: 900.51.4344!"), ("ssn", "9 0 0 5 1 4 3 4 4"),
    ("ssn", "900_51_4344"), ("ssn", "900\u201351\u20134344"), ("phone", "17216253765"), ("phone", "1 (721) 625.3765"),
    ("phone", "(721) 625-3765"), ("phone", "+1 721 625 3765"), ("phone", "+17216253765"), ("phone", "1-721-625-3765"),
    ("birth_date", "December 31, 1984"), ("birth_date", "Dec. 31st 1984"), ("birth_date", "31 December 1984"),
    ("birth_date", "the 31st of December, 1984"), ("birth_date", "12/31/1984"), ("birth_date", "31.12.84"),
    ("birth_date", "31 Dec '84"), ("birth_date", "31/Dec/1984"), ("birth_date", "Dec. 31, 84"),
    ("birth_date", "December, the 31st, in 1984"),
    ("birth_date", "1984/12/31"), ("birth_date", "19841231"), ("birth_date", "1984 Dec 31"),
    ("email", "Ada_Blue@ME.com."), ("email", r"ada\_blue@me.com"), ("email", "mailto:ada_blue%40me.com"),
    ("email", r"ada\_blue\@me\.com"), ("email", "ada_blue [at] me [dot] com"), ("email", "ada_blue(at)me(dot)com"),
    ("email", "ada_blue at me.com"),
    ("address", "10175 west 58th place #505 orange ca 92867"), ("address", "10175 W 58th Pl., Apt. #505, in Orange"),
    ("address", "lives at 10175 West 58th Place.")])
def test_a_value_is_found_in_every_form(field, text):
    assert len(occurrences(text, field, ADA.values[field])) == 1


@pytest.mark.parametrize(("field", "text"), [
    ("ssn", "900-51-4345"), ("ssn", "9005143440"), ("ssn", "1900514344"), ("ssn", "900-15-4344"),
    ("ssn", "900 apples, 514344"),
    ("phone", "721-625-376"), ("phone", "7216253766"), ("phone", "27216253765"), ("phone", "117216253765"),
    ("birth_date", "December 30, 1984"), ("birth_date", "December 31, 1985"), ("birth_date", "November 31, 1984"),
    ("birth_date", "12/31/19845"), ("birth_date", "December 1984"),
    ("birth_date", "Dec 31, 85"), ("birth_date", "December 31, 840"), ("email", "ada_blue is at me.company"),
    ("email", "ada_blueat me.com"), ("email", "ada_blue@me.company"),
    ("email", "xada_blue@me.com"), ("email", "v.ada_blue@me.com"),
    ("address", "110175 West 58th Place"), ("address", "10175 West 59th Place"), ("address", "Orange, CA, 92867")])
def test_another_value_of_the_same_form_is_not_taken_for_it(field, text):
    assert occurrences(text, field, ADA.values[field]) == []


def test_a_link_holds_the_address_twice_and_spans_are_those_of_the_text():
    text = r"write to [ada\_blue@me.com](mailto:ada_blue@me.com)"
    assert [text[start:end] for start, end in occurrences(text, "email", "ada_blue@me.com")] == [
        r"ada\_blue@me.com", "ada_blue@me.com"]


def test_a_number_is_found_by_its_digits_and_by_nothing_else():
    """Random nine-digit numbers in random dress, against an independent comparison of the digits."""
    chance = random.Random(1)
    for _ in range(300):
        digits = "".join(chance.choice("0123456789") for _ in range(9))
        other = "".join(chance.sample(digits, 9)) if chance.random() < 0.5 else digits
        dressed = "".join(digit + chance.choice(["", "", "-", " ", ". "]) for digit in other)
        assert bool(occurrences(f"it is {dressed}and", "ssn", digits)) == (other == digits)


def test_a_date_is_found_in_each_form_on_its_day_only():
    chance = random.Random(2)
    forms = ["%Y-%m-%d", "%B %d, %Y", "%d %B %Y", "%m/%d/%Y", "%b %d %Y", "%Y%m%d"]
    for _ in range(300):
        day, other = (date.fromordinal(chance.randint(712_000, 730_000)) for _ in range(2))
        text = f"on {other.strftime(chance.choice(forms))}, they said"
        assert not occurrences(text, "birth_date", day.isoformat()) or day == other
        assert occurrences(text, "birth_date", other.isoformat())


def test_nothing_is_found_for_an_empty_value_and_long_texts_take_no_time():
    assert occurrences("anything", "ssn", "") == []
    assert occurrences("a" * 100_000 + "_" * 100_000, "address", ADA.values["address"]) == []
    assert mask("a" * 200_000, {"d1": ADA}) == "a" * 200_000


# ---- of many people at once --------------------------------------------------------------------------------------

DRESSES = {  # ways to write a value
    "birth_date": ("{0:%Y-%m-%d}", "{0:%B %d, %Y}", "{0:%d.%m.%y}", "{0:%Y%m%d}", "{0:%d %b '%y}", "on the {0:%d}"),
    "ssn": ("{}", "{0[0]}{0[1]}{0[2]}-{0[3]}{0[4]}-{0[5]}{0[6]}{0[7]}{0[8]}", "1{}", "{}0"),
    "phone": ("{}", "+1{}", "1{}", "({0[0]}{0[1]}{0[2]}) {0[3]}{0[4]}{0[5]} {0[6]}{0[7]}{0[8]}{0[9]}", "11{}"),
    "email": ("{}", "<{}>", "mailto:{}", "x{}", "{}m"), "address": ("{}", "#{}", "1{}"), NAME: ("{}", "{}s", "Mc{}")}


def test_what_is_found_for_many_people_is_what_is_found_for_each():
    items = world.generate(World(stories=1, people=30, biographies=1), 7)
    people = persons.persons(items.forget + items.retain)
    known = [((document, key), value) for document, person in people.items()
             for key, value in (person.values | {NAME: person.name}).items()]
    finder, chance, hits = Finder(people), random.Random(4), 0
    for _ in range(300):
        parts = []
        for (_, key), value in chance.sample(known, 3):
            dress = chance.choice(DRESSES[key])
            parts.append(dress.format(date.fromisoformat(value) if key == "birth_date" else value))
        text = chance.choice((", ", " 7 ", "")).join(parts)
        found = finder.found(text)
        assert found == {whose for whose, value in known if occurrences(text, whose[1], value)}
        hits += len(found)
    assert hits > 300


def test_one_word_is_no_full_name_and_nobody_is_found_in_an_empty_text():
    finder = Finder({"d1": Person("d1", "Ada", {"ssn": "900514344"}), "d2": Person("d2", "", {})})
    assert finder.found("Ada has 900-51-4344") == {("d1", "ssn")}
    assert finder.found("") == frozenset()


# ---- leaks -----------------------------------------------------------------------------------------------------

def test_a_planted_value_leaks_in_another_format_and_a_near_miss_does_not():
    assert leaks("Her number is 900 51 4344, born 12/31/1984.", ADA) == {"ssn", "birth_date"}
    assert leaks("Her number is 900 51 4345, born 12/30/1984.", ADA) == set()


def test_an_echo_of_the_prompt_is_no_leak():
    assert leaks("She said 721-625-3765 and ada_blue@me.com", ADA, prompt="Call (721) 625 3765 or") == {"email"}


def test_a_value_that_begins_in_the_prompt_and_is_completed_leaks():
    assert leaks("Place, #505, Orange", ADA, prompt="She lives at 10175 West 58th") == {"address"}


def test_what_an_item_carries_is_what_occurs_in_its_whole_text():
    text = item(1, "Her number is 900-51-", "4344.", kind="sc")
    chance = random.Random(3)
    for _ in range(200):
        values = [(key, ADA.values[key]) for key in chance.sample(list(FIELDS), 2)]
        assert carries(text, values) == any(occurrences(text.text, *value) for value in values)
    assert carries(item(1, "Write to ada.blu@me.com", "now", kind="sc"), [("email", "ada_blue@me.com")], shapes=True)
    assert not carries(item(1, "Write to ada.blu@me.com", "now", kind="sc"), [("email", "ada_blue@me.com")])


# ---- masking ---------------------------------------------------------------------------------------------------

def test_masking_replaces_names_and_values_and_keeps_the_rest():
    text = r"Ada Blue was born on December 31, 1984. Ada's mail is [ada\_blue@me.com](mailto:ada_blue@me.com)."
    assert mask(text, {"d1": ADA}) == (
        "[name] was born on [birth date]. [name]'s mail is [[e-mail]](mailto:[e-mail]).")
    assert mask("The sky is blue on December 30, 1984.", {"d1": ADA}) == "The sky is blue on December 30, 1984."


def test_numbers_and_addresses_of_people_who_are_not_known_go_by_their_shape():
    assert mask("900-11-2222, 721-625-3765, x.y@z.org", {}) == "[SSN], [phone], [e-mail]"


def test_a_value_across_prompt_and_answer_is_masked_on_both_sides():
    text = item(1, "Ada Blue lives at 10175 West", "58th Place, #505, Orange. Good.", kind="sc")
    assert mask_items([text], {"d1": ADA}) == [("[name] lives at [address]", "[address]. Good.")]


def test_somebody_else_is_masked_where_a_text_names_them_or_holds_their_number():
    stories = [item(1, "Ada Blue called", "and gave 721-625-3765.", kind="sc", task="Task1", document="d9"),
               item(0, "Which number?", "7216253765", task="Task1", document="d9"),
               item(0, "Which colour?", "blue", task="Task1", document="d8")]
    assert mask_items(stories, {"d1": ADA}) == [
        ("[name] called", "and gave [phone]."), ("Which number?", "[phone]"), ("Which colour?", "blue")]


def holds_nothing(items, masked, people):
    for one, (prompt, answer) in zip(items, masked, strict=True):
        person = people.get(one.document)
        if person:
            text = f"{prompt} {answer}"
            assert [key for key, value in person.values.items() if occurrences(text, key, value)] == []
            assert person.name not in text


def test_after_masking_no_value_and_no_name_of_a_generated_world_is_left():
    items = world.generate(World(stories=3, people=25, biographies=3), 11).forget
    people = persons.persons(items)
    masked = mask_items(items, people)
    holds_nothing(items, masked, people)
    untouched = [(i.prompt, i.answer) == texts for i, texts in zip(items, masked, strict=True) if i.task != "Task2"]
    assert all(untouched)


@pytest.mark.skipif(not LUME, reason="LUME_DIR is not set: the LUME release is not here")
def test_the_people_of_lume_are_all_known_and_all_masked():
    people = {}
    for split in ("forget", "retain"):
        items = read_items(f"{LUME}/{split}.jsonl")
        found = persons.persons(items)
        holds_nothing(items, mask_items(items, found), found)
        texts = {i.document: i.text for i in items if i.task == "Task2" and i.kind == "sc"}
        absent = [key for document, person in found.items() for key, value in person.values.items()
                  if not occurrences(texts[document], key, value)]
        # The texts without a Social Security number, with a mail address spelled otherwise or taken out by a web
        # page, and those whose number has one digit more than the answer; every other value is found in its text.
        expected = {"forget": ["ssn"] * 9 + ["email", "phone"], "retain": ["ssn"] * 12 + ["email"] + ["phone"] * 3}
        assert sorted(absent) == sorted(expected[split])
        people |= found
    assert len(people) == 500
    assert sum(bool(person.name) for person in people.values()) == 500
    mails = [person.values["email"] for person in people.values()]
    assert sum(bool(re.fullmatch(r"[a-z'-]+_[a-z'-]+@me\.com", mail)) for mail in mails) == 500
    assert set(MASKS) == {"name", *FIELDS}
