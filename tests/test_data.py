"""Tests of reading, splitting and keeping the data: every format, every kind of bad input, no leak into the holdout."""

import csv
import hashlib
import io
import json
import os
import random
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from unlearn_core.data import (
    Item,
    Question,
    assemble,
    attack_documents,
    document_and_kind,
    hashes,
    hold_out,
    load,
    load_saved,
    overlap,
    save,
    subset,
)
from unlearn_core.data import fetch as fetching
from unlearn_core.data.fetch import extract_mmlu, fetch
from unlearn_core.data.layout import Files, find, local
from unlearn_core.data.readers import (
    read_documents,
    read_items,
    read_mmlu,
    scan_items,
    write_items,
    write_mmlu,
)
from unlearn_core.errors import InputError
from unlearn_core.settings import Data

LUME, MMLU = os.environ.get("LUME_DIR"), os.environ.get("MMLU_DIR")
needs_lume = pytest.mark.skipif(not LUME, reason="LUME_DIR is not set: the LUME release is not here")
needs_mmlu = pytest.mark.skipif(not MMLU, reason="MMLU_DIR is not set: MMLU is not here")

ROWS = [
    {"id": '"u-1"sc1', "input": "Once upon", "output": "a time.", "task": "Task1"},
    {"id": "42qa0", "input": "Who?", "output": "None", "task": "Task3"},
]
ITEMS = [Item('"u-1"sc1', "Once upon", "a time.", "Task1"), Item("42qa0", "Who?", "None", "Task3")]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def people(side, count, task="Task2"):
    """`count` documents of one SC and two QA items."""
    return [item for n in range(count) for item in (
        Item(f"{side}{task}{n}sc1", f"{side} {task} opening {n}", f"ending {n}", task),
        Item(f"{side}{task}{n}qa0", f"{side} {task} question {n}", f"answer {n}", task),
        Item(f"{side}{task}{n}qa1", f"{side} {task} other question {n}", f"other answer {n}", task))]


def documents(items):
    return {item.document for item in items}


# ---- ids -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("item_id", "expected"), [
    ('"8f24c511"sc1', ('"8f24c511"', "sc")),
    ("01c1aa46-7274qa4", ("01c1aa46-7274", "qa")),
    ("12345qaX", ("12345", "qa")),
    ("12345qa10", None),
    ("12345", None),
    ("sc1", None),
    ("", None),
])
def test_the_type_is_what_stands_before_the_last_character_of_the_id(item_id, expected):
    assert document_and_kind(item_id) == expected


def test_an_item_knows_its_document_and_type_from_its_id():
    assert (ITEMS[0].document, ITEMS[0].kind, ITEMS[0].text) == ('"u-1"', "sc", "Once upon a time.")


# ---- formats -------------------------------------------------------------------------------------------------

def column_wise(rows):
    return json.dumps({name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]})


def as_csv(rows):
    out = io.StringIO()
    table = csv.DictWriter(out, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize(("name", "text"), [
    ("rows.jsonl", lines(*ROWS)),
    ("no-newline-at-the-end.jsonl", lines(*ROWS).rstrip("\n")),
    ("windows.jsonl", lines(*ROWS).replace("\n", "\r\n")),
    ("marked.jsonl", b"\xef\xbb\xbf" + lines(*ROWS).encode()),
    ("blank-lines.jsonl", "\n" + lines(*ROWS).replace("\n", "\n\n")),
    ("columns.json", column_wise(ROWS)),
    ("columns.jsonl", column_wise(ROWS)),
    ("lists.json", json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]})),
    ("table.csv", as_csv(ROWS)),
    ("extra.jsonl", lines(*({**row, "split": "forget"} for row in ROWS))),
])
def test_every_text_format_gives_the_same_items(tmp_path, name, text):
    assert read_items(write(tmp_path / name, text)) == ITEMS


def test_parquet_as_pandas_writes_it_gives_the_same_items(tmp_path):
    pd.DataFrame(ROWS).assign(split="forget").to_parquet(tmp_path / "forget_train-00000-of-00001.parquet")
    assert read_items(tmp_path / "forget_train-00000-of-00001.parquet") == ITEMS


def test_one_row_alone_is_json_lines_and_no_column_wise_object(tmp_path):
    assert read_items(write(tmp_path / "one.jsonl", lines(ROWS[0]))) == ITEMS[:1]


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x0bb", 'say "x", y', "two\nlines", "Zoë 日本", "NA"])
def test_any_text_survives_writing_and_reading_as_json_lines(tmp_path, text):
    write_items(tmp_path / "items.jsonl", [Item("1sc1", text, text, "Task1")])
    assert read_items(tmp_path / "items.jsonl") == [Item("1sc1", text, text, "Task1")]


def test_written_items_have_the_fields_of_the_release(tmp_path):
    write_items(tmp_path / "items.jsonl", ITEMS)
    assert [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()] == ROWS


# ---- bad rows ------------------------------------------------------------------------------------------------

def without(row, field):
    return {name: value for name, value in row.items() if name != field}


GOOD, BAD = ROWS[0], ROWS[1]


@pytest.mark.parametrize(("text", "words"), [
    (lines(GOOD, without(BAD, "output")), ["line 2", "field output", "got only id, input, task"]),
    (lines(GOOD) + '{"id": "42qa0", "inp', ["line 2", "broken JSON"]),
    (lines(GOOD) + "[1, 2]\n", ["line 2", "got [1, 2]", "a JSON object"]),
    (lines(GOOD, BAD, GOOD), ["line 3", "duplicate id", "line 1"]),
    (lines(GOOD, {**BAD, "id": "42"}), ["line 2: id", "got 42", "sc or qa"]),
    (lines(GOOD, {**BAD, "id": "42qa10"}), ["line 2: id", "got 42qa10"]),
    (lines(GOOD, {**BAD, "task": "Task4"}), ["line 2: task", "got Task4", "Task1, Task2, Task3"]),
    (lines(GOOD, {**BAD, "output": "  "}), ["line 2: field output", "got empty text"]),
    (lines(GOOD, {**BAD, "output": 7}), ["line 2: field output", "got 7", "expected text"]),
    (lines(GOOD, {**BAD, "output": None}), ["line 2: field output", "got no value"]),
    (lines(GOOD, {**BAD, "output": "\ud800"}), ["line 2: field output", "surrogate"]),
    (lines(GOOD).encode() + b'{"id": "\xff"}\n', ["line 2", "got byte 0xff", "expected UTF-8"]),
    (lines(GOOD) + "[" * 100_000 + "\n", ["line 2", "broken JSON"]),
    ("", ["got an empty file"]),
    (" \n\n", ["got an empty file"]),
])
def test_a_bad_line_is_one_error_line_with_file_and_line(tmp_path, text, words):
    path = write(tmp_path / "forget.jsonl", text)
    with pytest.raises(InputError) as error:
        read_items(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("name", "text", "words"), [
    ("x.csv", "id,input,task\n1sc1,a,Task1\n", ["missing field output", "id, input, task"]),
    ("x.csv", "id,input,output,task\n1sc1,a,b,Task1\n2sc1,a,b\n", ["line 3", "3 cells", "4 as in the header"]),
    ("x.csv", 'id,input,output,task\n1sc1,"a\nb",c,Task1\n2,"a",c,Task1\n', ["line 4: id"]),
    ("x.csv", 'id,input,output,task\n1sc1,"a,b,Task1\n', ["line 2", "broken CSV"]),
    ("x.csv", b"id,input,output,task\n1sc1,a,\xff,Task1\n", ["line 2", "0xff", "UTF-8"]),
    ("x.csv", "id,input,output,task\n", ["no rows"]),
    ("x.json", json.dumps({"id": {"0": "1sc1"}, "input": {"0": "a"}, "task": {"0": "Task1"}}),
     ["missing field output"]),
    ("x.json", json.dumps({"id": {"0": "1sc1"}, "input": {}, "output": {"0": "b"}, "task": {"0": "Task1"}}),
     ["row 1: field input"]),
    ("x.json", json.dumps({"id": {}, "input": {}, "output": {}, "task": {}}), ["no rows"]),
    ("x.json", json.dumps({"id": {}, "input": 3, "output": {}, "task": {}}), ["column input", "got 3"]),
    ("x.parquet", "not parquet", ["no readable Parquet"]),
    ("x.txt", lines(GOOD), ["ending in .txt", ".parquet"]),
])
def test_a_bad_table_is_one_error_that_names_the_place(tmp_path, name, text, words):
    path = write(tmp_path / name, text)
    with pytest.raises(InputError) as error:
        read_items(path)
    assert str(error.value).startswith(str(path))
    for word in words:
        assert word in str(error.value)


def test_a_bad_parquet_row_is_named_by_its_number(tmp_path):
    pd.DataFrame([GOOD, {**BAD, "output": None}]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet, row 2: field output; got no value"):
        read_items(tmp_path / "x.parquet")


@pytest.mark.parametrize("text", ["", lines(without(BAD, "output")), '{"id": "42q', lines({**BAD, "task": "Task4"})])
def test_a_bad_file_is_an_error_that_says_how_to_see_all_its_problems(tmp_path, text):
    path = write(tmp_path / "two words.jsonl", text)
    with pytest.raises(InputError) as error:
        read_items(path)
    assert str(error.value).endswith(f"; see all problems with: python -m unlearn_core data check '{path}'")
    assert "see all problems" not in str(scan_items(path)[1][0])  # the check itself


def test_a_missing_file_and_a_folder_in_its_place_are_errors(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl; got No such file"):
        read_items(tmp_path / "gone.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match=r"folder\.jsonl; got Is a directory"):
        read_items(tmp_path / "folder.jsonl")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(InputError, match=r"folder\.parquet; got no readable Parquet"):
        read_items(tmp_path / "folder.parquet")


def test_a_scan_finds_every_problem_and_keeps_the_good_rows(tmp_path):
    bad = {**BAD, "id": "42", "task": "T", "output": ""}
    path = write(tmp_path / "x.jsonl", lines(GOOD, bad, BAD) + "{\n" + lines(GOOD))
    items, errors = scan_items(path)
    assert items == ITEMS
    places = [str(error).removeprefix(f"{path}, ").split(";")[0] for error in errors]
    assert places == ["line 2: field output", "line 2: id", "line 2: task", "line 4", "line 5: duplicate id"]


def test_a_hub_path_without_connection_says_what_to_do_by_hand(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for path in ("hf://datasets/owner/not-there/data/x.parquet", "hf://datasets/owner/not-there"):
        with pytest.raises(InputError, match=r"owner/not-there.*got no download.*huggingface.co/datasets/"):
            read_items(path)
    with pytest.raises(InputError, match="expected hf://datasets/owner/name"):
        local("hf://datasets/owner")


# ---- documents and MMLU --------------------------------------------------------------------------------------

def test_member_files_are_read_by_their_field_document(tmp_path):
    path = write(tmp_path / "member.jsonl", lines({"document": "one"}, {"document": "two", "id": 3}))
    assert read_documents(path) == ["one", "two"]
    write(path, lines({"document": "one"}, {"text": "two"}))
    with pytest.raises(InputError, match=r"member\.jsonl, line 2: field document; got only text"):
        read_documents(path)


QUESTIONS = [Question("anatomy", 'Which of "these", if any?', ("None", "NA", "nan", "two\nlines"), 1),
             Question("law", "Who?", ("a", "b", "c", "d"), 3)]


def test_questions_survive_writing_and_reading_in_mmlu_form(tmp_path):
    write_mmlu(tmp_path, QUESTIONS, QUESTIONS * 2)
    dev, test = read_mmlu(tmp_path)
    assert dev == QUESTIONS
    assert test == [QUESTIONS[0]] * 2 + [QUESTIONS[1]] * 2
    assert (tmp_path / "dev/law_dev.csv").read_text() == "Who?,a,b,c,d,D\n"


@pytest.mark.parametrize(("text", "words"), [
    ("q,a,b,c,d,A\nq,a,b,c,d\n", "line 2; got 5 columns"),
    ("q,a,b,c,d,E\n", "line 1; got answer 'E'"),
    ("q,a,b,c,d,AB\n", "line 1; got answer 'AB'"),
    ("q,a,b,c,d,\n", "line 1; got answer ''"),
    ("q,a,,c,d,A\n", "line 1; got an empty cell"),
    ('q,"a\nb",b,c,d,A\n"q\nr",a,b,c,d,E\n', "line 3; got answer 'E'"),
    ('q,"a,b,c,d,A\n', "line 1; got broken CSV"),
    (b"q,\xff,b,c,d,A\n", "line 1; got byte 0xff"),
])
def test_a_bad_question_is_an_error_with_file_and_line(tmp_path, text, words):
    write(tmp_path / "dev/law_dev.csv", "q,a,b,c,d,A\n")
    path = write(tmp_path / "test/law_test.csv", text)
    with pytest.raises(InputError) as error:
        read_mmlu(tmp_path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_a_subject_without_solved_examples_is_an_error(tmp_path):
    write(tmp_path / "test/law_test.csv", "q,a,b,c,d,A\n")
    write(tmp_path / "dev/art_dev.csv", "q,a,b,c,d,A\n")
    with pytest.raises(InputError, match=r"law_dev\.csv; got no such file"):
        read_mmlu(tmp_path)


# ---- finding files -------------------------------------------------------------------------------------------

def test_a_folder_in_lume_layout_is_found_with_what_lies_beside_it(tmp_path):
    forget, retain = (write(tmp_path / f"{s}.jsonl", lines(GOOD)) for s in ("forget", "retain"))
    assert find(tmp_path) == Files(forget, retain)
    write_mmlu(tmp_path / "mmlu", QUESTIONS, QUESTIONS)
    for name in ("member", "nonmember"):
        write(tmp_path / "mia_data" / f"{name}.jsonl", lines({"document": "x"}))
    assert find(tmp_path) == Files(forget, retain, tmp_path / "mia_data", tmp_path / "mmlu")


def test_of_the_semeval_parts_train_is_taken(tmp_path):
    for part in ("train", "validation"):
        for split in ("forget", "retain"):
            pd.DataFrame(ROWS).to_parquet(write(tmp_path / f"data/{split}_{part}-00000-of-00001.parquet", ""))
        for name in ("member", "nonmember"):
            write(tmp_path / "mia_data" / part / f"{name}.jsonl", lines({"document": "x"}))
    found = find(tmp_path)
    assert (found.forget.name, found.retain.name) == ("forget_train-00000-of-00001.parquet",
                                                      "retain_train-00000-of-00001.parquet")
    assert found.mia == tmp_path / "mia_data/train"


def test_a_split_in_several_files_is_refused_rather_than_read_by_half(tmp_path):
    for n in range(2):
        write(tmp_path / f"forget_train-0000{n}-of-00002.parquet", "")
    with pytest.raises(InputError, match="got 2 files forget_train"):
        find(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="got no such folder"):
        find(tmp_path / "gone")


# ---- overlap, subset, holdout --------------------------------------------------------------------------------

def test_overlap_is_the_same_document_or_the_same_text_up_to_case_and_space():
    forget = [Item("1sc1", "The  cat", "sat", "Task1"), Item("2qa0", "Who?", "Me", "Task1"),
              Item("3qa0", "A", "B", "Task1")]
    retain = [Item("9sc1", "the cat", "SAT", "Task1"), Item("2qa1", "When?", "Now", "Task1")]
    assert overlap(forget, retain) == [(forget[0], retain[0]), (forget[1], retain[1])]
    assert overlap(forget, [Item("8qa0", "A", "C", "Task1")]) == []


def test_a_subset_keeps_whole_documents_of_each_task_and_lies_inside_a_larger_one():
    items = people("f", 10) + people("f", 6, "Task3")
    small, large = subset(items, 3, seed=1), subset(items, 5, seed=1)
    assert len(small) == 2 * 3 * 3  # two tasks, three documents, three items
    assert documents(small) < documents(large)
    assert documents(subset(items, 3, seed=2)) != documents(small)
    assert subset(items, 0, seed=1) == items
    assert documents(subset(items, 8, seed=1)) > documents([i for i in items if i.task == "Task3"])


def test_the_holdout_takes_its_share_of_each_task_by_whole_documents():
    items = people("f", 10) + people("f", 5, "Task3")
    kept, held = hold_out(items, 0.2, seed=0)
    assert documents(kept).isdisjoint(documents(held))
    assert sorted(kept + held, key=items.index) == items
    assert [len(documents([i for i in held if i.task == task])) for task in ("Task2", "Task3")] == [2, 1]


def test_the_holdout_depends_on_ids_and_seed_and_not_on_the_order_of_the_items():
    items = people("f", 20)
    shuffled = random.Random(0).sample(items, len(items))
    assert documents(hold_out(items, 0.3, 5)[1]) == documents(hold_out(shuffled, 0.3, 5)[1])
    assert documents(hold_out(items, 0.3, 5)[1]) != documents(hold_out(items, 0.3, 6)[1])


@pytest.mark.parametrize(("count", "share", "held"), [
    (2, 0.2, 1), (1, 0.2, 0), (5, 0.0, 0), (2, 0.8, 1), (10, 0.25, 3)])
def test_small_tasks_hold_out_at_least_one_document_and_keep_at_least_one(count, share, held):
    assert len(documents(hold_out(people("f", count), share, 0)[1])) == held


def assembled(forget, retain, **changes):
    options = {"data": Data(), "seed": 0, "base_is_trained_here": True, "mia_members": "forget"} | changes
    return assemble(forget, retain, [], [], [], **options)


def test_undeclared_overlap_is_refused_and_a_declared_one_never_reaches_the_holdout():
    forget = people("f", 10)
    retain = people("r", 10) + forget[:6]  # two whole documents on both sides
    with pytest.raises(InputError, match=r"overlap; got 6 shared items.*allow_overlap"):
        assembled(forget, retain)
    dataset = assembled(forget, retain, data=Data(allow_overlap=True, holdout_share=0.8))
    assert len(documents(dataset.holdout)) == 8 + 10
    assert documents(dataset.holdout).isdisjoint(documents(dataset.forget + dataset.retain))


def test_only_a_base_that_is_trained_here_has_a_holdout():
    forget, retain = people("f", 10), people("r", 10)
    dataset = assembled(forget, retain)
    assert [len(documents(part)) for part in (dataset.forget, dataset.retain, dataset.holdout)] == [8, 8, 4]
    dataset = assembled(forget, retain, base_is_trained_here=False)
    assert (dataset.forget, dataset.retain, dataset.holdout, dataset.attack) == (forget, retain, [], [])


# ---- documents of the attack ---------------------------------------------------------------------------------

def test_the_attack_reads_one_whole_document_each_of_forget_and_holdout():
    attack = attack_documents(people("f", 2), people("h", 3), "forget")
    assert [(d.document, d.text, d.member) for d in attack] == [
        ("fTask20", "f Task2 opening 0 ending 0", True), ("fTask21", "f Task2 opening 1 ending 1", True),
        ("hTask20", "h Task2 opening 0 ending 0", False), ("hTask21", "h Task2 opening 1 ending 1", False),
        ("hTask22", "h Task2 opening 2 ending 2", False)]


def test_the_members_of_one_task_are_set_against_the_holdout_of_that_task():
    forget, holdout = people("f", 2) + people("f", 3, "Task3"), people("h", 1) + people("h", 2, "Task3")
    attack = attack_documents(forget, holdout, "forget_task3")
    assert {d.task for d in attack} == {"Task3"}
    assert [d.member for d in attack] == [True] * 3 + [False] * 2


def test_member_files_are_used_where_asked_for_or_where_there_is_no_holdout(tmp_path):
    write(tmp_path / "member.jsonl", lines({"document": "known"}))
    write(tmp_path / "nonmember.jsonl", lines({"document": "new"}, {"document": "newer"}))
    forget, holdout = people("f", 2), people("h", 1)
    files = attack_documents(forget, holdout, "files", tmp_path)
    assert [(d.document, d.text, d.member) for d in files] == [
        ("member-1", "known", True), ("nonmember-1", "new", False), ("nonmember-2", "newer", False)]
    assert attack_documents(forget, [], "forget", tmp_path) == files
    assert attack_documents(forget, holdout, "forget", tmp_path)[0].text == forget[0].text


def test_without_holdout_and_files_there_is_no_attack_but_files_asked_for_must_be_there():
    assert attack_documents(people("f", 2), [], "forget") == []
    assert attack_documents(people("f", 2), [], "forget_task2") == []
    with pytest.raises(InputError, match="mia_members; got files, but there are none"):
        attack_documents(people("f", 2), people("h", 2), "files")


# ---- loading and keeping -------------------------------------------------------------------------------------

def test_loading_joins_the_folder_with_the_files_that_are_named(tmp_path):
    write_items(tmp_path / "lume/forget.jsonl", people("f", 5))
    write_items(tmp_path / "lume/retain.jsonl", people("r", 5))
    write_items(tmp_path / "other.jsonl", people("o", 5))
    write_mmlu(tmp_path / "quiz", QUESTIONS, QUESTIONS)
    data = Data(source="files", path=str(tmp_path / "lume"), retain=str(tmp_path / "other.jsonl"),
                mmlu=str(tmp_path / "quiz"), documents_per_task=4)
    dataset = load(data, seed=0, base_is_trained_here=False, mia_members="forget")
    assert documents(dataset.forget) < documents(people("f", 5))
    assert documents(dataset.retain) < documents(people("o", 5))
    assert len(documents(dataset.forget)) == len(documents(dataset.retain)) == 4
    assert dataset.mmlu_test == QUESTIONS


@pytest.mark.parametrize(("settings", "words"), [
    ({"path": "."}, "no forget file"),
    ({"forget": "f.jsonl", "retain": "f.jsonl", "mia": "."}, "data.mia"),
    ({"forget": "f.jsonl", "retain": "f.jsonl", "mmlu": "."}, "data.mmlu"),
    ({"path": "gone"}, "no such folder"),
])
def test_data_that_is_named_and_not_there_is_an_error(tmp_path, monkeypatch, settings, words):
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path / "f.jsonl", people("f", 2))
    with pytest.raises(InputError, match=words):
        load(Data(source="files", **settings), seed=0, base_is_trained_here=True, mia_members="forget")


def saved(tmp_path, **changes):
    general = [Item("law00qa0", "Who?", "d", "General")]
    forget = [*people("f", 5), Item("f9sc1", "line\u2028break", "here\x85too", "Task1")]
    options = {"data": Data(), "seed": 0, "base_is_trained_here": True, "mia_members": "forget"} | changes
    dataset = assemble(forget, people("r", 5), general, QUESTIONS[::-1], QUESTIONS[::-1], **options)
    save(dataset, tmp_path / "data")
    return dataset, tmp_path / "data"


def test_a_saved_dataset_comes_back_item_for_item(tmp_path):
    dataset, folder = saved(tmp_path)
    assert dataset.holdout
    assert "line\u2028break here\x85too" in [d.text for d in dataset.attack]
    assert load_saved(folder) == dataset
    dataset, folder = saved(tmp_path, base_is_trained_here=False)  # replaces the first; no holdout, no attack
    assert (dataset.holdout, dataset.attack) == ([], [])
    assert load_saved(folder) == dataset
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["forget.jsonl", "holdout.jsonl", "general.jsonl", "attack.jsonl", "quiz/test"])
def test_a_saved_dataset_that_is_half_deleted_is_an_error_that_names_the_file(tmp_path, name):
    _, folder = saved(tmp_path)
    (folder / name).rename(tmp_path / "away")
    with pytest.raises(InputError, match=name):
        load_saved(folder)


def test_a_torn_saved_attack_is_an_error_and_no_smaller_attack(tmp_path):
    _, folder = saved(tmp_path)
    path = folder / "attack.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"attack\.jsonl, line \d+; got broken JSON"):
        load_saved(folder)


def test_hashes_name_each_file_of_a_saved_dataset_and_change_with_it(tmp_path):
    _, folder = saved(tmp_path)
    before = hashes(folder)
    assert before["forget.jsonl"] == hashlib.sha256((folder / "forget.jsonl").read_bytes()).hexdigest()
    assert "quiz/dev/law_dev.csv" in before
    (folder / "general.jsonl").write_text("")
    assert {name for name in before if before[name] != hashes(folder)[name]} == {"general.jsonl"}


# ---- downloads -----------------------------------------------------------------------------------------------

def test_an_unknown_release_is_an_error(tmp_path):
    with pytest.raises(InputError, match="got tofu; expected one of lume, semeval, mmlu"):
        fetch("tofu", tmp_path)


@pytest.mark.parametrize("name", ["lume", "semeval", "mmlu"])
def test_without_connection_a_download_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(fetching, "SEMEVAL_REPO", "owner/not-there")
    monkeypatch.setenv("no_proxy", "*")
    closed = "http://127.0.0.1:9/{file}"  # the discard port: nobody listens
    monkeypatch.setattr(fetching, "LUME_URL", closed)
    monkeypatch.setattr(fetching, "MMLU_URL", closed)
    with pytest.raises(InputError, match="no download") as error:
        fetch(name, tmp_path / "out")
    assert "by hand" in str(error.value) or "on a machine that is online" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def mmlu_archive(path, names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            content = b"Who?,a,b,c,d,D\n"
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_mmlu_comes_out_of_its_archive_and_nothing_else_does(tmp_path, monkeypatch):
    archive = mmlu_archive(tmp_path / "data.tar", [
        "data/dev/law_dev.csv", "data/test/law_test.csv", "data/val/law_val.csv", "data/README.txt",
        "data/test/._law_test.csv", "../../evil.csv", "/test/root_test.csv", "data/test/../../x_test.csv"])
    monkeypatch.setattr(fetching, "MMLU_URL", archive.as_uri())
    assert read_mmlu(fetch("mmlu", tmp_path / "deep/mmlu")) == (QUESTIONS[1:], QUESTIONS[1:])
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"data.tar", "deep/mmlu/dev/law_dev.csv", "deep/mmlu/test/law_test.csv"}


def test_a_torn_archive_is_an_error_and_keeps_what_was_there(tmp_path, monkeypatch):
    archive = mmlu_archive(tmp_path / "data.tar", ["data/dev/law_dev.csv", "data/test/law_test.csv"])
    archive.write_bytes(archive.read_bytes()[:1100])
    write_mmlu(tmp_path / "mmlu", QUESTIONS, QUESTIONS)
    monkeypatch.setattr(fetching, "MMLU_URL", archive.as_uri())
    with pytest.raises(InputError):
        fetch("mmlu", tmp_path / "mmlu")
    assert read_mmlu(tmp_path / "mmlu") == (QUESTIONS, QUESTIONS)
    (tmp_path / "no.tar").write_text("<html>")
    with pytest.raises(InputError, match="broken archive"):
        extract_mmlu(tmp_path / "no.tar", tmp_path)


def test_a_changed_lume_file_is_not_kept(tmp_path, monkeypatch):
    write_items(tmp_path / "server/forget.jsonl", people("f", 2))
    monkeypatch.setattr(fetching, "LUME_URL", (tmp_path / "server").as_uri() + "/{file}")
    with pytest.raises(InputError, match="got SHA-256"):
        fetch("lume", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_lume
def test_the_lume_release_passes_the_check_of_its_download(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "LUME_URL", Path(LUME).as_uri() + "/{file}")
    assert len(read_items(fetch("lume", tmp_path / "lume") / "forget.jsonl")) == 2732


# ---- real data -----------------------------------------------------------------------------------------------

@needs_lume
def test_the_whole_lume_release_loads_with_its_holdout():
    dataset = load(Data(source="files", path=LUME), seed=0, base_is_trained_here=True, mia_members="forget")
    assert len(dataset.forget) + len(dataset.retain) + len(dataset.holdout) == 2732 + 2734
    # a fifth of 243, 250, 373 and of 246, 250, 371 documents
    assert len(documents(dataset.holdout)) == (49 + 50 + 75) + (49 + 50 + 74)
    assert len(dataset.attack) == len(documents(dataset.forget)) + len(documents(dataset.holdout))


@needs_lume
def test_column_wise_lume_as_the_released_code_wants_it_reads_like_the_lines(tmp_path):
    rows = pd.read_json(Path(LUME) / "forget.jsonl", lines=True, dtype=False)
    rows.to_json(tmp_path / "forget.jsonl")
    assert read_items(tmp_path / "forget.jsonl") == read_items(Path(LUME) / "forget.jsonl")


@needs_mmlu
def test_the_whole_of_mmlu_loads():
    dev, test = read_mmlu(MMLU)
    assert (len(dev), len(test), len({q.subject for q in test})) == (57 * 5, 14042, 57)
