"""The page Robustness: the verdict and its gates, thresholds, controls, probes and their jobs, and what is lacking."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests import example_run, example_verdict
from unlearn_core import jobs
from unlearn_core.judging import gates

ROOT = Path(__file__).parent.parent
SECTIONS = ("Verdict", "Controls", "Probes", "Depth")
PROBES = ("Relearning", "Quantisation", "Prompts", "Shadows")


@pytest.fixture
def run(tmp_path):
    """Everything a verdict reads is measured, and the merge knows nothing of forget."""
    return example_verdict.measured(tmp_path / "runs")


def open_page(monkeypatch, run, section="Verdict", **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params.update({"run": run.id, "robust_section": section} | address)
    app.run()
    app.switch_page("pages/robustness.py").run()
    assert not app.exception
    return app


def texts(app):
    return "\n".join(element.value for kind in ("markdown", "caption", "success", "warning", "error", "info", "code")
                     for element in app.get(kind))


def button(app, key):
    return next(found for found in app.button if found.key == key)


def test_the_verdict_stands_on_the_page_and_on_overview_with_its_headline(monkeypatch, run):
    app = open_page(monkeypatch, run)
    assert app.success[0].value.startswith("No leak found under")
    assert "forgotten" not in app.success[0].value
    said = texts(app)
    for gate in gates.GATES:
        assert f"✓ passed · **{gate.label}**" in said
    app.switch_page("pages/overview.py").run()
    assert app.success[0].value.startswith("No leak found under")


def test_a_gate_that_fails_turns_the_verdict_red_and_stands_first(monkeypatch, tmp_path):
    knowing = example_verdict.measured(tmp_path / "runs", example_verdict.KNOWS | {"merged": ("forget", "retain")})
    app = open_page(monkeypatch, knowing)
    assert app.error[0].value.replace("\\", "").startswith("Failed: leaks of people")
    states = [line[2:].split(" · ")[0] for line in texts(app).splitlines() if " · **" in line]
    assert states[0] == "✗ failed"
    assert states == sorted(states, key=["✗ failed", "◌ not measured", "✓ passed"].index)


def test_a_plain_run_is_incomplete_and_says_what_to_run(monkeypatch, tmp_path):
    app = open_page(monkeypatch, example_run.finished(tmp_path / "runs"), robust_todo="true")
    said = app.error[0].value if app.error else app.warning[0].value
    assert "ot measured" in said or "Not complete" in said
    assert "What this does not show" in [head.value for head in app.subheader]


def test_thresholds_are_locked_and_changed_on_the_page_and_each_change_is_shown(monkeypatch, run):
    app = open_page(monkeypatch, run)
    next(part for part in app.expander if part.label == "Thresholds")
    app.session_state["robust_thresholds"] = True
    app.run()
    button(app, "robust_lock").click().run()
    assert run.gates()["thresholds"]["retention"] == gates.BY_KEY["retention"].threshold
    app.selectbox(key="robust_gate").select("retention").run()
    app.number_input(key="robust_threshold_retention").set_value(0.5).run()
    button(app, "robust_change").click().run()
    assert [(change["gate"], change["after"]) for change in run.gates()["changes"]] == [("retention", 0.5)]
    assert "retention was changed from 0.75 to 0.5" in texts(app).replace("\\", "")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_a_measured_run_says_something_and_explains_itself(monkeypatch, run, section):
    app = open_page(monkeypatch, run, section)
    assert len(texts(app)) > 300
    assert not app.error


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_of_a_run_without_any_offers_its_job_or_says_what_it_takes(monkeypatch, smoke_copy, probe):
    app = open_page(monkeypatch, smoke_copy, "Probes", robust_probe=probe)
    command = "shadows" if probe == "Shadows" else f"probe {smoke_copy.id} {probe.lower()}"
    assert any(command in code.value for code in app.code)


def test_of_other_wordings_only_what_has_more_than_one_is_offered(monkeypatch, run):
    about, rows = run.probe("prompts")["about"], run.probe("prompts")["rows"]
    kept = [row for row in rows if row["setting"] == "original" or row["measure"] == "leaking"]
    run.write_probe("prompts", about, kept)
    app = open_page(monkeypatch, run, "Probes", robust_probe="Prompts")
    assert app.selectbox(key="robust_prompts_measure").options == ["People given away"]


def test_a_probe_is_started_as_a_job_with_what_the_form_says(monkeypatch, smoke_copy):
    app = open_page(monkeypatch, smoke_copy, "Probes", robust_probe="Relearning")
    app.number_input(key="robust_steps").set_value(2).run()
    app.number_input(key="robust_relearning_documents").set_value(1).run()
    button(app, "robust_relearning_start").click().run()
    try:
        command = json.loads((smoke_copy.path / "job.json").read_text())["command"]
        assert command[3:5] == ["probe", str(smoke_copy.path.resolve())]
        assert command[5:] == ["relearning", "--documents", "1", "--seed", "0", "--steps", "2", "--on", "forget",
                               "--device", "cpu"]
    finally:
        jobs.stop(smoke_copy, grace_s=0)


@pytest.mark.parametrize("view", ["Attacks", "PrivLeak", "Forget quality"])
def test_the_controls_offer_to_train_the_model_that_never_saw_forget(monkeypatch, smoke_copy, view):
    app = open_page(monkeypatch, smoke_copy, "Controls", robust_controls_view=view)
    assert any(f"train {smoke_copy.id} --without forget --seeds 1" in code.value for code in app.code)


def test_a_visitor_of_a_read_only_dashboard_starts_and_changes_nothing(monkeypatch, run, smoke_copy):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    for section in SECTIONS:
        keys = {found.key for found in open_page(monkeypatch, smoke_copy, section).button}
        assert not {key for key in keys if key and key.startswith("robust_") and key.endswith(("_start", "_lock"))}
