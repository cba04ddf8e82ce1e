"""Tables made from run folders, and the words that judge them."""

import random
import statistics

import pandas as pd
import pytest

from analysis import frames, published, verdicts
from tests import example_run
from unlearn_core.files import write_json
from unlearn_core.store import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for build in (example_run.damaged, example_run.unreadable, example_run.unfinished, example_run.finished):
        build(folder)
    return folder


@pytest.fixture(scope="module")
def finished(root):
    return Store(root).runs()[0]


@pytest.fixture(scope="module")
def unfinished(root):
    return Store(root).runs()[1]


# ---- runs

def test_run_table_lists_readable_runs_newest_first_with_the_merged_models_scores(root, finished):
    table = frames.run_table(Store(root).runs())
    assert list(table.columns) == list(frames.RUN_COLUMNS)
    assert list(table["state"]) == ["finished", "interrupted", "damaged"]
    assert table.loc[0, "aggregate"] == finished.scores()["merged"]["aggregate"]
    assert table.loc[0, "elapsed_s"] >= 0


def test_run_table_leaves_scores_that_do_not_exist_missing(root):
    table = frames.run_table(Store(root).runs())
    assert table.loc[1:, ["aggregate", "task_aggregate", "mia_auc"]].isna().all(axis=None)


def test_run_table_names_the_damaged_file(root):
    table = frames.run_table(Store(root).runs())
    assert "scores.json" in table.loc[2, "problem"]
    assert list(table["problem"][:2]) == ["", ""]


def test_a_run_that_was_removed_since_it_was_listed_is_named_and_the_others_stay(tmp_path):
    for seed in range(2):
        example_run.create(tmp_path, seed=seed)
    listed = Store(tmp_path).runs()
    listed[0].discard()
    table = frames.ordered(frames.run_table(listed), "newest")
    assert list(table["state"]) == ["running", "damaged"]
    assert "no run.json" in table["problem"][1]


def test_run_table_of_an_empty_store_has_its_columns_and_no_rows(tmp_path):
    table = frames.run_table(Store(tmp_path).runs())
    assert list(table.columns) == list(frames.RUN_COLUMNS)
    assert table.empty


def test_run_table_judges_the_merged_model(root, finished):
    row, scores = frames.run_table([finished]).iloc[0], frames.score_table(finished).set_index("model").loc["merged"]
    assert (row["verdict"], row["mmlu_gate"], row["mmlu"]) == (scores["verdict"], scores["mmlu_gate"], scores["mmlu"])


def test_the_twelve_terms_of_a_run_have_the_task_aggregate_as_their_harmonic_mean(finished):
    terms = frames.run_table([finished])["terms"][0]
    assert len(terms) == 12
    assert statistics.harmonic_mean(terms) == pytest.approx(finished.scores()["merged"]["task_aggregate"])
    stored = finished.scores()["merged"]
    assert terms[0] == 1 - stored["forget_regurgitation_1"]
    assert terms[11] == stored["retain_knowledge_3"]


def test_terms_that_were_not_measured_are_gaps_and_a_run_without_any_has_no_list(root, tmp_path):
    run = example_run.create(tmp_path)
    assert frames.run_table([run])["terms"][0] is None
    run.write_evaluation("merged", answers=[], documents=[], mmlu=[], scores={"forget_knowledge_1": 0.25}, intervals={})
    run.write_scores()
    assert frames.run_table([run])["terms"][0] == [None, 0.75, *[None] * 10]


def test_run_table_has_title_tags_and_archive_flag_and_nothing_else_of_what_a_person_wrote(tmp_path):
    run = example_run.create(tmp_path)
    write_json(run.path / "meta.json", {"title": "One", "tags": ["a"], "archived": True, "id": "x", "aggregate": 1})
    row = frames.run_table([run]).iloc[0]
    assert (row["title"], row["tags"], row["archived"]) == ("One", ["a"], True)
    assert row["id"] == run.id
    assert pd.isna(row["aggregate"])


# ---- filters and order of the run table

@pytest.fixture
def table():
    rows = [
        {"id": "demo-1", "title": "First try", "state": "finished", "tags": ["lume", "7B"], "archived": False,
         "created": "2026-01-01T00:00:00Z", "recipe": "demo", "aggregate": 0.5, "mia_auc": 0.9},
        {"id": "demo-2", "title": "second", "state": "running", "tags": ["lume"], "archived": False,
         "created": "2026-01-03T00:00:00Z", "recipe": "demo", "aggregate": None, "mia_auc": None},
        {"id": "npo-3", "title": "", "state": "failed", "tags": [], "archived": False,
         "created": "2026-01-02T00:00:00Z", "recipe": "npo-only", "aggregate": 0.7, "mia_auc": 0.45},
        {"id": "old-4", "title": "Old", "state": "finished", "tags": ["lume"], "archived": True,
         "created": "2025-01-02T00:00:00Z", "recipe": "demo", "aggregate": 0.6, "mia_auc": 0.2}]
    frame = pd.DataFrame(rows, columns=list(frames.RUN_COLUMNS))
    frame["created"] = pd.to_datetime(frame["created"], utc=True, format="ISO8601")
    return frame.astype({"aggregate": float, "mia_auc": float, "archived": bool})


@pytest.mark.parametrize(("asked", "ids"), [
    ({}, ["demo-1", "demo-2", "npo-3"]),
    ({"archived": True}, ["demo-1", "demo-2", "npo-3", "old-4"]),
    ({"text": "FIRST"}, ["demo-1"]),  # in the title, in any case
    ({"text": "npo-only"}, ["npo-3"]),  # in the recipe
    ({"text": "7b demo"}, ["demo-1"]),  # one word in a tag, the other in the recipe
    ({"text": "[.*"}, []),  # no pattern
    ({"states": ["running", "failed"]}, ["demo-2", "npo-3"]),
    ({"tags": ["lume"]}, ["demo-1", "demo-2"]),
    ({"tags": ["lume", "7B"]}, ["demo-1"]),
    ({"tags": ["lume"], "states": ["finished"], "archived": True}, ["demo-1", "old-4"]),
])
def test_filters_keep_what_matches_all_that_is_asked(table, asked, ids):
    assert list(frames.filtered(table, **asked)["id"]) == ids


def test_filters_of_an_empty_table_give_an_empty_table(table):
    assert frames.filtered(table.iloc[:0], "x", ["finished"]).empty


@pytest.mark.parametrize(("by", "ids"), [
    ("newest", ["demo-2", "npo-3", "demo-1", "old-4"]),
    ("oldest", ["old-4", "demo-1", "npo-3", "demo-2"]),
    ("Aggregate", ["npo-3", "old-4", "demo-1", "demo-2"]),  # the one without a number last
    ("MIA AUC nearest 0.5", ["npo-3", "old-4", "demo-1", "demo-2"]),  # 0.05, 0.3, 0.4 away
    ("title", ["npo-3", "demo-1", "old-4", "demo-2"]),
])
def test_runs_are_sorted_best_first(table, by, ids):
    assert list(frames.ordered(table, by)["id"]) == ids


@pytest.mark.parametrize("by", frames.SORTS)
def test_each_order_keeps_all_runs(table, by):
    assert sorted(frames.ordered(table, by)["id"]) == sorted(table["id"])
    assert frames.ordered(table.iloc[:0], by).empty


def test_titles_and_tags_are_kept_on_one_short_printable_line():
    assert frames.tidy("  two \n words\t\x1b[31m ") == "two words [31m"
    assert len(frames.tidy("a" * 500)) == frames.LONGEST_NAME
    assert frames.tidy_tags(["b", " a", "a ", "", "  ", "b"]) == ["b", "a"]


# ---- scores

def test_score_table_has_the_stored_numbers_in_the_order_of_the_models(finished):
    table = frames.score_table(finished)
    assert list(table.columns) == list(frames.SCORE_COLUMNS)
    assert list(table["model"]) == ["untrained", "base", "model_1", "model_2", "merged"]
    for row in table.to_dict("records"):
        assert row["mia_auc"] == finished.scores()[row["model"]]["mia_auc"]
        assert [row["mia_auc_low"], row["mia_auc_high"]] == finished.intervals()[row["model"]]["mia_auc"]
    assert frames.attack_size(table) == f"{example_run.MEMBERS} members and {example_run.MEMBERS} non-members"


def test_verdicts_of_the_example_are_those_it_was_built_for(finished):
    verdict = frames.score_table(finished).set_index("model")["verdict"]
    assert verdict["base"] == verdict["model_2"] == verdicts.UNDER
    assert verdict["model_1"] == verdicts.OVER
    assert verdict["merged"] == verdicts.BALANCED


def test_metrics_that_were_not_measured_are_missing_not_zero(unfinished):
    row = frames.score_table(unfinished).iloc[0]
    assert row["model"] == "base"
    assert pd.isna(row["mmlu"])
    assert pd.isna(row["aggregate"])
    assert pd.isna(row["mmlu_questions"])


def test_a_run_without_documents_says_that_the_attacks_size_is_unknown():
    table = pd.DataFrame({"members": [pd.NA], "nonmembers": [pd.NA]}, dtype="Int64")
    assert frames.attack_size(table) == "number of documents not recorded"


def test_sub_scores_have_twelve_rows_per_model_with_ideal_0_on_forget_and_1_on_retain(finished):
    table = frames.sub_scores(finished)
    assert set(table.groupby("model").size()) == {12}
    assert set(table.loc[table["split"] == "forget", "ideal"]) == {0.0}
    assert set(table.loc[table["split"] == "retain", "ideal"]) == {1.0}
    one = table[(table["model"] == "merged") & (table["metric"] == "retain_knowledge_2")].iloc[0]
    assert (one["kind"], one["task"]) == ("knowledge", "Task2")
    assert one["value"] == finished.scores()["merged"]["retain_knowledge_2"]


def test_a_sub_score_that_is_absent_keeps_its_row_without_a_value(tmp_path):
    run = example_run.create(tmp_path)
    run.write_evaluation("base", answers=[], documents=[], mmlu=[], scores={"forget_knowledge_1": 0.5}, intervals={})
    run.write_scores()
    table = frames.sub_scores(run).set_index("metric")["value"]
    assert table["forget_knowledge_1"] == 0.5
    assert table.isna().sum() == 11


def test_halves_are_the_plain_means_of_six_sub_scores_each(finished):
    table = frames.with_halves(frames.score_table(finished), frames.sub_scores(finished)).set_index("model")
    stored = finished.scores()["merged"]
    forget = [value for key, value in stored.items() if key.startswith("forget")]
    retain = [value for key, value in stored.items() if key.startswith("retain")]
    assert (len(forget), len(retain)) == (6, 6)
    assert table.loc["merged", "forget_success"] == pytest.approx(1 - sum(forget) / 6)
    assert table.loc["merged", "retention"] == pytest.approx(sum(retain) / 6)


def test_a_half_with_a_gap_is_missing(finished):
    sub_scores = frames.sub_scores(finished)
    sub_scores.loc[(sub_scores["model"] == "merged") & (sub_scores["metric"] == "retain_knowledge_2"), "value"] = None
    table = frames.with_halves(frames.score_table(finished), sub_scores).set_index("model")
    assert pd.isna(table.loc["merged", "retention"])
    assert table["forget_success"].notna().all()


def points(*rows):
    return pd.DataFrame(rows, columns=["model", "forget_success", "retention"])


def test_the_pareto_line_holds_what_nothing_beats_in_both():
    table = points(("base", 0.0, 1.0), ("model_1", 0.9, 0.4), ("model_2", 0.5, 0.8), ("merged", 0.85, 0.8))
    assert list(frames.on_pareto_line(table)) == [True, True, False, True]  # merged retains as much as model_2


def test_models_that_were_never_unlearned_are_not_on_the_pareto_line_and_hide_nobody():
    table = points(("untrained", 1.0, 1.0), ("merged", 0.8, 0.8), ("retrained", 1.0, 1.0), ("base", 0.0, None))
    assert list(frames.on_pareto_line(table)) == [False, True, False, False]


def test_the_pareto_line_agrees_with_comparing_every_pair():
    chance = random.Random(0)
    table = points(*(("merged", round(chance.random(), 1), round(chance.random(), 1)) for _ in range(60)))
    pairs = list(zip(table["forget_success"], table["retention"], strict=True))
    beaten = [any(a >= x and b >= y and (a, b) != (x, y) for a, b in pairs) for x, y in pairs]
    assert list(frames.on_pareto_line(table)) == [not lost for lost in beaten]
    assert 0 < sum(beaten) < 60


# ---- verdicts

@pytest.mark.parametrize(("auc", "low", "high", "expected"), [
    (0.80, 0.72, 0.88, verdicts.UNDER),
    (0.20, 0.12, 0.28, verdicts.OVER),
    (0.55, 0.45, 0.65, verdicts.BALANCED),
    (0.55, 0.35, 0.75, verdicts.UNDECIDED),  # 0.40 wide
    (0.55, None, None, verdicts.NO_INTERVAL),
    (float("nan"), None, None, None),
    (None, None, None, None),
])
def test_forgetting_is_judged_by_the_interval_and_not_by_the_point(auc, low, high, expected):
    assert verdicts.forgetting(auc, low, high) == expected


def test_the_gate_is_three_quarters_of_the_base():
    assert verdicts.mmlu_gate(0.37125, 0.495) == verdicts.PASSED  # 0.75 * 0.495 = 0.37125
    assert verdicts.mmlu_gate(0.371, 0.495) == verdicts.FAILED
    assert verdicts.mmlu_gate(None, 0.495) is None
    assert verdicts.mmlu_gate(0.4, None) is None


def test_the_summary_compares_a_merge_with_both_parents(finished):
    balance, task, aggregate, gate = verdicts.summary(frames.score_table(finished))
    assert balance.startswith("● balanced: MIA AUC 0.48 [")
    assert task.startswith("✓ above both parents: Task Aggregate")
    assert aggregate.startswith("✓ above both parents: Aggregate")
    assert gate.startswith("✓ MMLU gate passed")


def test_the_summary_says_only_what_was_measured(unfinished, tmp_path):
    assert verdicts.summary(frames.score_table(unfinished)) == []
    run = example_run.create(tmp_path)
    run.write_evaluation("merged", answers=[], documents=[], mmlu=[], scores={"task_aggregate": 0.5}, intervals={})
    run.write_scores()
    assert verdicts.summary(frames.score_table(run)) == []


# ---- published

def test_published_aggregates_are_the_means_of_their_parts():
    table = published.table()
    means = table[["task_aggregate", "mia_score", "mmlu"]].mean(axis=1)
    assert (means - table["aggregate"]).abs().max() < 0.0012  # printed with three digits


def test_published_mia_scores_follow_from_their_aucs():
    known = published.table().dropna(subset=["mia_auc"])
    folded = 1 - 2 * (known["mia_auc"] - 0.5).abs()
    assert len(known) == 3
    assert (folded - known["mia_score"]).abs().max() < 0.0021


def test_the_size_of_the_quiz_is_told_and_its_absence_too(finished):
    table = frames.score_table(finished)
    assert frames.quiz_size(table.assign(mmlu_questions=76)) == "76 questions, chance 0.25"
    assert frames.quiz_size(table.assign(mmlu_questions=pd.NA)) == "not measured"
