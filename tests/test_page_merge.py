"""The merge page: its sections on every kind of run, the preview against real merges, and the job that it offers."""

import json
import re
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import signs
from tests import example_run
from tests.test_merging import METHODS, ROWS, write
from unlearn_core import jobs
from unlearn_core.merging.merge import merge, norm_ratio
from unlearn_core.merging.task_vectors import load_adapter
from unlearn_core.settings import Merge
from unlearn_core.vocabulary import UNLEARNED

ROOT = Path(__file__).parent.parent
SECTIONS = ("preview", "methods", "density", "mix")


def open_page(monkeypatch, root, run, section="preview", **address):
    monkeypatch.setenv("LETHE_RUNS", str(root))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.query_params.update(address | ({"run": run.id} if run else {}))
    app.run()
    app.switch_page("pages/merge.py").run()
    if section != "preview":
        app.segmented_control(key="merge_section").set_value(section).run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


def numbers(app):
    return {metric.label: (metric.value, metric.delta) for metric in app.metric}


def charts(app):
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A finished run without weights whose other merges were scored."""
    return write(example_run.finished(tmp_path_factory.mktemp("runs"), seed=5))


@pytest.fixture
def whole(smoke_copy):
    """A run with everything: adapters, statistics and scored merges."""
    return write(smoke_copy)


# ---- sections

@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_a_run_with_everything_is_drawn(monkeypatch, whole, section):
    app = open_page(monkeypatch, whole.path.parent, whole, section)
    assert not app.error
    assert len(app.get("plotly_chart")) == {"preview": 1, "methods": 1, "density": 1, "mix": 2}[section]
    opened = next(expander for expander in app.expander if expander.label == "How to read this")
    assert not opened.markdown  # made only when it is opened


def test_size_and_direction_at_all_densities_are_drawn_when_they_are_unfolded(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run)
    app.session_state["merge_all_densities"] = True
    app.run()
    assert not app.exception
    assert [len(chart["data"]) for chart in charts(app)] == [6, 6]  # six states; three lines here and of the run
    app.session_state["merge_over_density_table"] = True
    assert "cosine_1" in app.run().dataframe[0].value


def test_a_merge_with_the_previews_settings_can_be_scored(monkeypatch, smoke_copy):
    keys = {name: key for name, key in smoke_copy.adapter_keys().items() if name != "merged"}
    smoke_copy.write_merges({"documents_per_task": 1, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24,
                             "key": keys, "rows": [
        {"kind": "custom", "name": "TIES on factors, density 0.3", "norm_ratio": 1.1, "cosines": {}, "scores": {},
         "intervals": {}}]})
    app = open_page(monkeypatch, smoke_copy.path.parent, smoke_copy)
    assert "These are the settings of the run" in texts(app)
    assert "n = 1 merges" in texts(app)
    app.select_slider(key="merge_density").set_value(0.5).run()
    command = f"merge-sweep {smoke_copy.id} --set merge.density=0.5 --documents 1 --seed 0 --half all"
    assert command in texts(app)  # on all documents, as the other merges of this run
    app.button(key="merge_custom_start").click().run()
    assert not app.error
    for _ in range(300):
        if smoke_copy.job()["exit_code"] is not None:
            break
        time.sleep(0.2)
    assert smoke_copy.job()["exit_code"] == 0, smoke_copy.log_tail()
    rows = smoke_copy.merges()["rows"]
    assert [row["name"] for row in rows][1:] == ["TIES on factors, density 0.5, weights 1 : 1"]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_run_that_has_only_just_begun_says_what_is_missing(monkeypatch, tmp_path, section):
    app = open_page(monkeypatch, tmp_path, example_run.unfinished(tmp_path), section)
    assert not app.get("plotly_chart")
    assert not app.error
    assert "no adapter of Model 1 and Model 2" in texts(app)
    assert not [button for button in app.button if (button.key or "").startswith("merge_")]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_recorded_run_says_that_it_has_no_weights(monkeypatch, recorded_run, section):
    app = open_page(monkeypatch, recorded_run.path.parent, recorded_run, section)
    assert "recorded run comes without weights" in texts(app)
    assert not app.get("plotly_chart")


def test_an_empty_store_says_how_to_make_a_run(monkeypatch, tmp_path):
    assert "make demo" in texts(open_page(monkeypatch, tmp_path, None))


def test_scores_are_shown_without_the_weights_too(monkeypatch, scored):
    for section, count in (("methods", 1), ("density", 1), ("mix", 2)):
        app = open_page(monkeypatch, scored.path.parent, scored, section)
        assert len(app.get("plotly_chart")) == count
        assert not app.error
        assert "scored on 8 documents per task and side (seed 3)" in texts(app)
        assert "optimistic" in texts(app)


@pytest.mark.parametrize("section", ["methods", "density", "mix"])
def test_a_damaged_file_of_merges_is_named(monkeypatch, smoke_copy, section):
    write(smoke_copy)
    (path,) = smoke_copy.path.glob("merges*")
    path.write_text('{"rows": 5}', encoding="utf-8")
    app = open_page(monkeypatch, smoke_copy.path.parent, smoke_copy, section)
    assert [path.name in error.value.replace("\\", "") for error in app.error] == [True]


@pytest.mark.parametrize("section", SECTIONS)
def test_damaged_statistics_of_the_signs_break_no_section(monkeypatch, whole, section):
    arrays, about = whole.arrays("signs")
    whole.write_arrays("signs", {"A": arrays["A"][:1]}, about)
    app = open_page(monkeypatch, whole.path.parent, whole, section)
    assert ("not what this version writes" in texts(app)) == (section == "preview")


# ---- preview

def test_the_preview_begins_with_the_runs_own_merge_and_follows_the_sliders(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run)
    parents = [load_adapter(smoke_run.adapter_dir(model)) for model in UNLEARNED]
    own = f"{norm_ratio(load_adapter(smoke_run.adapter_dir('merged')), parents):.3f}"
    assert numbers(app)["Norm ratio"] == (own, f"run: {own}")
    app.select_slider(key="merge_density").set_value(0.4)
    app.slider(key="merge_w1").set_value(0.5)
    app.segmented_control(key="merge_level").set_value("delta").run()
    here = norm_ratio(merge(parents, Merge("ties", "delta", 0.4, (0.5, 1.0))), parents)
    assert numbers(app)["Norm ratio"] == (f"{here:.3f}", f"run: {own}")
    assert "density 0.4, weights 0.5 : 1; run: TIES on factors A and B, density 0.8, weights 1 : 1" in texts(app)
    assert "--method ties --level delta --density 0.4 --weights 0.5 1" in texts(app)
    app.button(key="merge_reset").click().run()
    assert numbers(app)["Norm ratio"] == (own, f"run: {own}")
    assert app.select_slider(key="merge_density").value == 0.8


def test_the_settings_of_the_preview_can_be_opened_by_address(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run, merge_density="0.4", merge_w2="0.3")
    assert "density 0.4, weights 1 : 0.3; run" in texts(app)
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run, merge_density="7", merge_w2="x", merge_level="y")
    assert "density 0.8, weights 1 : 1; run" in texts(app)


def test_a_range_of_layers_is_previewed_alone(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run)
    everything = numbers(app)["Norm ratio"]
    app.slider(key="merge_layers").set_value((1, 1)).run()
    assert numbers(app)["Norm ratio"] != everything
    assert "matrices of layers 1 to 1" in texts(app)


def test_what_the_statistics_do_not_tell_is_said_and_shown_as_a_dash(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run)
    app.selectbox(key="merge_method").set_value("linear").run()
    assert numbers(app)["Norm ratio"][0] == "–"
    assert "Size and directions here are not known: for a merge of factors" in texts(app)
    assert app.select_slider(key="merge_density").disabled
    for key in ("merge_w1", "merge_w2"):
        app.slider(key=key).set_value(0.0)
    app.run()
    assert "Both weights are 0: that is the base." in texts(app)
    assert not app.exception


def test_without_delta_w_the_factors_are_previewed_all_the_same(monkeypatch, smoke_copy):
    arrays, about = smoke_copy.arrays("signs")
    smoke_copy.write_arrays("signs", {name: arrays[name] for name in ("A", "B", "gram", "against")},
                            about | {"spaces": ["A", "B"], "left_out": {"dW": "more than many"}})
    assert signs.read(smoke_copy) is not None
    app = open_page(monkeypatch, smoke_copy.path.parent, smoke_copy)
    assert numbers(app)["Norm ratio"][0] != "–"
    app.segmented_control(key="merge_level").set_value("delta").run()
    assert numbers(app)["Norm ratio"][0] == "–"
    assert "were left out" in texts(app)
    assert not app.exception


def test_the_same_merge_is_said_to_peft_and_mergekit_or_why_not(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run)
    assert "--full-model" not in texts(app)
    app.toggle(key="merge_full").set_value(True).run()
    assert f"--full-model {smoke_run.id}-merged-full" in texts(app)
    app.segmented_control(key="merge_program").set_value("peft").run()
    assert 'combination_type="ties", density=0.8' in texts(app)
    app.segmented_control(key="merge_program").set_value("mergekit").run()
    assert "Not possible there: mergekit merges weight changes" in texts(app)
    app.segmented_control(key="merge_level").set_value("delta").run()
    assert "merge_method: ties" in texts(app)
    assert "mergekit-yaml merge.yml" in texts(app)


def test_the_runs_merged_adapter_can_be_downloaded_unless_it_is_large(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run)
    labels = [button.label for button in app.get("download_button")]
    assert [sum(what in label for label in labels) for what in ("merged adapter", "full model")] == [1, 1]
    monkeypatch.setattr("analysis.merge_export.MOST_BYTES", 10)
    app.run()
    assert "too large for a download" in texts(app)
    assert f"export {smoke_run.id}" in texts(app)


# ---- scores

def test_methods_are_listed_twice_with_the_finding_and_the_papers_numbers_folded(monkeypatch, scored):
    app = open_page(monkeypatch, scored.path.parent, scored, "methods")
    table = next(frame.value for frame in app.dataframe if "Scale" in frame.value)
    assert len(table) == 2 * len(METHODS)
    assert table["Rank"].tolist()[:2] == [1, 2]
    assert "rank correlation of -1.00 (n = 3 methods)" in texts(app)
    assert "For comparison, Task Aggregate and AUC. Model 1: " in texts(app)
    folded = next(expander for expander in app.expander if "What the paper reports" in expander.label)
    assert not folded.dataframe


def test_the_density_section_tells_plateau_from_cliff(monkeypatch, scored):
    app = open_page(monkeypatch, scored.path.parent, scored, "density")
    assert "a plateau from 0.6 to 1, which ends below 0.6" in texts(app)


def test_a_mix_is_chosen_read_and_taken_to_the_preview(monkeypatch, whole):
    app = open_page(monkeypatch, whole.path.parent, whole, "mix", merge_point="0.5 : 1")
    assert "w1 : w2 = 0.5 : 1" in texts(app)
    assert len(next(frame.value for frame in app.dataframe if "metric" in frame.value)) == 14
    marks = {trace.get("name") for trace in charts(app)[1]["data"]}
    assert {"Base", "Model 1", "Model 2", "Plain mean", "Merged (nearest)"} <= marks
    app.button(key="merge_point_preview").click().run()
    assert app.segmented_control(key="merge_section").value == "preview"
    assert "Linear (task arithmetic) on ΔW, weights 0.5 : 1; run" in texts(app)
    app.segmented_control(key="merge_section").set_value("mix").run()
    assert "You are here" in {trace.get("name") for trace in charts(app)[1]["data"]}


def test_a_part_that_was_not_scored_leaves_the_other_one(monkeypatch, tmp_path):
    run = write(example_run.finished(tmp_path), [row for row in ROWS if row["kind"] == "path"])
    app = open_page(monkeypatch, tmp_path, run, "mix")
    assert len(app.get("plotly_chart")) == 1
    assert not app.error


# ---- the job

def test_the_form_says_how_many_evaluations_there_are_and_the_same_as_a_command(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run, "methods")
    assert "18 evaluations at most" in texts(app)
    app.segmented_control(key="merge_section").set_value("mix").run()
    assert "34 evaluations at most" in texts(app)
    app.pills(key="merge_parts").set_value(["path"])
    app.number_input(key="merge_documents").set_value(2).run()
    assert f"merge-sweep {smoke_run.id} --path --documents 2 --seed 0" in texts(app)
    app.segmented_control(key="merge_section").set_value("density").run()
    app.pills(key="merge_densities").set_value([]).run()
    assert "Choose something to score." in texts(app)


def test_what_was_scored_before_is_offered_on_the_same_documents(monkeypatch, whole):
    app = open_page(monkeypatch, whole.path.parent, whole, "density", merge_job_density="true")
    next(expander for expander in app.expander if expander.label.startswith("Score more"))
    app.session_state["merge_job_density"] = True
    app.run()
    assert (app.number_input(key="merge_documents").value, app.number_input(key="merge_seed").value) == (8, 3)
    assert "--density 0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1 --documents 8 --seed 3 --half all" in texts(app)
    app.selectbox(key="merge_half").set_value("development").run()
    assert "--documents 8 --seed 3" in texts(app)
    assert "--half all" not in texts(app)


def test_looking_only_shows_the_command_and_no_button(monkeypatch, smoke_run):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    app = open_page(monkeypatch, smoke_run.path.parent, smoke_run, "density")
    assert "python -m unlearn_core merge-sweep" in texts(app)
    assert not [button for button in app.button if button.key == "merge_start"]


def test_a_run_that_is_being_worked_on_is_not_scored_a_second_time(monkeypatch, smoke_copy):
    smoke_copy.write_status("running", "model_1", 3, 10)  # by this process, which lives
    app = open_page(monkeypatch, smoke_copy.path.parent, smoke_copy, "mix")
    assert "A process is working on this run" in texts(app)
    assert not [button for button in app.button if button.key == "merge_start"]


def test_the_button_scores_the_densities_and_their_curves_appear(monkeypatch, smoke_copy):
    app = open_page(monkeypatch, smoke_copy.path.parent, smoke_copy, "density")
    app.pills(key="merge_densities").set_value([0.5, 0.8])
    app.number_input(key="merge_documents").set_value(1)
    app.selectbox(key="merge_device").select("cpu")
    app.run()
    app.button(key="merge_start").click().run()
    assert not app.exception
    end = time.monotonic() + 120
    while smoke_copy.job()["lives"] and time.monotonic() < end:
        time.sleep(0.2)
    app.run()
    assert len(app.get("plotly_chart")) == 1
    assert "n = 2 densities, scored on 1 document per task and side (seed 0) of the development half" in texts(app)
    assert "Chosen on the development half. Scores on the documents by which one chooses are optimistic" in texts(app)
    assert smoke_copy.status()["state"] == "finished"
