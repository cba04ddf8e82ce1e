"""The train page: its form, what it says before a start, a real start, and watching a run in every state."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import form, live
from pages import _train_command, _train_start
from tests import example_run
from unlearn_core import cli, jobs
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.store import Store

ROOT = Path(__file__).parent.parent
LONG = ["base.epochs=100000"]  # never ends by itself while a test looks at it


def open_page(monkeypatch, root, **address):
    monkeypatch.setenv("LETHE_RUNS", str(root))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params.update(address)
    app.run()
    app.switch_page("pages/train.py")
    unfold(app)
    return app


def unfold(app):
    """Open what is folded up, as a reader would who wants to see every setting."""
    for key in ("train_more", "train_files", *(f"train_table_{table}" for table in form.TABLES)):
        app.session_state[key] = True
    app.run()
    assert not app.exception


def texts(app):
    kinds = (app.warning, app.error, app.info, app.success, app.caption, app.markdown, app.code)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


def field(app, name):
    """The widget of a setting."""
    key = f"train_field_{name}"
    return next(widget for kind in (app.text_input, app.selectbox, app.toggle) for widget in kind if widget.key == key)


def has_field(app, name):
    return any(widget.key == f"train_field_{name}" for kind in (app.text_input, app.selectbox, app.toggle)
               for widget in kind)


def test_settings_are_folded_up_until_they_are_opened_or_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_RUNS", str(tmp_path))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.switch_page("pages/train.py").run()
    assert has_field(app, "model_1.lr")
    assert not has_field(app, "lora.r")
    assert not has_field(app, "model_1.clip")
    app.session_state["train_table_lora"] = True
    app.run()
    assert has_field(app, "lora.r")
    assert not has_field(app, "merge.density")
    app.session_state["train_raw"]["merge.density"] = "7"
    app.run()
    assert has_field(app, "merge.density")
    assert not app.exception


def edit(app, name, value):
    field(app, name).set_value(value).run()
    assert not app.exception


def button(app, label):
    return next(found for found in app.button if found.label == label)


def labels(app):
    return [found.label for found in app.button]


def shown_toml(app):
    return next(code.value for code in app.code if code.value.startswith("name = "))


def shown_recipe(app):
    return recipes.parse(tomllib.loads(shown_toml(app)))


def metric(app, label):
    return next(found.value for found in app.metric if found.label == label)


def view(app):
    return next(control.value for control in app.segmented_control if control.key == _train_start.VIEW)


# ---- the form --------------------------------------------------------------------------------------------------

def test_on_an_empty_store_the_demo_is_ready_to_start(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    assert not app.error
    assert shown_recipe(app) == recipes.load("demo")
    assert metric(app, "Optimizer steps") == "2,637"  # 24 x 74 + 10 x 246 / 4 + 8 x 246 / 8
    assert metric(app, "Training time") == "not known"
    assert not button(app, "Start the run").disabled
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(path.stem for path in recipes.RECIPES.glob("*.toml")))
def test_each_bundled_recipe_fills_the_form_without_a_change(monkeypatch, tmp_path, name):
    app = open_page(monkeypatch, tmp_path, train_start=name)
    assert app.selectbox(key="train_start").value == name
    assert "Changed:" not in texts(app)
    raw = form.raw_of(recipes.load(name))
    for setting, text in raw.items():
        assert has_field(app, setting) == form.matters(setting, raw)
        assert not has_field(app, setting) or field(app, setting).value == text


def test_an_edited_field_is_in_the_toml_and_in_the_command(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "model_1.lr", "1e-4")
    edit(app, "merge.level", "delta")
    edit(app, "model_2.joined", False)
    edit(app, "merge.weights", "1, 0.5")
    wanted = recipes.load("demo", ["model_1.lr=1e-4", "merge.level=delta", "model_2.joined=false",
                                   "merge.weights=[1, 0.5]"])
    assert shown_recipe(app) == wanted
    short, whole = (shlex.split(code.value)[3:] for code in app.code if code.value.startswith("python -m"))
    options = cli.parser().parse_args(short)
    assert recipes.load(options.recipe, options.set) == wanted
    assert cli.parser().parse_args(whole).recipe == "demo.toml"
    assert "Changed: model_1.lr=0.0001, model_2.joined=false, merge.level=" in texts(app)


def launch_lines(app):
    """(recipe or file, settings, device) of each shown line that launches two processes."""
    lines = [shlex.split(code.value) for code in app.code if code.value.startswith("accelerate launch")]
    assert all(line[line.index("--num_processes") + 1] == "2" for line in lines)
    found = [cli.parser().parse_args(line[line.index("unlearn_core") + 1:]) for line in lines]
    assert {options.runs_dir for options in found} <= {os.environ["LETHE_RUNS"]}
    return [(options.recipe, options.set, options.device) for options in found]


def test_several_processes_have_a_launch_line_of_their_own_and_may_make_the_updates_of_one(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    assert launch_lines(app) == []
    edit(app, "model_1.lr", "1e-4")
    app.number_input(key=_train_command.PROCESSES).set_value(2).run()
    assert launch_lines(app) == [("demo", ["model_1.lr=0.0001"], "cpu"), ("demo.toml", [], "cpu")]
    # model_1: 1 item x 4 micro-batches x 2 processes; model_2: 2 x 4 x 2
    assert "8 instead of 4 in Model 1, 16 instead of 8 in Model 2; so 2 processes make 1/2 of the updates" in texts(app)
    app.toggle(key=_train_command.SAME).set_value(True).run()
    shared = ["model_1.gradient_accumulation=2", "model_2.gradient_accumulation=2"]
    assert launch_lines(app) == [("demo", sorted([*shared, "model_1.lr=0.0001"]), "cpu"), ("demo.toml", shared, "cpu")]
    assert "Items of forget in one update: 4 in Model 1, 8 in Model 2. docs/devices.md" in texts(app)
    edit(app, "model_2.gradient_accumulation", "3")  # cannot be shared out among two
    assert app.toggle(key=_train_command.SAME).disabled
    assert launch_lines(app)[1] == ("demo.toml", [], "cpu")


def test_a_wrong_value_is_told_below_its_field_and_blocks_the_start(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "model_2.beta", "-1")
    below = [text.value for text in app.markdown if text.value.startswith(":red[")]
    assert len(below) == 1
    assert "got \\-1\\.0\\; expected above 0" in below[0]
    assert "model_2.beta: got -1.0; expected above 0" in texts(app)  # and above, beside the button
    assert button(app, "Start the run").disabled
    assert field(app, "model_2.beta").value == "-1"  # what was typed stays, to be put right
    edit(app, "model_2.beta", "0.2")
    assert not button(app, "Start the run").disabled
    assert shown_recipe(app).model_2.beta == 0.2


def test_settings_that_contradict_each_other_are_told_beside_one_of_them(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "base.hidden_size", "100")
    assert sum("a multiple of 2 * base.heads (8)" in re.sub(r"\\", "", text.value) for text in app.markdown) == 2
    assert button(app, "Start the run").disabled


def test_a_wrong_setting_stays_in_view_where_it_would_be_left_out(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "world.stories", "many")
    edit(app, "data.source", "files")
    assert has_field(app, "world.stories")
    assert "world.stories: got many" in texts(app)


def marked(app):
    return {text.value.split("≠ ")[1].rstrip("*]") for text in app.markdown if "≠ " in text.value}


def test_the_settings_in_which_the_models_differ_are_marked_and_can_be_shown_alone(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    assert marked(app) == {"npo weight", "gdr weight", "klr weight", "epochs", "batch size"}
    edit(app, "model_1.epochs", "8")
    edit(app, "model_2.pairing", "shuffled")
    assert marked(app) == {"npo weight", "gdr weight", "klr weight", "pairing", "batch size"}
    app.toggle(key="train_only_differing").set_value(True).run()
    assert form.differing(form.raw_of(shown_recipe(app))) == {
        name.removeprefix("model_1.") for name in form.SETTINGS if name.startswith("model_1.") and has_field(app, name)}


def test_nothing_is_lost_by_looking_at_another_page(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "model_1.lr", "5e-4")
    edit(app, "base.layers", "two")
    app.switch_page("pages/data.py").run()
    app.switch_page("pages/train.py").run()
    assert (field(app, "model_1.lr").value, field(app, "base.layers").value) == ("5e-4", "two")
    edit(app, "base.layers", "2")
    assert shown_recipe(app) == recipes.load("demo", ["model_1.lr=5e-4", "base.layers=2"])


def test_changes_are_discarded_by_a_button_and_by_choosing_another_recipe(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "seed", "7")
    button(app, "Discard changes").click().run()
    assert shown_recipe(app) == recipes.load("demo")
    app.selectbox(key="train_start").select("smoke").run()
    assert shown_recipe(app) == recipes.load("smoke")


# ---- recipes of one's own --------------------------------------------------------------------------------------

def test_a_recipe_is_saved_and_loaded_again(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "description", "A \"better\" one: Zoë's \\ 1")
    app.text_input(key="train_save_as").set_value("mine").run()
    button(app, "Save").click().run()
    saved, = Store(tmp_path).saved_recipes()
    assert recipes.load(str(saved)) == recipes.load("demo", ['description=\'\'\'A "better" one: Zoë\'s \\ 1\'\'\''])
    assert app.selectbox(key="train_start").value == "saved: mine"
    fresh = open_page(monkeypatch, tmp_path, train_start="saved: mine")
    assert shown_recipe(fresh) == recipes.load(str(saved))


def test_an_unsafe_name_is_refused_and_nothing_is_written(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    app.text_input(key="train_save_as").set_value("../../outside").run()
    button(app, "Save").click().run()
    assert "name of a recipe; got ../../outside" in texts(app)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_recipe_of_another_schema_is_a_clear_message(monkeypatch, tmp_path):
    Store(tmp_path).save_recipe("old", "[model_1]\nga_ratio = 0.4\n")
    app = open_page(monkeypatch, tmp_path, train_start="saved: old")
    assert "old.toml: unknown setting model_1.ga_ratio; expected one of npo_weight" in texts(app)
    app.selectbox(key="train_start").select("demo").run()
    assert shown_recipe(app) == recipes.load("demo")


@pytest.mark.parametrize(("name", "content", "words"), [
    ("mine.toml", b"seed = 5\n", None), ("recipe.json", b'{"seed": 5}', None),
    ("mine.toml", b"[modle_1]\n", "mine.toml: unknown setting modle_1"), ("mine.toml", b"\xff", "not UTF-8"),
    ("mine.json", b"{", "valid JSON")])
def test_an_uploaded_file_fills_the_form_or_says_why_not(monkeypatch, tmp_path, name, content, words):
    app = open_page(monkeypatch, tmp_path)
    app.file_uploader(key="train_upload").set_value((name, content, "text/plain")).run()
    assert shown_recipe(app) == (recipes.parse({"seed": 5}) if words is None else recipes.load("demo"))
    assert words is None or words in texts(app)


# ---- from a run ------------------------------------------------------------------------------------------------

def test_the_recipe_of_a_run_is_cloned_from_the_watch_view(monkeypatch, smoke_copy):
    app = open_page(monkeypatch, smoke_copy.path.parent, run=smoke_copy.id, train_view="Watch")
    button(app, "Clone its recipe").click().run()
    assert view(app) == "New run"
    assert shown_recipe(app) == smoke_copy.recipe()
    assert not any("starts from the weights" in info.value for info in app.info)
    assert metric(app, "Optimizer steps") == str(320 + 22 + 11)
    seconds = sum(smoke_copy.steps(model)[-1]["seconds"] for model in ("base", "model_1", "model_2"))
    assert metric(app, "Training time") == f"{round(seconds)} s"  # as this very run took


def test_a_link_of_another_page_opens_the_form_with_the_weights_of_a_run(monkeypatch, smoke_copy):
    app = open_page(monkeypatch, smoke_copy.path.parent, run=smoke_copy.id)
    app.query_params.update({"train_view": "New run", "train_source": smoke_copy.id})
    app.run()
    assert view(app) == "New run"
    assert f"This run starts from the weights of {smoke_copy.id}" in texts(app)
    assert metric(app, "Optimizer steps") == str(22 + 11)  # the base is there
    assert field(app, "base.layers").disabled
    assert field(app, "seed").disabled
    assert not field(app, "lora.r").disabled
    assert not field(app, "model_1.lr").disabled
    app.segmented_control(key="train_weights").set_value(_train_start.ADAPTERS).run()
    assert field(app, "lora.r").disabled
    assert f"--weights-of {smoke_copy.id} --adapters-too --device cpu" in texts(app)


def test_what_is_taken_from_a_run_replaces_what_was_typed(monkeypatch, smoke_copy):
    app = open_page(monkeypatch, smoke_copy.path.parent, train_start=f"run: {smoke_copy.id}")
    edit(app, "base.layers", "7")
    edit(app, "model_1.lr", "0.5")
    app.segmented_control(key="train_weights").set_value(_train_start.BASE).run()
    assert (shown_recipe(app).base.layers, shown_recipe(app).model_1.lr) == (2, 0.5)


def test_a_run_without_a_base_gives_its_recipe_only(monkeypatch, tmp_path):
    run = example_run.unfinished(tmp_path)
    app = open_page(monkeypatch, tmp_path, train_start=f"run: {run.id}")
    assert "no base to begin with" in texts(app)
    assert not any(control.key == "train_weights" for control in app.segmented_control)


# ---- before the start ------------------------------------------------------------------------------------------

def test_data_that_are_missing_block_the_start_and_the_command_that_fetches_them_is_shown(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    app = open_page(monkeypatch, tmp_path / "runs", train_start="paper")
    assert "data/semeval; got no such folder" in texts(app)
    assert "python -m unlearn_core data fetch semeval" in texts(app)
    assert button(app, "Start the run").disabled


def test_a_data_set_of_the_data_page_is_taken_by_its_name(monkeypatch, tmp_path, smoke_run):
    folder = Store(tmp_path).dataset_dir("mine")
    folder.mkdir(parents=True)
    for name in ("forget", "retain"):
        shutil.copy(smoke_run.data_dir / f"{name}.jsonl", folder)
    app = open_page(monkeypatch, tmp_path, train_start="smoke")
    edit(app, "data.source", "files")
    assert "data.path, or data.forget and data.retain" in texts(app)
    app.selectbox(key="train_dataset").select("mine").run()
    assert field(app, "data.path").value == str(folder)
    assert not button(app, "Start the run").disabled
    before = metric(app, "Items forget / retain")
    (folder / "forget.jsonl").write_text("{}\n")  # a file that changes is read again
    app.run()
    assert before.split(" / ")[0] not in ("0", "30")  # a quarter of the documents is held out
    assert "forget.jsonl" in texts(app)
    assert button(app, "Start the run").disabled


def test_a_warning_must_be_accepted_before_the_start(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path)
    edit(app, "encoding.max_length", "24")
    assert "lose their end at max length 24" in app.warning[0].value
    assert button(app, "Start the run").disabled
    app.checkbox[0].check().run()
    assert not button(app, "Start the run").disabled
    edit(app, "encoding.max_length", "23")  # another warning, so it is asked again
    assert button(app, "Start the run").disabled


def test_a_base_folder_is_looked_at_now_and_the_hub_only_on_a_click(monkeypatch, tmp_path, smoke_run):
    asked = []

    def unreachable(name, file):
        asked.append(name)
        raise OSError("no connection")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    app = open_page(monkeypatch, tmp_path / "runs", train_start="smoke")
    edit(app, "base.source", "load")
    edit(app, "base.model", str(tmp_path))
    assert "got no config.json" in texts(app)
    assert button(app, "Start the run").disabled
    edit(app, "base.model", str(smoke_run.full_model_dir("base")))
    assert "146 thousand parameters, 2 layers" in texts(app)
    edit(app, "base.model", "nobody/has-this-one")
    assert metric(app, "Memory at its peak") == "not known"
    assert asked == []
    button(app, "Ask the hub for it").click().run()
    assert asked == ["nobody/has-this-one"]
    assert "hub model nobody/has-this-one; got no connection; expected a causal language model" in texts(app)


@pytest.mark.parametrize("setting", ["base.layers", "encoding.max_length", "evaluation.batch_size"])
def test_a_number_with_too_many_digits_is_told_and_breaks_nothing(monkeypatch, tmp_path, setting):
    app = open_page(monkeypatch, tmp_path)
    edit(app, setting, "1" + "0" * 400)
    assert "beyond all numbers" in texts(app)
    assert button(app, "Start the run").disabled


def test_text_of_a_recipe_is_never_markdown(monkeypatch, tmp_path):
    image = "![pixel](http://example.org/p.png)"
    app = open_page(monkeypatch, tmp_path)
    edit(app, "base.source", "load")
    for name in ("description", "base.model"):
        edit(app, name, image)
    edit(app, "model_1.lr", image)
    sent = [element.value for kind in (app.markdown, app.caption, app.warning, app.error, app.info) for element in kind]
    assert any("pixel" in text for text in sent)
    assert not any("![" in text or re.search(r"\]\((?!method\?)", text) for text in sent)  # but for our own links


# ---- a real start ----------------------------------------------------------------------------------------------

@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    yield store
    for run in store.folders():
        jobs.stop(run, grace_s=0.1)


def wait(holds, seconds=120):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_run_is_started_by_the_button_and_watched_to_its_end(monkeypatch, store):
    app = open_page(monkeypatch, store.root, train_start="smoke")
    edit(app, "name", "from the page")
    button(app, "Start the run").click().run()
    run, = store.runs()
    assert run.id.startswith("from-the-page-seed0")
    assert run.recipe() == recipes.load("smoke", ["name=from the page"])
    assert (app.query_params["run"], view(app)) == (run.id, "Watch")
    wait(lambda: run.status()["state"] == "finished")
    app.run()
    assert "Finished: every model is trained and scored" in texts(app)
    assert metric(app, "Last step") == "Model 2: 11"
    assert len(app.get("vega_lite_chart")) == len(live.LOSSES | live.MACHINE)
    assert "Base: 320 steps, Model 1: 22 steps, Model 2: 11 steps; seed 0" in texts(app)
    assert {"Clone its recipe", "Start fresh from these weights"} <= set(labels(app))
    button(app, "Start fresh from these weights").click().run()
    edit(app, "model_1.epochs", "1")
    button(app, "Start the run").click().run()
    second = next(found for found in store.runs() if found.id != run.id)
    assert second.info()["started_from"] == {"run": run.id, "adapters": {}, "evaluations": ["untrained", "base"]}
    wait(lambda: second.status()["state"] == "finished")
    assert (len(second.steps("model_1")), second.steps("base")) == (7, run.steps("base"))


def test_a_second_run_waits_visibly_and_a_second_browser_sees_the_same(monkeypatch, store):
    first = jobs.start_run(store, recipes.load("smoke", LONG), device="cpu")
    wait(lambda: len(first.steps("base")) > 2)
    app = open_page(monkeypatch, store.root, run=first.id)
    assert view(app) == "Watch"  # it lives, so it is what one wants to see
    assert metric(app, "Memory now").endswith(" MiB")
    button(app, "Clone its recipe").click().run()
    assert f"cpu is in use by {first.id}: this run waits as number 1 of the queue" in texts(app)
    button(app, "Start the run").click().run()
    second = next(run for run in store.runs() if run.id != first.id)
    other = open_page(monkeypatch, store.root, run=second.id)
    for each in (app, other):
        assert "Queued · number 1 of 1 for cpu" in texts(each)
        table = next(frame.value for frame in each.dataframe if "place" in frame.value)
        assert table.values.tolist() == [["cpu", "works now", first.id], ["cpu", "1 in the queue", second.id]]
        assert "No training step is logged yet" in texts(each)


# ---- watching --------------------------------------------------------------------------------------------------

def test_a_stopped_run_offers_to_go_on_and_to_start_fresh_by_two_named_buttons(monkeypatch, tmp_path):
    run = example_run.unfinished(tmp_path)
    app = open_page(monkeypatch, tmp_path, run=run.id, train_view="Watch")
    assert [label for label in labels(app) if label in ("Resume", "Start fresh from these weights")] == [
        "Resume", "Start fresh from these weights"]
    assert metric(app, "Last step") == "Model 1: 40"
    assert metric(app, "Memory now") == "not measured"


def test_a_run_of_two_processes_goes_on_by_the_line_that_launches_two(monkeypatch, tmp_path):
    run = example_run.unfinished(tmp_path)
    run.note(processes=2)
    app = open_page(monkeypatch, tmp_path, run=run.id, train_view="Watch")
    assert button(app, "Resume").disabled
    assert "among 2 processes, so it goes on in a terminal" in texts(app)
    assert f"--num_processes 2 -m unlearn_core run --resume {run.id}" in texts(app)
    with pytest.raises(InputError, match="a run of 2 processes; expected a run of one; go on in a terminal with: acc"):
        jobs.resume(run, device="cpu")


def test_a_failed_run_says_its_exit_code_and_its_last_words(monkeypatch, smoke_copy):
    """A real failure: the base's folder is empty, so that the models cannot be loaded."""
    for name in ("model_1", "model_2", "merged"):
        shutil.rmtree(smoke_copy.model_dir(name))
    shutil.rmtree(smoke_copy.full_model_dir("base"))
    smoke_copy.full_model_dir("base").mkdir()
    smoke_copy.write_status("cancelled")
    jobs.resume(smoke_copy, device="cpu")
    wait(lambda: smoke_copy.job()["ended"])
    app = open_page(monkeypatch, smoke_copy.path.parent, run=smoke_copy.id, train_view="Watch")
    assert "It ended with exit code 2" in texts(app)
    assert any("no config.json" in code.value for code in app.code)


def test_new_steps_appear_on_the_next_look_and_are_read_once(monkeypatch, tmp_path):
    run = example_run.create(tmp_path)
    run.append_step("model_1", {"step": 1, "loss": 3.0, "tokens_per_second": 1500.0})
    app = open_page(monkeypatch, tmp_path, run=run.id, train_view="Watch")
    assert (metric(app, "Last step"), metric(app, "Tokens per second")) == ("Model 1: 1", "1,500")
    run.append_step("model_1", {"step": 2, "loss": 2.0})
    app.run()
    assert (metric(app, "Last step"), metric(app, "Loss")) == ("Model 1: 2", "2")
    assert metric(app, "Tokens per second") == "not measured"


def test_each_chart_keeps_its_zoom_since_it_is_a_selection_that_streamlit_is_told_about(monkeypatch, smoke_run):
    """Streamlit drops every other zoom when points come; the charts of two looks must also be the same elements."""
    app = open_page(monkeypatch, smoke_run.path.parent, run=smoke_run.id, train_view="Watch")
    charts = [chart.proto for chart in app.get("vega_lite_chart")]
    assert {tuple(chart.selection_mode) for chart in charts} == {(live.SELECTION,)}
    app.run()
    assert [chart.proto.id for chart in app.get("vega_lite_chart")] == [chart.id for chart in charts]
    assert len({chart.id for chart in charts}) == len(charts) == 9


def test_a_damaged_log_is_named_and_the_page_stands(monkeypatch, tmp_path):
    run = example_run.finished(tmp_path)
    path = run.model_dir("model_1") / "steps.jsonl"
    path.write_bytes(path.read_bytes()[:500] + b"\n\xff\n" + path.read_bytes()[500:])
    app = open_page(monkeypatch, tmp_path, run=run.id, train_view="Watch")
    assert "a broken line" in app.error[0].value.replace("\\", "")


def test_a_torn_status_is_named_and_the_form_still_works(monkeypatch, tmp_path):
    run = example_run.create(tmp_path)
    (run.path / "status.json").write_text("{")
    app = open_page(monkeypatch, tmp_path, run=run.id)
    assert "status.json" in texts(app)
    assert not button(app, "Start the run").disabled


@pytest.mark.parametrize("made", ["smoke_run", "recorded_run"])
def test_a_real_run_and_one_of_an_older_version_can_be_watched(monkeypatch, request, made):
    run = request.getfixturevalue(made)
    app = open_page(monkeypatch, run.path.parent, run=run.id, train_view="Watch")
    assert not app.error
    assert metric(app, "Last step").startswith("Model 2: ")
    assert "nothing yet" in texts(app)


def test_an_empty_store_has_nothing_to_watch_and_says_how_to_make_a_run(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, train_view="Watch")
    assert "make demo" in texts(app)


@pytest.mark.parametrize("address", [{}, {"train_view": "New run"}, {"train_view": "nonsense"}])
def test_read_only_shows_what_runs_and_offers_nothing(monkeypatch, tmp_path, address):
    monkeypatch.setenv("LETHE_READ_ONLY", "1")
    run = example_run.unfinished(tmp_path)
    app = open_page(monkeypatch, tmp_path, run=run.id, **address)
    assert labels(app) == []
    assert "only looks" in texts(app)
    assert metric(app, "Last step") == "Model 1: 40"
    assert "make demo" in texts(open_page(monkeypatch, tmp_path / "nothing", **address))


def test_the_page_loads_no_torch():
    code = ("import sys; from analysis import form, live, plan; from unlearn_core import estimate; "
            "print('torch' in sys.modules, 'transformers' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
