"""Tables made from run folders, and the words that judge them."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import frames, published, verdicts
from tests import example_run
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


def test_run_table_of_an_empty_store_has_its_columns_and_no_rows(tmp_path):
    table = frames.run_table(Store(tmp_path).runs())
    assert list(table.columns) == list(frames.RUN_COLUMNS)
    assert table.empty


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


# ---- training

def test_steps_hold_one_row_per_optimizer_step_of_both_models(finished):
    table = frames.steps(finished)
    assert list(table.columns) == ["model", *frames.STEP_COLUMNS]
    assert table.groupby("model").size().to_dict() == {"model_1": example_run.STEPS, "model_2": example_run.STEPS // 2}
    assert len(frames.base_steps(finished)) == example_run.BASE_STEPS


def test_steps_of_a_run_that_has_not_trained_are_empty_and_keep_their_columns(tmp_path):
    table = frames.steps(example_run.create(tmp_path))
    assert list(table.columns) == ["model", *frames.STEP_COLUMNS]
    assert table.empty


def test_a_number_that_an_older_run_did_not_log_is_missing(tmp_path):
    run = example_run.create(tmp_path)
    run.append_step("model_1", {"step": 1, "loss": 2.5})
    row = frames.steps(run).iloc[0]
    assert row["loss"] == 2.5
    assert math.isnan(row["npo_brake"])


def test_weighted_terms_add_up_to_the_total_and_the_total_is_the_same_unweighted(finished):
    steps = frames.steps(finished)
    for weighted in (True, False):
        long = frames.loss_components(steps, weighted)
        wide = long.pivot(index=["model", "step"], columns="component", values="value")
        adds_up = np.allclose(wide["npo"] + wide["gdr"] + wide["klr"], wide["loss"])
        assert adds_up is weighted
        assert sorted(wide["loss"]) == sorted(steps["loss"])


def test_thin_keeps_ends_and_extremes_and_the_order():
    values = np.sin(np.arange(50_000) / 500)
    values[12_345], values[23_456] = 9.0, -9.0
    frame = pd.DataFrame({"step": np.arange(50_000), "value": values})
    thinned = frames.thin(frame, "value", limit=200)
    assert len(thinned) <= 200
    assert {0, 12_345, 23_456, 49_999} <= set(thinned["step"])
    assert thinned["step"].is_monotonic_increasing


def test_thin_leaves_a_short_series_as_it_is_but_for_missing_values():
    frame = pd.DataFrame({"step": [1, 2, 3], "value": [5.0, None, 4.0]})
    assert list(frames.thin(frame, "value", limit=200)["step"]) == [1, 3]


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


def test_merge_summary_compares_with_both_parents(finished):
    balance, task, aggregate, gate = verdicts.merge_summary(frames.score_table(finished))
    assert balance.startswith("● balanced: MIA AUC 0.48 [")
    assert task.startswith("✓ above both parents: Task Aggregate")
    assert aggregate.startswith("✓ above both parents: Aggregate")
    assert gate.startswith("✓ MMLU gate passed")


def test_merge_summary_says_only_what_was_measured(unfinished, tmp_path):
    assert verdicts.merge_summary(frames.score_table(unfinished)) == []
    run = example_run.create(tmp_path)
    run.write_evaluation("merged", answers=[], documents=[], mmlu=[], scores={"task_aggregate": 0.5}, intervals={})
    run.write_scores()
    assert verdicts.merge_summary(frames.score_table(run)) == []


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
