"""A recorded run of schema version 1 opens with today's code; whoever breaks that has to bring a migration."""

import shutil

import pytest

from analysis import frames, training
from unlearn_core import data
from unlearn_core.evaluation import score
from unlearn_core.store import Run, Store
from unlearn_core.vocabulary import LOSS_TERMS, METHOD_TERMS

SCORED = ["untrained", "base", "model_1", "model_2", "merged"]


def test_a_recorded_run_is_listed_without_a_problem(recorded_run):
    store = Store(recorded_run.path.parent)
    assert [r.id for r in store.runs()] == ["run-v1"]
    assert store.problems() == []


def test_every_part_of_a_recorded_run_is_read(recorded_run):
    info, recipe = recorded_run.info(), recorded_run.recipe()
    assert info["schema_version"] == 1
    assert (recipe.name, info["seed"], info["device"]) == ("smoke", recipe.seed, "cpu")
    assert recorded_run.status()["state"] == "finished"
    assert recorded_run.meta() == {"title": "", "tags": [], "archived": False}
    assert recorded_run.models() == list(recorded_run.scores()) == list(recorded_run.intervals()) == SCORED
    assert recorded_run.steps("base")[-1]["epoch"] == recipe.base.epochs
    for model in ("model_1", "model_2"):
        assert recorded_run.steps(model)[-1]["epoch"] == pytest.approx(getattr(recipe, model).epochs, rel=0.1)
        assert recorded_run.checkpoints(model) == []


def test_the_data_of_a_recorded_run_are_those_that_it_noted(recorded_run):
    dataset = data.load_saved(recorded_run.data_dir)
    assert data.hashes(recorded_run.data_dir) == recorded_run.info()["data_hashes"]
    answered = [row["id"] for row in recorded_run.answers("merged")]
    assert answered == [item.id for item in dataset.forget + dataset.retain]
    assert [row["document"] for row in recorded_run.documents("merged")] == [d.document for d in dataset.attack]
    assert len(recorded_run.mmlu("merged")) == len(dataset.mmlu_test)


@pytest.mark.parametrize("model", SCORED)
def test_the_scores_of_a_recorded_run_follow_from_its_rows(recorded_run, model):
    found = score.scores(recorded_run.answers(model), recorded_run.documents(model), recorded_run.mmlu(model))
    assert found == pytest.approx(recorded_run.scores()[model], abs=1e-12)


def test_a_recorded_run_fills_every_table(recorded_run):
    listed = frames.run_table([recorded_run]).iloc[0]
    assert listed["problem"] == ""
    assert listed["aggregate"] == recorded_run.scores()["merged"]["aggregate"]
    scores = frames.score_table(recorded_run)
    assert list(scores["model"]) == SCORED
    assert scores.set_index("model").loc["merged", ["aggregate", "mia_auc_low", "mmlu_gate"]].notna().all()
    cells = frames.sub_scores(recorded_run)
    assert cells[cells["model"] == "merged"]["value"].notna().sum() == 12
    steps = training.steps(recorded_run)
    assert set(steps["model"]) == {"model_1", "model_2"}
    others = {f"{term}{end}" for term in LOSS_TERMS if term not in METHOD_TERMS for end in ("", "_weighted")}
    assert set(steps.columns[steps.isna().any()]) == others
    assert list(training.base_steps(recorded_run).columns[training.base_steps(recorded_run).isna().any()]) == []


def test_a_recorded_run_that_lost_its_answers_still_shows_its_scores(recorded_run):
    shutil.rmtree(recorded_run.model_dir("merged"))
    assert recorded_run.answers("merged") == []
    assert "merged" in recorded_run.scores()
    assert "merged" in list(frames.score_table(recorded_run)["model"])


def test_reading_a_run_changes_no_file(recorded_run):
    def contents():
        return {path: path.read_bytes() for path in recorded_run.path.rglob("*") if path.is_file()}
    before = contents()
    for read in (recorded_run.info, recorded_run.recipe, recorded_run.status, recorded_run.scores):
        read()
    frames.score_table(Run(recorded_run.path))
    assert contents() == before
