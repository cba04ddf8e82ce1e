"""Figures of the metrics page: what is drawn where, and that a table without its columns is refused."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import (
    answers_figures,
    attacks,
    attacks_figures,
    collapse,
    leaks,
    leaks_figures,
    memory,
    metrics_figures,
    official,
    quiz,
    rouge_leak,
    runs_compared,
    texts,
    theme,
)
from analysis.differences import COLUMNS, Rows, compare
from tests import example_run
from tests.test_official_view import whole
from tests.test_quiz import choice, opened
from tests.test_rouge_leak import ROWS

MODELS = ["base", "merged"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def table(run):
    return official.table(run, official.of_run(run), dict.fromkeys(official.CELLS, 0.3))


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


@pytest.mark.parametrize("draw", [
    lambda: metrics_figures.scores(pd.DataFrame(), MODELS), lambda: metrics_figures.radar(pd.DataFrame(), MODELS),
    lambda: metrics_figures.paired(pd.DataFrame()), lambda: metrics_figures.headlines_of_runs(pd.DataFrame()),
    lambda: answers_figures.outcomes(pd.DataFrame(), "forget", MODELS),
    lambda: answers_figures.two_by_two(pd.DataFrame()), lambda: answers_figures.knowledge(pd.DataFrame(), MODELS),
    lambda: answers_figures.subjects(pd.DataFrame(), MODELS),
    lambda: answers_figures.rouge_histogram(pd.DataFrame(), "merged", 0.5)])
def test_a_table_without_its_columns_is_refused(draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw()


LETTER = 6.2  # pixels, on average, in the type of an axis


def test_the_longest_name_of_a_model_has_room_beside_its_row(gold):
    models = ["retrained", "merged"]
    found, written = attacks.texts(gold), texts.answer_table(gold)
    figures = [
        attacks_figures.dial(attacks.by_model(found, models, attacks.Choice())),
        attacks_figures.memory_dots(memory.measures(found, models)),
        answers_figures.outcomes(collapse.shares(collapse.outcomes(written)), "forget", models),
        leaks_figures.shares(leaks.summary(leaks.read(gold)))]
    assert theme.short_label("retrained") == "Retrained without forget"  # 24 letters
    dots = figures.pop(1)  # has it on two lines, the longer of 14 letters
    assert "Retrained<br>without forget" in dots.layout.yaxis.ticktext
    assert dots.layout.margin.l > 14 * LETTER
    assert [figure.layout.margin.l > 24 * LETTER for figure in figures] == [True] * 3


def test_the_dots_stand_at_the_scores_with_their_intervals_and_chance(run, table):
    figure = metrics_figures.scores(table, MODELS)
    forget, retain = traces(figure, "Merged")
    scores, ends = run.scores()["merged"], run.intervals()["merged"]
    keys = [key for key in official.CELLS if key.startswith("forget")]
    assert sorted(forget.x) == pytest.approx(sorted(scores[key] for key in keys))
    first = table[(table["model"] == "merged") & (table["metric"] == keys[0])].iloc[0]
    place = list(forget.x).index(first["value"])
    assert forget.error_x.array[place] == pytest.approx(ends[keys[0]][1] - scores[keys[0]])
    assert len(retain.x) == 6
    assert set(traces(figure, metrics_figures.CHANCE)[0].x) == {0.3}
    assert set(traces(figure, metrics_figures.NOTHING)[0].x) == {0}


def test_what_was_not_measured_has_no_dot(table):
    broken = table.assign(value=table["value"].where(table["metric"] != "forget_knowledge_1", math.nan))
    assert len(traces(metrics_figures.scores(broken, MODELS), "Merged")[0].x) == 5


def test_the_radar_shows_terms_so_that_the_rim_is_ideal(table):
    figure = metrics_figures.radar(table, MODELS)
    terms = official.terms(table, "merged")
    assert traces(figure, "Merged")[0].r == pytest.approx([*terms, terms[0]])
    assert traces(figure, metrics_figures.CHANCE)[0].r[:2] == pytest.approx([0.7, 0.7])
    assert traces(figure, metrics_figures.CHANCE)[0].r[6] == pytest.approx(0.3)


def test_paired_differences_are_filled_where_told_apart_and_symmetric_about_zero():
    rows = whole(documents=4)
    other = [row | {key: 1.0 for key in ("rouge_l", "exact_match") if key in row} for row in rows]
    found, _ = compare(Rows(rows), Rows(other))
    figure = metrics_figures.paired(found.assign(told_apart=[True] + [False] * (len(found) - 1)))
    assert list(figure.data[0].marker.symbol).count("circle") == 1
    assert figure.data[0].y[-1] == "Forget: stories, regurgitation"  # the first row on top
    assert figure.layout.xaxis.range[0] == -figure.layout.xaxis.range[1]


def test_the_auc_has_no_better_direction_and_is_not_drawn_among_the_differences():
    row = dict.fromkeys(COLUMNS, 0.1) | {"metric": "mia_auc", "label": "MIA AUC", "told_apart": True}
    figure = metrics_figures.paired(pd.DataFrame([row, row | {"metric": "mmlu", "label": "MMLU"}]))
    assert list(figure.data[0].y) == ["MMLU"]


def test_runs_stand_below_each_other_with_their_chance(run):
    stacked = runs_compared.stacked([run, run], [runs_compared.headlines_of(run, "merged")] * 2)
    figure = metrics_figures.headlines_of_runs(stacked)
    assert len(traces(figure, "Merged")) == len(metrics_figures.OF_RUNS) == 4
    assert list(traces(figure, "Merged")[1].x) == [run.scores()["merged"]["mia_auc"]] * 2
    assert list(figure.layout.yaxis.ticktext) == ["run 1", "run 2"]


def test_outcome_bars_add_up_to_one(run):
    shares = collapse.shares(collapse.outcomes(texts.answer_table(run)))
    figure = answers_figures.outcomes(shares, "forget", MODELS)
    assert np.sum([trace.x for trace in figure.data], axis=0) == pytest.approx([1, 1])
    assert len({(trace.marker.color, trace.marker.pattern.shape) for trace in figure.data}) == 6


def test_counts_of_score_against_leak_stand_in_their_corners_and_can_be_clicked(tmp_path):
    run = example_run.create(tmp_path)
    run.write_evaluation("merged", answers=ROWS, documents=[], mmlu=[], scores={}, intervals={})
    found, _ = rouge_leak.table(run)
    shares = rouge_leak.shares(rouge_leak.celled(found))
    figure = answers_figures.two_by_two(shares, ("merged", rouge_leak.MISSED))
    z = np.array(figure.data[0].z)
    assert z[0, 1] == shares[rouge_leak.MISSED].iloc[0] == 1  # low, leaked
    assert z[1, 0] == shares[rouge_leak.FALSE_ALARM].iloc[0] == 1  # high, not leaked
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, shares["n"].iloc[0])
    clicks = {tuple(data): (x, y) for data, x, y in zip(figure.data[1].customdata, figure.data[1].x, figure.data[1].y,
                                                        strict=True)}
    assert clicks["merged", rouge_leak.MISSED] == (1, 0)
    histogram = answers_figures.rouge_histogram(found, "merged", 0.5)
    assert sum(sum(trace.y) for trace in histogram.data) == (found["kind"] == "sc").sum()


def test_knowledge_has_chance_and_the_gate_beside_the_marks(tmp_path):
    run = example_run.create(tmp_path)
    for model in MODELS:
        run.write_evaluation(model, answers=[], documents=[], mmlu=choice(8, 2), scores={}, intervals={},
                             knowledge=opened(3, 1, 6))
    found = quiz.table(run)
    figure = answers_figures.knowledge(found, MODELS)
    assert list(traces(figure, "Merged")[0].x) == pytest.approx([0.8, 0.4, 0.3])
    assert sorted(traces(figure, "Chance")[0].x) == [0, 0, 0.25]
    assert traces(figure, "Gate: 0.75 × the base")[0].x == pytest.approx([0.6])
    by_subject = answers_figures.subjects(quiz.subjects(found, quiz.EXACT, MODELS), MODELS)
    assert list(by_subject.layout.yaxis.ticktext) == ["All subjects", "law"]
    assert not traces(by_subject, "Gate: 0.75 × the base")
