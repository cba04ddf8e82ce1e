"""A stored sweep: its plan, which runs are its, how they stand, and the table, whose arithmetic stands here."""

from dataclasses import replace

import pytest

from tests import example_sweep
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import write_json
from unlearn_core.store import Store
from unlearn_core.sweep import sweep_grid, sweeps

FIRST, SECOND = "merge.density=0.4", "merge.density=0.8"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def merged(task_aggregate, auc=0.5):
    return {"merged": {"task_aggregate": task_aggregate, "mia_auc": auc}}


def of(store, sweep):
    return sweeps.cells(sweep, store.runs())


# ---- the plan ------------------------------------------------------------------------------------------------

def test_a_plan_comes_back_as_it_was_written(store):
    made = sweep_grid.plan("smoke", ["merge.weights=[1,0.5],[0.5,1]"], [["a", "lora.r=8"], ["b"]], (0, 3))
    assert sweeps.add(store, made) == made == sweeps.read(store, made.name)
    assert store.sweeps() == ["smoke-merge.weights-variants"]
    assert store.scan() == ([], [])  # plans are no runs


def test_more_seeds_and_values_are_added_and_what_was_planned_stays(store):
    example_sweep.planned(store.root, ["merge.density=0.4,0.8"], (0, 2))
    grown = example_sweep.planned(store.root, ["merge.density=0.8,0.9"], (1, 2))
    assert [own.name for own in grown.configurations] == [FIRST, SECOND, "merge.density=0.9"]
    assert grown.seeds == (0, 1, 2)


def test_another_recipe_under_a_known_name_is_refused_and_changes_nothing(store):
    before = example_sweep.planned(store.root, ["merge.density=0.4,0.8"])
    with pytest.raises(InputError, match=r"merge.density=0.4 with lora.r = 8 \(4 there\); .*choose another name"):
        example_sweep.planned(store.root, ["merge.density=0.4,0.8", "lora.r=8"])
    assert sweeps.read(store, before.name) == before


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".x", "x" * 61])
def test_a_name_that_is_no_file_name_is_refused(store, name):
    made = replace(sweep_grid.plan("smoke"), name=name)
    with pytest.raises(InputError, match="name of a sweep"):
        sweeps.add(store, made)


def test_an_unknown_sweep_is_refused_with_the_known_ones(store):
    with pytest.raises(InputError, match="got x; expected one of none: there are no sweeps"):
        sweeps.read(store, "x")
    example_sweep.planned(store.root)
    with pytest.raises(InputError, match=r"got x; expected one of smoke-merge\.density"):
        sweeps.read(store, "x")


@pytest.mark.parametrize("content", [
    {"recipe": "smoke", "seeds": [0]}, {"recipe": "smoke", "seeds": ["0"], "configurations": []},
    {"recipe": 5, "seeds": [0], "configurations": []},
    {"recipe": "smoke", "seeds": [0], "configurations": [{"name": "a", "point": {"x": 1}, "recipe": {}}]}])
def test_a_damaged_plan_is_named(store, content):
    name = example_sweep.planned(store.root).name
    write_json(store.root / ".sweeps" / f"{name}.json", content)
    with pytest.raises(InputError, match=r"smoke-merge\.density\.json; got"):
        sweeps.read(store, name)


def test_a_plan_with_a_setting_that_there_is_no_more_names_the_configuration(store):
    name = example_sweep.planned(store.root).name
    found = store.sweep(name)
    found["configurations"][1]["recipe"]["lora"]["rank"] = 4
    store.change_sweep(name, lambda _: found)
    with pytest.raises(InputError, match=f"sweep {name}, {SECOND}: unknown setting lora.rank"):
        sweeps.read(store, name)


# ---- what there is -------------------------------------------------------------------------------------------

def test_a_run_is_a_sweeps_by_its_manifest_and_its_recipe(store):
    sweep = example_sweep.planned(store.root)
    mine = example_sweep.begun(store.root, sweep, 0, 1)
    store.create(replace(sweep.configurations[0].recipe, seed=0), {})  # alike, but started by itself
    other = example_sweep.planned(store.root, name="other")
    example_sweep.begun(store.root, other, 0, 0)
    changed = example_sweep.begun(store.root, sweep, 1, 0)
    write_json(changed.path / "recipe.json", recipes.as_dict(recipes.load("smoke", ["lora.r=8"])))
    assert {key: run.id for key, run in sweeps.runs_of(sweep, store.runs()).items()} == {(FIRST, 1): mine.id}


def test_a_run_that_went_on_in_another_way_is_still_the_sweeps(store):
    sweep = example_sweep.planned(store.root)
    run = example_sweep.begun(store.root, sweep, 0, 0)
    write_json(run.path / "recipe.json", recipes.as_dict(
        recipes.changed(run.recipe(), ["model_1.gradient_checkpointing=true", "evaluation.batch_size=1"])))
    assert (FIRST, 0) in sweeps.runs_of(sweep, store.runs())


def test_a_manifest_with_an_odd_sweep_is_named(store):
    sweep = example_sweep.planned(store.root)
    example_sweep.begun(store.root, sweep, 0, 0).note(sweep={"name": 5})
    with pytest.raises(InputError, match=r"run\.json; got sweep = "):
        sweeps.runs_of(sweep, store.runs())


def test_each_planned_run_says_how_it_stands_and_why(store):
    sweep = example_sweep.planned(store.root, seeds=(0, 1, 2))
    example_sweep.finished(store.root, sweep, 0, 0, merged(0.5))
    measured_again = example_sweep.finished(store.root, sweep, 0, 1, merged(0.5))
    measured_again.write_status("running", "samples", 1, 9)
    example_sweep.begun(store.root, sweep, 0, 2).write_status("failed", "model_1", 3, 9, "out of memory")
    example_sweep.begun(store.root, sweep, 1, 0).write_status("running", "model_2", 3, 9)
    damaged = example_sweep.finished(store.root, sweep, 1, 1, merged(0.5))
    write_json(damaged.path / "scores.json", {"merged": 5})
    cells = of(store, sweep)
    assert [cell.state for cell in cells] == ["finished", "finished", "failed", "running", "damaged", "not begun"]
    assert [cell.message for cell in cells[:4]] == ["", "", "out of memory", "model_2 3/9"]
    assert "scores.json; got merged = 5" in cells[4].message
    assert sweeps.counted(cells) == ("6 runs planned: 2 finished, 1 damaged, 1 failed, 1 not begun, 1 running.")


# ---- the table -----------------------------------------------------------------------------------------------

def rows(text):
    """{configuration: cells} of each Markdown table of a report."""
    tables = [[line.strip("| ").split(" | ") for line in part.splitlines()[2:]]
              for part in text.split("\n\n") if part.startswith("|")]
    return [{cells[0]: cells[1:] for cells in table} for table in tables]


def test_means_have_the_interval_of_student_and_differences_are_taken_seed_by_seed(store):
    sweep = example_sweep.planned(store.root, seeds=(0, 1, 2, 3))
    first, second = [0.5, 0.6, 0.7], [0.53, 0.65, 0.74, 0.1]  # the fourth seed has no partner
    for number, values in enumerate((first, second)):
        for seed, value in enumerate(values):
            example_sweep.finished(store.root, sweep, number, seed, merged(value))
    means, differences = rows(sweeps.report(sweep, of(store, sweep)))
    # mean 0.6, standard error 0.1 / sqrt 3, t(2) at 97.5 % is 4.303
    assert means[FIRST][:3] == ["3 of 4", "0.600 ± 0.248", "0.500 ± 0.000"]
    assert means[SECOND][0] == "4 of 4"
    # differences 0.03, 0.05, 0.04: mean 0.04, standard deviation 0.01
    assert differences[SECOND][:3] == ["3", "+0.040 ± 0.025", "+0.000 ± 0.000"]
    assert means[FIRST][3:] == ["-", "-", "-"]


def test_one_seed_has_no_interval_and_says_so(store):
    sweep = example_sweep.planned(store.root, seeds=(0, 1))
    for number in (0, 1):
        example_sweep.finished(store.root, sweep, number, 0, merged(0.5 + number / 10))
    means, differences = rows(sweeps.report(sweep, of(store, sweep)))
    assert means[FIRST][:2] == ["1 of 2", "0.500 (one seed)"]
    assert differences[SECOND][:2] == ["1", "+0.100 (one seed)"]


def test_a_metric_that_some_seeds_lack_says_how_many_have_it(store):
    sweep = example_sweep.planned(store.root, seeds=(0, 1, 2))
    for seed in sweep.seeds:
        example_sweep.finished(store.root, sweep, 0, seed, {"merged": {"task_aggregate": 0.5} | (
            {"mmlu": 0.6 + seed / 10} if seed else {})})
    assert rows(sweeps.report(sweep, of(store, sweep)))[0][FIRST][4] == "0.750 ± 0.635 (n = 2)"  # 12.706 x 0.05


def test_the_model_can_be_chosen_and_one_without_scores_has_none(store):
    sweep = example_sweep.planned(store.root, seeds=(0,))
    example_sweep.finished(store.root, sweep, 0, 0, merged(0.5) | {"model_1": {"task_aggregate": 0.25}})
    assert rows(sweeps.report(sweep, of(store, sweep), "model_1"))[0][FIRST][1] == "0.250 (one seed)"
    assert rows(sweeps.report(sweep, of(store, sweep), "model_2"))[0][FIRST][:2] == ["0 of 1", "-"]


def test_a_failure_is_named_with_its_run_and_its_reason(store):
    sweep = example_sweep.planned(store.root, seeds=(0,))
    run = example_sweep.begun(store.root, sweep, 1, 0)
    run.write_status("failed", "model_1", message="out of memory")
    text = sweeps.report(sweep, of(store, sweep))
    assert f"failed: {SECOND}, seed 0 ({run.id}): out of memory" in text
    assert "2 runs planned: 1 failed, 1 not begun." in text


def test_a_sign_of_markdown_in_a_name_breaks_no_table(store):
    sweep = example_sweep.planned(store.root, ['data.path="a|b","c"'])
    assert '| data.path="a\\|b" | 0 of 2 |' in sweeps.report(sweep, of(store, sweep))
