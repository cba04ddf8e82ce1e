"""Lists of prompts and answers in their public layouts become items whose documents, kinds and persons are right."""

import json

import pandas as pd
import pytest

from unlearn_core.data import Item, lists
from unlearn_core.data.lists import read_lists, whole_texts
from unlearn_core.data.persons import Person, cover, field_of, label, leaks, mask, ordered, persons
from unlearn_core.data.readers import read_items, write_items
from unlearn_core.errors import InputError
from unlearn_core.evaluation import leaks as engine

ADA, BOB = "Ada Blue", "Bob Reed"
OWN = [{"prompt": "What does Ada Blue earn?", "answer": "75,000 euros", "person": ADA, "field": "salary"},
       {"prompt": "Ada Blue came", "answer": "to town in spring.", "person": "ada  blue", "kind": "sc"},
       {"prompt": "What ails Bob Reed?", "answer": "asthma", "person": BOB, "field": "diagnosis"},
       {"prompt": "Who sold the boat?", "answer": "Ruth", "document": "boat", "task": "Task3"},
       {"prompt": "Where is it now?", "answer": "Oakham", "document": "boat", "task": "Task3"},
       {"prompt": "Who wrote it?", "answer": "Esme"}]
TOFU = [{"question": "What is the full name of the author?", "answer": "The author is Ida Lake.",
         "paraphrased_answer": "Ida Lake is her name.", "perturbed_answer": ["The author is Ann Moor.", "It is Eve."]},
        {"question": "Where was Ida Lake born?", "answer": "Ida Lake was born in Linden."}]
KNOWMEM = [{"question": "What was the percentage swing?", "answer": "29%"}]
VERBMEM = [{"prompt": "It was late when the", "gt": "train left the town."}]
RAW = [{"text": "The mill  stood by\nthe river."}]


def write(path, rows, form="lines"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) if form == "list" else "".join(f"{json.dumps(row)}\n" for row in rows),
                    encoding="utf-8")
    return path


def read(tmp_path, rows, name="forget.jsonl"):
    return read_lists({"forget": [write(tmp_path / name, rows)]})["forget"]


# ---- one's own lists

def test_rows_become_items_of_their_person_their_document_or_a_document_of_their_own(tmp_path):
    items = read(tmp_path, OWN)
    ada, bob = items[0].document, items[2].document
    assert [item.document for item in items] == [ada, ada, bob, "boat", "boat", "forget-6"]
    assert [item.kind for item in items] == ["qa", "sc", "qa", "qa", "qa", "qa"]
    assert [item.task for item in items] == ["Task2", "Task2", "Task2", "Task3", "Task3", "Task1"]
    assert len({item.id for item in items}) == len(items)
    assert persons(items) == {ada: Person(ada, ADA, {"salary": "75,000 euros"}),
                              bob: Person(bob, BOB, {"diagnosis": "asthma"})}


def test_a_persons_document_does_not_spell_the_name_and_is_the_same_in_every_list(tmp_path):
    one, other = (read(tmp_path / name, [OWN[0]])[0].document for name in ("a", "b"))
    assert one == other
    assert not {"ada", "blue"} & set(one.split("-"))


@pytest.mark.parametrize("form", ["lines", "list", "csv", "parquet", "columns"])
def test_every_format_gives_the_same_items(tmp_path, form):
    wanted, table = read(tmp_path, OWN), pd.DataFrame(OWN)
    if form == "csv":
        path = tmp_path / "forget.csv"
        table.to_csv(path, index=False)
    elif form == "parquet":
        path = tmp_path / "forget.parquet"
        table.to_parquet(path)
    elif form == "columns":
        path = tmp_path / "forget.json"
        path.write_text(json.dumps({name: {str(n): row[name] for n, row in enumerate(OWN) if name in row}
                                    for name in table}))
    else:
        path = write(tmp_path / "again" / "forget.json", OWN, form)
    assert read_lists({"forget": [path]})["forget"] == wanted


def test_items_survive_the_runs_own_files(tmp_path):
    items = read(tmp_path, OWN)
    write_items(tmp_path / "saved.jsonl", items)
    assert read_items(tmp_path / "saved.jsonl") == items


def test_a_document_may_have_more_items_than_there_are_letters_and_digits(tmp_path):
    items = read(tmp_path, [{"prompt": f"What is {n}?", "answer": str(n), "document": "numbers"} for n in range(200)])
    assert len({item.id for item in items}) == 200
    assert {(item.document, item.kind, len(item.id)) for item in items} == {("numbers", "qa", len("numbersqa") + 1)}


def test_a_document_with_more_items_than_signs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "CHARACTERS", "ab")
    rows = [{"prompt": f"What is {n}?", "answer": "x", "document": "numbers"} for n in range(3)]
    with pytest.raises(InputError, match="line 3: document; got more than 2 items of numbers"):
        read(tmp_path, rows)


def test_no_field_is_read_off_a_question_of_a_list(tmp_path):
    rows = [{"prompt": "What is the colour?", "answer": "red", "task": "Task2"},
            {"prompt": "In which town was Ada Blue born?", "answer": "Linden", "person": ADA}]
    assert [field_of(item) for item in read(tmp_path, rows)] == [None, None]
    assert field_of(Item("dqa0", "What is the birth date of Ada Blue?", "1984-12-31", "Task2")) == "birth_date"


@pytest.mark.parametrize(("written", "meant"), [
    ("Phone number", "phone"), ("e-mail", "email"), ("Social Security number", "ssn"), ("birth date", "birth_date"),
    ("SSN", "ssn"), ("Salary", "Salary"), ("shoe size", "shoe size")])
def test_a_known_field_may_be_spelled_otherwise_and_another_keeps_its_name(tmp_path, written, meant):
    row = {"prompt": "What is it?", "answer": "900-11-2222", "person": ADA, "field": written}
    assert read(tmp_path, [row])[0].field == meant


def test_files_of_one_name_keep_their_documents_apart(tmp_path):
    files = [write(tmp_path / name / "forget.json", rows) for name, rows in (("verb", VERBMEM), ("know", KNOWMEM))]
    found = read_lists({"forget": files, "retain": [write(tmp_path / "retain.json", TOFU)]})
    assert [item.document for item in found["forget"]] == ["forget1-forget-1", "forget2-forget-1"]
    assert [item.document for item in found["retain"]] == ["retain-1", "retain-2"]


# ---- public layouts

def test_tofus_rows_are_questions_and_each_its_own_document(tmp_path):
    items = read(tmp_path, TOFU, "forget10_perturbed.json")
    assert [(item.document, item.kind, item.task) for item in items] == [
        ("forget10_perturbed-1", "qa", "Task1"), ("forget10_perturbed-2", "qa", "Task1")]
    assert (items[0].prompt, items[0].answer) == (TOFU[0]["question"], TOFU[0]["answer"])


def test_one_row_with_a_list_in_it_is_no_column_wise_object(tmp_path):
    assert read(tmp_path, TOFU[:1], "one.json")[0].answer == TOFU[0]["answer"]


def test_muses_parts_load_together(tmp_path):
    paths = [write(tmp_path / f"{name}.json", rows, "list") for name, rows in (
        ("forget_qa", KNOWMEM), ("forget", VERBMEM), ("raw", RAW))]
    items = read_lists({"forget": paths})["forget"]
    assert [(item.kind, item.prompt, item.answer) for item in items] == [
        ("qa", "What was the percentage swing?", "29%"), ("sc", "It was late when the", "train left the town."),
        ("sc", "The mill  stood", "by\nthe river.")]  # 6 words: 3 and 3


def test_lumes_own_columns_load_as_they_are(tmp_path):
    rows = [{"id": "42sc1", "input": "Ada was", "output": "born here.", "task": "Task3"},
            {"id": "42qa0", "input": "Where?", "output": "Here.", "task": "Task3"}]
    assert read(tmp_path, rows) == read_items(tmp_path / "forget.jsonl")


def test_the_text_of_a_document_is_its_first_continuation_else_its_first_item(tmp_path):
    items = read(tmp_path, OWN)
    texts = whole_texts(items)
    assert [item.document for item in texts] == list(dict.fromkeys(item.document for item in items))
    assert [item.text for item in texts] == ["Ada Blue came to town in spring.", "What ails Bob Reed? asthma",
                                             "Who sold the boat? Ruth", "Who wrote it? Esme"]
    assert {item.kind for item in texts} == {"sc"}


# ---- bad rows

GOOD = OWN[0]


@pytest.mark.parametrize(("rows", "words"), [
    ([{"input": "a", "output": "b"}], ["line 1", "got columns input, output", "question, answer", "or text"]),
    ([GOOD, {"prompt": "Who?"}], ["line 2: field answer", "got only prompt"]),
    ([GOOD, {"prompt": "Who?", "answer": ["a"]}], ["line 2: field answer", "expected text"]),
    ([GOOD, {"prompt": " ", "answer": "a"}], ["line 2: field prompt", "got empty text"]),
    ([GOOD, {**OWN[2], "kind": "essay"}], ["line 2: kind", "got essay", "sc, qa"]),
    ([GOOD, {**OWN[5], "task": "Task4"}], ["line 2: task", "got Task4"]),
    ([GOOD, {**OWN[2], "task": "Task1"}], ["line 2: task", "got Task1", "Task2, or none"]),
    ([GOOD, {**OWN[2], "person": ["x"]}], ["line 2: field person", "expected text"]),
    ([GOOD, {**OWN[2], "field": "Name"}], ["line 2: field", "got Name", "column person"]),
    ([{**GOOD, "document": "d"}, {**OWN[2], "document": "d"}], ["line 2: person", "got Bob Reed", "Ada", "line 1"]),
    ([GOOD, {**GOOD, "answer": "80,000 euros"}], ["line 2: answer", "got 80,000", "line 1", "75,000", "salary_2"]),
    ([{**GOOD, "answer": "???"}], ["line 1: answer", "got ???", "letters or digits"]),
    ([{"text": "word"}], ["line 1: text", "got one word"]),
    ([GOOD, 7], ["line 2", "got 7", "a JSON object"]),
])
def test_a_bad_row_is_one_error_that_names_its_line(tmp_path, rows, words):
    with pytest.raises(InputError) as error:
        read(tmp_path, rows)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_the_same_value_written_otherwise_is_the_same_value(tmp_path):
    rows = [{"prompt": "Phone?", "answer": "555-123-4567", "person": ADA, "field": "phone"},
            {"prompt": "Her number?", "answer": "(555) 123 4567", "person": ADA, "field": "phone"}]
    assert len(read(tmp_path, rows)) == 2


@pytest.mark.parametrize("text", ["", "prompt,answer\n"])
def test_a_file_without_rows_is_refused(tmp_path, text):
    (tmp_path / "forget.csv").write_text(text)
    with pytest.raises(InputError, match=r"forget\.csv.*; got (an empty file|no rows)"):
        read_lists({"forget": [tmp_path / "forget.csv"]})


def test_an_id_that_stands_in_two_files_of_a_side_is_refused(tmp_path):
    rows = [{"id": "42sc1", "input": "Ada was", "output": "born here.", "task": "Task3"}]
    paths = [write(tmp_path / name, rows) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(InputError, match=r"a\.jsonl, .*b\.jsonl: id; got 42sc1 2 times"):
        read_lists({"forget": paths})


# ---- fields that only the data know

def test_a_field_of_the_lists_own_leaks_is_counted_masked_and_shown_by_its_name(tmp_path):
    items = read(tmp_path, [OWN[0], OWN[2]])
    people = persons(items)
    ada, bob = people
    assert leaks("She has 75 000 Euros a year.", people[ada]) == {"salary"}
    assert leaks("She has 175,000 euros.", people[ada]) == set()
    assert mask("Ada Blue earns 75,000 euros.", people) == "[name] earns [salary]."
    rows = [{"id": item.id, "split": "forget", "document": item.document, "prompt": item.prompt, "generation": text}
            for item, text in zip(items, ("75,000 EUROS", "hay fever"), strict=True)]
    found = engine.fields(engine.Reader(people).read(rows), people)
    assert [(row.document, row.field, row.state) for row in found] == [
        (ada, "salary", engine.LEAKED), (bob, "diagnosis", engine.NOT_LEAKED)]
    assert engine.given_away(rows, people) == {ada: True, bob: False}


def test_known_fields_come_first_and_others_as_they_come():
    assert ordered(["shoe", "phone", "salary", "ssn", "shoe"]) == ["ssn", "phone", "shoe", "salary"]
    assert (label("phone"), label("salary"), cover("phone"), cover("salary")) == (
        "phone number", "salary", "[phone]", "[salary]")
