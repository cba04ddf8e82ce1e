"""The recipe as a form: what is typed and what it means, what is shown, what is marked, and the commands."""

import dataclasses
import shlex

import pytest
from accelerate.commands.launch import launch_command_parser

from analysis import form
from unlearn_core import cli, launching
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.store import Store

SHIPPED = sorted(path.stem for path in recipes.RECIPES.glob("*.toml"))


def demo(**changes):
    """The demo's texts with some changed; a double underscore stands for the dot."""
    return form.raw_of(recipes.load("demo")) | {name.replace("__", "."): text for name, text in changes.items()}


# ---- texts -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_survives_the_way_through_the_form(name):
    recipe = recipes.load(name)
    assert recipes.parse(form.values_of(form.raw_of(recipe))) == recipe


@pytest.mark.parametrize(("text", "hint", "value"), [
    ("1e-4", float, 1e-4), (" 0.5 ", float, 0.5), ("3", float, 3.0), ("0,5", float, "0,5"), ("fast", float, "fast"),
    ("8", int, 8), ("8.0", int, "8.0"), ("", int, "nothing"), ("9" * 5000, int, "9" * 5000),
    (" a path ", str, "a path"), ("", str, ""), (True, bool, True),
    ("1, 0.5", tuple[float, ...], (1.0, 0.5)), ("1; 2", tuple[float, ...], ("1; 2",)), ("", tuple[str, ...], ()),
    ("anatomy, virology,", tuple[str, ...], ("anatomy", "virology"))])
def test_typed_text_becomes_a_value_or_stays_text_for_the_recipes_own_check(text, hint, value):
    found = form.value_of(text, hint)
    assert found == value
    assert type(found) is type(value)


def test_what_cannot_be_understood_is_told_by_the_recipe_beside_its_field():
    raw = demo(model_1__lr="fast", seed="", merge__weights="1, x", base__layers="3.5")
    assert recipes.field_errors(form.values_of(raw)) == {
        "model_1.lr": "got fast; expected a number", "seed": "got nothing; expected a whole number",
        "merge.weights": "got x; expected a number", "base.layers": "got 3.5; expected a whole number"}


# ---- what is shown ---------------------------------------------------------------------------------------------

def test_help_comes_from_the_recipes_own_field_with_its_limits():
    assert form.explanation("merge.density") == (
        "share of the entries that is kept: the largest ones, in DARE random ones. Above 0 and at most 1. "
        "In TOML: merge.density")
    assert form.explanation("merge.weights").startswith("one weight per adapter (a list with commas).")
    assert form.label("model_2.gradient_accumulation") == "gradient accumulation"


def test_every_setting_stands_in_one_table_of_the_form_or_in_a_model():
    shown = [name for table in (*form.TABLES, "model_1", "model_2") for name in form.names_in(table)]
    assert sorted(shown) == sorted(form.SETTINGS)
    assert set(form.MAIN) <= {name.removeprefix("model_1.") for name in form.names_in("model_1")}


def without_effect(**changes):
    raw = demo(**changes)
    return {name for name in form.SETTINGS if not form.matters(name, raw)}


def test_settings_without_effect_are_left_out():
    files = {f"data.{name}" for name in ("path", "forget", "retain", "mia", "mmlu")}
    terms = {f"{model}.{key}" for model in ("model_1", "model_2") for key in ("simnpo_beta", "klr_top_k")}
    assert without_effect() == files | terms | {"base.model", "data.subset_seed", "merge.rank", "merge.seed"}
    hidden = without_effect(data__source="files", base__source="load", merge__method="linear", merge__level="delta")
    assert files.isdisjoint(hidden)
    assert {"world.stories", "data.holdout_share", "base.layers", "base.lr", "merge.density"} <= hidden
    assert {"base.model", "base.source", "merge.rank"}.isdisjoint(hidden)
    assert {"base.lr", "base.epochs"}.isdisjoint(without_effect(base__source="memorise"))


def test_a_loss_without_weight_and_the_rank_of_a_full_update_have_no_settings():
    klr = {f"model_1.klr_{key}" for key in ("positions", "reference", "reference_place", "top_k")}
    assert klr <= without_effect(model_1__klr_weight="0.0")
    assert klr.isdisjoint(without_effect(model_1__klr_reference="top_k"))
    assert "model_2.simnpo_beta" not in without_effect(model_2__simnpo_weight="0.5")
    assert {"lora.r", "lora.alpha", "lora.dropout"} <= without_effect(lora__kind="full")
    assert "data.subset_seed" not in without_effect(data__documents_per_task="4")


@pytest.mark.parametrize(("method", "hidden"), [
    ("ties", {"rank", "seed"}), ("linear", {"density", "rescale", "trim_scope", "seed", "elect", "rank"}),
    ("magnitude_prune", {"seed", "elect", "rank"}), ("dare_linear", {"trim_scope", "elect", "rank"}),
    ("dare_ties", {"trim_scope", "rank"}), ("negmerge", {"density", "rescale", "trim_scope", "seed", "rank"}),
    ("cat", {"density", "rescale", "trim_scope", "seed", "elect", "level"})])
def test_a_merge_method_shows_the_settings_that_it_reads(method, hidden):
    assert {name for name in without_effect(merge__method=method) if name.startswith("merge.")} == {
        f"merge.{key}" for key in hidden}


def test_differing_settings_are_found_by_value_not_by_spelling():
    assert form.differing(demo()) == {"npo_weight", "gdr_weight", "klr_weight", "epochs", "batch_size"}
    same = demo(model_1__lr="2e-3", model_2__lr="0.002", model_1__epochs="8")
    assert form.differing(same) == {"npo_weight", "gdr_weight", "klr_weight", "batch_size"}
    assert "joined" in form.differing(demo(model_2__joined=False))


def test_errors_of_a_table_and_of_its_settings_belong_to_it_and_to_no_other():
    errors = {"data": "no files", "data.path": "wrong", "model_1.seed": "wrong", "seed": "wrong"}
    assert form.problems_in(errors, "data") == {"data": "no files", "data.path": "wrong"}
    assert form.problems_in(errors, "") == {"seed": "wrong"}


def with_another(recipe, name):
    """The recipe with another value, right or not, of one setting."""
    value, choices = recipes.flat(recipe)[name], form.SETTINGS[name][0].metadata["choices"]
    if choices:
        other = next(choice for choice in choices if choice != value)
    else:
        other = {bool: not value, str: f"{value}x", tuple: (9.0,)}.get(type(value), value)
        other = value + 1 if type(value) in (int, float) else other
    *table, key = name.split(".")
    if not table:
        return dataclasses.replace(recipe, **{key: other})
    return dataclasses.replace(recipe, **{table[0]: dataclasses.replace(getattr(recipe, table[0]), **{key: other})})


@pytest.mark.parametrize("adapters", [False, True])
def test_what_is_taken_from_another_run_is_exactly_what_the_store_takes_over(adapters, smoke_run, tmp_path):
    """Each setting alone: the store refuses a new run that differs in one that is taken, and no other."""
    for name in form.SETTINGS:
        run = Store(tmp_path).create(smoke_run.recipe(), {})
        run._recipe = with_another(smoke_run.recipe(), name)
        if form.is_taken(name, adapters):
            with pytest.raises(InputError, match=f"differs in {name}"):
                run.begin_with(smoke_run, adapters=adapters)
        else:
            run.begin_with(smoke_run, adapters=adapters)
        run.discard()


def test_a_form_takes_over_the_other_runs_settings_and_keeps_its_own_for_the_rest():
    raw = demo(seed="5", base__layers="9", lora__r="2", merge__density="0.5")
    taken = form.taken_over(raw, recipes.load("smoke"), adapters=False)
    assert (taken["seed"], taken["base.layers"], taken["lora.r"], taken["merge.density"]) == ("0", "2", "2", "0.5")
    assert form.taken_over(raw, recipes.load("smoke"), adapters=True)["lora.r"] == "4"


# ---- commands --------------------------------------------------------------------------------------------------

CHANGES = ["name=my 'demo' \"2\"", "model_1.lr=1e-4", "merge.weights=[1, 0.5]", "evaluation.mmlu_scoring=letters",
           "description=Zoë's $HOME `x` \\ ; rm"]


def parsed(arguments, processes=1):
    """What the command line makes of the shown command, behind python -m or behind accelerate's own launcher."""
    words = shlex.split(launching.command_line(arguments, processes))
    if processes == 1:
        assert words[:3] == ["python", "-m", "unlearn_core"]
        return cli.parser().parse_args(words[3:])
    assert words[:2] == ["accelerate", "launch"]
    launched = launch_command_parser().parse_args(words[2:])
    assert (launched.config_file, launched.num_processes, launched.module, launched.training_script) == (
        launching.LAUNCH_FILE, processes, True, "unlearn_core")
    return cli.parser().parse_args(launched.training_script_args)


@pytest.mark.parametrize("start", SHIPPED)
@pytest.mark.parametrize("changes", [[], CHANGES], ids=["unchanged", "changed"])
@pytest.mark.parametrize("processes", [1, 8])
def test_the_short_command_makes_the_same_recipe(start, changes, processes):
    recipe = recipes.load(start, changes)
    weights = form.weights_arguments("some-run", True)
    options = parsed(form.short_command(start, recipe, "cpu", "my runs", weights), processes)
    assert recipes.load(options.recipe, options.set) == recipe
    assert (options.device, options.runs_dir, options.weights_of, options.adapters) == (
        "cpu", "my runs", "some-run", True)


def test_of_several_processes_each_takes_a_gpu_of_its_own():
    assert [form.device_for(device, 1) for device in ("cuda:1", "cpu")] == ["cuda:1", "cpu"]
    assert [form.device_for(device, 2) for device in ("cuda:1", "cpu")] == ["cuda", "cpu"]


def test_several_processes_make_the_updates_of_one_where_each_accumulates_its_share():
    recipe = recipes.load("demo", ["unlearn.batch_size=3", "model_1.gradient_accumulation=8",
                                   "model_2.gradient_accumulation=4"])
    shared = form.with_same_updates(recipe, 4)
    assert recipes.differing(recipe, shared) == [("model_1.gradient_accumulation", 8, 2),
                                                 ("model_2.gradient_accumulation", 4, 1)]
    for name in ("model_1", "model_2"):
        alone, together = getattr(recipe, name), getattr(shared, name)
        assert [alone.steps(items) for items in (1, 30, 246)] == [together.steps(items, 4) for items in (1, 30, 246)]
    assert form.with_same_updates(recipe, 1) == recipe
    assert form.with_same_updates(recipe, 8) is None  # 4 micro-batches cannot be shared out among 8


def test_the_file_is_started_with_what_several_processes_change_in_it(tmp_path):
    recipe = recipes.load("demo", ["name=my demo"])
    shared = form.with_same_updates(recipe, 2)
    options = parsed([*form.file_command(recipe, "cpu", "runs"), *form.sets(recipe, shared)], 2)
    (tmp_path / options.recipe).write_text(recipes.as_toml(recipe), encoding="utf-8")
    assert recipes.load(str(tmp_path / options.recipe), options.set) == shared != recipe


def test_the_command_for_the_file_names_file_device_and_folder_of_runs(tmp_path):
    recipe = recipes.load("demo", ["name=my demo"])
    options = parsed(form.file_command(recipe, "cuda:0", "my runs"))
    assert (options.recipe, options.device, options.runs_dir, options.weights_of) == (
        "my-demo.toml", "cuda:0", "my runs", None)
    (tmp_path / options.recipe).write_text(recipes.as_toml(recipe), encoding="utf-8")
    assert recipes.load(str(tmp_path / options.recipe)) == recipe


@pytest.mark.parametrize(("name", "file"), [
    ("demo", "demo.toml"), ("../../etc/passwd", "etc-passwd.toml"), ("日本", "recipe.toml"),
    ("x" * 99, "x" * 60 + ".toml")])
def test_the_file_has_a_harmless_name(name, file):
    recipe = recipes.parse({"name": name})
    assert form.file_name(recipe) == file


def test_without_weights_of_another_run_the_command_names_none():
    assert form.weights_arguments("", False) == []
    assert form.weights_arguments("a", False) == ["--weights-of", "a"]
