"""The page Report: sections chosen and ordered, made on request, its preview, its files, and the command."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import report, report_data
from tests import example_run
from tests.test_gates import SAID, leaking
from tests.test_leaks import ADA
from tests.test_report import Page
from unlearn_core import jobs

ROOT = Path(__file__).parent.parent
FEW = ["limits", "scores"]  # sections that are made in no time


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("page") / "runs")


def open_page(monkeypatch, run, sections=FEW, **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["run"] = run.id
    app.run()
    app.switch_page("pages/report.py").run()
    app.multiselect(key="report_sections").set_value(list(sections)).run()
    assert not app.exception
    return app


def press(app, key):
    next(found for found in app.button if found.key == key).click().run()
    assert not app.exception
    return app


def preview(app):
    """The page in the frame; None where there is none."""
    frames = app.get("iframe")
    return frames[0].proto.srcdoc if frames else None


def test_nothing_is_made_before_the_button_is_pressed(monkeypatch, run):
    app = open_page(monkeypatch, run)
    assert preview(app) is None
    assert not app.get("download_button")
    press(app, "report_make")
    page = Page(preview(app))
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == FEW


def test_the_preview_is_the_file(monkeypatch, run):
    app = press(open_page(monkeypatch, run), "report_make")
    own = report.as_html(report.make(run, FEW))
    shown = preview(app)
    assert len(shown) == len(own)
    assert Page(shown).tables == Page(own).tables
    assert [found.label for found in app.get("download_button")] == ["HTML", "Markdown", "Tables as CSV",
                                                                     "Numbers as JSON"]


def test_a_section_moves_earlier_and_later(monkeypatch, run):
    app = open_page(monkeypatch, run, ["summary", "scores", "limits"])
    app.selectbox(key="report_moved").select("limits").run()
    press(app, "report_earlier")
    assert app.multiselect(key="report_sections").value == ["summary", "limits", "scores"]
    assert app.selectbox(key="report_moved").value == "limits"
    press(app, "report_later")
    assert app.multiselect(key="report_sections").value == ["summary", "scores", "limits"]
    buttons = {found.key: found.disabled for found in app.button}
    assert buttons["report_later"]
    assert not buttons["report_earlier"]


def test_a_change_after_it_was_made_is_said_and_what_was_made_stays(monkeypatch, run):
    app = press(open_page(monkeypatch, run), "report_make")
    app.text_input(key="report_title").set_value("For the board").run()
    assert any("make it again" in caption.value for caption in app.caption)
    assert "For the board" not in preview(app)
    press(app, "report_make")
    assert "<h1>For the board</h1>" in preview(app)
    assert not any("make it again" in caption.value for caption in app.caption)


def test_the_command_names_what_was_chosen(monkeypatch, run):
    app = open_page(monkeypatch, run)
    app.text_input(key="report_title").set_value("It's \"mine\"").run()
    press(app, "report_make")
    line = next(code.value for code in app.code if "analysis.report" in code.value)
    assert line == (f"python -m analysis.report {run.id} --out report.html --sections limits,scores --title "
                    "'It'\"'\"'s \"mine\"' --data report-data")


def test_without_a_section_nothing_can_be_made(monkeypatch, run):
    app = open_page(monkeypatch, run, [])
    assert "at least one section" in app.info[-1].value
    assert "report_make" not in {found.key for found in app.button}


def test_people_are_masked_unless_the_switch_is_on(monkeypatch, tmp_path):
    run = leaking(tmp_path / "runs", SAID)
    run.write_meta(title="Request of Ada Blue")
    app = press(open_page(monkeypatch, run, ["limits"]), "report_make")
    assert ADA.name not in preview(app)
    app.toggle(key="report_personal").set_value(True).run()
    press(app, "report_make")
    assert "<h1>Request of Ada Blue</h1>" in preview(app)


def test_a_visitor_of_a_read_only_dashboard_may_take_a_report(monkeypatch, run):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    assert preview(press(open_page(monkeypatch, run), "report_make"))


def test_what_was_made_of_another_run_is_not_shown(monkeypatch, tmp_path):
    first = example_run.create(tmp_path / "runs")
    second = example_run.create(tmp_path / "runs", seed=1)
    app = press(open_page(monkeypatch, first, ["limits"]), "report_make")
    assert preview(app)
    app.selectbox(key="run").select(second.id).run()
    assert preview(app) is None


def test_the_archive_has_a_file_per_table_and_all_numbers(run):
    made = report.make(run, FEW)
    with zipfile.ZipFile(io.BytesIO(report_data.as_zip(made))) as archive:
        assert "scores-scores.csv" in archive.namelist()
        assert json.loads(archive.read("report.json"))["run"] == run.id
