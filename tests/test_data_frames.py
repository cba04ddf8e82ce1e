"""Tables and figures of the data page: counts, lengths, records, tokens, problems; on a tokenizer of whole words."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from analysis import data_figures, data_frames
from analysis.data_frames import ANSWER, CUT_ANSWER, CUT_PROMPT, END, PADDING, PROMPT, Source
from unlearn_core.data import Item, persons, world
from unlearn_core.data.duplicates import near_duplicates
from unlearn_core.data.readers import write_items
from unlearn_core.data.request import Request, apply
from unlearn_core.encoding import encode
from unlearn_core.errors import InputError
from unlearn_core.settings import Encoding, World
from unlearn_core.tokens import SavedTokenizer


class Words:
    """A tokenizer: one token per word, the end is token 0."""

    eos_token_id = 0

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [int(word) for word in text.split()]}

    def text(self, token):
        return "<end>" if token == 0 else str(token)


FORGET = [Item("1sc1", "1 2 3 4 5 6", "7 8", "Task1"), Item("1qa0", "1 2", "3", "Task1"),
          Item("2sc1", "1 2", "3 4", "Task2")]
RETAIN = [Item("3sc1", "1 2 3", "4", "Task1")]
SOURCE = Source("key", "test", {"forget": FORGET, "retain": RETAIN})


def count(text):
    return len(text.split())


def row(frame, **where):
    for column, value in where.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


# ---- counts and lengths --------------------------------------------------------------------------------------

def test_groups_and_histogram_count_every_item_once():
    report, histogram = data_frames.check(SOURCE, count, Encoding(max_length=8, prompt_share=0.5))
    groups = data_frames.groups(report)
    assert tuple(groups.columns) == data_frames.GROUP_COLUMNS
    assert tuple(histogram.columns) == data_frames.HISTOGRAM_COLUMNS
    assert groups["items"].sum() == histogram["items"].sum() == 4
    assert report.tokens == "counted"
    # 6 + 2 words and the end: 9 tokens; the prompt is capped at 4, so the answer fits
    bins = histogram[(histogram["task"] == "Task1") & (histogram["kind"] == "sc") & (histogram["split"] == "forget")]
    assert [(low, high) for low, high in zip(bins["low"], bins["high"], strict=True)] == [(9, 10)]
    stories = row(groups, split="forget", task="Task1", kind="sc")
    assert (stories["cut_prompts"], stories["cut_prompt_share"], stories["cut_answers"]) == (1, 1.0, 0)


def test_shares_of_cut_answers_are_of_the_group():
    answers = [Item(f"{n}sc1", "1 2", " ".join(["5"] * n), "Task3") for n in range(1, 11)]
    source = Source("k", "n", {"forget": answers})
    report, _ = data_frames.check(source, count, Encoding(max_length=8, prompt_share=0.5))
    # two of the prompt, n of the answer, one end: over 8 from n = 6 on
    assert row(data_frames.groups(report), task="Task3")["cut_answer_share"] == 5 / 10
    assert data_frames.cuts(report) == (
        "An item keeps the last 4 tokens of its prompt and is cut at 8 in all: 0 of 10 prompts lose their start, 5 "
        "answers (50.0%) lose their end")


def test_without_a_tokenizer_and_for_very_many_items_lengths_are_estimated(monkeypatch):
    assert "estimated" in data_frames.check(SOURCE, None, Encoding())[0].tokens
    monkeypatch.setattr(data_frames, "COUNTED_UP_TO", 3)
    assert "estimated" in data_frames.check(SOURCE, count, Encoding())[0].tokens


def test_one_endless_text_still_makes_few_bins():
    long = [*FORGET, Item("9sc1", "1 " * 50_000, "2", "Task1")]
    _, histogram = data_frames.check(Source("k", "n", {"forget": long}), count, Encoding())
    assert len(histogram) <= 10
    assert histogram["high"].max() >= 50_002


def test_the_figures_draw_every_split_and_the_cut_and_check_their_columns():
    report, histogram = data_frames.check(SOURCE, count, Encoding(max_length=8, prompt_share=0.5))
    counts = data_figures.counts(data_frames.groups(report))
    assert {trace.name for trace in counts.data} == {"forget", "retain"}
    assert sum(sum(trace.y) for trace in counts.data) == 4
    lengths = data_figures.lengths(histogram, 8)
    assert sum(sum(trace.y) for trace in lengths.data) == 4
    assert {line.x0 for line in lengths.layout.shapes} == {8}
    assert len({trace.marker.pattern.shape for trace in counts.data}) == 2  # told apart without colour
    for figure in (data_figures.counts, data_figures.subset_bars):
        with pytest.raises(ValueError, match="needs the columns"):
            figure(pd.DataFrame({"split": []}))
    with pytest.raises(ValueError, match="needs the columns"):
        data_figures.lengths(pd.DataFrame(), 8)


# ---- files -----------------------------------------------------------------------------------------------------

def test_a_folder_and_a_single_file_are_sources_with_every_problem_by_row(tmp_path):
    write_items(tmp_path / "forget.jsonl", FORGET)
    bad = {"id": "3sc1", "input": "a", "output": "b", "task": "Task9"}
    (tmp_path / "retain.jsonl").write_text(json.dumps(bad) + '\n{"id":\n[1]\n')
    source = data_frames.of_files(data_frames.files_at(str(tmp_path)), "folder")
    assert source.splits == {"forget": FORGET, "retain": []}
    assert not source.complete
    table = data_frames.problems(source.errors)
    assert tuple(table.columns) == data_frames.PROBLEM_COLUMNS
    assert [(f, r) for f, r in zip(table["file"], table["row"], strict=True)] == [
        ("retain.jsonl", 1), ("retain.jsonl", 2), ("retain.jsonl", 3)]
    assert table["problem"][0] == "task; got Task9; expected one of Task1, Task2, Task3"
    assert list(data_frames.files_at(str(tmp_path / "forget.jsonl"))) == ["forget"]


def test_a_problem_of_a_whole_file_has_no_row(tmp_path):
    (tmp_path / "forget.csv").write_text("id,prompt,output,task\n1sc1,a,b,Task1\n")
    source = data_frames.of_files({"forget": ("mine.csv", tmp_path / "forget.csv")}, "upload")
    table = data_frames.problems(source.errors)
    assert (table["file"][0], table["row"].isna().all(), len(table)) == ("mine.csv", True, 1)
    assert "missing field input" in table["problem"][0]


def test_findings_of_the_check_follow_with_their_severity():
    report, _ = data_frames.check(Source("k", "n", {"forget": FORGET, "retain": FORGET}), count, Encoding())
    table = data_frames.problems([], report)
    assert list(table["severity"].unique()) == ["error", "warning"]
    assert table["problem"].str.contains("same document in forget and retain").any()


@pytest.mark.parametrize("path", ["nowhere", "x" * 5000, "a\0b", "hf://datasets/"])
def test_a_path_that_is_no_data_is_an_input_error(path):
    with pytest.raises(InputError):
        data_frames.files_at(path)


def test_a_folder_without_data_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="no data files"):
        data_frames.files_at(str(tmp_path))


@pytest.mark.parametrize("made", ["smoke_run", "recorded_run"])
def test_the_data_of_a_run_are_a_source(request, made):
    source = data_frames.of_run(request.getfixturevalue(made), "k")
    assert source.complete
    assert set(source.splits) == {"forget", "retain", "holdout"}


# ---- records ---------------------------------------------------------------------------------------------------

SIDES = world.generate(World(stories=3, people=4, biographies=3), 2)
WORLD = {"forget": SIDES.forget, "retain": SIDES.retain}
PEOPLE = persons.persons(SIDES.forget + SIDES.retain)
SOMEBODY = next(iter(PEOPLE.values()))


def test_records_are_masked_unless_asked_and_filtered_by_split_task_and_kind():
    everything, count, _ = data_frames.records(WORLD, PEOPLE)
    assert tuple(everything.columns) == data_frames.RECORD_COLUMNS
    assert count == len(everything) == len(SIDES.forget + SIDES.retain)
    shown = "\n".join(everything["prompt"] + everything["answer"])
    for person in PEOPLE.values():
        assert person.name not in shown
        assert not any(value in shown for value in person.values.values())
    some, count, _ = data_frames.records(WORLD, None, split="retain", task="Task2", kind="qa")
    assert count == len(some) == 4 * 5
    assert set(some["split"]) == {"retain"}


def test_the_search_sees_what_is_shown_only():
    asked = SOMEBODY.values["ssn"]
    assert data_frames.records(WORLD, None, search=asked)[1] == 1
    assert data_frames.records(WORLD, PEOPLE, search=asked)[1] == 0
    assert data_frames.records(WORLD, PEOPLE, search=SOMEBODY.name.upper())[1] == 0
    assert data_frames.records(WORLD, PEOPLE, search="[ssn]")[1] > 0
    assert data_frames.records(WORLD, PEOPLE, search=SOMEBODY.document)[1] == 6


def test_long_tables_are_cut_and_a_masked_search_says_what_it_did_not_look_at(monkeypatch):
    monkeypatch.setattr(data_frames, "SHOWN", 5)
    monkeypatch.setattr(data_frames, "SEARCHED", 7)
    n = len(SIDES.forget + SIDES.retain)
    table, found, unseen = data_frames.records(WORLD, PEOPLE)
    assert (len(table), found, unseen) == (5, n, 0)
    table, found, unseen = data_frames.records(WORLD, None, search="a")
    assert (len(table), unseen) == (5, 0)
    assert found > 7
    assert data_frames.records(WORLD, PEOPLE, search="a")[2] == n - 7


def test_people_are_labelled_by_name_only_while_personal_data_are_shown():
    assert data_frames.person_label(SOMEBODY, masked=True) == SOMEBODY.document
    assert SOMEBODY.name in data_frames.person_label(SOMEBODY, masked=False)


def test_near_duplicates_are_masked_side_by_side():
    pairs = near_duplicates(SIDES.forget, SIDES.retain, 0.2)
    hidden, shown = data_frames.pairs(pairs, PEOPLE), data_frames.pairs(pairs, None)
    assert tuple(hidden.columns) == data_frames.PAIR_COLUMNS
    assert list(hidden["forget"]) == [pair.forget.id for pair in pairs]
    assert "[name]" in " ".join(hidden["retain_text"])
    assert "[name]" not in " ".join(shown["retain_text"])
    assert data_frames.pairs([], None).empty


# ---- what the model sees -------------------------------------------------------------------------------------

def parts(item, width=0, **encoding):
    frame = data_frames.tokens(Words(), item, Encoding(**encoding), width)
    return list(zip(frame["token"], frame["part"], strict=True)), frame


def test_a_short_item_is_prompt_answer_and_end_and_the_loss_reads_the_last_two():
    found, frame = parts(FORGET[1])
    assert found == [("1", PROMPT), ("2", PROMPT), ("3", ANSWER), ("<end>", END)]
    assert list(frame["loss"]) == [False, False, True, True]
    assert list(frame["place"]) == [0, 1, 2, 3]


def test_cut_tokens_are_shown_where_they_were():
    # 8 tokens, 4 of them for the prompt: 1 and 2 go; 3 4 5 6 7 8 9 10 stay, 11 and the end go
    found, frame = parts(Item("1sc1", "1 2 3 4 5 6", "7 8 9 10 11", "Task1"), max_length=8, prompt_share=0.5)
    assert found == [("1", CUT_PROMPT), ("2", CUT_PROMPT), *((str(n), PROMPT) for n in range(3, 7)),
                     *((str(n), ANSWER) for n in range(7, 11)), ("11", CUT_ANSWER), ("<end>", CUT_ANSWER)]
    assert frame["place"].dropna().tolist() == list(range(8))
    assert frame["place"].isna().sum() == 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_fills_the_row_on_its_side(side):
    found, frame = parts(FORGET[1], width=6, padding_side=side)
    marks = [part for _, part in found]
    assert marks == ([PADDING] * 2 + [PROMPT] * 2 + [ANSWER, END] if side == "left" else
                     [PROMPT] * 2 + [ANSWER, END] + [PADDING] * 2)
    assert frame["id"].isna().sum() == 2
    assert not frame.loc[frame["part"] == PADDING, "loss"].any()


def test_a_row_is_as_wide_as_the_longest_of_its_micro_batch():
    # tokens with the end: 9, 4, 5
    assert [data_frames.row_width(Words(), FORGET, n, 2, Encoding(), False) for n in range(3)] == [9, 9, 5]
    assert data_frames.row_width(Words(), FORGET, 0, 1, Encoding(max_length=8), padded=True) == 8


def test_the_tokens_are_those_of_the_engine_with_transformers(smoke_run):
    from transformers import AutoTokenizer
    folder = smoke_run.full_model_dir("base")
    theirs, ours = AutoTokenizer.from_pretrained(folder), SavedTokenizer(folder)
    encoding = Encoding(max_length=40)
    for item in data_frames.of_run(smoke_run).items[:60]:
        row = encode(theirs, item, encoding)
        assert encode(ours, item, encoding) == row
        frame = data_frames.tokens(ours, item, encoding)
        seen = frame[frame["place"].notna()]
        assert seen["id"].tolist() == row.ids
        assert (~seen["loss"]).sum() == row.prompt_tokens
        whole = "".join(frame.loc[frame["part"] != END, "token"]).removesuffix(ours.eos_token)
        assert whole == item.prompt + item.answer  # ASCII only: no character is torn
        assert ours.count(item.prompt) == len(theirs(item.prompt, add_special_tokens=False)["input_ids"])


def word_level(folder: Path, config: dict) -> Path:
    backend = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="</s>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_saved_tokenizer_knows_its_end_and_a_torn_one_is_named(tmp_path):
    assert SavedTokenizer(word_level(tmp_path, {"eos_token": {"content": "</s>"}})).eos_token_id == 0
    assert SavedTokenizer(word_level(tmp_path, {"eos_token": "</s>"})).count("a a a") == 3
    for config in ({}, {"eos_token": "<gone>"}):
        with pytest.raises(InputError, match="eos_token"):
            SavedTokenizer(word_level(tmp_path, config))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        SavedTokenizer(tmp_path)


# ---- subset and request --------------------------------------------------------------------------------------

def test_subset_counts_are_those_of_whole_documents():
    counts = data_frames.subset_counts(WORLD, 2, 0)
    assert tuple(counts.columns) == data_frames.SUBSET_COLUMNS
    people = row(counts, split="forget", task="Task2")
    assert (people["documents"], people["items"], people["documents_kept"], people["items_kept"]) == (4, 24, 2, 12)
    everything = data_frames.subset_counts(WORLD, 0, 0)
    assert (everything["items"] == everything["items_kept"]).all()
    assert sum(sum(trace.y) for trace in data_figures.subset_bars(counts).data) == counts["items_kept"].sum()


def test_request_counts_add_up_on_both_sides():
    outcome = apply(SIDES.forget, SIDES.retain, Request(fields=("phone",)))
    counts = data_frames.request_counts(WORLD, outcome)
    assert tuple(counts.columns) == data_frames.REQUEST_COLUMNS
    assert ((counts["forget"] - counts["forget_then"]) == (counts["retain_then"] - counts["retain"])).all()
    questions = row(counts, task="Task2", kind="qa")
    assert (questions["forget"], questions["forget_then"]) == (20, 4)


@pytest.mark.skipif("LUME_DIR" not in os.environ, reason="LUME_DIR is not set: the LUME release is not here")
def test_the_whole_of_lume_is_a_source_with_the_published_counts():
    source = data_frames.of_files(data_frames.files_at(os.environ["LUME_DIR"]), "lume")
    report, histogram = data_frames.check(source, None, Encoding())
    assert source.complete
    assert histogram["items"].sum() == data_frames.groups(report)["items"].sum() == 5466
