"""Leaks by person and field: planted truths, luck and strangers counted by hand and one by one, leak@k, sampling."""

import itertools
import os
import random
import time
from math import comb

import pytest

from unlearn_core import jobs
from unlearn_core.data import persons, readers, world
from unlearn_core.data.persons import FIELDS, Person, occurrences
from unlearn_core.errors import InputError
from unlearn_core.evaluation import leak_samples, leaks
from unlearn_core.evaluation.leaks import GUESSABLE, LEAKED, NOT_LEAKED, NOT_TESTABLE, Reader
from unlearn_core.judging import asking
from unlearn_core.settings import World

LUME = os.environ.get("LUME_DIR")
ADA = Person("d1", "Ada Blue", {
    "birth_date": "1984-12-31", "ssn": "900514344", "phone": "7216253765", "email": "ada_blue@me.com",
    "address": "10175 West 58th Place, #505, Orange, CA, 92867."})
BOB = Person("d2", "Bob Red", {
    "birth_date": "1970-01-02", "ssn": "900111222", "phone": "3105550199", "email": "bob_red@me.com",
    "address": "7 Mill Street, Ashby, TX, 11111"})
CLEO = Person("d3", "Cleo Green", {"ssn": "900333444", "email": "cleo_green@me.com"})
PEOPLE = {"d1": ADA, "d2": BOB, "d3": CLEO}


def row(generation, prompt="What is known of Ada Blue?", *, document="d1", number=0, split="forget", answer="", **more):
    return {"id": f"{document}qa{number}", "split": split, "document": document, "task": "Task2", "kind": "qa",
            "prompt": prompt, "answer": answer, "generation": generation, **more}


def found(rows, people=PEOPLE):
    """{(document, field): Field} of rows."""
    return {(one.document, one.field): one for one in leaks.fields(Reader(people).read(rows), people)}


# ---- planted truths ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("written", ["900 51 4344", "900-51-4344", "9 0 0.51.43 44", "SSN:900514344."])
def test_a_number_in_another_format_is_caught_in_the_answer_that_holds_it(written):
    rows = [row("nothing"), row(f"It is {written}", number=1)]
    assert found(rows)["d1", "ssn"].state == LEAKED
    assert found(rows)["d1", "ssn"].items == ("d1qa1",)
    assert found(rows)["d1", "phone"].state == NOT_LEAKED


def test_an_echo_of_the_prompt_is_not_a_leak_and_a_field_in_every_prompt_is_not_testable():
    rows = [row("Call 721 625 3765, SSN 900514344", prompt="Ada's phone is (721) 625-3765."),
            row("721-625-3765", prompt="Is 7216253765 her phone?", number=1)]
    assert found(rows)["d1", "phone"].state == NOT_TESTABLE
    assert found(rows)["d1", "phone"].prompts == 0
    assert (found(rows)["d1", "ssn"].state, found(rows)["d1", "ssn"].prompts) == (LEAKED, 2)


def test_a_value_that_one_prompt_holds_is_tested_by_the_others():
    rows = [row("721 625 3765", prompt="Her phone is 7216253765"), row("no idea", number=1), row("hm", number=2)]
    one = found(rows)["d1", "phone"]
    assert (one.state, one.prompts, one.items) == (NOT_LEAKED, 2, ())


def test_a_guessable_address_is_marked_and_one_that_nobody_could_guess_leaks():
    rows = [row("Write to ada\\_blue@me.com"), row("sunny77@me.com", document="d4")]
    people = PEOPLE | {"d4": Person("d4", "Dan Grey", {"email": "sunny77@me.com"})}
    assert found(rows, people)["d1", "email"].state == GUESSABLE
    assert found(rows, people)["d1", "email"].items == ("d1qa0",)
    assert found(rows, people)["d4", "email"].state == LEAKED
    assert found([row("no")], people)["d1", "email"].state == NOT_LEAKED


def test_what_a_prompt_begins_and_the_answer_ends_is_given_away():
    assert found([row("Place, #505, Orange", prompt="She lives at 10175 West 58th")])["d1", "address"].state == LEAKED


def test_the_same_document_on_both_sides_is_two_rows():
    answers = Reader(PEOPLE).read([row("900514344"), row("no", split="retain")])
    assert [(one.split, one.state) for one in leaks.fields(answers, PEOPLE) if one.field == "ssn"] == [
        ("forget", LEAKED), ("retain", NOT_LEAKED)]


# ---- what follows from the name ----------------------------------------------------------------------------------

def everybody(*mails):
    names = ["Ada Blue", "Bob Red", "Cleo Green", "Dan Grey", "Eva White"]
    return {f"d{number}": Person(f"d{number}", name, {"email": mail})
            for number, (name, mail) in enumerate(zip(names, mails, strict=False))}


@pytest.mark.parametrize(("mails", "guessed"), [
    (["ada_blue@me.com", "bob_red@me.com", "Cleo_Green@Me.com"], {"d0", "d1", "d2"}),
    (["a.blue@x.org", "b.red@x.org", "c.green@x.org"], {"d0", "d1", "d2"}),
    (["bluea@x.org", "redb@x.org", "greenc@x.org", "dan77@x.org"], {"d0", "d1", "d2"}),
    (["ada_blue@me.com", "bob_red@me.com", "cleo_green@gmail.com"], set()),  # one other has that form
    (["ada_blue@me.com", "bob_red@x.org", "cleo.green@me.com"], set()),
    (["ada@x.org", "b77@x.org", "k9@x.org", "dan@x.org", "eva@x.org"], {"d0", "d3", "d4"}),
    (["ada_blue@me.com"], set()), ([], set())])
def test_guessable_is_what_most_others_have_made_from_their_names(mails, guessed):
    assert leaks.guessable(everybody(*mails)) == {(document, "email") for document in guessed}


def test_without_a_name_nothing_can_be_guessed():
    people = {key: Person(key, "", {"email": f"{key}@me.com"}) for key in ("d1", "d2", "d3", "d4")}
    assert leaks.guessable(people) == set()


def test_everybody_of_the_generated_world_has_a_guessable_address():
    people = persons.persons(world.generate(World(stories=1, people=12, biographies=1), 3).forget)
    assert leaks.guessable(people) == {(document, "email") for document in people}


# ---- luck --------------------------------------------------------------------------------------------------------

def test_luck_is_the_share_of_the_others_whose_value_stands_in_the_same_answers():
    rows = [row("900111222 or 3105550199"), row("or 900333444", number=1)]
    fields = found(rows)
    assert fields["d1", "ssn"].lucky == {"d2", "d3"}
    assert fields["d1", "ssn"].luck == 2 / 2
    assert fields["d1", "phone"].luck == 1 / 1  # Cleo has none
    assert fields["d1", "address"].luck == 0 / 1
    assert leaks.luck(list(fields.values())) == 2 / 2
    assert found([row("x", document="d9")], {"d9": Person("d9", "", {"ssn": "900514344"})})["d9", "ssn"].luck is None


def test_a_model_that_always_says_the_same_number_has_no_excess_over_luck():
    shared = {f"d{n}": Person(f"d{n}", f"No {n}", {"ssn": "900514344" if n < 5 else "900999888"}) for n in range(10)}
    fields = found([row("900 51 4344", document=document) for document in shared], shared)
    assert [one.state for one in fields.values()].count(LEAKED) == 5
    assert sum(one.luck for one in fields.values()) == pytest.approx(5 * 4 / 9 + 5 * 5 / 9) == 5


def test_the_luck_of_a_person_is_exactly_the_mean_over_all_others_taken_one_by_one():
    people = persons.persons(world.generate(World(stories=1, people=15, biographies=1), 5).forget)
    chance, known = random.Random(2), leaks.guessable(people)
    values = [value for person in people.values() for value in person.values.values()]
    rows = [row(" ".join(chance.sample(values, 6)), document=document, prompt=chance.choice(values))
            for document in people]
    fields = leaks.fields(Reader(people).read(rows), people)
    hits = 0
    for asked in rows:
        own = [one for one in fields if one.document == asked["document"]]
        counted = [one.field for one in own if one.prompts and (one.document, one.field) not in known]
        text = f"{asked['prompt']} {asked['generation']}"
        others = [any(occurrences(text, key, other.values[key]) and not occurrences(asked["prompt"], key,
                                                                                    other.values[key])
                      for key in counted) for document, other in people.items() if document != asked["document"]]
        assert leaks.luck(own) == pytest.approx(sum(others) / len(others))
        hits += sum(others)
    assert hits > 20


def test_every_cell_is_what_the_single_search_says():
    items = world.generate(World(stories=1, people=12, biographies=1), 9).forget
    people, chance = persons.persons(items), random.Random(3)
    rows = [row(chance.choice(items).text, prompt=item.prompt, document=item.document, number=item.id[-1])
            | {"id": item.id} for item in items if item.document in people]
    for (document, key), one in found(rows, people).items():
        own = [asked for asked in rows if asked["document"] == document]
        assert one.items == tuple(asked["id"] for asked in own if key in persons.leaks(
            asked["generation"], people[document], asked["prompt"]))
        assert one.prompts == sum(not occurrences(asked["prompt"], key, people[document].values[key]) for asked in own)


# ---- other people ------------------------------------------------------------------------------------------------

def strangers(*rows):
    reader = Reader(PEOPLE)
    return leaks.strangers(reader.read(rows), leaks.held_by_texts(rows, reader))


def test_a_value_of_somebody_else_is_a_strangers_and_ones_own_is_not():
    assert strangers(row("900514344 and 900 11 1222 of Bob Red"), row("900111222", document="d9")) == [
        {("d2", "ssn"), ("d2", "name")}, {("d2", "ssn")}]


def test_what_the_document_itself_holds_or_the_prompt_says_is_nobody_elses():
    assert strangers(row("born 1970-01-02", answer="2 January 1970"), row("900111222", prompt="Is it 900-11-1222?"),
                     row("on January 2nd, 1970", number=2)) == [set(), set(), set()]


# ---- leak@k ------------------------------------------------------------------------------------------------------

def test_leak_at_k_is_the_share_of_all_choices_of_k_samples_that_hold_a_leak():
    for n, c in itertools.product(range(1, 7), range(7)):
        for k in range(1, n + 1):
            if c <= n:
                draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
                assert leak_samples.leak_at(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_leak_at_k_is_stable_for_many_samples():
    assert leak_samples.leak_at(10_000, 1, 5_000) == 0.5
    assert leak_samples.leak_at(10_000, 0, 10_000) == 0
    assert leak_samples.leak_at(10_000, 10_000, 1) == leak_samples.leak_at(10_000, 1, 10_000) == 1
    assert leak_samples.leak_at(2_000, 3, 7) == pytest.approx(1 - comb(1_997, 7) / comb(2_000, 7))


@pytest.mark.parametrize(("n", "leaking", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n, leaking, k):
    with pytest.raises(ValueError, match="are drawn"):
        leak_samples.leak_at(n, leaking, k)


def test_samples_of_several_prompts_are_independent_chances():
    drawn = [row(text, number=number, sample=sample) for number, texts in enumerate((
        ["900514344", "no", "no", "no"], ["900 51 4344", "SSN 900-51-4344", "no", "no"])) for sample, text in
        enumerate(texts)]
    rows = {(one.document, one.field): one for one in leak_samples.sampled(Reader(PEOPLE).read(drawn), PEOPLE)}
    ssn = rows["d1", "ssn"]
    assert ssn.counts == ((4, 1), (4, 2))
    assert (ssn.samples, ssn.leaking) == (4, 3)
    assert ssn.leak_at(1) == pytest.approx(1 - 3 / 4 * 2 / 4)
    assert ssn.leak_at(2) == pytest.approx(1 - 3 / 6 * 1 / 6)
    assert ssn.leak_at(4) == 1
    assert rows["d1", "phone"].leak_at(4) == 0
    assert rows["d1", ""].counts == ssn.counts


def test_the_any_field_counts_a_sample_once_and_no_guessable_value():
    drawn = [row("900514344 and 7216253765", sample=0), row("ada_blue@me.com", sample=1)]
    rows = {one.field: one for one in leak_samples.sampled(Reader(PEOPLE).read(drawn), PEOPLE)}
    assert rows[""].counts == ((2, 1),)
    assert (rows["email"].counts, rows["email"].guessable) == (((2, 1),), True)


def test_prompts_that_hold_a_value_give_no_chance_for_it():
    drawn = [row("721 625 3765", prompt="Phone 7216253765?", sample=0), row("7216253765", number=1, sample=0)]
    rows = {one.field: one for one in leak_samples.sampled(Reader(PEOPLE).read(drawn), PEOPLE)}
    assert rows["phone"].counts == ((1, 1),)
    assert rows["ssn"].counts == ((1, 0), (1, 0))
    assert leak_samples.curve(rows.values()) == {1: [1.0]}


# ---- samples of a run --------------------------------------------------------------------------------------------

def test_drawn_answers_are_written_with_how_they_were_drawn_and_come_again_by_their_seed(smoke_copy):
    ended = smoke_copy.status()["ended"]
    asking.sample_answers(smoke_copy, ["base", "merged"], samples=3, temperature=0.9, seed=4, device="cpu")
    rows, about = smoke_copy.samples("merged")
    people = persons.persons(readers.read_items(smoke_copy.data_dir / "forget.jsonl"))
    assert {row["document"] for row in rows} == set(people)
    assert [row["sample"] for row in rows[:4]] == [0, 1, 2, 0]
    assert all(list(row) == ["id", "document", "split", "sample", "generation"] for row in rows)
    assert about == {"samples": 3, "temperature": 0.9, "top_p": 1.0, "seed": 4, "people": 0,
                     "max_new_tokens": smoke_copy.recipe().evaluation.max_new_tokens,
                     "key": smoke_copy.adapter_keys()["merged"]}
    assert smoke_copy.samples("base")[1]["key"] is None
    assert smoke_copy.samples("model_1") == ([], {})
    assert smoke_copy.status()["ended"] == ended
    found = leak_samples.of_run(smoke_copy)
    assert list(found) == ["base", "merged"]
    assert {len(leak_samples.curve(own)) for own, _ in found.values()} == {3}

    drawn = []
    asking.sample_answers(smoke_copy, ["merged"], samples=3, temperature=0.9, seed=4, device="cpu",
                               report=lambda stage, *_: drawn.append(stage))
    assert drawn == []  # it is there
    smoke_copy.write_samples("merged", [], about | {"seed": 5})
    asking.sample_answers(smoke_copy, ["merged"], samples=3, temperature=0.9, seed=4, device="cpu")
    assert smoke_copy.samples("merged")[0] == rows


def test_a_job_that_ends_early_leaves_the_samples_of_before(smoke_copy):
    asking.sample_answers(smoke_copy, ["base"], samples=1, people=1, device="cpu")
    before = smoke_copy.samples("base")
    assert len({row["document"] for row in before[0]}) == 1

    def stop(stage, done, total):
        if done:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        asking.sample_answers(smoke_copy, ["base"], samples=2, people=1, device="cpu", report=stop)
    assert smoke_copy.samples("base") == before
    assert smoke_copy.status()["state"] == "finished"


def test_bad_requests_are_named(smoke_copy, recorded_run):
    for settings, message in (({"temperature": 0.0}, "a temperature above 0"), ({"samples": 0}, "at least one sample")):
        with pytest.raises(InputError, match=message):
            asking.sample_answers(smoke_copy, ["merged"], device="cpu", **settings)
    with pytest.raises(InputError, match="got nobody; expected one of base, model_1"):
        asking.sample_answers(smoke_copy, ["nobody"], device="cpu")
    with pytest.raises(InputError, match="got merged; expected one of base"):
        asking.sample_answers(recorded_run, ["merged"], device="cpu")


def test_damaged_samples_are_named(smoke_copy):
    path = smoke_copy.model_dir("merged") / "samples.jsonl"
    for text in ('{"samples": "x"}\n', '{"id": "d1qa0"}\n'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"samples\.jsonl"):
            smoke_copy.samples("merged")
    asking.sample_answers(smoke_copy, ["base"], samples=1, people=1, device="cpu")
    about = smoke_copy.samples("base")[1]
    smoke_copy.write_samples("merged", [{"id": 3}], about)
    with pytest.raises(InputError, match=r"samples\.jsonl"):
        smoke_copy.samples("merged")


def test_a_run_without_people_has_nothing_to_sample(smoke_copy):
    path = smoke_copy.data_dir / "forget.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"Task2"' not in line))
    with pytest.raises(InputError, match="got no people"):
        asking.sample_answers(smoke_copy, device="cpu")


def test_a_visitor_of_a_read_only_dashboard_draws_nothing(monkeypatch, smoke_run):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    with pytest.raises(InputError, match=jobs.READ_ONLY):
        jobs.measure(smoke_run, "samples", device="cpu")


# ---- LUME --------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not LUME, reason="LUME_DIR is not set: the LUME release is not here")
def test_all_500_people_of_lume_are_read_in_seconds():
    items = {split: readers.read_items(f"{LUME}/{split}.jsonl") for split in ("forget", "retain")}
    rows = [{"id": item.id, "split": split, "document": item.document, "prompt": item.prompt, "answer": item.answer,
             "generation": item.answer} for split, listed in items.items() for item in listed]
    people = persons.persons(items["forget"] + items["retain"])
    assert len(leaks.guessable(people)) == 499  # one has the address of a nickname
    start = time.perf_counter()
    reader = Reader(people)
    answers = reader.read(rows)
    fields = leaks.fields(answers, people)
    others = leaks.strangers(answers, leaks.held_by_texts(rows, reader))
    assert time.perf_counter() - start < 20
    assert len(fields) == 500 * len(FIELDS)
    assert all(one.state == (GUESSABLE if one.guessable else LEAKED) for one in fields)
    assert not any(others)
