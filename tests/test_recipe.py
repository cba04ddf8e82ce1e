"""Recipes: checked at the edge, the same after a round trip, and the shipped ones as documented."""

import dataclasses
import json
import random
import tomllib

import pytest

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.settings import Base, Recipe

SHIPPED = sorted(path.stem for path in recipes.RECIPES.glob("*.toml"))


def error_of(raw, where="r.toml"):
    with pytest.raises(InputError) as caught:
        recipes.parse(raw, where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


# ---- checks --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("raw", "place", "suggestion"), [
    ({"model_1": {"learning_rte": 1}}, "unknown setting model_1.learning_rte", ""),
    ({"model_1": {"npo_wieght": 1}}, "unknown setting model_1.npo_wieght", "did you mean npo_weight?"),
    ({"modle_1": {}}, "unknown setting modle_1", "did you mean model_1?"),
    ({"merge": {"method": "tise"}}, "merge.method; got tise", "did you mean ties?"),
])
def test_an_unknown_word_is_named_with_the_nearest_known_one(raw, place, suggestion):
    message = error_of(raw)
    assert message.startswith(f"r.toml: {place}")
    assert message.endswith(suggestion)
    assert "expected one of " in message


@pytest.mark.parametrize(("table", "key", "value", "got", "expected"), [
    ("model_1", "lr", "2e-4", "2e-4", "a number"),
    ("model_1", "lr", True, "True", "a number"),
    ("model_1", "lr", float("nan"), "nan", "a finite number"),
    ("model_1", "lr", float("inf"), "inf", "a finite number"),
    ("model_1", "lr", 0, "0.0", "above 0"),
    ("model_1", "npo_weight", -0.1, "-0.1", "at least 0"),
    ("model_1", "batch_size", 1.0, "1.0", "a whole number"),
    ("model_1", "batch_size", False, "False", "a whole number"),
    ("model_1", "batch_size", 0, "0", "at least 1"),
    ("model_1", "joined", 1, "1", "true or false"),
    ("model_1", "npo_reduction", 3, "3", "text in quotes"),
    ("base", "adam_beta2", 1.0, "1.0", "at least 0 and at most 0.99999"),
    ("base", "vocabulary", 10, "10", "at least 300 and at most 50304"),
    ("merge", "density", 1.5, "1.5", "above 0 and at most 1"),
    ("merge", "weights", 1.0, "1.0", "a list of float"),
    ("merge", "weights", [1, "a"], "a", "a number"),
    ("evaluation", "mmlu_subjects", "anatomy", "anatomy", "a list of str"),
    ("data", "path", 7, "7", "text in quotes"),
])
def test_a_wrong_value_is_told_with_its_place_what_stands_there_and_what_belongs_there(table, key, value, got,
                                                                                       expected):
    assert error_of({table: {key: value}}) == f"r.toml: {table}.{key}; got {got}; expected {expected}"


def test_a_seed_that_torch_cannot_take_is_refused_here():
    assert error_of({"seed": 10**30}).endswith("expected at least 0 and at most 2147483647")


@pytest.mark.parametrize("raw", [{"merge": 3}, {"unlearn": 3}, {"model_1": [1]}, {"unlearn": {}, "model_2": "fast"}])
def test_a_value_in_the_place_of_a_table_is_an_error(raw):
    assert "expected a table" in error_of(raw)


@pytest.mark.parametrize(("raw", "words"), [
    ({"base": {"hidden_size": 30, "heads": 4}}, ["base.hidden_size; got 30", "a multiple of 2 * base.heads (8)"]),
    ({"base": {"source": "load"}}, ["base.model; got nothing", "--set base.model="]),
    ({"data": {"source": "files", "forget": "f.jsonl"}}, ["data; got no files", "--set data.path="]),
    ({"evaluation": {"mia_members": "files"}}, ["evaluation.mia_members", "member.jsonl and nonmember.jsonl"]),
    ({"merge": {"weights": [1.0]}}, ["merge.weights; got [1.0]", "two numbers"]),
    ({"merge": {"weights": [0, 0]}}, ["merge.weights; got [0.0, 0.0]", "not 0"]),
    ({"merge": {"rank": 4}}, ["merge.rank; got 4", 'merge.level = "delta"']),
    ({"model_2": {"npo_weight": 0, "gdr_weight": 0, "klr_weight": 0}}, ["r.toml: model_2", "at least one above 0"]),
    ({"unlearn": {"epochs": 2, "warmup_epochs": 3}}, ["model_1.warmup_epochs; got 3.0", "at most epochs (2)"]),
])
def test_settings_that_contradict_each_other_are_refused(raw, words):
    message = error_of(raw)
    assert [word for word in words if word not in message] == []


# ---- files ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "text", "words"), [
    ("mine.toml", "[base]\nlr = ?", ["mine.toml", "line 2", "expected valid TOML"]),
    ("mine.toml", b"name = \"\xff\"", ["mine.toml", "bytes that are not UTF-8"]),
    ("mine.json", '{"seed": ', ["mine.json", "line 1", "expected valid JSON"]),
    ("mine.json", "[1]", ["mine.json; got [1]"]),
    ("mine.json", '{"model_1": {"lr": NaN}}', ["mine.json: model_1.lr; got nan"]),
    ("mine.toml", "speed = 1", ["mine.toml: unknown setting speed", "did you mean seed?"]),
])
def test_a_recipe_file_that_is_no_recipe_is_an_error_that_names_it(tmp_path, name, text, words):
    with pytest.raises(InputError) as caught:
        recipes.load(written(tmp_path, text, name))
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_missing_file_and_a_folder_in_its_place_are_errors(tmp_path):
    for path in (tmp_path / "no.toml", tmp_path):
        (tmp_path / "folder.toml").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="recipe"):
            recipes.load(str(path))
    with pytest.raises(InputError, match=r"folder\.toml; got Is a directory"):
        recipes.load(str(tmp_path / "folder.toml"))


def test_an_unknown_recipe_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"got smokee; expected one of .*demo.*smoke.*; did you mean smoke\?"):
        recipes.load("smokee")


# ---- the common table and --set --------------------------------------------------------------------------------

def test_unlearn_sets_both_models_and_the_models_own_tables_win(tmp_path):
    recipe = recipes.load(written(tmp_path, "[unlearn]\nlr = 0.5\nepochs = 3\n[model_2]\nlr = 0.25\n"))
    assert (recipe.model_1.lr, recipe.model_2.lr) == (0.5, 0.25)
    assert (recipe.model_1.epochs, recipe.model_2.epochs) == (3.0, 3.0)


def test_an_override_of_unlearn_wins_over_the_file_for_both_models_and_the_last_override_wins(tmp_path):
    path = written(tmp_path, "[unlearn]\nlr = 0.5\n[model_2]\nlr = 0.25\n")
    both = recipes.load(path, ["unlearn.lr=1e-3"])
    assert (both.model_1.lr, both.model_2.lr) == (1e-3, 1e-3)
    later = recipes.load(path, ["unlearn.lr=1e-3", "model_2.lr=1e-4"])
    assert (later.model_1.lr, later.model_2.lr) == (1e-3, 1e-4)
    earlier = recipes.load(path, ["model_2.lr=1e-4", "unlearn.lr=1e-3"])
    assert (earlier.model_1.lr, earlier.model_2.lr) == (1e-3, 1e-3)


@pytest.mark.parametrize(("override", "key", "value"), [
    ("seed=7", "seed", 7),
    ("merge.density = 0.6", "merge.density", 0.6),
    ("merge.density=1", "merge.density", 1.0),
    ("merge.weights=[1, 0.5]", "merge.weights", (1.0, 0.5)),
    ("model_1.joined=false", "model_1.joined", False),
    ("evaluation.mmlu_scoring=texts", "evaluation.mmlu_scoring", "texts"),
    ('evaluation.mmlu_scoring="texts"', "evaluation.mmlu_scoring", "texts"),
    ("data.path=hf://datasets/owner/name@v1", "data.path", "hf://datasets/owner/name@v1"),
    ("data.path=/data/a=b c", "data.path", "/data/a=b c"),
    ('evaluation.mmlu_subjects=["anatomy"]', "evaluation.mmlu_subjects", ("anatomy",)),
])
def test_set_takes_toml_values_and_bare_words(override, key, value):
    recipe = recipes.load("smoke", [override])
    for name in key.split("."):
        recipe = getattr(recipe, name)
    assert recipe == value
    assert type(recipe) is type(value)


@pytest.mark.parametrize(("override", "words"), [
    ("seed", "--set; got seed; expected table.key=value"),
    ("=3", "--set; got =3; expected table.key=value"),
    ("seed.x=3", "expected a table, but seed is a value"),
    ("merge=3", "smoke.toml: merge; got 3; expected a table"),
    ("unlearn=3", "smoke.toml: unlearn; got 3; expected a table"),
    ("unlearn.rate=3", "unknown setting model_1.rate"),
    ("model_1.lr=fast", "smoke.toml: model_1.lr; got fast; expected a number"),
])
def test_a_set_that_cannot_be_understood_says_why(override, words):
    with pytest.raises(InputError) as caught:
        recipes.load("smoke", [override])
    assert words in str(caught.value)


# ---- round trip and shipped recipes ----------------------------------------------------------------------------

@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_parses_and_survives_the_way_through_json(name):
    recipe = recipes.load(name)
    assert recipe.name == name
    assert recipe.description
    assert recipes.parse(json.loads(json.dumps(recipes.as_dict(recipe)))) == recipe


def test_a_saved_recipe_json_loads_as_a_recipe(tmp_path):
    recipe = recipes.load("smoke", ["merge.weights=[1, 0.5]", "seed=3"])
    path = written(tmp_path, json.dumps(recipes.as_dict(recipe)), "recipe.json")
    assert recipes.load(path) == recipe


# ---- as TOML, as --set, as a flat dict ---------------------------------------------------------------------------

ODD_TEXTS = ['a "quoted" word', "C:\\data\\new", "two\nlines\tand a tab", "Zoë 🙂 日本", "# no comment", "'''",
             "[table]", "\x00\x1b\x7f\x85\u2028", "back\\", ""]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_survives_the_way_through_toml(tmp_path, name):
    recipe = recipes.load(name)
    assert recipes.load(written(tmp_path, recipes.as_toml(recipe))) == recipe


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_text_survives_the_way_through_toml_and_through_set(tmp_path, text):
    smoke = recipes.load("smoke")
    recipe = recipes.parse(recipes.nested(recipes.flat(smoke) | {
        "description": text, "data.path": text, "evaluation.mmlu_subjects": (text, text)}))
    assert recipes.load(written(tmp_path, recipes.as_toml(recipe))) == recipe
    assert recipes.load("smoke", recipes.as_overrides(smoke, recipe)) == recipe


@pytest.mark.parametrize("seed", range(20))
def test_any_values_survive_the_way_through_toml_and_through_set(tmp_path, seed):
    chance, smoke = random.Random(seed), recipes.load("smoke")
    values = recipes.flat(smoke)
    for name, field, hint in recipes.settings():
        if hint is float and "epochs" not in name:
            lows = (field.metadata["above"], field.metadata["minimum"], -10.0)
            low = next(low for low in lows if low is not None)
            values[name] = low + chance.random() * 10.0 ** chance.randint(-12, -1) + 1e-12
        elif hint is bool:
            values[name] = chance.random() < 0.5
        elif field.metadata["choices"] and name not in ("base.source", "data.source", "evaluation.mia_members"):
            values[name] = chance.choice(field.metadata["choices"])
    values |= dict.fromkeys(("model_1.packed", "model_2.packed"), False)  # not with every choice of klr_positions
    values["merge.weights"] = (chance.random() / 3, -chance.random() * 1e-9)
    recipe = recipes.parse(recipes.nested(values))
    assert recipes.load(written(tmp_path, recipes.as_toml(recipe))) == recipe
    assert recipes.load("smoke", recipes.as_overrides(smoke, recipe)) == recipe


def test_the_toml_file_explains_each_setting_and_writes_both_models_out():
    text = recipes.as_toml(recipes.load("demo"))
    help = "share of the entries that is kept: the largest ones, in DARE random ones"
    assert f"density = 0.8  # {help}" in text.splitlines()
    assert text.count("\nnpo_weight = ") == 2
    tables = tomllib.loads(text)
    assert "unlearn" not in tables
    assert tables["model_1"]["npo_weight"] == 0.4


def test_no_override_is_needed_between_equal_recipes_and_one_per_setting_otherwise():
    demo = recipes.load("demo")
    assert recipes.as_overrides(demo, demo) == []
    other = recipes.load("demo", ["model_2.lr=1e-5", "name=mine", "merge.weights=[1, 0.5]"])
    assert recipes.as_overrides(demo, other) == ['name="mine"', "model_2.lr=1e-05", "merge.weights=[1.0, 0.5]"]


def test_nested_reverses_flat():
    recipe = recipes.load("paper")
    assert recipes.parse(recipes.nested(recipes.flat(recipe))) == recipe


# ---- settings and their errors -----------------------------------------------------------------------------------

def test_settings_lists_every_setting_once_in_order_with_its_type():
    found = recipes.settings()
    names = [name for name, _, _ in found]
    assert names == list(recipes.flat(Recipe()))
    types = {name: hint for name, _, hint in found}
    assert (types["seed"], types["model_2.lr"], types["model_1.joined"]) == (int, float, bool)
    assert types["merge.weights"] == tuple[float, ...]
    assert dict(zip(names, (f.name for _, f, _ in found), strict=True))["model_2.npo_weight"] == "npo_weight"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_valid_recipe_has_no_field_errors(name):
    assert recipes.field_errors(recipes.as_dict(recipes.load(name))) == {}


def errors_with(**changes):
    """Field errors of the smoke recipe with some settings changed; a double underscore stands for the dot."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return recipes.field_errors(recipes.nested(recipes.flat(recipes.load("smoke")) | changes))


def test_every_wrong_setting_is_told_under_its_name():
    assert errors_with(model_1__lr="fast", base__lr=-1, seed=2**31, merge__method="tise", model_2__joined=1) == {
        "model_1.lr": "got fast; expected a number",
        "base.lr": "got -1.0; expected above 0",
        "seed": "got 2147483648; expected at least 0 and at most 2147483647",
        "merge.method": "got tise; expected one of ties, linear, magnitude_prune, dare_linear, dare_ties, "
                        "negmerge, cat; did you mean ties?",
        "model_2.joined": "got 1; expected true or false"}


def test_rules_between_settings_are_all_told_where_each_setting_is_right():
    assert errors_with(base__hidden_size=30, model_1__warmup_epochs=9.0, model_2__npo_weight=0, model_2__gdr_weight=0,
                       model_2__klr_weight=0, merge__weights=(0.0, 0.0)) == {
        "base.hidden_size": "got 30; expected a multiple of 2 * base.heads (4)",
        "merge.weights": "got [0.0, 0.0]; expected at least one that is not 0",
        "model_1.warmup_epochs": "got 9.0; expected at most epochs (3)",
        "model_2": "got all loss weights are 0; expected at least one above 0"}
    assert list(errors_with(base__hidden_size=30, seed=-1)) == ["seed"]


def test_unknown_settings_and_misplaced_tables_are_errors_too():
    assert errors_with(model_1__learning_rate=1)["model_1.learning_rate"].startswith("got a setting that there is not")
    assert list(recipes.field_errors({"merge": 3})) == ["merge"]
    assert "expected a whole number" in recipes.field_errors({"seed": {}})[""]


def test_field_errors_agree_with_parse():
    """What one refuses, the other does: single settings out of range, and contradictions."""
    for changes in ({"seed": -1}, {"base.source": "load"}, {"merge.rank": 4}, {"data.source": "files"}):
        raw = recipes.nested(recipes.flat(recipes.load("smoke")) | changes)
        assert recipes.field_errors(raw)
        error_of(raw)


def test_text_that_no_file_can_hold_is_refused():
    assert error_of({"name": "\ud800"}).endswith("expected text without half surrogate pairs")


@pytest.mark.parametrize(("name", "words"), [
    ("base.lr", "above 0"), ("merge.density", "above 0 and at most 1"), ("model_1.npo_weight", "at least 0"),
    ("base.source", "")])
def test_the_limits_of_a_setting_in_words(name, words):
    assert recipes.bounds({n: f for n, f, _ in recipes.settings()}[name].metadata) == words


# ---- steps -------------------------------------------------------------------------------------------------------

def test_steps_of_the_paper_on_the_train_split():
    """1112 forget rows, 5 epochs: 1 x 4 items a step for model_1, 2 x 4 for model_2, one epoch of warm-up."""
    paper = recipes.load("paper")
    assert [getattr(paper, m).steps(1112) for m in ("model_1", "model_2")] == [5 * 1112 // 4, 5 * 1112 // 8]
    assert paper.model_1.warmup(1112) == 1112 // 4
    assert paper.model_2.per_step(processes=2) == 16
    assert paper.model_2.steps(1) == 1  # at least one


def test_steps_of_memorising_end_each_epoch_with_what_is_left():
    assert Base(epochs=3, batch_size=8).steps(17) == 3 * 3


def test_differing_names_exactly_the_fields_that_differ():
    first, second = recipes.load("smoke"), recipes.load("smoke", ["seed=3", "merge.density=0.5", "unlearn.lr=0.5"])
    lr = first.model_1.lr
    assert recipes.differing(first, second) == [
        ("seed", 0, 3), ("model_1.lr", lr, 0.5), ("model_2.lr", lr, 0.5), ("merge.density", 0.8, 0.5)]
    assert recipes.differing(first, first) == []


def test_every_setting_is_explained_and_every_default_is_allowed():
    def unexplained(kind, prefix=""):
        for field in dataclasses.fields(kind):
            default = getattr(kind(), field.name)
            if recipes.is_dataclass(default):
                yield from unexplained(type(default), f"{prefix}{field.name}.")
            elif not field.metadata.get("help"):
                yield prefix + field.name
    assert list(unexplained(Recipe)) == []
    assert recipes.parse({}) == Recipe()


# Table 3 of arXiv 2503.21088: (npo, gdr = cross-entropy, klr) weights and batch size, as the released code reads them.
TABLE_3 = {"model_1": (0.4, 0.2, 0.4, 1), "model_2": (0.3, 0.4, 0.3, 2)}


@pytest.mark.parametrize("name", ["demo", "smoke", "lume-cpu", "paper"])
@pytest.mark.parametrize("model", TABLE_3)
def test_the_models_of_a_recipe_keep_the_papers_weights_and_batch_sizes(name, model):
    settings = getattr(recipes.load(name), model)
    assert (settings.npo_weight, settings.gdr_weight, settings.klr_weight, settings.batch_size) == TABLE_3[model]
    assert settings.gradient_accumulation == 4
    assert settings.seed == 42


def test_the_demo_keeps_the_papers_adapters_and_merge():
    recipe = recipes.load("demo")
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (32, 32.0, 0.05)
    assert (recipe.merge.method, recipe.merge.level, recipe.merge.density) == ("ties", "factors", 0.8)
    assert recipe.merge.weights == (1.0, 1.0)
    assert recipe.evaluation.max_new_tokens == 256
    assert recipe.seed == 0
