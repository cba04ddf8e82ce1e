"""Comparison of runs: which runs, which settings differ, on which data; and the lineage of one run."""

import dataclasses
import itertools

import pandas as pd
import pytest

from analysis import comparison, frames, lineage
from tests import example_run
from unlearn_core import recipe as recipes
from unlearn_core.files import read_json, read_rows, write_json
from unlearn_core.settings import Merge
from unlearn_core.store import Run


def with_recipe(root, **changes):
    """A run of the example's recipe with other top-level settings, such as seed=1."""
    run = example_run.create(root)
    write_json(run.path / "recipe.json", recipes.as_dict(dataclasses.replace(run.recipe(), **changes)))
    return Run(run.path)


def noted(run, **facts):
    write_json(run.path / "run.json", read_json(run.path / "run.json") | facts)
    return run


def rows(runs):
    return comparison.config(runs).set_index("setting")


# ---- which runs ------------------------------------------------------------------------------------------------

def test_the_selected_run_comes_first_and_at_most_five_known_runs_are_compared():
    known = ["a", "b", "c", "d", "e", "f", "g"]
    assert comparison.chosen("c", [], known) == ["c"]
    assert comparison.chosen("c", ["a", "c", "a", "nowhere"], known) == ["c", "a"]
    assert comparison.chosen("c", known, known) == ["c", "a", "b", "d", "e"]


def test_the_latest_other_runs_fill_the_comparison():
    assert comparison.latest("b", ["a", "b", "c", "d", "e", "f"]) == ["a", "c", "d", "e"]
    assert comparison.latest("a", ["a"]) == []


@pytest.mark.parametrize(("picked", "expected"), [
    (["b"], ("a", ["b"])),  # one other run is compared with the selected one
    (["b", "a", "c"], ("a", ["b", "c"])),  # the selected one is among them
    (["b", "c"], ("b", ["c"])),  # exactly the picked ones
])
def test_picked_rows_are_what_is_compared(picked, expected):
    assert comparison.from_rows("a", picked) == expected


# ---- settings --------------------------------------------------------------------------------------------------

def test_equal_runs_differ_in_nothing(tmp_path):
    config = comparison.config([example_run.create(tmp_path), example_run.create(tmp_path)])
    assert not config["differs"].any()
    assert len(config) > 60


def test_every_setting_that_differs_between_any_two_runs_is_found_and_no_other(tmp_path):
    runs = [with_recipe(tmp_path, name="same", seed=seed, threads=threads)
            for seed, threads in ((0, 1), (0, 2), (7, 1))]
    config = rows(runs)
    pairwise = {name for first, second in itertools.combinations(runs, 2)
                for name, _, _ in recipes.differing(first.recipe(), second.recipe())}
    assert pairwise == {"seed", "threads"}
    assert set(config.index[config["differs"]]) == pairwise
    assert list(config.loc["seed"])[:-1] == ["0", "0", "7"]


def test_the_columns_are_numbered_in_the_order_of_the_runs(tmp_path):
    runs = [example_run.create(tmp_path) for _ in range(3)]
    expected = ["setting", *(f"{number} · {run.id}" for number, run in enumerate(runs, start=1)), "differs"]
    assert list(comparison.config(runs).columns) == expected


def test_values_are_told_apart_beyond_the_shown_digits(tmp_path):
    first, second = (with_recipe(tmp_path, merge=Merge(density=density)) for density in (0.8, 0.8 + 1e-15))
    row = rows([first, second]).loc["merge.density"]
    assert row.iloc[0] == row.iloc[1] == "0.8"
    assert row["differs"]


def test_values_are_text_as_a_person_reads_them(tmp_path):
    config = rows([example_run.create(tmp_path)]).iloc[:, 0]
    assert config["merge.weights"] == "1, 1"
    assert config["evaluation.mmlu_subjects"] == "(none)"
    assert config["base.model"] == "(none)"
    assert set(config.map(type)) == {str}


def test_circumstances_are_compared_and_what_is_absent_says_so(tmp_path):
    first = noted(example_run.create(tmp_path), device="cuda:0", commit="a" * 40, versions={"torch": "2.13"})
    second = noted(example_run.create(tmp_path), device="cpu", commit="a" * 40, versions={})
    config = rows([first, second])
    assert list(config.loc["device"]) == ["cuda:0", "cpu", True]
    assert list(config.loc["commit"]) == ["a" * 40, "a" * 40, False]
    assert list(config.loc["version of torch"]) == ["2.13", "not recorded", True]


def test_data_are_the_same_where_every_hash_is(tmp_path):
    hashes = {"forget.jsonl": "1" * 64, "quiz/test/a.csv": "2" * 64, "quiz/test/b.csv": "3" * 64}
    runs = [noted(example_run.create(tmp_path), data_hashes=found) for found in (
        hashes, dict(reversed(hashes.items())), hashes | {"quiz/test/b.csv": "4" * 64}, {})]
    config = rows(runs)
    assert list(config.loc["same data as 1"]) == ["yes", "yes", "no", "not recorded", True]
    assert list(config.loc["data: forget.jsonl"])[:3] == ["1" * 12] * 3
    first, again, other, none = list(config.loc["data: quiz"])[:4]  # one row for the whole folder
    assert first == again != other
    assert none == "not recorded"


def test_a_manifest_with_odd_parts_is_compared_without_them(tmp_path):
    config = rows([noted(example_run.create(tmp_path), versions="new", data_hashes=[1])] * 2)
    assert "same data as 1" in config.index
    assert not any(name.startswith(("version of", "data:")) for name in config.index)


# ---- scores ----------------------------------------------------------------------------------------------------

def test_tables_of_runs_are_stacked_with_their_numbers(tmp_path):
    tables = [frames.score_table(example_run.finished(tmp_path, seed=seed)) for seed in (0, 1)]
    both = comparison.stacked(tables)
    assert list(both.groupby("number").size()) == [5, 5]
    second = both[both["number"] == 2].drop(columns="number").reset_index(drop=True)
    pd.testing.assert_frame_equal(second, tables[1])


def test_a_run_without_scores_adds_no_rows(tmp_path):
    tables = [frames.with_halves(frames.score_table(run), frames.sub_scores(run))
              for run in (example_run.create(tmp_path), example_run.finished(tmp_path))]
    assert set(comparison.stacked(tables)["number"]) == {2}


# ---- lineage ---------------------------------------------------------------------------------------------------

def stages(run):
    table = lineage.table(run)
    assert list(table.columns) == list(lineage.COLUMNS)
    return table.set_index("stage")


def test_a_finished_run_has_every_stage(smoke_run):
    table = stages(smoke_run)
    assert set(table["state"]) == {lineage.DONE}
    documents = {row["id"][:-3] for row in read_rows(smoke_run.data_dir / "forget.jsonl")}  # without sc1, qa2 ...
    assert f"forget: {len(documents)} documents" in table["detail"]["data"]
    assert smoke_run.info()["data_hashes"]["forget.jsonl"][:8] in table["detail"]["data"]
    assert f"{len(smoke_run.steps('model_1'))} steps" in table["detail"]["model_1"]
    assert table["detail"]["evaluation"].startswith("5 of 5 models")


def test_a_recorded_run_without_weights_is_known_by_its_scores(recorded_run):
    assert set(stages(recorded_run)["state"]) == {lineage.DONE}


def test_a_stopped_run_is_started_where_it_stopped(tmp_path):
    table = stages(example_run.unfinished(tmp_path))
    assert list(table["state"][["base", "model_1", "model_2", "merged", "evaluation"]]) == [
        lineage.DONE, lineage.STARTED, lineage.OPEN, lineage.OPEN, lineage.STARTED]
    assert table["detail"]["evaluation"] == "1 of 5 models"


def test_an_empty_run_has_no_stage_yet(tmp_path):
    assert set(stages(example_run.create(tmp_path))["state"]) == {lineage.OPEN}


def test_a_run_that_started_from_another_names_it(tmp_path):
    run = noted(example_run.create(tmp_path), started_from={"run": "first-run", "adapters": {}})
    assert "started from run first-run" in stages(run)["detail"]["base"]
