"""Tests of the data check: it counts right, finds every problem, and passes the whole of LUME."""

import json
import os

import pytest

from unlearn_core.data.check import ESTIMATED, check, format_report
from unlearn_core.data.items import Item, Question
from unlearn_core.data.readers import write_items, write_mmlu
from unlearn_core.errors import InputError

LUME, MMLU = os.environ.get("LUME_DIR"), os.environ.get("MMLU_DIR")


def words(text):
    """A tokenizer: one token per word."""
    return len(text.split())


def folder(tmp_path, forget, retain):
    write_items(tmp_path / "forget.jsonl", forget)
    write_items(tmp_path / "retain.jsonl", retain)
    return tmp_path


FORGET = [Item("1sc1", "one two three four five six", "a b c", "Task1"), Item("1qa0", "who is it", "me", "Task1"),
          Item("2sc1", "one two", "a b", "Task1")]
RETAIN = [Item("3sc1", "seven eight", "c d", "Task3")]


def test_counts_and_lengths_are_those_of_the_items(tmp_path):
    report = check(folder(tmp_path, FORGET, RETAIN), count_tokens=words, max_length=100)
    assert report.ok
    assert report.warnings == []
    assert report.documents == {("forget", "Task1"): 2, ("retain", "Task3"): 1}
    assert [(g.split, g.task, g.kind, g.items, g.documents) for g in report.groups] == [
        ("forget", "Task1", "sc", 2, 2), ("forget", "Task1", "qa", 1, 1), ("retain", "Task3", "sc", 1, 1)]
    stories = report.groups[0]
    assert stories.prompt_chars == (7, 17, 27, 27)
    assert stories.prompt_tokens == (2, 4, 6, 6)
    assert stories.answer_tokens == (3, 4, 4, 4)  # two and three words, and the end


def test_truncation_follows_the_cap_on_the_prompt_and_the_room_that_is_left(tmp_path):
    path = folder(tmp_path, FORGET, RETAIN)
    # max 8, cap 4: the six-word prompt is cut to 4 and leaves 4 for three words and the end
    stories = check(path, count_tokens=words, max_length=8, prompt_share=0.5).groups[0]
    assert (stories.cut_prompts, stories.cut_answers, stories.lost_answers) == (1, 0, ())
    # max 8, cap 6: the whole prompt stays and leaves 2 for 4
    report = check(path, count_tokens=words, max_length=8, prompt_share=0.8)
    assert (report.groups[0].cut_prompts, report.groups[0].cut_answers, report.groups[0].lost_answers) == (0, 1, ())
    assert report.ok
    assert report.warnings == ["forget: 1 of 3 answers lose their end at 8 tokens (counted)"]


def test_an_answer_is_an_error_only_when_no_token_of_it_is_left(tmp_path):
    path = folder(tmp_path, FORGET, RETAIN)
    report = check(path, count_tokens=words, max_length=6, prompt_share=1.0)
    assert report.groups[0].lost_answers == ("1sc1",)
    assert report.errors == ["forget: 1 of 3 answers have no token left at 6 tokens (counted), the first 1sc1; use a "
                             "larger max_length or a smaller prompt_share"]
    estimate = check(path, max_length=6, prompt_share=1.0)  # 27 characters: six tokens by the estimate, too
    assert estimate.ok
    assert any("no token left" in warning and ESTIMATED in warning for warning in estimate.warnings)


def test_a_prompt_that_fills_the_length_is_an_error_once_the_prompt_may_take_all_of_it(tmp_path):
    path = tmp_path / "forget.jsonl"
    write_items(path, [Item("1sc1", "word " * 300, "a b c", "Task1"), FORGET[1]])
    report = check(path, count_tokens=words, prompt_share=1.0)
    assert report.errors == ["forget: 1 of 2 answers have no token left at 256 tokens (counted), the first 1sc1; use a "
                             "larger max_length or a smaller prompt_share"]
    assert check(path, count_tokens=words).ok  # by default 204 tokens of the prompt stay


def test_every_bad_row_is_listed_by_line(tmp_path):
    good = {"id": "1sc1", "input": "a", "output": "b", "task": "Task1"}
    rows = [good, {**good, "id": "2"}, good, {**good, "id": "4qa0", "task": "x", "output": ""}]
    path = tmp_path / "forget.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"id":\n')
    report = check(path)
    assert not report.ok
    assert [error.removeprefix(f"{path}, ").split(";")[0] for error in report.errors] == [
        "line 2: id", "line 3: duplicate id", "line 4: field output", "line 4: task", "line 5"]
    assert report.rows == {"forget": 1}


def test_overlap_and_repeats_are_told(tmp_path):
    forget = [*FORGET, Item("9qa0", "Who  is it", "ME", "Task1")]
    retain = [*RETAIN, Item("1qa1", "what else", "nothing", "Task1"), Item("7sc1", "ONE two", "a  b", "Task1")]
    report = check(folder(tmp_path, forget, retain))
    assert [error.split(";")[0] for error in report.errors] == [
        "same document in forget and retain: 1sc1 and 1qa1", "same document in forget and retain: 1qa0 and 1qa1",
        "same text in forget and retain: 2sc1 and 7sc1"]
    assert f"{tmp_path / 'forget.jsonl'}: 1 repeated texts (up to case and white space)" in report.warnings
    assert any(warning.startswith("1 answers occur in forget and in retain") for warning in report.warnings)


def test_bad_questions_and_member_rows_are_listed_too(tmp_path):
    folder(tmp_path, FORGET, RETAIN)
    question = Question("law", "q", ("a", "b", "c", "d"), 0)
    write_mmlu(tmp_path / "mmlu", [question], [question])
    with (tmp_path / "mmlu/test/law_test.csv").open("a") as file:
        file.write("q,a,b,c,d,E\nq,a\n")
    (tmp_path / "mia_data").mkdir()
    (tmp_path / "mia_data/member.jsonl").write_text('{"document": "x"}\n{}\n')
    (tmp_path / "mia_data/nonmember.jsonl").write_text('{"document": "y"}\n')
    report = check(tmp_path)
    assert report.rows == {"forget": 3, "retain": 1, "mmlu dev": 1, "mmlu test": 1, "member": 1, "nonmember": 1}
    places = [error.split(", ")[1].split(";")[0] for error in report.errors]
    assert places == ["line 2", "line 3", "line 2: field document"]


def test_a_folder_with_nothing_to_check_or_one_side_only_is_an_error(tmp_path):
    with pytest.raises(InputError, match="got no data files"):
        check(tmp_path)
    write_items(tmp_path / "forget.jsonl", FORGET)
    with pytest.raises(InputError, match="got no retain file"):
        check(tmp_path)
    assert check(tmp_path / "forget.jsonl").ok


def test_a_missing_file_is_a_reported_error(tmp_path):
    report = check(tmp_path / "gone.jsonl")
    assert len(report.errors) == 1
    assert "No such file" in report.errors[0]


def test_the_text_has_each_group_each_problem_and_a_verdict(tmp_path):
    retain = [*RETAIN, Item("1qa1", "what", "me", "Task1")]
    text = format_report(check(folder(tmp_path, FORGET, retain), count_tokens=words))
    assert "forget 3, retain 2" in text
    assert "Tokens are counted" in text
    assert "error: same document in forget and retain: 1sc1 and 1qa1" in text
    assert text.endswith("2 errors, 1 warnings")


@pytest.mark.skipif(not LUME, reason="LUME_DIR is not set: the LUME release is not here")
def test_the_whole_of_lume_checks_clean_with_the_published_counts():
    report = check(LUME)
    assert report.ok
    assert report.rows == {"forget": 2732, "retain": 2734}
    assert [report.documents[s, t] for s in ("forget", "retain") for t in ("Task1", "Task2", "Task3")] == [
        243, 250, 373, 246, 250, 371]
    assert {(g.split, g.task, g.kind): g.items for g in report.groups} == {
        ("forget", "Task1", "sc"): 243, ("forget", "Task2", "sc"): 250, ("forget", "Task3", "sc"): 373,
        ("forget", "Task1", "qa"): 243, ("forget", "Task2", "qa"): 1250, ("forget", "Task3", "qa"): 373,
        ("retain", "Task1", "sc"): 246, ("retain", "Task2", "sc"): 250, ("retain", "Task3", "sc"): 371,
        ("retain", "Task1", "qa"): 246, ("retain", "Task2", "qa"): 1250, ("retain", "Task3", "qa"): 371}
    assert report.groups[0].prompt_chars == (637, 806, 921, 995)
    assert any(warning.startswith("35 answers occur") for warning in report.warnings)


@pytest.mark.skipif(not MMLU, reason="MMLU_DIR is not set: MMLU is not here")
def test_the_whole_of_mmlu_checks_clean():
    report = check(MMLU)
    assert report.ok
    assert report.rows == {"mmlu dev": 285, "mmlu test": 14042}
