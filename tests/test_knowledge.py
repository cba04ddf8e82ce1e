"""General questions asked openly: which of them make sense so, and what counts as an answer."""

import pytest

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.data import Question
from unlearn_core.evaluation.knowledge import contains, knowledge_rows, open_questions


def asked(text, subject="history"):
    return Question(subject, text, ("Paris", "London", "Rome", "Oslo"), 1)


@pytest.mark.parametrize("text", [
    "Which of the following is a city?", "All of these are true EXCEPT", "The capital is ____.",
    "Which statement best describes a lens?"])
def test_a_question_that_needs_its_options_is_not_asked_openly(text):
    assert open_questions([asked(text)], 5) == []


def test_each_subject_is_asked_as_many_questions():
    questions = [asked(f"Where is {n}?", subject) for subject in ("history", "law") for n in range(4)]
    assert [q.question for q in open_questions(questions, 2)] == ["Where is 0?", "Where is 1?"] * 2
    assert open_questions(questions, 0) == []


@pytest.mark.parametrize(("text", "answer", "held"), [
    ("It is London.", "London", True), ("LONDON", "london", True), ("Londonderry", "London", False),
    ("the answer: New  York!", "new york", True), ("York, New", "New York", False), ("4,000 men", "4,000", True),
    ("anything", "...", False), ("", "London", False)])
def test_an_answer_is_contained_as_whole_words_in_their_order(text, answer, held):
    assert contains(text, answer) is held


def test_the_rows_hold_what_was_generated():
    row, = knowledge_rows(tiny_model(), tiny_tokenizer(), [asked("what is the capital of France")])
    assert row.keys() == {"subject", "question", "answer", "generation", "exact", "contained"}
    assert (row["answer"], row["exact"], row["contained"]) == ("London", 0, 0)


def test_a_question_answered_exactly_is_also_contained(smoke_run):
    rows = smoke_run.knowledge("base")
    assert rows
    assert all(row["contained"] >= row["exact"] for row in rows)
    assert smoke_run.knowledge("untrained") == []  # random weights write noise up to the limit
