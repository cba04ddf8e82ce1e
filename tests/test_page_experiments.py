"""Balance on the merge page, and ablations on the pages Weights and Sign conflicts: read, missing, damaged, started."""

import re
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests import example_run, test_ablations, test_balancing

ROOT = Path(__file__).parent.parent
# page, key of its section, the section, begin of its widgets' keys
VIEWS = {"balance": ("merge", "merge_section", "balance", "balance"),
         "ablation": ("weights", "weights_section", "ablation", "weights_ablation"),
         "sign classes": ("signs", "signs_section", "effects", "signs_ablation")}


def open_view(monkeypatch, run, view, root=None):
    page, key, section, _ = VIEWS[view]
    monkeypatch.setenv("LETHE_RUNS", str(root or run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["run"] = run.id
    app.run()
    app.switch_page(f"pages/{page}.py").run()
    app.segmented_control(key=key).set_value(section).run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


@pytest.fixture
def whole(smoke_copy):
    """A run that was balanced and ablated."""
    test_balancing.store(smoke_copy)
    smoke_copy.write_ablations(test_ablations.SUBSET | {"rows": test_ablations.ROWS})
    return smoke_copy


@pytest.mark.parametrize(("view", "charts", "words"), [
    ("balance", 2, ["A control without the merge does at least as well: model_1 scaled", "6 configurations tried",
                    "0.500, 0.5: there is neither an untrained nor a retrained model"]),
    ("ablation", 1, ["Removing Layer 0 (50% of the norm) brings back most of what was forgotten", "n = 2 parts"]),
    ("sign classes", 1, ["n = 1 parts, each flipped"])])
def test_what_was_measured_is_drawn_and_said(monkeypatch, whole, view, charts, words):
    app = open_view(monkeypatch, whole, view)
    assert not app.error
    assert len(app.get("plotly_chart")) == charts
    assert [word for word in words if word not in texts(app)] == []


def test_too_few_documents_are_a_warning_and_the_numbers_stay(monkeypatch, whole):
    found = whole.balance()
    whole.write_balance(found | {"refused": "3 members in a half, of the 20 that a conclusion takes"})
    app = open_view(monkeypatch, whole, "balance")
    assert [warning.value for warning in app.warning] == [
        "Too little to conclude anything: 3 members in a half, of the 20 that a conclusion takes."]
    assert len(app.get("plotly_chart")) == 2


@pytest.mark.parametrize("view", VIEWS)
def test_a_run_that_was_not_measured_offers_the_command_and_the_button(monkeypatch, smoke_run, view):
    app = open_view(monkeypatch, smoke_run, view)
    command = {"balance": "balance", "ablation": "ablate", "sign classes": "ablate"}[view]
    assert f"python -m unlearn_core {command} {smoke_run.id}" in texts(app)
    assert app.button(key=f"{VIEWS[view][3]}_start")
    monkeypatch.setenv("LETHE_READ_ONLY", "1")
    app = open_view(monkeypatch, smoke_run, view)
    assert f"python -m unlearn_core {command} {smoke_run.id}" in texts(app)
    assert not [button for button in app.button if button.key == f"{VIEWS[view][3]}_start"]


@pytest.mark.parametrize("view", ["balance", "ablation"])
def test_a_run_without_adapters_says_that_it_cannot_be_made(monkeypatch, tmp_path, recorded_run, view):
    assert "A recorded run comes without weights" in texts(open_view(monkeypatch, recorded_run, view))
    begun = example_run.unfinished(tmp_path)
    assert "It cannot be made: this run has no adapter of Model 1" in texts(open_view(monkeypatch, begun, view))


@pytest.mark.parametrize(("view", "file"), [("balance", "balance.json"), ("ablation", "ablations.json"),
                                            ("balance", "balance.safetensors")])
def test_a_damaged_file_is_named(monkeypatch, whole, view, file):
    (whole.path / file).write_text('{"rows": [5]}')
    app = open_view(monkeypatch, whole, view)
    assert any(file.replace(".", "\\.") in error.value for error in app.error)


def test_the_button_scores_the_sign_classes_of_a_run(monkeypatch, smoke_copy):
    app = open_view(monkeypatch, smoke_copy, "sign classes")
    app.number_input(key="signs_ablation_draws").set_value(0)
    app.number_input(key="signs_ablation_documents").set_value(1).run()
    app.button(key="signs_ablation_start").click().run()
    assert not app.error
    for _ in range(300):
        if smoke_copy.job()["exit_code"] is not None:
            break
        time.sleep(0.2)
    assert smoke_copy.job()["exit_code"] == 0, smoke_copy.log_tail()
    assert len(smoke_copy.ablations()["rows"]) == 1 + 6  # the whole merge and each class
    app = open_view(monkeypatch, smoke_copy, "sign classes")
    assert "n = 6 parts, each removed" in texts(app)


def test_a_run_that_is_being_worked_on_is_not_measured_a_second_time(monkeypatch, whole):
    whole.write_status("running", "evaluate")
    assert "A process is working on this run" in texts(open_view(monkeypatch, whole, "balance"))
