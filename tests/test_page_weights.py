"""The weights page: its sections and choices as an address, one matrix in detail, and what it says where data lack."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests import example_run, example_trajectory
from unlearn_core import jobs
from unlearn_core.store import Run
from unlearn_core.weight_changes import weights

ROOT = Path(__file__).parent.parent
SECTIONS = {"where": 1, "direction": 3, "spectrum": 1, "distribution": 1}  # and their charts
MATRIX = "model.layers.1.mlp.up_proj"


def open_page(monkeypatch, run, section="where", **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.query_params.update(address | {"run": run.id})
    app.run()
    app.switch_page("pages/weights.py").run()
    if section != "where":
        app.segmented_control(key="weights_section").set_value(section).run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


def figure(app, number=0):
    return json.loads(app.get("plotly_chart")[number].proto.spec)


def names(app, number=0):
    return {trace.get("name") for trace in figure(app, number)["data"]} - {None}


def table(app, column):
    return next(frame.value for frame in app.dataframe if column in frame.value)


# ---- sections

@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_a_finished_run_is_drawn(monkeypatch, smoke_run, section):
    app = open_page(monkeypatch, smoke_run, section)
    assert len(app.get("plotly_chart")) == SECTIONS[section]
    assert not app.error
    assert not app.warning


def test_a_section_its_matrix_and_its_filter_can_be_opened_by_address(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, weights_section="Spectrum", weights_matrix=MATRIX, weights_k="2",
                    weights_types="up_proj")
    assert app.segmented_control(key="weights_section").value == "spectrum"
    assert app.selectbox(key="weights_matrix").options == ["model.layers.0.mlp.up_proj", MATRIX]
    assert f"{MATRIX}: 128 x 64 = 8,192 entries; seed 0" in texts(app)
    assert "In the first 2: Model 1 0." in texts(app)


def test_each_section_explains_itself_when_asked(monkeypatch, smoke_run):
    for section, words in (("where", "one weight matrix of the model"), ("direction", "90° nothing in common"),
                           ("spectrum", "A steep fall"), ("distribution", "A spike at 0")):
        app = open_page(monkeypatch, smoke_run, section)
        assert words not in texts(app)
        app.session_state["weights_reading"] = True
        assert words in texts(app.run())


# ---- where

def test_the_maps_show_the_relative_change_of_each_model(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    layout = figure(app)["layout"]
    assert [title["text"] for title in layout["annotations"]] == ["Model 1", "Model 2", "Merged"]
    assert layout["coloraxis"]["colorbar"]["title"]["text"] == "||ΔW|| / ||W||"
    assert "n = 14 matrices of each of Model 1, Model 2, Merged; seed 0" in texts(app)


def test_where_the_base_is_not_known_the_maps_show_the_plain_norm_and_say_so(monkeypatch, smoke_copy):
    weights.measure(smoke_copy, "not/here")
    app = open_page(monkeypatch, smoke_copy)
    assert "size of the base's own weights is not known" in texts(app)
    assert figure(app)["layout"]["coloraxis"]["colorbar"]["title"]["text"] == "||ΔW||"


def test_a_chosen_matrix_is_opened_with_its_numbers_and_pictures(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.selectbox(key="weights_matrix").select(MATRIX).run()
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1 + 2  # singular values and histogram, map
    rows = table(app, "quantity").set_index("quantity")
    assert list(rows.columns) == ["Model 1", "Model 2", "Merged"]
    assert rows.loc["Angle to Model 1 (°)", "Model 1"] == 0
    arrays, about = smoke_run.arrays("weights")
    assert rows.loc["||ΔW||", "Merged"] == pytest.approx(arrays["norm"][2, about["modules"].index(MATRIX)])


def test_a_click_on_the_map_or_a_row_of_the_table_opens_the_matrix(smoke_run):
    """What the callbacks do, since clicks cannot be made here; a browser test makes one."""
    def page():
        import os

        import streamlit as st

        from pages import _weights_where
        if os.environ["CLICK"] == "map":
            st.session_state["weights_where_chart"] = {"selection": {"points": [{"customdata": "model.lm_head"}]}}
        _weights_where._clicked()
        st.text(st.session_state.get("weights_matrix"))

    for click, expected in (("map", "model.lm_head"), ("nowhere", "None")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CLICK", click)
            assert AppTest.from_function(page).run().text[0].value == expected


def test_matrices_can_be_chosen_from_a_table(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.session_state["weights_rows"] = True
    rows = table(app.run(), "module")
    assert list(rows.columns) == ["module", "layer", "type", "model_1", "model_2", "merged"]
    assert len(rows) == 14


def test_two_models_can_be_chosen_for_the_difference(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.segmented_control(key="weights_more").set_value("difference").run()
    app.selectbox(key="weights_first").select("merged").run()
    assert "||ΔW|| / ||W|| of Merged minus that of Model 2" in texts(app)
    axis = figure(app, 1)["layout"]["coloraxis"]
    assert axis["cmin"] == -axis["cmax"]


def test_the_filter_of_module_types_leaves_the_others_out(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.pills(key="weights_types").set_value(["q_proj", "v_proj"]).run()
    assert figure(app)["layout"]["yaxis"]["categoryarray"] == ["v_proj", "q_proj"]
    assert "n = 4 matrices" in texts(app)
    app.pills(key="weights_types").set_value([]).run()
    assert not app.exception
    assert "Choose a module type" in texts(app)
    assert not app.get("plotly_chart")


# ---- direction

def test_without_scored_checkpoints_a_training_is_split_near_its_middle_and_the_page_says_so(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "direction")
    assert "the checkpoint nearest the middle, since no turning point was scored" in texts(app)
    rows = table(app, "quantity").set_index("quantity")["Model 1"]
    parts = [rows[f"Angle between {pair} (°)"] for pair in ("0→s and 0→end", "s→end and 0→end", "0→s and s→end")]
    assert parts[0] + parts[1] == pytest.approx(parts[2], abs=1e-6)


def test_the_turning_point_is_the_usual_split_and_another_step_can_be_chosen(monkeypatch, smoke_copy):
    steps = [step for step, _ in smoke_copy.checkpoints("model_1")]
    retain = [1.0, *[0.5] * (len(steps) - 2), 0.9]
    retain[2] = 0.1
    smoke_copy.write_trajectory({"documents_per_task": 1, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 8, "rows": [
        {"model": "model_1", "step": step, "epoch": 0.0, "scores": example_trajectory.scores(0.5, value, 0.5),
         "intervals": {}} for step, value in zip(steps, retain, strict=True)]})
    app = open_page(monkeypatch, smoke_copy, "direction")
    assert f"Model 1: s = {steps[2]} (the turning point: the lowest mean retain score)" in texts(app)
    app.selectbox(key="weights_split_model_1").select(steps[1]).run()
    assert f"Model 1: s = {steps[1]} (chosen here)" in texts(app)


def test_changes_of_the_raw_factors_and_angles_per_module_type_can_be_asked_for(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "direction")
    app.segmented_control(key="weights_level").set_value("factors").run()
    assert "Changes of factors A and B" in texts(app)
    app.segmented_control(key="weights_by").set_value("type").run()
    assert figure(app)["layout"]["xaxis"]["title"]["text"] == "Module type"
    assert names(app) == {"Model 1 and Model 2", "Model 1 and Merged", "Model 2 and Merged",
                          "95 % of random directions"}


def test_a_run_without_checkpoints_shows_the_angles_between_models_and_says_what_else_it_takes(monkeypatch, smoke_copy):
    for name in ("model_1", "model_2"):
        shutil.rmtree(smoke_copy.model_dir(name) / "checkpoints")
    weights.measure(smoke_copy, "")
    app = open_page(monkeypatch, smoke_copy, "direction")
    assert len(app.get("plotly_chart")) == 1
    assert "it takes at least three adapter checkpoints" in texts(app)


# ---- empty, partial, stale, damaged

def test_an_empty_store_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_RUNS", str(tmp_path))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    app.switch_page("pages/weights.py").run()
    assert not app.exception
    assert "There are no runs" in texts(app)


@pytest.mark.parametrize("build", [example_run.finished, example_run.unfinished, example_run.create])
def test_a_run_without_adapters_says_that_nothing_can_be_measured(monkeypatch, tmp_path, build):
    app = open_page(monkeypatch, build(tmp_path))
    assert "have not been measured" in texts(app)
    assert "this run has no adapters" in texts(app)
    assert not [button for button in app.button if button.key == "weights_start"]


def test_a_run_with_one_adapter_shows_that_one(monkeypatch, smoke_copy):
    for name in ("model_2", "merged"):
        shutil.rmtree(smoke_copy.model_dir(name))
    weights.measure(smoke_copy, "")
    for section, count in {**SECTIONS, "where": 1, "direction": 2}.items():
        app = open_page(monkeypatch, smoke_copy, section)
        assert "There is no adapter of Model 2 and Merged in what was measured" in texts(app)
        assert len(app.get("plotly_chart")) == count


def test_the_button_measures_a_run_that_has_adapters(monkeypatch, smoke_copy):
    (smoke_copy.path / "weights.safetensors").unlink()
    app = open_page(monkeypatch, smoke_copy)
    assert f"python -m unlearn_core weights {smoke_copy.id}" in texts(app)
    app.selectbox(key="weights_device").select("cpu").run()
    app.button(key="weights_start").click().run()
    assert not app.exception
    ends = time.monotonic() + 120
    while smoke_copy.job()["lives"] and time.monotonic() < ends:
        time.sleep(0.2)
    app.run()
    assert len(app.get("plotly_chart")) == SECTIONS["where"]
    assert smoke_copy.status()["state"] == "finished"


def test_looking_only_shows_the_command_and_no_button(monkeypatch, smoke_copy):
    (smoke_copy.path / "weights.safetensors").unlink()
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    app = open_page(monkeypatch, smoke_copy)
    assert "python -m unlearn_core weights" in texts(app)
    assert not [button for button in app.button if (button.key or "").startswith("weights_")]


def test_what_was_measured_on_another_adapter_is_shown_with_a_warning(monkeypatch, smoke_copy):
    shutil.copytree(smoke_copy.adapter_dir("model_1"), smoke_copy.adapter_dir("merged"), dirs_exist_ok=True)
    app = open_page(monkeypatch, smoke_copy)
    assert "measured before the adapter of Merged was made or changed" in texts(app)
    assert [button for button in app.button if button.key == "weights_start"]
    assert len(app.get("plotly_chart")) == SECTIONS["where"]


def test_a_run_whose_adapters_are_gone_still_shows_what_was_measured(monkeypatch, smoke_copy):
    for name in ("model_1", "model_2", "merged"):
        shutil.rmtree(smoke_copy.adapter_dir(name))
    app = open_page(monkeypatch, Run(smoke_copy.path))
    assert not app.warning
    assert len(app.get("plotly_chart")) == SECTIONS["where"]


def test_damaged_statistics_are_named_and_can_be_measured_again(monkeypatch, smoke_copy):
    (smoke_copy.path / "weights.safetensors").write_bytes(b"broken")
    app = open_page(monkeypatch, smoke_copy)
    assert len(app.error) == 1
    assert "weights.safetensors" in texts(app)
    assert [button for button in app.button if button.key == "weights_start"]


def test_without_entries_the_page_gives_the_command_that_takes_them(monkeypatch, smoke_copy):
    weights.measure(smoke_copy, "", entries=False)
    app = open_page(monkeypatch, smoke_copy, "distribution")
    assert f"weights {smoke_copy.id} --entries" in texts(app)
    app = open_page(monkeypatch, smoke_copy, weights_matrix=MATRIX)
    assert len(app.get("plotly_chart")) == SECTIONS["where"] + 1  # the singular values
    assert "The entries themselves were not taken" in texts(app)
