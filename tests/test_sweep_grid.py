"""What is typed for a sweep: values, variants and seeds, and what is refused before anything starts."""

import pytest

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.sweep import sweep_grid


def names(sweep):
    return [own.name for own in sweep.configurations]


@pytest.mark.parametrize(("text", "seeds"), [
    ("0-4", (0, 1, 2, 3, 4)), ("0,3,7", (0, 3, 7)), ("5", (5,)), ("0-1, 8", (0, 1, 8)), ("7-7", (7,)),
    ("2147483647", (2147483647,))])
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert sweep_grid.seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-0", "-1", "1,", "1.5", "0-4-8", "2147483648", "0-2147483647"])
def test_what_is_no_list_of_seeds_is_refused(text):
    with pytest.raises(InputError, match="expected such as 0-4 or 0,3,7"):
        sweep_grid.seeds_of(text)


@pytest.mark.parametrize("text", ["1,1", "0-4,2"])
def test_a_seed_that_stands_twice_is_refused(text):
    with pytest.raises(InputError, match="expected each seed once"):
        sweep_grid.seeds_of(text)


def test_a_grid_is_every_combination_with_the_fixed_settings_in_each():
    sweep = sweep_grid.plan("smoke", ["merge.density=0.4, 0.8", "lora.r=8", "unlearn.lr=1e-3,1e-2"], seeds=(0, 1))
    assert names(sweep) == ["merge.density=0.4, unlearn.lr=1e-3", "merge.density=0.4, unlearn.lr=1e-2",
                            "merge.density=0.8, unlearn.lr=1e-3", "merge.density=0.8, unlearn.lr=1e-2"]
    last = sweep.configurations[-1]
    assert last.point == {"merge.density": "0.8", "unlearn.lr": "1e-2"}
    assert last.recipe == recipes.load("smoke", ["merge.density=0.8", "lora.r=8", "unlearn.lr=1e-2", "seed=0"])
    assert (sweep.name, sweep.seeds) == ("smoke-merge.density-unlearn.lr", (0, 1))


def test_a_comma_in_brackets_or_quotes_parts_no_values():
    sweep = sweep_grid.plan("smoke", ["merge.weights=[1,0.5],[0.5,1]", 'evaluation.mmlu_subjects=["a,b", "c"]',
                                      'data.path="x,y",\'z,"z\''])
    assert [own.point["merge.weights"] for own in sweep.configurations] == ["[1,0.5]"] * 2 + ["[0.5,1]"] * 2
    assert [own.recipe.merge.weights for own in sweep.configurations] == [(1, 0.5)] * 2 + [(0.5, 1)] * 2
    assert [own.recipe.data.path for own in sweep.configurations] == ["x,y", 'z,"z'] * 2
    assert {own.recipe.evaluation.mmlu_subjects for own in sweep.configurations} == {("a,b", "c")}


def test_variants_change_several_settings_each_and_stand_alone_or_with_a_grid():
    variants = [["as it is"], ["NPO alone", "unlearn.gdr_weight=0", "unlearn.klr_weight=0", "merge.weights=[1,0]"]]
    alone = sweep_grid.plan("smoke", ["lora.r=8"], variants)
    assert names(alone) == ["as it is", "NPO alone"]
    assert alone.configurations[0].recipe == recipes.load("smoke", ["lora.r=8"])
    assert alone.configurations[1].recipe == recipes.load("smoke", ["lora.r=8", *variants[1][1:]])
    assert alone.name == "smoke-variants"
    both = sweep_grid.plan("smoke", ["merge.density=0.4,0.8"], variants)
    assert names(both) == ["as it is, merge.density=0.4", "as it is, merge.density=0.8",
                           "NPO alone, merge.density=0.4", "NPO alone, merge.density=0.8"]


def test_without_anything_varied_there_is_the_recipe_on_its_own_seed():
    sweep = sweep_grid.plan("smoke")
    assert (names(sweep), sweep.name, sweep.seeds) == (["smoke"], "smoke-seeds", (recipes.load("smoke").seed,))


@pytest.mark.parametrize(("settings", "said"), [
    (["merge.desity=0.4,0.8"], "unknown setting merge.desity.*did you mean density"),
    (["merge.density=0.4,2"], "merge.density; got 2.0; expected above 0 and at most 1"),
    (["merge.density="], "a value before and after each comma"),
    (["merge.density=0.4,,0.8"], "a value before and after each comma"),
    (["merge.density"], "expected table.key=value"),
    (["=1,2"], "expected table.key=value"),
    (["merge.density=0.4,0.40"], "the same recipe twice, as 'merge.density=0.4' and 'merge.density=0.40'"),
    (["merge.density=0.4", "merge.density=0.8"], "got merge.density twice; expected its values together"),
    (["seed=1,2"], "name the seeds with --seeds"), (["seed=1"], "name the seeds with --seeds"),
    (["name=a,b"], "name configurations with --variant"), (["description=a"], "name configurations with --variant")])
def test_bad_settings_are_refused_with_a_reason(settings, said):
    with pytest.raises(InputError, match=said):
        sweep_grid.plan("smoke", settings)


@pytest.mark.parametrize(("variants", "said"), [
    ([["merge.density=0.4"]], "expected first a name"), ([[" "]], "expected first a name"),
    ([["a|b"]], "expected first a name"), ([["x" * 61]], "expected first a name"),
    ([["a"], ["a", "lora.r=8"]], "got a twice"), ([["a", "lora.r"]], "--variant a; got lora.r; expected table.key"),
    ([["a"], ["b"]], "the same recipe twice, as 'a' and 'b'"), ([["a", "lora.rank=8"]], "unknown setting lora.rank"),
    ([["a", "seed=3"]], "name the seeds with --seeds")])
def test_bad_variants_are_refused_with_a_reason(variants, said):
    with pytest.raises(InputError, match=said):
        sweep_grid.plan("smoke", (), variants)


def test_a_variant_must_not_change_what_the_grid_varies():
    with pytest.raises(InputError, match=r"--variant a; got merge\.density=0\.2; expected a setting that --set "):
        sweep_grid.plan("smoke", ["merge.density=0.4,0.8"], [["a", "merge.density=0.2"]])


def test_an_unknown_recipe_is_refused():
    with pytest.raises(InputError, match="did you mean demo"):
        sweep_grid.plan("dmo", seeds=(0,))


def test_more_runs_than_one_means_are_counted_and_asked_about():
    settings = ["merge.density=0.2,0.4,0.6,0.8", "lora.r=2,4,8"]  # 4 x 3 x 17 seeds
    with pytest.raises(InputError, match="got 204 runs; expected at most 200; --yes"):
        sweep_grid.plan("smoke", settings, seeds=range(17))
    assert len(sweep_grid.plan("smoke", settings, seeds=range(17), many=True).configurations) == 12
