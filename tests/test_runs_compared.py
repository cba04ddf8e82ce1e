"""Several runs by their headlines: paired on the same items, refused on others, a mean over seeds."""

import pytest
from scipy import stats

from analysis import runs_compared
from tests import example_run
from unlearn_core import recipe as recipes
from unlearn_core.files import write_json


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same data, and one on another."""
    root = tmp_path_factory.mktemp("runs")
    first, second, third = (example_run.finished(root, seed=seed) for seed in (0, 0, 1))
    # The same attack on both, answered by another model in the second.
    second.write_evaluation("merged", answers=second.answers("model_1"), documents=first.documents("merged"),
                            mmlu=second.mmlu("merged"), scores=second.scores()["merged"],
                            intervals=second.intervals()["merged"])
    return [first, second, third]


def test_the_headlines_of_each_run_are_those_of_the_chosen_model(runs):
    tables = [runs_compared.headlines_of(run, "merged") for run in runs]
    stacked = runs_compared.stacked(runs, tables)
    assert stacked["number"].unique().tolist() == [1, 2, 3]
    assert set(stacked["model"]) == {"merged"}
    assert stacked.loc[0, "run"] == f"1 · {runs[0].id}"
    own = stacked[(stacked["number"] == 3) & (stacked["metric"] == "mia_auc")].iloc[0]
    assert own["value"] == runs[2].scores()["merged"]["mia_auc"]


def test_a_model_that_a_run_lacks_has_no_rows(runs):
    assert runs_compared.headlines_of(runs[0], "retrained").empty


def test_runs_are_paired_on_the_same_items_and_refused_on_others(runs):
    table, refused = runs_compared.paired_with_first(runs, "merged")
    assert table.loc[table["number"] == 2, "metric"].tolist() == ["task_aggregate", "mia_auc", "mmlu"]
    assert "task_aggregate" not in table.loc[table["number"] == 3, "metric"].tolist()
    auc = table[table["number"] == 2].set_index("metric").loc["mia_auc"]
    assert (auc["difference"], auc["told_apart"]) == (0, False)
    assert all(said.startswith("Run 3: ") for said in refused)
    assert "would compare the data" in refused[0]


def test_one_run_has_nothing_to_be_paired_with(runs):
    table, refused = runs_compared.paired_with_first(runs[:1], "merged")
    assert table.empty
    assert refused == []


def test_runs_that_differ_in_their_seed_alone_are_seeds(runs):
    assert runs_compared.differ_by_seed_only([runs[0], runs[2]])
    assert not runs_compared.differ_by_seed_only(runs)  # two of one seed
    assert not runs_compared.differ_by_seed_only(runs[:1])


def test_other_settings_make_no_seeds(tmp_path, runs):
    other = example_run.create(tmp_path, seed=5)
    changed = recipes.changed(other.recipe(), ["merge.density=0.5"])
    write_json(other.path / "recipe.json", recipes.as_dict(changed))
    assert not runs_compared.differ_by_seed_only([runs[0], type(other)(other.path)])


def test_the_mean_over_seeds_has_students_interval(runs):
    tables = [runs_compared.headlines_of(run, "merged") for run in runs]
    values = [table.set_index("metric").loc["mia_auc", "value"] for table in tables]
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    said = runs_compared.describe_seeds(runs_compared.stacked(runs, tables))
    assert f"MIA AUC: mean over 3 seeds {sum(values) / 3:.3f} [{low:.3f}, {high:.3f}]" in said[1]
