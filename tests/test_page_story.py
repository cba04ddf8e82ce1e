"""The page Story: eight steps by address, buttons and keys, one finding and one chart each, and how it is measured."""

import os
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import findings
from analysis.findings_parts import TITLES
from pages import _story_steps
from tests import browser, example_run, example_verdict
from unlearn_core.cli import parser

ROOT = Path(__file__).parent.parent
KEYS = ["knew", "over", "under", "merge", "weights", "forgotten", "missed", "verdict"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: everything scored, nothing of the weights measured."""
    return example_run.finished(tmp_path_factory.mktemp("runs"))


def open_page(monkeypatch, run, embedded=False, **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.context["is_embedded"] = embedded
    app.query_params.update({"run": run.id} | address)
    app.run()
    app.switch_page("pages/story.py").run()
    assert not app.exception
    return app


def question(app):
    return [head.value for head in (*app.title, *app.header) if head.value != "Story"]


def texts(app):
    """What a reader sees: an escaped sign is the sign."""
    said = "\n".join(element.value for kind in ("subheader", "markdown", "caption", "info", "code")
                     for element in app.get(kind))
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", said).replace("\u2060", "")


def press(app, key):
    next(button for button in app.button if button.key == key).click().run()
    assert not app.exception


def test_the_steps_are_those_of_the_story_and_each_has_a_finding():
    assert [step.key for step in _story_steps.STEPS] == KEYS
    assert all(step.key in TITLES for step in _story_steps.STEPS)


def test_every_step_asks_its_question_and_shows_its_finding(monkeypatch, run):
    app, ours = open_page(monkeypatch, run), findings.findings(run)
    for number, key in enumerate(KEYS, start=1):
        press(app, f"story_step_{number}")
        assert question(app) == [ours[key].title]
        assert ours[key].text in texts(app)
        assert len(app.get("plotly_chart")) == (1 if key not in ("weights", "missed") else 0)  # not measured here
        assert app.query_params["step"] in (str(number), [str(number)])
        assert not app.error


def test_next_and_previous_and_the_number_of_a_step_lead_there_and_stop_at_the_ends(monkeypatch, run):
    app = open_page(monkeypatch, run)
    assert question(app) == [TITLES["knew"]]
    assert next(button for button in app.button if button.key == "story_previous").disabled
    press(app, "story_next")
    assert question(app) == [TITLES["over"]]
    press(app, "story_step_8")
    assert question(app) == [TITLES["verdict"]]
    assert next(button for button in app.button if button.key == "story_next").disabled
    press(app, "story_previous")
    assert question(app) == [TITLES["missed"]]


def test_the_address_names_the_step_and_where_it_names_none_the_nearest_one_is_shown(monkeypatch, run):
    app = open_page(monkeypatch, run, step="3")
    assert question(app) == [TITLES["under"]]
    for step, key in (("99", "verdict"), ("0", "knew"), ("4", "merge"), ("x", "knew"), ("²", "knew")):
        app.query_params["step"] = step
        assert question(app.run()) == [TITLES[key]]


def test_where_something_is_not_measured_the_command_stands_there(monkeypatch, tmp_path):
    run = example_run.create(tmp_path)
    run.write_status("cancelled", "memorise")
    app = open_page(monkeypatch, run)
    for number in range(1, 9):
        press(app, f"story_step_{number}")
        assert "Not measured: " in texts(app)
        assert [code.value for code in app.code][-1] == f"python -m unlearn_core run --resume {run.id}"


def test_show_me_how_explains_and_gives_commands_that_exist(monkeypatch, run):
    app = open_page(monkeypatch, run, step="4")
    app.session_state["story_how"] = True
    app.run()
    assert _story_steps.STEPS[3].how in texts(app)
    assert f"python -m unlearn_core balance {run.id}" in texts(app)
    for step in _story_steps.STEPS:
        for line in step.commands(run):
            words = line.split()
            if words[2] == "unlearn_core":
                parser().parse_args(words[3:])


def test_every_step_links_to_a_page_and_a_section_that_are_there(monkeypatch, run):
    for step in {step.page: step for step in _story_steps.STEPS}.values():
        app = open_page(monkeypatch, run, **step.view)
        app.switch_page(f"pages/{step.page}.py").run()
        assert not app.exception
        chosen = {one.key: one.value for one in app.get("button_group")}
        for key in filter(lambda name: name.endswith("_section"), step.view):
            assert chosen[key] == step.view[key].lower()


def test_a_brought_run_leaves_out_training_and_merging(monkeypatch, tmp_path):
    run = example_verdict.measured(tmp_path, {"base": ("forget", "retain"), "tested": ("retain",)}, documents=4)
    run.note(brought={"tested": {"model": "/models/tested", "adapter": None}})
    keys = [step.key for step in _story_steps.steps(True)]
    assert keys == ["knew", "forgotten", "missed", "verdict"]
    app = open_page(monkeypatch, run)
    for key in keys:
        assert question(app) == [TITLES[key]]
        assert len(app.get("plotly_chart")) == 1
        assert "leaves out training and merging" in texts(app)
        if key != keys[-1]:
            press(app, "story_next")


def test_an_embedded_story_has_its_question_for_a_title_and_leads_back(monkeypatch, run):
    app = open_page(monkeypatch, run, embedded=True, step="2")
    assert [head.value for head in app.title] == [TITLES["over"]]
    links = {link.proto.label: link.proto.url for link in app.get("link_button")}
    assert links["In the dashboard"] == f"story?step=2&run={run.id}"
    plain = open_page(monkeypatch, run, step="2")
    assert {link.proto.label: link.proto.url for link in plain.get("link_button")} == {
        "Present": f"story?step=2&embed=true&run={run.id}"}


@pytest.mark.skipif(browser.chromium() is None and "CI" not in os.environ, reason="no Chromium on this machine")
def test_arrow_keys_lead_through_a_presentation_without_sidebar(run):
    with browser.served(run.path.parent) as address, browser.browser() as running, browser.tab(
            running, f"{address}/story?run={run.id}&embed=true") as page:
        def shown(key):
            page.wait_for_function("title => document.querySelector('h1')?.innerText === title", arg=TITLES[key])
            browser.settle(page)

        shown("knew")
        sidebar = page.get_by_test_id("stSidebar").bounding_box()
        assert sidebar["x"] + sidebar["width"] <= 0  # pushed out of the window
        page.keyboard.press("ArrowRight")
        shown("over")
        page.locator(".st-key-story_step_4 button").click()
        shown("merge")
        page.keyboard.press("ArrowLeft")  # the focus is on a button of a step
        shown("under")
        assert "step=3" in page.url
        assert browser.problems(page) == []
