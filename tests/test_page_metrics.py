"""The page Metrics: its sections on every kind of run, its switches as an address, and what it says of missing data."""

import json
import math
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests import example_run
from unlearn_core import jobs
from unlearn_core.store import Run

ROOT = Path(__file__).parent.parent
LABELS = {"scores": "Scores", "compare": "Compare", "rouge": "ROUGE", "knowledge": "Knowledge", "collapse": "Collapse",
          "attack": "Attack", "memory": "Memory"}
LED = ("attack", "memory")  # sections that need a model to be led through its texts


def open_page(monkeypatch, run, section="scores", **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params.update(address | {"run": run.id, "metrics_section": LABELS[section]})
    app.switch_page("pages/metrics.py").run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


def charts(app):
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def each_section(monkeypatch, run):
    """The page in each of its sections, without an exception or an error."""
    app = open_page(monkeypatch, run)
    for section in LABELS:
        if section != "scores":
            app.segmented_control(key="metrics_section").set_value(section).run()
        assert not app.exception
        assert not app.error, section
        yield app


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """A finished run with five models and answers, without weights, knowledge or memory; it is shared."""
    return example_run.finished(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def own(tmp_path) -> Run:
    """The same, to damage."""
    return example_run.finished(tmp_path / "runs")


# ---- whole runs

def test_every_section_of_a_finished_run_is_drawn_and_explained(monkeypatch, finished):
    for app in each_section(monkeypatch, finished):
        assert len(charts(app)) == (app.segmented_control(key="metrics_section").value not in LED)
        assert "How to read this" in [box.label for box in app.expander]


def test_every_section_of_a_run_of_the_engine_is_drawn(monkeypatch, smoke_run):
    for app in each_section(monkeypatch, smoke_run):
        assert len(charts(app)) == 1
        assert "not measured" not in texts(app)


@pytest.mark.parametrize("build", [example_run.unfinished, example_run.trained, example_run.create])
def test_a_partial_run_says_what_is_not_measured(monkeypatch, tmp_path, build):
    for app in each_section(monkeypatch, build(tmp_path)):
        assert charts(app) or "ot measured" in texts(app)


def test_a_run_recorded_by_an_older_version_is_no_error(monkeypatch, recorded_run):
    assert len(list(each_section(monkeypatch, recorded_run))) == len(LABELS)


def test_a_damaged_file_is_named(monkeypatch, tmp_path):
    app = open_page(monkeypatch, example_run.damaged(tmp_path))
    assert "scores.json" in texts(app)


def test_an_empty_store_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_RUNS", str(tmp_path))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    app.switch_page("pages/metrics.py").run()
    assert not app.exception


# ---- scores

def test_the_weakest_link_and_the_headlines_are_said_with_interval_chance_and_ideal(monkeypatch, finished):
    app = open_page(monkeypatch, finished)
    assert "Weakest link of Merged" in texts(app)
    grid = next(frame.value for frame in app.dataframe if "Number" in frame.value)
    assert list(grid) == ["Number", "Untrained", "Base", "Model 1", "Model 2", "Merged", "Chance", "Ideal"]
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", grid.set_index("Number").loc["MIA AUC", "Merged"])
    app.selectbox(key="metrics_model").select("model_1").run()
    assert "Weakest link of Model 1" in texts(app)


def test_models_that_are_not_chosen_are_not_drawn(monkeypatch, finished):
    app = open_page(monkeypatch, finished, metrics_models="Merged")
    names = {trace.get("name") for trace in charts(app)[0]["data"]}
    assert "Merged" in names
    assert "Base" not in names


def test_without_a_chosen_model_the_page_asks_for_one(monkeypatch, finished):
    app = open_page(monkeypatch, finished)
    app.pills(key="metrics_models").set_value([]).run()
    assert not app.exception
    assert "Choose a model" in texts(app)


def test_the_folded_parts_are_drawn_when_opened(monkeypatch, finished):
    app = open_page(monkeypatch, finished)
    app.session_state["metrics_radar"] = app.session_state["metrics_links"] = True
    app.run()
    assert not app.exception
    assert len(charts(app)) == 2
    assert "Pull" in texts(app)


# ---- compare

def test_two_models_are_compared_on_the_same_documents(monkeypatch, finished):
    app = open_page(monkeypatch, finished, "compare")
    assert "Of 12 scores Merged is better than Model 2" in texts(app)
    assert "MIA AUC: Merged" in texts(app)
    app.selectbox(key="metrics_second").select("model_2").run()
    assert "Choose two different models" in texts(app)


def test_models_with_other_items_are_refused_with_the_reason(monkeypatch, own):
    run = own
    answers = run.answers("merged")[1:]
    run.write_evaluation("merged", answers=answers, documents=run.documents("merged"), mmlu=run.mmlu("merged"),
                         scores=run.scores()["merged"], intervals=run.intervals()["merged"])
    assert "would compare the data and not the models" in texts(open_page(monkeypatch, run, "compare"))


def test_runs_are_compared_by_their_headlines(monkeypatch, own):
    other = example_run.finished(own.path.parent, "Other", seed=1)
    app = open_page(monkeypatch, own, "compare", metrics_compare_view="Runs and seeds")
    app.multiselect(key="overview_compare").set_value([other.id]).run()
    assert not app.exception
    assert "mean over 2 seeds" in texts(app)
    assert "Not paired. Run 2" in texts(app)
    assert charts(app)[0]["layout"]["yaxis"]["ticktext"] == ["run 1", "run 2"]


def test_a_damaged_run_among_the_compared_is_named_and_left_out(monkeypatch, own):
    other = example_run.damaged(own.path.parent)
    app = open_page(monkeypatch, own, "compare", metrics_compare_view="Runs and seeds")
    app.multiselect(key="overview_compare").set_value([other.id]).run()
    assert not app.exception
    assert "scores.json" in texts(app)
    assert charts(app)[0]["layout"]["yaxis"]["ticktext"] == ["run 1"]


# ---- ROUGE

def test_the_threshold_moves_the_counts_and_the_items_are_masked(monkeypatch, finished):
    app = open_page(monkeypatch, finished, "rouge", metrics_rouge_cell="score high, leaked", metrics_rouge_model="Base")
    assert "Personal data are masked" in texts(app)
    listed = app.dataframe[-1].value
    assert not listed.empty
    assert listed["Prompt"].str.contains(r"\[name\]").all()
    app.toggle(key="metrics_personal").set_value(True).run()
    assert "Personal data are shown" in texts(app)
    assert not app.dataframe[-1].value["Prompt"].str.contains(r"\[name\]").any()
    before = charts(app)[0]["data"]
    app.slider(key="metrics_rouge_threshold").set_value(0.0).run()
    assert "ROUGE-L recall from 0 of" in texts(app)
    assert charts(app)[0]["data"] != before


# ---- knowledge and collapse

def test_open_questions_that_were_not_asked_name_the_command(monkeypatch, finished):
    app = open_page(monkeypatch, finished, "knowledge")
    assert "Open questions: not measured" in texts(app)
    assert f"python -m unlearn_core evaluate {finished.id}" in texts(app)


def test_knowledge_by_subject(monkeypatch, finished):
    app = open_page(monkeypatch, finished, "knowledge", metrics_quiz_view="By subject")
    assert charts(app)[0]["layout"]["yaxis"]["ticktext"] == ["All subjects", "geography"]


def test_retain_is_another_split(monkeypatch, finished):
    app = open_page(monkeypatch, finished, "collapse", metrics_split="Retain")
    assert "on retain" in texts(app)
    assert charts(app)[0]["layout"]["xaxis"]["title"]["text"] == "Share of the answers on retain (0 to 1)"


def test_an_older_run_without_entropies_names_the_command(monkeypatch, finished):
    app = open_page(monkeypatch, finished, "collapse")
    assert "It is not measured here" in texts(app)
    assert f"python -m unlearn_core evaluate {finished.id}" in texts(app)


# ---- bad input

def replaced(run, **changes):
    """The run with every row of the merged model's answers changed; its scores are computed anew where possible."""
    rows = [row | {key: value for key, value in changes.items() if key == "generation" or key in row}
            for row in run.answers("merged")]
    scores = {key: value for key, value in run.scores()["merged"].items() if not key.startswith(("forget", "retain"))}
    run.write_evaluation("merged", answers=rows, documents=run.documents("merged"), mmlu=run.mmlu("merged"),
                         scores=scores, intervals={})
    run.write_scores()
    return run


@pytest.mark.parametrize("changes", [{"generation": "", "rouge_l": 0.0, "exact_match": 0},
                                     {"rouge_l": math.nan, "exact_match": None}], ids=["empty", "NaN scores"])
def test_bad_answers_fail_nothing(monkeypatch, own, changes):
    assert len(list(each_section(monkeypatch, replaced(own, **changes)))) == len(LABELS)


def test_a_single_item_in_a_cell_is_said(monkeypatch, own):
    run, seen, rows = own, set(), []
    for row in run.answers("merged"):
        cell = (row["split"], row["task"], row["kind"])
        if cell not in seen:
            rows.append(row)
        seen.add(cell)
    run.write_evaluation("merged", answers=rows, documents=run.documents("merged"), mmlu=run.mmlu("merged"),
                         scores=run.scores()["merged"], intervals=run.intervals()["merged"])
    app = open_page(monkeypatch, run)
    assert "a single document: nothing is known of the spread" in texts(app)


def test_read_only_shows_the_same(monkeypatch, finished):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    assert len(charts(open_page(monkeypatch, finished))) == 1


# ---- attack, memory, depth

@pytest.mark.parametrize("section", LED)
def test_a_run_whose_texts_were_not_led_through_names_the_command(monkeypatch, finished, section):
    app = open_page(monkeypatch, finished, section)
    assert f"python -m unlearn_core evaluate {finished.id}" in texts(app)


def test_an_attack_is_told_for_each_model_with_chance_and_counts(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "attack")
    said = texts(app)
    assert "Base: AUC 1.00" in said
    assert "(chance 0.5;" in said
    app.selectbox(key="metrics_attack").set_value("min_k_plus").run()
    assert "Min-K%++ on whole documents: forget against holdout" in texts(app)
    app.segmented_control(key="metrics_members").set_value("retain").run()
    app.selectbox(key="metrics_attack_task").set_value("Task2").run()
    assert "of people with PII: retain against holdout" in texts(app)
    assert not app.exception


def test_the_threshold_of_an_attack_can_be_chosen_and_its_documents_read_masked(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "attack", metrics_attack_view="Scores and threshold")
    best = app.dataframe[0].value.set_index("Model")
    assert (best.loc["Base", "Members hidden"], best.loc["Base", "Held out, called members"]) == (0, 0)
    app.selectbox(key="metrics_strategy").set_value("base").run()
    assert app.dataframe[0].value["Threshold"].nunique() == 1
    app.selectbox(key="metrics_strategy").set_value("custom").run()
    app.slider(key="metrics_threshold").set_value(app.slider(key="metrics_threshold").min).run()
    assert app.dataframe[0].value["Held out, called members"].sum() == 0
    app.session_state["metrics_called"] = True
    app.run()
    assert "Select a row to read its document" in texts(app)
    assert not app.exception


def test_curves_and_every_attack_are_drawn(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "attack", metrics_attack_view="ROC")
    app.toggle(key="metrics_roc_log").set_value(True).run()
    assert charts(app)[0]["layout"]["xaxis"]["type"] == "log"
    app.segmented_control(key="metrics_attack_view").set_value("all").run()
    assert "60 attacks and member sets of forget were tried" in texts(app)
    assert len(charts(app)[0]["data"]) == 2
    assert not app.exception


def test_memory_is_told_beside_unseen_texts_and_depth_by_layer(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "memory")
    assert "on texts that it never saw" in texts(app)
    app.segmented_control(key="metrics_memory_view").set_value("depth").run()
    assert "Merged: log p" in texts(app)
    assert len(charts(app)) == 1
    assert not app.exception
