"""Results in a run folder: read as they were written, and odd ones are errors that name the file."""


import numpy as np
import pytest

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import write_json, write_rows
from unlearn_core.store import Store

SMOKE = recipes.load("smoke")


@pytest.fixture
def run(tmp_path):
    return Store(tmp_path / "runs").create(SMOKE, {"seed": 0})


# ---- steps and results -----------------------------------------------------------------------------------------------

def test_dropping_the_steps_after_the_last_checkpoint_takes_a_torn_line_too(run):
    for step in (1, 2, 3):
        run.append_step("model_1", {"step": step})
    with (run.model_dir("model_1") / "steps.jsonl").open("a") as file:
        file.write('{"step": 4, "np')
    run.keep_steps("model_1", 2)
    run.append_step("model_1", {"step": 3})
    assert run.steps("model_1") == [{"step": 1}, {"step": 2}, {"step": 3}]
    assert run.steps("model_2") == []


def test_a_model_is_evaluated_once_its_last_file_is_there_and_the_runs_scores_have_it(run):
    write_rows(run.model_dir("base") / "answers.jsonl", [{"id": "a"}])
    assert not run.is_evaluated("base")
    run.write_evaluation("merged", answers=[], documents=[], mmlu=[], scores={"mmlu": 0.5}, intervals={"mmlu": [0, 1]})
    run.write_scores()
    assert run.is_evaluated("merged")
    assert run.scores() == {"merged": {"mmlu": 0.5}}
    assert run.intervals() == {"merged": {"mmlu": [0, 1]}}


def test_models_are_listed_in_the_order_of_the_method_and_unknown_ones_last(run):
    for name in ("zeta", "merged", "base", "model_2", "untrained", "alpha"):
        run.model_dir(name).mkdir(parents=True)
    assert run.models() == ["untrained", "base", "model_2", "merged", "alpha", "zeta"]


def test_checkpoints_are_in_the_order_of_their_steps_without_unfinished_ones(run):
    for step in (1_000_000, 20, 0):
        run.checkpoint_dir("model_1", step).mkdir(parents=True)
    (run.model_dir("model_1") / "checkpoints" / ".step-000030.tmp").mkdir()
    assert [step for step, _ in run.checkpoints("model_1")] == [0, 20, 1_000_000]


# ---- trajectory ----------------------------------------------------------------------------------------------

TRAJECTORY = {"documents_per_task": 2, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24, "rows": [
    {"model": "model_1", "step": 0, "epoch": 0.0, "scores": {"mia_auc": 1.0}, "intervals": {"mia_auc": [0.9, 1.0]}}]}


def test_a_trajectory_is_read_as_it_was_written(run):
    assert run.trajectory() == {}
    run.write_trajectory(TRAJECTORY)
    assert run.trajectory() == TRAJECTORY


@pytest.mark.parametrize("odd", [{"seed": "0"}, {"rows": 5}, {"rows": [5]}, {"rows": [{"model": "model_1"}]},
                                 {"rows": [TRAJECTORY["rows"][0] | {"scores": {"mia_auc": "high"}}]}])
def test_an_odd_trajectory_is_an_error_that_names_the_file(run, odd):
    write_json(run.path / "trajectory.json", TRAJECTORY | odd)
    with pytest.raises(InputError, match=r"trajectory\.json; got .*; expected a JSON object"):
        run.trajectory()


# ---- other merges, ablations, balance ----------------------------------------------------------------------------

SUBSET = {"documents_per_task": 2, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24}
MERGE = {"kind": "density", "name": "TIES, density 0.5", "norm_ratio": 1.1, "cosines": {"model_1": 0.9},
         "scores": {"mia_auc": 0.5}, "intervals": {"mia_auc": [0.4, 0.6]}}
ABLATION = {"kind": "layer", "part": "0", "mode": "remove", "draw": 0, "share": None, "norm_share": 0.5, "scores": {},
            "intervals": {}}
BALANCE = {"target": 0.5, "readings": [], "families": [{"family": "mix of both", "folds": []}]}


def test_merges_ablations_and_balance_are_read_as_they_were_written(run):
    assert run.merges() == run.ablations() == run.balance() == {}
    run.write_merges(SUBSET | {"rows": [MERGE]})
    run.write_ablations(SUBSET | {"rows": [ABLATION]})
    run.write_balance(BALANCE)
    assert run.merges()["rows"] == [MERGE]
    assert run.ablations()["rows"] == [ABLATION]
    assert run.balance() == BALANCE


@pytest.mark.parametrize(("name", "content"), [
    ("merges", SUBSET | {"rows": [MERGE | {"name": 5}]}), ("merges", SUBSET | {"rows": [MERGE | {"norm_ratio": None}]}),
    ("merges", {"rows": [MERGE]}), ("merges", SUBSET | {"rows": [MERGE | {"cosines": [1]}]}),
    ("ablations", SUBSET | {"rows": [ABLATION | {"draw": -1}]}),
    ("ablations", SUBSET | {"rows": [ABLATION | {"mode": 1}]}),
    ("ablations", SUBSET | {"rows": [ABLATION | {"share": "half"}]}), ("balance", BALANCE | {"families": 5}),
    ("balance", BALANCE | {"target": None}), ("balance", BALANCE | {"families": [{"family": 1, "folds": []}]})])
def test_odd_merges_ablations_and_balances_are_errors_that_name_the_file(run, name, content):
    write_json(run.path / f"{name}.json", content)
    with pytest.raises(InputError, match=rf"{name}\.json; got .*; expected a JSON object"):
        getattr(run, name)()


def test_arrays_come_back_with_what_they_are_about_and_a_torn_file_is_named(run):
    assert run.arrays("weights") == ({}, {})
    run.write_arrays("weights", {"norm": np.arange(6.0).reshape(2, 3)}, {"adapters": ["model_1", "model_2"]})
    arrays, about = run.arrays("weights")
    assert arrays["norm"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert about == {"adapters": ["model_1", "model_2"]}
    path = run.path / "weights.safetensors"
    for torn in (b"", path.read_bytes()[:-3], b"{}"):
        path.write_bytes(torn)
        with pytest.raises(InputError, match=r"weights\.safetensors; got a damaged file .*remove it and measure again"):
            run.arrays("weights")
