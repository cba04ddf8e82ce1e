"""The page Sign conflicts: its sections, its switches as an address, a matrix, and what it says of missing data."""

import json
import re
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from unlearn_core import jobs
from unlearn_core.merging.task_vectors import load_adapter, save_adapter, scaled
from unlearn_core.store import Store
from unlearn_core.weight_changes import weights

ROOT = Path(__file__).parent.parent
SECTIONS = {"states": 1, "where": 2, "density": 1, "steps": 2}  # how many charts each has


def open_page(monkeypatch, run, section="states", **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.query_params.update(address | {"run": run.id})
    app.run()
    app.switch_page("pages/signs.py").run()
    if section != "states":
        app.segmented_control(key="signs_section").set_value(section).run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


def spec(app, number=0):
    return json.loads(app.get("plotly_chart")[number].proto.spec)


def has_button(app, key="weights_start"):
    return any(button.key == key for button in app.button)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_a_run_of_the_engine_is_drawn(monkeypatch, smoke_run, section):
    app = open_page(monkeypatch, smoke_run, section)
    assert len(app.get("plotly_chart")) == SECTIONS[section]
    assert not app.error
    assert not app.warning


def test_the_density_begins_at_that_of_the_runs_merge_and_moves_every_chart(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    assert app.select_slider(key="signs_density").value == smoke_run.recipe().merge.density == 0.8
    before = spec(app)["data"]
    app.select_slider(key="signs_density").set_value(0.3).run()
    assert "density 0.3" in texts(app)
    assert spec(app)["data"] != before


def test_space_and_counting_change_what_is_counted_and_the_caption_says_how(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    assert "entries of ΔW" in texts(app)
    assert "each entry counts 1" in texts(app)
    app.segmented_control(key="signs_space").set_value("A")
    app.segmented_control(key="signs_counting").set_value("magnitude").run()
    assert "entries of A (factor)" in texts(app)
    assert "an entry counts by |t1| + |t2|" in texts(app)


def test_the_view_can_be_opened_by_address(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, signs_section="Over density", signs_space="B (factor)",
                    signs_density="0.5")
    assert app.segmented_control(key="signs_section").value == "density"
    assert "entries of B (factor)" in texts(app)
    assert "density 0.5" in texts(app)


def test_an_address_with_a_density_that_was_not_measured_shows_the_runs_own(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, signs_density="0.123", signs_matrix="nonsense", signs_section="x")
    assert app.select_slider(key="signs_density").value == 0.8
    assert not app.error


def test_a_chosen_matrix_is_opened_with_its_states_over_density(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "where")
    name = "model.layers.1.self_attn.q_proj"
    app.selectbox(key="signs_matrix").select(name).run()
    assert not app.exception
    assert len(app.get("plotly_chart")) == 3
    assert f"{name}: 4,096 entries of ΔW" in texts(app)
    assert sum(trace.get("type") == "bar" for trace in spec(app, 2)["data"]) == 6


def test_the_steps_show_a_real_piece_of_the_chosen_matrix_at_the_chosen_density(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "steps")
    app.selectbox(key="signs_matrix").select("model.layers.0.mlp.up_proj").run()
    app.select_slider(key="signs_density").set_value(0.2).run()
    assert not app.exception
    assert "of ΔW of model.layers.0.mlp.up_proj" in texts(app)
    assert "the largest 20% of the whole matrix" in texts(app)


def test_the_page_explains_itself_in_plain_words_when_asked(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    assert "How to read this" in [box.label for box in app.expander]


# ---- what is lacking

def test_a_run_that_was_not_measured_offers_the_button_and_the_command(monkeypatch, smoke_copy):
    (smoke_copy.path / "signs.safetensors").unlink()
    app = open_page(monkeypatch, smoke_copy)
    assert "have not been compared" in texts(app)
    assert f"python -m unlearn_core weights {smoke_copy.id}" in texts(app)
    assert has_button(app)
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    app = open_page(monkeypatch, smoke_copy)
    assert f"python -m unlearn_core weights {smoke_copy.id}" in texts(app)
    assert not has_button(app)


def test_a_recorded_run_without_weights_says_that_it_cannot_be_measured(monkeypatch, recorded_run):
    app = open_page(monkeypatch, recorded_run)
    assert "has no adapter of Model 1 and Model 2" in texts(app)
    assert not has_button(app)


def test_a_run_that_lacks_one_adapter_names_it(monkeypatch, smoke_copy):
    (smoke_copy.path / "signs.safetensors").unlink()
    shutil.rmtree(smoke_copy.adapter_dir("model_2"))
    assert "has no adapter of Model 2." in texts(open_page(monkeypatch, smoke_copy))


def test_statistics_of_an_older_adapter_are_shown_with_a_warning(monkeypatch, smoke_copy):
    folder = smoke_copy.adapter_dir("model_1")
    save_adapter(scaled(load_adapter(folder), 2.0), folder)
    app = open_page(monkeypatch, smoke_copy)
    assert "before the adapter of Model 1 was made or changed" in texts(app)
    assert has_button(app)
    assert len(app.get("plotly_chart")) == 1


def test_left_out_spaces_are_named_with_the_reason(monkeypatch, smoke_copy):
    monkeypatch.setattr(weights, "MOST_ENTRIES", 10)
    weights.measure_signs(smoke_copy)
    app = open_page(monkeypatch, smoke_copy, "steps")
    assert "ΔW = s · B A is not compared: more than 1e+01 entries" in texts(app)
    assert not app.get("plotly_chart")
    app.segmented_control(key="signs_section").set_value("where").run()
    assert not app.exception
    assert "entries of B (factor)" in texts(app)


def test_a_damaged_file_is_named_and_can_be_made_again(monkeypatch, smoke_copy):
    (smoke_copy.path / "signs.safetensors").write_bytes(b"x")
    app = open_page(monkeypatch, smoke_copy)
    assert "signs.safetensors" in texts(app)
    assert has_button(app)
    assert not app.get("plotly_chart")


def test_an_empty_store_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_RUNS", str(tmp_path))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    app.switch_page("pages/signs.py").run()
    assert not app.exception
    assert Store(tmp_path).runs() == []
