"""General knowledge by subject and by how it is asked, against counts by hand and scipy's exact interval."""

import math

import pytest
from scipy import stats

from analysis import quiz
from tests import example_run
from unlearn_core.errors import InputError


def choice(right, wrong, subject="law"):
    return [{"subject": subject, "question": f"{subject}{n}", "options": list("abcd"), "correct": 0,
             "predicted": int(n >= right)} for n in range(right + wrong)]


def opened(exact, contained, neither, subject="law"):
    hits = [(1, 1)] * exact + [(0, 1)] * contained + [(0, 0)] * neither
    return [{"subject": subject, "question": f"{n}?", "answer": "x", "generation": "y", "exact": e, "contained": c}
            for n, (e, c) in enumerate(hits)]


@pytest.fixture
def run(tmp_path):
    run = example_run.create(tmp_path)
    for model, rows, knowledge in (("base", choice(9, 1) + choice(8, 2, "art"), opened(18, 1, 1)),
                                   ("merged", choice(8, 2) + choice(8, 2, "art"), opened(2, 3, 15))):
        run.write_evaluation(model, answers=[], documents=[], mmlu=rows, scores={}, intervals={}, knowledge=knowledge)
    run.write_scores()
    return run


def row(table, model, measure, subject=quiz.ALL):
    return table[(table["model"] == model) & (table["measure"] == measure) & (table["subject"] == subject)].iloc[0]


def test_shares_are_counted_by_subject_and_over_all(run):
    table = quiz.table(run)
    assert (row(table, "merged", quiz.CHOICE)["right"], row(table, "merged", quiz.CHOICE)["n"]) == (16, 20)
    assert row(table, "base", quiz.CHOICE, "law")["share"] == pytest.approx(0.9)
    own = row(table, "merged", quiz.CONTAINED)
    expected = stats.binomtest(5, 20).proportion_ci(method="exact")
    assert (own["share"], own["low"], own["high"]) == pytest.approx((5 / 20, expected.low, expected.high))
    assert row(table, "merged", quiz.EXACT)["right"] == 2


def test_the_gate_stands_at_three_quarters_of_the_base_for_all_subjects_alone(run):
    table = quiz.table(run)
    assert row(table, "merged", quiz.CHOICE)["gate"] == pytest.approx(0.75 * 17 / 20)
    assert math.isnan(row(table, "merged", quiz.CHOICE, "law")["gate"])
    assert math.isnan(row(table, "merged", quiz.EXACT)["gate"])


def test_chance_is_one_of_four_options_and_nothing_openly(run):
    table = quiz.table(run)
    assert set(table.loc[table["measure"] == quiz.CHOICE, "chance"]) == {0.25}
    assert set(table.loc[table["measure"] != quiz.CHOICE, "chance"]) == {0.0}


def test_multiple_choice_hardly_moves_while_open_answers_fall(run):
    said = " ".join(quiz.describe(quiz.table(run), "merged"))
    assert "Merged passes the gate: 0.800" in said
    assert "the interval holds the gate, so this could be luck" in said
    assert "What can still be pointed at can no longer be said" in said
    assert "a loss of **0.700**" in said  # 19/20 less 5/20


def test_a_model_at_chance_is_not_told_from_guessing(run):
    run.write_evaluation("model_1", answers=[], documents=[], mmlu=choice(5, 15), scores={}, intervals={})
    said = " ".join(quiz.describe(quiz.table(run), "model_1"))
    assert "Model 1 fails the gate" in said
    assert "cannot be told from guessing" in said


def test_the_subject_that_lost_most_comes_first(run):
    own = quiz.subjects(quiz.table(run), quiz.CHOICE, ["base", "merged"])
    assert list(dict.fromkeys(own["subject"])) == [quiz.ALL, "law", "art"]
    assert own["model"].tolist() == ["base", "merged"] * 3


def test_what_was_not_asked_is_said_with_the_command(tmp_path):
    run = example_run.create(tmp_path)
    run.write_evaluation("base", answers=[], documents=[], mmlu=[], scores={}, intervals={})
    table = quiz.table(run)
    assert table.empty
    said = quiz.lacking(table, run)
    assert len(said) == 2
    assert f"python -m unlearn_core evaluate {run.id}" in said[1]
    assert quiz.describe(table, "base") == []


def test_a_damaged_row_is_an_input_error(run):
    run.write_evaluation("base", answers=[], documents=[], mmlu=[{"subject": "law"}], scores={}, intervals={})
    with pytest.raises(InputError, match="general knowledge of base"):
        quiz.table(run)
