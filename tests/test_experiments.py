"""Many updates on one base: the trajectory of the checkpoints, and sweeps over other merges, on the smoke run."""

import shutil

import pytest
import torch

from unlearn_core import data, models, run_models
from unlearn_core.errors import InputError
from unlearn_core.evaluation import score
from unlearn_core.merging.task_vectors import cosine, delta, load_adapter, norm, save_adapter, scaled
from unlearn_core.trials import experiments, halves, variants
from unlearn_core.trials.experiments import Subset
from unlearn_core.trials.variants import Parents
from unlearn_core.vocabulary import MERGE_METHODS

WHOLE = Subset(mmlu_limit=0, half=halves.ALL)  # what a run's own models are scored on

# ---- checkpoints ---------------------------------------------------------------------------------------------

def test_the_trajectory_begins_at_the_base_and_ends_at_the_finished_adapter(smoke_copy):
    ended = smoke_copy.status()["ended"]
    experiments.evaluate_checkpoints(smoke_copy, device="cpu", subset=WHOLE)
    assert smoke_copy.status()["ended"] == ended  # of the run, not of this measurement
    found, scores = smoke_copy.trajectory(), smoke_copy.scores()
    for name in ("model_1", "model_2"):
        rows = [row for row in found["rows"] if row["model"] == name]
        assert [row["step"] for row in rows] == [step for step, _ in smoke_copy.checkpoints(name)]
        assert (rows[0]["scores"], rows[-1]["scores"]) == (scores["base"], scores[name])
        assert rows[-1]["intervals"] == smoke_copy.intervals()[name]
        assert (rows[0]["epoch"], rows[-1]["epoch"]) == (0.0, smoke_copy.steps(name)[-1]["epoch"])
    assert smoke_copy.status()["state"] == "finished"


def test_a_trajectory_goes_on_where_it_was_stopped_and_begins_anew_on_another_subset(smoke_copy):
    def report(stage, done, total):
        if stage.startswith("evaluate checkpoints"):
            seen.append(stage)
        if len(seen) == 3:
            raise KeyboardInterrupt
    seen = []
    with pytest.raises(KeyboardInterrupt):
        experiments.evaluate_checkpoints(smoke_copy, ["model_1"], subset=Subset(1), device="cpu", report=report)
    kept = smoke_copy.trajectory()["rows"]
    assert len(kept) == 2  # the third was under way
    assert smoke_copy.status()["state"] == "finished"
    experiments.evaluate_checkpoints(smoke_copy, ["model_1"], subset=Subset(1), device="cpu")
    whole = smoke_copy.trajectory()["rows"]
    assert whole[:2] == kept
    assert len(whole) == len(smoke_copy.checkpoints("model_1"))
    experiments.evaluate_checkpoints(smoke_copy, ["model_2"], subset=Subset(1, seed=1), device="cpu")
    assert {row["model"] for row in smoke_copy.trajectory()["rows"]} == {"model_2"}


def test_a_run_without_checkpoints_has_no_trajectory(recorded_run):
    with pytest.raises(InputError, match="got no checkpoints"):
        experiments.evaluate_checkpoints(recorded_run, device="cpu")


# ---- other merges ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def parents(smoke_run):
    return experiments.load_parents(smoke_run, smoke_run.recipe(), "cpu")


def mean_norm(parents: Parents) -> float:
    return sum(norm(adapter) for adapter in parents.adapters) / 2


def test_a_model_with_an_update_is_the_merged_model_and_afterwards_the_base_again(smoke_run):
    recipe = smoke_run.recipe()
    base, _ = run_models.load(smoke_run, recipe, "base", "cpu")
    merged, _ = run_models.load(smoke_run, recipe, "merged", "cpu")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapter = load_adapter(smoke_run.adapter_dir("merged"))
    with models.updated(base, adapter.modules, variants.dense(adapter)):
        for name, tensor in merged.state_dict().items():
            assert torch.equal(base.state_dict()[name], tensor)
    with pytest.raises(RuntimeError), models.updated(base, adapter.modules, variants.dense(adapter)):
        raise RuntimeError
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_a_sweep_scores_the_runs_own_merge_as_the_run_did(smoke_copy):
    experiments.sweep(smoke_copy, densities=[0.5, 0.8], subset=WHOLE, device="cpu")
    found = smoke_copy.merges()
    assert [row["name"] for row in found["rows"]] == ["TIES, density 0.5", "TIES, density 0.8"]
    assert found["rows"][1]["scores"] == smoke_copy.scores()["merged"]
    assert found["rows"][1]["intervals"] == smoke_copy.intervals()["merged"]
    assert found["rows"][0]["density"] == 0.5
    assert smoke_copy.status()["state"] == "finished"


def test_a_merge_with_settings_of_ones_own_is_scored_under_a_name_that_says_them(smoke_copy):
    settings = ["merge.method=linear", "merge.level=delta", "merge.divisor=count", "merge.weights=[1, 0.5]"]
    experiments.sweep(smoke_copy, custom=settings, subset=Subset(1), device="cpu")
    row, = smoke_copy.merges()["rows"]
    assert (row["kind"], row["name"]) == ("custom", "Mean on delta W, density 0.8, weights 1 : 0.5, divisor count")
    parents = experiments.load_parents(smoke_copy, smoke_copy.recipe(), "cpu")
    assert row["norm_ratio"] == pytest.approx(parents.geometry(parents.mixed(0.5, 0.25))["norm_ratio"], rel=1e-4)
    with pytest.raises(InputError, match="did you mean density"):
        experiments.sweep(smoke_copy, custom=["merge.denisty=0.5"], device="cpu")


def test_a_sweep_keeps_what_was_scored_on_the_same_subset(smoke_copy):
    experiments.sweep(smoke_copy, densities=[0.5], subset=Subset(1), device="cpu")
    first = smoke_copy.merges()["rows"]
    experiments.sweep(smoke_copy, densities=[0.5], path=True, subset=Subset(1), device="cpu")
    rows = smoke_copy.merges()["rows"]
    assert rows[:1] == first
    assert [row["position"] for row in rows[1:]] == [0, 1, 2, 0.25, 0.5, 0.75, 1.25, 1.5, 1.75]
    experiments.sweep(smoke_copy, densities=[0.6], subset=Subset(1, seed=1), device="cpu")
    assert [row["name"] for row in smoke_copy.merges()["rows"]] == ["TIES, density 0.6"]


def test_what_was_scored_on_other_adapters_is_scored_anew(smoke_copy):
    experiments.sweep(smoke_copy, densities=[0.5], subset=Subset(1), device="cpu")
    first, = smoke_copy.merges()["rows"]
    changed = scaled(load_adapter(smoke_copy.adapter_dir("model_1")), 0.5)
    shutil.rmtree(smoke_copy.adapter_dir("model_1"))
    save_adapter(changed, smoke_copy.adapter_dir("model_1"))
    experiments.sweep(smoke_copy, densities=[0.5], subset=Subset(1), device="cpu")
    second, = smoke_copy.merges()["rows"]
    assert second["name"] == first["name"]
    assert second["cosines"] != first["cosines"]


def test_the_ends_of_path_and_surface_are_the_parents_and_the_base(parents):
    first, second = parents.adapters
    path = {variant.name: variant.make() for variant in variants.path(parents)}
    assert path["model_1"] is first
    assert path["model_2"] is second
    assert cosine(path["merged"], parents.merged(parents.choice)) == pytest.approx(1)
    surface = {variant.name: variant for variant in variants.surface(parents)}
    assert len(surface) == 25
    assert norm(surface["1 : 0"].make()) == pytest.approx(norm(first))
    assert norm(surface["0 : 0"].make()) == 0
    assert parents.geometry(surface["0 : 0"].make()) == {"norm_ratio": 0, "cosines": {}}
    half = surface["0.5 : 1"].make()
    for name, factors in half.modules.items():
        one, two = (delta(adapter.modules[name], adapter.scaling) for adapter in parents.adapters)
        torch.testing.assert_close(delta(factors), 0.5 * one + two, atol=1e-6, rtol=1e-5)


def test_every_method_is_made_as_it_comes_and_at_the_parents_mean_norm(parents):
    made = list(variants.methods(parents))
    names = {variant.name for variant in made}
    assert len(made) == 2 * len(names) == 2 * (len(MERGE_METHODS) - 1 + 3)  # concatenated = linear on delta W
    assert {"TIES on factors", "TIES on delta W", "Mean on delta W", "DARE-TIES on factors"} <= names
    for variant in made:
        size = norm(variant.make())
        assert size > 0
        if variant.kind == "method at one norm":
            assert size == pytest.approx(mean_norm(parents), rel=1e-4)


def test_a_sweep_over_nothing_or_of_a_run_without_adapters_is_refused(smoke_copy, recorded_run):
    with pytest.raises(InputError, match="got nothing to vary"):
        experiments.sweep(smoke_copy, device="cpu")
    with pytest.raises(InputError, match="got no adapter of model_1"):
        experiments.sweep(recorded_run, densities=[0.5], device="cpu")


@pytest.mark.parametrize(("text", "values"), [
    ("0.2:1.0:0.2", [0.2, 0.4, 0.6, 0.8, 1.0]), ("0.6,0.8", [0.6, 0.8]), ("0.5", [0.5]), ("1:1:0.1", [1.0])])
def test_a_grid_of_densities_is_a_range_with_its_end_or_a_list(text, values):
    assert experiments.grid(text) == values


@pytest.mark.parametrize("text", ["", "a", "0:1:0.1", "0.5:1.2:0.1", "0.2:1:0", "1:0.5:0.1", "0.2:1", "nan",
                                  "0.2:1:-1"])
def test_an_odd_grid_is_refused(text):
    with pytest.raises(InputError, match="densities; got"):
        experiments.grid(text)


# ---- halves ----------------------------------------------------------------------------------------------------

def test_a_sweep_and_a_trajectory_score_the_development_half_by_default(smoke_copy):
    experiments.sweep(smoke_copy, densities=[0.8], device="cpu")
    experiments.evaluate_checkpoints(smoke_copy, ["model_2"], device="cpu")
    half = halves.part(data.load_saved(smoke_copy.data_dir), "development")
    members = {entry.document for entry in half.attack}
    answered = {item.id for item in (*half.forget, *half.retain)}
    rows = [row for row in smoke_copy.answers("merged") if row["id"] in answered]
    losses = [row for row in smoke_copy.documents("merged") if row["document"] in members]
    assert 0 < len(rows) < len(smoke_copy.answers("merged"))
    row, = smoke_copy.merges()["rows"]  # the run's own merge
    assert row["scores"] == score.scores(rows, losses, [])
    assert row["intervals"] == score.intervals(rows, losses, [])
    for found in (smoke_copy.merges(), smoke_copy.trajectory()):
        assert found["half"] == "development"
        assert found["n"] == {"units": 1, "members": sum(row["member"] for row in losses),
                              "nonmembers": sum(not row["member"] for row in losses)}
    assert smoke_copy.readings() == []  # the test half has not been looked at


def test_a_subset_is_taken_from_the_half_and_not_halved_itself(smoke_run):
    whole = data.load_saved(smoke_run.data_dir)
    for half in ("development", "test"):
        part = Subset(1, half=half).of(whole)
        kept = {item.document for item in (*part.forget, *part.retain)}
        assert len(kept) == 6  # one of each task and side
        assert {document in halves.development(whole) for document in kept} == {half == "development"}


def test_the_test_half_is_refused_and_all_documents_are_a_counted_look_at_it(smoke_copy):
    for half, message in (("test", "got the test half"), ("both", "got both; expected one of development")):
        with pytest.raises(InputError, match=message):
            experiments.sweep(smoke_copy, densities=[0.5], subset=Subset(1, half=half), device="cpu")
    assert smoke_copy.merges() == {}
    experiments.sweep(smoke_copy, densities=[0.4, 0.5], subset=Subset(1, half="all"), device="cpu")
    look, = smoke_copy.readings()
    assert (look["what"], look["configurations"], look["scores"]) == (
        "merge-sweep of 2 configurations on all documents", 2, {})
    experiments.sweep(smoke_copy, densities=[0.5], subset=Subset(1, half="all"), device="cpu")
    assert len(smoke_copy.readings()) == 1  # nothing was left to score


def test_what_an_older_version_scored_without_a_half_counts_as_all_documents(smoke_copy):
    experiments.sweep(smoke_copy, densities=[0.5], subset=Subset(1, half="all"), device="cpu")
    found = smoke_copy.merges()
    older = {key: value for key, value in found.items() if key not in ("half", "n", "replaced")}
    smoke_copy.write_merges(older)
    experiments.sweep(smoke_copy, densities=[0.5, 0.6], subset=Subset(1, half="all"), device="cpu")
    assert smoke_copy.merges()["rows"][:1] == found["rows"]
    smoke_copy.write_merges(older)
    experiments.sweep(smoke_copy, densities=[0.6], subset=Subset(1), device="cpu")
    assert [row["name"] for row in smoke_copy.merges()["rows"]] == ["TIES, density 0.6"]


def test_what_was_replaced_was_tried_all_the_same_and_the_base_was_not(smoke_copy):
    experiments.sweep(smoke_copy, densities=[0.4, 0.5], subset=Subset(1), device="cpu")
    experiments.sweep(smoke_copy, densities=[0.5, 0.6], subset=Subset(1, seed=1), device="cpu")
    assert smoke_copy.merges()["replaced"] == ["density: TIES, density 0.4", "density: TIES, density 0.5"]
    assert halves.tried(smoke_copy) == 3  # 0.4, 0.5 and 0.6
    experiments.evaluate_checkpoints(smoke_copy, ["model_1"], subset=Subset(1), device="cpu")
    assert smoke_copy.trajectory()["rows"][0]["step"] == 0
    assert halves.tried(smoke_copy) == 3 + len(smoke_copy.checkpoints("model_1")) - 1
