"""The official view: units, chance levels, P(zero), the weakest link and the headlines, against naive versions."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import chance, headlines, official
from tests import example_run
from unlearn_core.data import readers
from unlearn_core.errors import InputError
from unlearn_core.evaluation import mia, score
from unlearn_core.vocabulary import QA, SC, SUB_SCORES, TASKS

LUME = os.environ.get("LUME_DIR")


def item(document, kind=SC, split="forget", task="Task1", value=0.5, prompt="Once", answer="upon a time", number=0):
    """A row of `Run.answers`."""
    return {"id": f"{document}{kind}{number}", "document": document, "split": split, "task": task, "kind": kind,
            "prompt": prompt, "answer": answer, "generation": "x", ("rouge_l" if kind == SC else "exact_match"): value}


def whole(value=0.5, documents=2):
    """All twelve cells, so many documents each."""
    return [item(f"{split}-{task}-{n}", kind, split, task, value) for split in ("forget", "retain") for task in TASKS
            for kind in (SC, QA) for n in range(documents)]


# ---- answers as numbers

def test_the_means_of_the_cells_are_the_official_sub_scores():
    chosen = np.random.default_rng(0)
    rows = [row | {"rouge_l" if row["kind"] == SC else "exact_match": float(chosen.random() < 0.5)}
            for row in whole(documents=4)]
    found = official.answers(rows)
    means = found.means(np.ones((1, len(found.units))))[0]
    expected = score.scores(rows, [], [])
    assert means == pytest.approx([expected[key] for key in official.CELLS])


def test_drawing_a_document_twice_counts_its_items_twice():
    rows = [item("a", value=1.0), item("b", value=0.0), item("b", value=0.0, number=1)]
    found = official.answers(rows)
    assert found.means(np.array([[2.0, 1.0]]))[0, 0] == pytest.approx((2 * 1 + 1 * (0 + 0)) / (2 * 1 + 1 * 2))


def test_all_documents_of_one_person_are_one_unit():
    ask = "What is the phone number of Ann Lee?"
    rows = [item("d1", QA, task="Task2", value=0, prompt=ask, number=2),
            item("d2", QA, task="Task2", value=0, prompt=ask, number=2),
            item("d3", QA, task="Task2", value=0, prompt="What is the phone number of Bo Ray?", number=2)]
    found = official.answers(rows)
    assert found.units == ["Ann Lee", "Bo Ray"]
    assert found.sizes[official.CELLS.index("forget_knowledge_2")] == 2


def test_a_row_that_is_no_answer_is_named():
    with pytest.raises(InputError, match="answers of merged"):
        official.answers([item("a") | {"task": "Task9"}], "answers of merged")


# ---- P(zero)

def enumerated(found):
    """P(term = 0) of each cell and P(Task Aggregate = 0), every way of drawing the units counted."""
    strata = [np.flatnonzero(found.stratum == name) for name in np.unique(found.stratum)]
    zero, any_zero, draws = np.zeros(12), 0, 0
    for picks in itertools.product(*(itertools.product(own, repeat=len(own)) for own in strata)):
        times = np.zeros((1, len(found.units)))
        for place in itertools.chain(*picks):
            times[0, place] += 1
        means = found.means(times)[0]
        terms = np.where(official.IDEALS == 0, 1 - means, means)
        zero += terms == 0
        any_zero += (terms == 0).any()
        draws += 1
    return zero / draws, any_zero / draws


def test_p_zero_is_that_of_drawing_the_documents_in_every_way():
    rows = whole(value=0.5, documents=2)
    rows = [row for row in rows if row["document"] != "retain-Task3-1"]  # one document left there
    for row in rows:
        if row["document"] == "forget-Task1-0":
            row["rouge_l" if row["kind"] == SC else "exact_match"] = 1.0  # its two forget terms are 0
        if row["document"] == "retain-Task2-1" and row["kind"] == QA:
            row["exact_match"] = 0.0
    found = official.answers(rows)
    zero, whole_zero = official.p_zero(found)
    expected, expected_whole = enumerated(found)
    assert zero == pytest.approx(expected)
    assert whole_zero == pytest.approx(expected_whole)
    # (1/2)^2 of never drawing the living one of two documents
    assert zero[official.CELLS.index("forget_regurgitation_1")] == pytest.approx(1 / 4)
    assert zero[official.CELLS.index("retain_knowledge_2")] == pytest.approx(1 / 4)


def test_the_base_that_knows_everything_has_a_task_aggregate_of_0_for_certain():
    rows = [row | {"rouge_l" if row["kind"] == SC else "exact_match": 1.0} for row in whole()]
    zero, certain = official.p_zero(official.answers(rows))
    assert zero[:6] == pytest.approx(1)
    assert certain == 1


def test_p_zero_is_missing_where_a_score_is():
    rows = whole()
    rows[0]["rouge_l"] = None
    zero, of_all = official.p_zero(official.answers(rows))
    assert math.isnan(zero[0])
    assert math.isnan(of_all)
    assert not np.isnan(zero[1:]).any()


# ---- chance

def test_chance_of_a_question_is_the_share_of_other_documents_answers_that_are_equal():
    # The years are 1, 1, 2: a draw from the other two equals one's own in 1/2, 1/2 and 0 of the cases.
    rows = [item(name, QA, prompt="When was it?", answer=year) for name, year in (("a", "1"), ("b", " 1"), ("c", "2"))]
    levels = chance.levels(rows)
    assert levels["forget_knowledge_1"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_questions_of_another_kind_are_no_guesses():
    rows = [item("a", QA, prompt="Who?", answer="Igor"), item("b", QA, prompt="When?", answer="Igor")]
    assert math.isnan(chance.levels(rows)["forget_knowledge_1"])


def test_chance_of_a_continuation_is_its_recall_in_other_documents_texts():
    # The only other text shares "the cat" (2 of 3 words) with a, and 2 of 4 with b.
    rows = [item("a", answer="the cat sat"), item("b", answer="the cat ran away")]
    assert chance.levels(rows)["forget_regurgitation_1"] == pytest.approx((2 / 3 + 2 / 4) / 2)


def test_an_unrelated_text_ends_where_the_model_would_have_to():
    rows = [item("a", answer="zebra"), item("b", answer=f"{'word ' * 40}zebra")]
    # b's 41 words hold "zebra" last; a's one word is 1/41 of b's.
    assert chance.levels(rows, max_new_tokens=256)["forget_regurgitation_1"] == pytest.approx((1 + 1 / 41) / 2)
    assert chance.levels(rows, max_new_tokens=8)["forget_regurgitation_1"] == pytest.approx((0 + 1 / 41) / 2)


def test_chance_of_a_single_document_is_not_measured():
    assert all(math.isnan(level) for level in chance.levels([item("a"), item("a", QA)]).values())


@pytest.mark.skipif(not LUME, reason="LUME_DIR is not set")
def test_chance_levels_on_lume_are_the_known_ones():
    rows = [item(i.document, i.kind, "forget", i.task, 0, i.prompt, i.answer, int(i.id[-1]))
            for i in readers.read_items(Path(LUME) / "forget.jsonl")]
    levels = chance.levels(rows)
    assert [levels[f"forget_regurgitation_{n}"] for n in (1, 2, 3)] == pytest.approx([0.28, 0.54, 0.25], abs=0.025)
    assert max(levels[f"forget_knowledge_{n}"] for n in (1, 2, 3)) < 0.01


# ---- the table of a run

@pytest.fixture
def run(tmp_path):
    return example_run.finished(tmp_path)


def test_the_table_has_twelve_rows_per_model_with_their_size_and_chance(run):
    found, levels = official.of_run(run), chance.of_run(run)
    table = official.table(run, found, levels)
    own = table[table["model"] == "merged"]
    assert list(own["metric"]) == [metric.key for metric in SUB_SCORES]
    assert (own["units"] > 1).all()
    assert own["chance"].notna().all()
    assert official.gaps(table) == []
    assert official.terms(table, "merged")[:6] == pytest.approx(1 - own["value"].to_numpy()[:6])


def rewritten(run, model, answers, scores=None):
    """The run with other answers of a model."""
    run.write_evaluation(model, answers=answers, documents=run.documents(model), mmlu=run.mmlu(model),
                         scores=run.scores()[model] if scores is None else scores, intervals=run.intervals()[model])
    run.write_scores()
    return official.table(run, official.of_run(run), chance.of_run(run))


def test_a_score_of_some_items_only_is_not_measured_and_nothing_else_fails(run):
    rows = run.answers("merged")
    place = next(number for number, row in enumerate(rows) if row["kind"] == SC)
    rows[place]["rouge_l"] = None
    table = rewritten(run, "merged", rows)
    own = table[(table["model"] == "merged") & table["value"].isna()]
    assert len(own) == 1
    assert "1 of 5 items have no score" in own["why"].iloc[0]
    assert any("not measured: 1 of 5 items" in said for said in official.gaps(table))
    assert headlines.links(table, "merged").empty
    assert headlines.describe_links(headlines.links(table, "merged"), "merged") == []
    assert table[table["model"] == "base"]["value"].notna().all()


def test_a_single_document_in_a_cell_is_said(run):
    rows, kept = [], set()
    for row in run.answers("merged"):
        if row["split"] != "forget" or row["task"] != "Task3" or row["document"] in kept or not kept:
            rows.append(row)
            kept |= {row["document"]} if row["split"] == "forget" and row["task"] == "Task3" else set()
    table = rewritten(run, "merged", rows)
    assert any("a single document" in said for said in official.gaps(table))


def test_a_model_without_answers_is_not_measured(run):
    table = rewritten(run, "merged", [], scores={})
    assert "Merged, all twelve: not measured: no answers were recorded." in official.gaps(table)


# ---- weakest link

def rows_of(**terms):
    """Rows of `official.table` with these twelve terms by model."""
    return pd.DataFrame([{"model": model, "metric": metric.key, "value": 1 - term if metric.ideal == 0 else term}
                         for model, own in terms.items() for metric, term in zip(SUB_SCORES, own, strict=True)])


def test_the_weakest_link_and_what_fixing_it_would_give():
    own = [0.5] + [1.0] * 11
    links = headlines.links(rows_of(merged=own, base=[0.0] + [1.0] * 11, model_1=[0.8] + [0.1] * 11), "merged")
    first = links.iloc[0]
    assert first["metric"] == SUB_SCORES[0].key
    assert first["pull"] == pytest.approx(2 / (2 + 11))
    assert first["at_ideal"] == pytest.approx(1.0)
    assert first["gain"] == pytest.approx(1 - 12 / (2 + 11))
    assert first["at_base"] == 0
    assert (first["best_model"], first["best"]) == ("model_1", pytest.approx(0.8))
    assert first["at_best"] == pytest.approx(12 / (1 / 0.8 + 11))
    said = " ".join(headlines.describe_links(links, "merged"))
    assert "Forget: stories, regurgitation" in said
    assert "1.000 instead of 0.923" in said
    assert "0.800 (Model 1)" in said


def test_one_zero_holds_everything_down_and_two_cannot_be_fixed_by_one():
    one = headlines.links(rows_of(merged=[0.0] + [0.5] * 11), "merged")
    assert one["pull"].iloc[0] == 1
    assert one["at_ideal"].iloc[0] == pytest.approx(12 / (1 + 22))
    two = headlines.links(rows_of(merged=[0.0, 0.0] + [0.5] * 10), "merged")
    assert (two["gain"] == 0).all()
    assert "2 terms are 0" in headlines.describe_links(two, "merged")[0]


# ---- headlines

def test_every_headline_has_interval_chance_and_ideal(run):
    table = headlines.headlines(run, official.of_run(run), chance.of_run(run))
    own = table[table["model"] == "merged"].set_index("metric")
    assert list(own.index) == list(headlines.HEADLINES)
    assert own[["value", "chance", "ideal"]].notna().all(axis=None)
    assert (own.loc["mia_auc", "chance"], own.loc["mmlu", "chance"]) == (0.5, 0.25)
    assert own.loc["mmlu", "ideal"] == run.scores()["base"]["mmlu"]
    assert own.loc["mia_auc", "n"] == "60 members, 60 non-members"


def test_an_attack_that_guesses_has_the_expected_mia_score():
    chance_of = headlines.chance_levels({}, 150, 150)
    assert chance_of["mia_score"] == pytest.approx(0.947, abs=0.001)
    draw = np.random.default_rng(0)
    simulated = np.mean([mia.mia_score(mia.auc(draw.random(30), draw.random(20))) for _ in range(2000)])
    assert headlines.chance_levels({}, 30, 20)["mia_score"] == pytest.approx(simulated, abs=0.005)
    assert math.isnan(headlines.chance_levels({}, None, None)["mia_score"])


def test_the_interval_of_the_task_aggregate_is_that_of_drawing_documents_again():
    chosen = np.random.default_rng(1)
    rows = [row | {"rouge_l" if row["kind"] == SC else "exact_match": float(chosen.uniform(0.2, 0.8))}
            for row in whole(documents=8)]
    names = sorted({row["document"] for row in rows})
    by_document = {name: [row for row in rows if row["document"] == name] for name in names}
    drawn = []
    for _ in range(400):
        sample = [row for split in ("forget", "retain") for task in TASKS
                  for name in chosen.choice([n for n in names if n.startswith(f"{split}-{task}")], 8)
                  for row in by_document[name]]
        drawn.append(score.scores(sample, [], [])["task_aggregate"])
    low, high = headlines.aggregate_interval(official.answers(rows))
    spread = np.quantile(drawn, [0.025, 0.975])
    assert low < spread[0] < spread[1] < high  # expanded for 8 documents
    assert (low, high) == pytest.approx(spread, abs=0.03)


def test_a_task_aggregate_that_is_0_in_every_draw_has_no_interval():
    rows = [row | {"rouge_l" if row["kind"] == SC else "exact_match": 1.0} for row in whole()]
    assert all(map(math.isnan, headlines.aggregate_interval(official.answers(rows))))


def test_the_grid_says_what_is_missing_and_why(run):
    table = headlines.headlines(run, official.of_run(run), chance.of_run(run))
    grid = headlines.grid(table).set_index("Number")
    assert grid.loc["MIA AUC", "Merged"].startswith(f"{run.scores()['merged']['mia_auc']:.3f} [")
    assert (grid.loc["MIA AUC", "Chance"], grid.loc["MIA AUC", "Ideal"]) == ("0.500", "0.500")
    assert grid.loc[headlines.P_ZERO, "Base"] in ("1.000", "below 0.001")
    table.loc[table["metric"] == "mmlu", ["value", "why"]] = [math.nan, "no questions were asked"]
    assert headlines.grid(table).set_index("Number").loc["MMLU", "Base"] == "not measured: no questions were asked"
