"""The loss page: its sections, its switches as an address, several runs, a pinned step, and the jobs it offers."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import training
from tests import example_run, example_trajectory
from unlearn_core import jobs
from unlearn_core import recipe as recipes
from unlearn_core.store import Run, Store

ROOT = Path(__file__).parent.parent
SECTIONS = ("terms", "nll", "optimizer", "npo", "scores", "base")


def open_page(monkeypatch, root, run, section="terms", **address):
    monkeypatch.setenv("LETHE_RUNS", str(root))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.query_params.update(address | {"run": run.id})
    app.run()
    app.switch_page("pages/loss.py").run()
    if section != "terms":
        app.segmented_control(key="loss_section").set_value(section).run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


def traces(app, number=0):
    """What a chart draws, as Plotly's JSON."""
    return json.loads(app.get("plotly_chart")[number].proto.spec)["data"]


def names(app, number=0):
    return {trace.get("name") for trace in traces(app, number)} - {None}


def table(app, column):
    """The first table that has a column."""
    return next(frame.value for frame in app.dataframe if column in frame.value)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def scored(root):
    """A finished run with scored checkpoints."""
    run = example_run.finished(root, seed=5)
    example_trajectory.write(run)
    return run


@pytest.fixture(scope="module")
def other(root):
    return example_run.finished(root, "Other", seed=6)


# ---- sections

@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_a_finished_run_is_drawn(monkeypatch, root, scored, section):
    app = open_page(monkeypatch, root, scored, section)
    assert len(app.get("plotly_chart")) == {"terms": 2, "npo": 0, "scores": 2}.get(section, 1)
    assert not app.error


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("made", ["smoke_run", "recorded_run"])
def test_every_section_of_a_run_of_the_engine_and_of_a_recorded_one_is_drawn(monkeypatch, request, made, section):
    run = request.getfixturevalue(made)
    app = open_page(monkeypatch, run.path.parent, run, section)
    assert not app.error
    assert bool(app.get("plotly_chart")) == (section not in ("npo", "scores"))


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unfinished_run_shows_what_is_there_and_names_what_is_absent(monkeypatch, tmp_path, section):
    app = open_page(monkeypatch, tmp_path, example_run.unfinished(tmp_path), section)
    assert ("No steps yet of Model 2" in texts(app)) == (section in ("terms", "nll", "optimizer"))


def test_a_run_before_its_first_step_has_no_chart_and_says_why(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, example_run.create(tmp_path))
    assert "No steps yet of Model 1 and Model 2" in texts(app)
    assert not app.get("plotly_chart")
    app.segmented_control(key="loss_section").set_value("base").run()
    assert "was loaded, or its training has not begun" in texts(app)


def test_a_section_and_its_switches_can_be_opened_by_address(monkeypatch, root, scored, other):
    app = open_page(monkeypatch, root, scored, loss_section="Optimizer", x="epoch", loss_smooth="5", loss_pin="30",
                    log_y="true", loss_runs=other.id, loss_models="Model 1")
    assert app.segmented_control(key="loss_section").value == "optimizer"
    assert names(app) == {"A · Model 1", "B · Model 1"}
    assert "mean of each step and up to 5 on either side" in texts(app)
    layout = json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]
    assert layout["yaxis2"]["type"] == "log"
    assert layout["xaxis2"]["title"]["text"] == "Epoch (passes over the data)"
    assert {"A · Model 1", "B · Model 1"} <= set(table(app, "quantity"))


def test_an_address_with_a_run_that_is_gone_shows_the_others(monkeypatch, root, scored):
    app = open_page(monkeypatch, root, scored, loss_runs="gone-run", loss_section="nonsense")
    assert names(app) == {"Model 1", "Model 2"}


@pytest.mark.parametrize(("section", "file"), [("scores", "trajectory.json"), ("scores", "scores.json"), ("npo", None)])
def test_a_damaged_file_is_named_in_the_section_that_reads_it(monkeypatch, pair, section, file):
    example_trajectory.write(pair)
    path = pair.path / file if file else pair.model_dir("model_2") / "steps.jsonl"
    path.write_text('{"rows": 5}\n' if file == "trajectory.json" else "[5]\n")
    app = open_page(monkeypatch, pair.path.parent, pair, section)
    assert len(app.error) == 1
    assert path.name in texts(app)


# ---- the view

def test_smoothing_is_off_and_when_on_it_is_explained_and_the_raw_line_stays(monkeypatch, root, scored):
    app = open_page(monkeypatch, root, scored, "optimizer")
    raw = [trace["y"] for trace in traces(app) if trace["name"] == "Model 1"]
    assert "no smoothing" in texts(app)
    app.slider(key="loss_smooth").set_value(7).run()
    smoothed = [trace["y"] for trace in traces(app) if trace["name"] == "Model 1"]
    assert len(smoothed) == len(raw) + 1  # the gradient norm has two lines now
    assert all(line in smoothed for line in raw)
    assert "mean of each step and up to 7 on either side" in texts(app)


def test_models_can_be_left_out(monkeypatch, root, scored):
    app = open_page(monkeypatch, root, scored)
    app.pills(key="loss_models").set_value(["model_2"]).run()
    assert names(app) == {"Model 2"}
    app.pills(key="loss_models").set_value([]).run()
    assert not app.exception
    assert not app.get("plotly_chart")


def test_a_pinned_step_shows_all_its_numbers_for_each_model(monkeypatch, root, scored):
    app = open_page(monkeypatch, root, scored)
    app.number_input(key="loss_pin").set_value(45).run()
    numbers = table(app, "quantity").set_index("quantity")
    row = next(row for row in scored.steps("model_2") if row["step"] == 45)
    assert numbers.loc["Total loss", "Model 2"] == row["loss"]
    assert numbers.loc["Learning rate", "Model 2"] == row["lr"]
    app.number_input(key="loss_pin").set_value(9999).run()
    assert "Step 9999 is not in the log: the last one is step 120" in texts(app)


# ---- several runs

def test_another_run_is_drawn_beside_the_chosen_one_and_the_letters_are_explained(monkeypatch, root, scored, other):
    app = open_page(monkeypatch, root, scored)
    app.multiselect(key="loss_runs").set_value([other.id]).run()
    assert names(app) == {"A · Model 1", "A · Model 2", "B · Model 1", "B · Model 2"}
    assert f"**A** {scored.id}: Model 1: 120 steps" in texts(app)
    assert f"**B** {other.id}: Model 1: 120 steps" in texts(app)
    app.number_input(key="loss_pin").set_value(3).run()
    assert {"A · Model 1", "B · Model 2"} <= set(table(app, "quantity"))
    app.segmented_control(key="loss_section").set_value("base").run()
    assert names(app) == {"A · Base", "B · Base"}


def test_choosing_the_run_that_was_beside_it_leaves_it_alone(monkeypatch, root, scored, other):
    app = open_page(monkeypatch, root, scored)
    app.multiselect(key="loss_runs").set_value([other.id]).run()
    app.sidebar.selectbox[0].select(other.id).run()
    assert not app.exception
    assert names(app) == {"Model 1", "Model 2"}


def test_another_run_that_cannot_be_read_is_named_and_the_chosen_one_drawn(monkeypatch, tmp_path):
    broken, run = example_run.finished(tmp_path, seed=1), example_run.finished(tmp_path, seed=2)
    path = broken.model_dir("model_1") / "steps.jsonl"
    path.write_bytes(b"\xff" + path.read_bytes())
    app = open_page(monkeypatch, tmp_path, run)
    app.multiselect(key="loss_runs").set_value([broken.id]).run()
    assert broken.id in texts(app)
    assert len(app.warning) == 1
    assert names(app) == {"Model 1", "Model 2"}


def test_the_settings_of_overlaid_runs_are_compared_on_demand(monkeypatch, root, scored, other):
    app = open_page(monkeypatch, root, scored)
    app.multiselect(key="loss_runs").set_value([other.id]).run()
    assert not any("setting" in frame.value for frame in app.dataframe)  # closed: not made
    settings = training.settings_table({scored.id: scored.recipe(), other.id: other.recipe()})
    assert settings.loc["seed of the run"].tolist() == ["5", "5", "6", "6"]


# ---- NPO alone

@pytest.fixture
def pair(tmp_path):
    """A run and its counterpart of NPO alone, in one store; a second run of NPO alone has another seed."""
    run = example_run.finished(tmp_path)
    for seed in (0, 9):
        bare = Store(tmp_path).create(training.npo_alone(
            recipes.parse(recipes.as_dict(run.recipe()) | {"seed": seed})), {"seed": seed})
        shutil.copytree(run.path / "models", bare.path / "models")
        bare.write_status("finished")
    return run


def test_the_exact_counterpart_of_npo_alone_is_chosen_by_itself(monkeypatch, pair):
    app = open_page(monkeypatch, pair.path.parent, pair, "npo")
    assert "seed0" in app.selectbox(key="loss_partner").value
    assert {"NPO+GDR+KLR · Model 1", "NPO alone · Model 1"} <= names(app)
    assert "0.4 x (2 / 0.1) ln 2 = 5.545" in texts(app)
    assert "These two runs differ in more" not in texts(app)
    app.selectbox(key="loss_partner").select(app.selectbox(key="loss_partner").options[1]).run()
    assert "differ in more than the weights of the retain terms: seed." in texts(app)


def test_a_run_of_npo_alone_is_set_against_the_run_with_retain_terms(monkeypatch, pair):
    bare = next(run for run in Store(pair.path.parent).runs() if training.is_npo_alone(run.recipe()))
    app = open_page(monkeypatch, pair.path.parent, bare, "npo")
    assert app.selectbox(key="loss_partner").options == [pair.id]
    assert {"NPO+GDR+KLR · Model 2", "NPO alone · Model 2"} <= names(app)


def test_without_a_run_of_npo_alone_the_page_gives_the_command_that_makes_it(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run, "npo")
    assert "There is no run of NPO alone yet" in texts(app)
    assert f"python -m unlearn_core run smoke --weights-of {smoke_run.id} --set" in texts(app)


def wait_for(run: Run, state: str, seconds: float = 120):
    end = time.monotonic() + seconds
    while run.status()["state"] != state and time.monotonic() < end:
        time.sleep(0.2)
    return run.status()["state"]


def test_the_button_trains_npo_alone_from_this_runs_base_and_then_both_are_drawn(monkeypatch, smoke_copy):
    root = smoke_copy.path.parent
    app = open_page(monkeypatch, root, smoke_copy, "npo")
    app.selectbox(key="loss_partner_device").select("cpu").run()
    app.button(key="loss_partner_start").click().run()
    made = next(run for run in Store(root).runs() if run.id != smoke_copy.id)
    assert wait_for(made, "finished") == "finished"
    assert training.further_differences(made.recipe(), smoke_copy.recipe()) == []
    app.run()
    assert not app.exception
    assert {"NPO+GDR+KLR · Model 1", "NPO alone · Model 1"} <= names(app)


# ---- scores over checkpoints

def test_scored_checkpoints_are_drawn_with_what_they_were_scored_on_and_where_they_turned(monkeypatch, root, scored):
    app = open_page(monkeypatch, root, scored, "scores")
    assert names(app, 0) == {"Model 1, forget", "Model 1, retain", "Model 2, forget", "Model 2, retain"}
    assert {"Merged (final)", "Base (step 0)", "Best checkpoint"} <= names(app, 1)
    shown = texts(app)
    assert "Model 1: 5 checkpoints, Model 2: 4 checkpoints" in shown
    assert "8 documents per task and side (seed 3), at most 32 new tokens" in shown
    assert "Model 1 step 30: mean retain 0.40, 0.60 at step 120" in shown
    assert "Chosen on all documents, so no half is left that had no say in it" in shown


@pytest.mark.parametrize(("criterion", "steps"), [
    ("task_aggregate", [90, 60]),  # of model_1, of model_2: harmonic mean of 0.6 and 0.8
    ("mia_auc", [60, 60]),
    ("forget", [40]),  # model_1 never keeps enough
])
def test_the_best_checkpoint_follows_the_criterion(monkeypatch, root, scored, criterion, steps):
    app = open_page(monkeypatch, root, scored, "scores")
    app.selectbox(key="loss_best").set_value(criterion).run()
    assert list(table(app, "Step")["Step"]) == steps
    assert ("merge --adapters" in texts(app)) == (len(steps) == 2)


def test_a_pinned_step_reads_the_nearest_checkpoints(monkeypatch, root, scored):
    app = open_page(monkeypatch, root, scored, "scores")
    app.number_input(key="loss_pin").set_value(50).run()
    numbers = table(app, "quantity").set_index("quantity")
    assert list(numbers.columns) == ["Model 1, step 60", "Model 2, step 40"]
    assert numbers.loc["MIA AUC"].tolist() == [0.6, 0.8]


def test_a_recorded_run_without_checkpoints_says_that_the_curves_cannot_be_made(monkeypatch, recorded_run):
    app = open_page(monkeypatch, recorded_run.path.parent, recorded_run, "scores")
    assert "has no adapter checkpoints" in texts(app)
    assert not [button for button in app.button if button.key == "loss_evaluate_start"]


def test_the_form_says_how_many_evaluations_there_are_and_the_same_as_a_command(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run, "scores")
    checkpoints = len(smoke_run.checkpoints("model_1")), len(smoke_run.checkpoints("model_2"))
    assert f"{sum(checkpoints)} evaluations" in texts(app)
    app.pills(key="loss_evaluate_models").set_value(["model_1"])
    app.number_input(key="loss_evaluate_documents").set_value(2)
    app.number_input(key="loss_evaluate_seed").set_value(4)
    app.run()
    assert f"{checkpoints[0]} evaluations" in texts(app)
    assert (f"python -m unlearn_core evaluate {smoke_run.id} --checkpoints --models model_1 --documents 2 --seed 4"
            in texts(app))


def test_looking_only_shows_the_command_and_no_button(monkeypatch, smoke_run):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    for section in ("npo", "scores"):
        app = open_page(monkeypatch, smoke_run.path.parent, smoke_run, section)
        assert "python -m unlearn_core" in texts(app)
        assert not [button for button in app.button if (button.key or "").startswith("loss_")]


def test_a_run_that_is_being_worked_on_is_not_evaluated_a_second_time(monkeypatch, smoke_copy):
    smoke_copy.write_status("running", "model_1", 3, 10)  # by this process, which lives
    app = open_page(monkeypatch, smoke_copy.path.parent, smoke_copy, "scores")
    assert "A process is working on this run" in texts(app)
    assert not [button for button in app.button if button.key == "loss_evaluate_start"]


def test_the_button_evaluates_the_checkpoints_and_their_curves_appear(monkeypatch, smoke_copy):
    app = open_page(monkeypatch, smoke_copy.path.parent, smoke_copy, "scores")
    app.pills(key="loss_evaluate_models").set_value(["model_2"])
    app.number_input(key="loss_evaluate_documents").set_value(1)
    app.selectbox(key="loss_evaluate_device").select("cpu")
    app.run()
    app.button(key="loss_evaluate_start").click().run()
    assert not app.exception
    end = time.monotonic() + 120
    while smoke_copy.job()["lives"] and time.monotonic() < end:
        time.sleep(0.2)
    app.run()
    assert names(app) == {"Model 2, forget", "Model 2, retain"}
    assert f"Model 2: {len(smoke_copy.checkpoints('model_2'))} checkpoints" in texts(app)
    assert "(seed 0) of the development half" in texts(app)
    assert "Chosen on the development half" in texts(app)
    assert smoke_copy.status()["state"] == "finished"
