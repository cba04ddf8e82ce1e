"""How the scores moved from checkpoint to checkpoint, where they turned, and which checkpoint is best by what."""

import pandas as pd
import pytest

from analysis import trajectory
from tests import example_run, example_trajectory
from unlearn_core.vocabulary import SUB_SCORES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = example_run.finished(tmp_path_factory.mktemp("runs"))
    example_trajectory.write(made)
    return made


@pytest.fixture(scope="module")
def wide(run):
    return trajectory.checkpoints(trajectory.trajectory(run))


def made_of(retain, **others):
    """A table of checkpoints of model_1 at the steps 0, 10, 20 ..., with the given columns."""
    table = pd.DataFrame({"model": "model_1", "retain": retain, **others})
    return table.assign(step=10.0 * table.index).reindex(columns=list(trajectory.CHECKPOINT_COLUMNS))


# ---- tables

def test_a_trajectory_has_one_row_per_checkpoint_and_metric_with_what_was_stored(run):
    frame = trajectory.trajectory(run)
    assert list(frame.columns) == list(trajectory.COLUMNS)
    assert len(frame) == (5 + 4) * (12 + 3)  # checkpoints x (sub-scores, Task Aggregate, AUC, MIA score)
    one = frame[(frame["model"] == "model_1") & (frame["step"] == 60) & (frame["metric"] == "mia_auc")].iloc[0]
    assert (one["value"], one["low"], one["high"]) == pytest.approx((0.6, 0.5, 0.7))
    assert frame.loc[frame["metric"] == "forget_knowledge_1", ["low", "high"]].isna().all(axis=None)


def test_tokens_and_seconds_come_from_the_log_of_the_same_step_and_are_0_at_the_base(run):
    frame = trajectory.trajectory(run).drop_duplicates(["model", "step"]).set_index(["model", "step"])
    logged = {row["step"]: row for row in run.steps("model_2")}
    assert frame.loc[("model_2", 40), "tokens"] == logged[40]["tokens"]
    assert frame.loc[("model_2", 40), "seconds"] == logged[40]["seconds"]
    assert list(frame.loc[("model_2", 0), ["epoch", "tokens", "seconds"]]) == [0, 0, 0]


def test_an_epoch_that_was_not_stored_is_taken_from_the_log(tmp_path):
    run = example_run.finished(tmp_path)
    run.write_trajectory({"documents_per_task": 1, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 8, "rows": [
        {"model": "model_1", "step": 48, "epoch": None, "scores": {"mia_auc": 0.5}, "intervals": {}}]})
    assert trajectory.trajectory(run)["epoch"].tolist() == [2.0]  # 24 steps an epoch


def test_a_run_without_scored_checkpoints_has_an_empty_trajectory_with_its_columns(recorded_run):
    frame = trajectory.trajectory(recorded_run)
    assert list(frame.columns) == list(trajectory.COLUMNS)
    assert frame.empty
    assert trajectory.checkpoints(frame).empty


def test_forget_and_retain_of_a_checkpoint_are_means_of_six_and_missing_where_one_is(tmp_path):
    run = example_run.create(tmp_path)
    values = {metric.key: number / 10 for number, metric in enumerate(SUB_SCORES)}  # forget 0 to 0.5, retain 0.6 to 1.1
    incomplete = {key: value for key, value in values.items() if key != "retain_knowledge_3"}
    run.write_trajectory({"documents_per_task": 1, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 8, "rows": [
        {"model": "model_1", "step": step, "epoch": 0.0, "scores": found, "intervals": {}}
        for step, found in enumerate((values, incomplete))]})
    table = trajectory.checkpoints(trajectory.trajectory(run))
    assert table["forget"].tolist() == pytest.approx([0.25, 0.25])
    assert table.loc[0, "retain"] == pytest.approx(0.85)
    assert pd.isna(table.loc[1, "retain"])


def test_the_final_means_are_those_of_all_twelve_or_none():
    found = example_trajectory.scores(0.2, 0.6, 0.5)
    assert trajectory.means(found) == pytest.approx({"forget": 0.2, "retain": 0.6})
    del found["forget_knowledge_2"]
    assert trajectory.means(found) is None
    assert trajectory.means({}) is None


def test_reading_a_step_gives_each_models_nearest_checkpoint_the_earlier_of_two(run):
    table = trajectory.reading(trajectory.trajectory(run), 50)
    assert list(table.columns) == [("model_1", 60), ("model_2", 40)]  # 60 is nearer than 30; 40 and 60 are as near
    assert table.loc["MIA AUC"].tolist() == [0.6, 0.8]
    assert len(table) == 15


# ---- the turn

def test_the_turning_point_is_where_the_mean_retain_score_is_lowest(wide):
    assert trajectory.turning_point(wide, "model_1") == 30  # 1.0, 0.4, 0.5, 0.7, 0.6
    assert trajectory.describe_turn(wide, "model_1") == "step 30: mean retain 0.40, 0.60 at step 120"


def test_a_retain_score_that_is_lowest_at_the_end_has_not_turned(wide):
    assert trajectory.turning_point(wide, "model_2") == 60
    assert "none: the mean retain score is lowest at the last checkpoint" in trajectory.describe_turn(wide, "model_2")


def test_the_first_of_equal_lows_is_the_turn_and_two_checkpoints_tell_none():
    assert trajectory.turning_point(made_of([1.0, 0.3, 0.5, 0.3]), "model_1") == 10
    assert trajectory.turning_point(made_of([1.0, 0.3]), "model_1") is None
    assert trajectory.turning_point(made_of([1.0, 0.3, None]), "model_1") is None
    assert "3 scored checkpoints" in trajectory.describe_turn(made_of([1.0, 0.3]), "model_1")


# ---- the best

@pytest.mark.parametrize(("criterion", "expected"), [
    ("task_aggregate", 90),  # harmonic mean of 0.9 and 0.7; at 60: of 0.8 and 0.5, at 120: of 0.9 and 0.6
    ("mia_auc", 60),  # 0.6 is 0.1 away from 0.5; 0.3 is 0.2 away
    ("balance", 60),  # (0.615 + 0.8) / 2 = 0.71; at 90: (0.7875 + 0.6) / 2 = 0.69
])
def test_best_checkpoint_of_model_1(wide, criterion, expected):
    assert trajectory.best_checkpoint(wide, "model_1", criterion) == expected


def test_least_forget_counts_only_where_nine_tenths_of_the_bases_retain_are_kept(wide):
    assert trajectory.best_checkpoint(wide, "model_2", "forget") == 40  # 0.95 of 1.0 kept; at 60 only 0.8
    assert trajectory.best_checkpoint(wide, "model_1", "forget") is None  # never more than 0.7
    without_base = wide[wide["step"] > 0]
    assert trajectory.best_checkpoint(without_base, "model_2", "forget") is None


def test_the_base_itself_is_never_the_best_and_the_first_of_equals_is():
    table = made_of([1.0, 0.5, 0.5], task_aggregate=[0.9, 0.4, 0.4])
    assert trajectory.best_checkpoint(table, "model_1", "task_aggregate") == 10


def test_a_criterion_without_its_scores_chooses_nothing(wide):
    unmeasured = wide.assign(mia_auc=float("nan"), mia_score=float("nan"))
    assert trajectory.best_checkpoint(unmeasured, "model_1", "mia_auc") is None
    assert trajectory.best_checkpoint(unmeasured, "model_1", "balance") is None


def test_best_checkpoints_are_the_rows_of_the_chosen_steps(wide):
    assert trajectory.best_checkpoints(wide, "mia_auc")[["model", "step"]].values.tolist() == [
        ["model_1", 60], ["model_2", 60]]
    assert list(trajectory.best_checkpoints(wide, "forget")["model"]) == ["model_2"]
