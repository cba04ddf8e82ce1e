"""Every page of the dashboard on an empty store, a finished, an unfinished, a running and a damaged run."""

import logging
import warnings
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests import example_run
from unlearn_core.store import Store

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pages").glob("[!_]*.py"))
each_page = pytest.mark.parametrize("page", PAGES)


class Records(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_deprecated_calls():
    """Fail on whatever Streamlit or Python says about deprecation while a page runs."""
    handler, logger = Records(), logging.getLogger("streamlit.deprecation_util")
    logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    logger.removeHandler(handler)
    ours = [str(w.message) for w in caught if str(ROOT) in w.filename and ".venv" not in w.filename]
    assert handler.messages + ours == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Four runs by state, all in one store."""
    root = tmp_path_factory.mktemp("runs")
    made = {build.__name__: build(root).id for build in (
        example_run.damaged, example_run.unreadable, example_run.unfinished, example_run.finished)}
    return root, made


def open_page(monkeypatch, root, page, run=None, **params):
    monkeypatch.setenv("LETHE_RUNS", str(root))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.query_params.update(params | ({"run": run} if run else {}))
    app.run()
    if page != "pages/overview.py":
        app.switch_page(page).run()
    assert not app.exception
    return app


def texts(app):
    return " ".join(element.value for kind in (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
                    for element in kind)


def test_the_page_list_is_not_empty():
    assert "pages/overview.py" in PAGES


@each_page
def test_an_empty_store_says_how_to_make_a_run(monkeypatch, tmp_path, page):
    app = open_page(monkeypatch, tmp_path, page)
    assert [code.value for code in app.code] == ["make demo", "python -m unlearn_core run demo"]
    assert len(app.title) == 1


@each_page
def test_a_store_that_does_not_exist_is_an_empty_one(monkeypatch, tmp_path, page):
    app = open_page(monkeypatch, tmp_path / "nowhere", page)
    assert "make demo" in texts(app)


@each_page
def test_a_finished_run_is_drawn_and_has_no_state_strip(monkeypatch, runs, page):
    root, made = runs
    app = open_page(monkeypatch, root, page, made["finished"])
    assert len(app.get("plotly_chart")) >= 2
    assert "Interrupted" not in texts(app)
    assert not app.error


@each_page
def test_a_run_that_the_engine_made_is_drawn_too(monkeypatch, smoke_run, page):
    app = open_page(monkeypatch, smoke_run.path.parent, page, smoke_run.id)
    assert len(app.get("plotly_chart")) >= 2
    assert not app.error
    assert not app.warning


@each_page
def test_a_run_recorded_by_schema_version_1_is_drawn_too(monkeypatch, recorded_run, page):
    app = open_page(monkeypatch, recorded_run.path.parent, page, recorded_run.id)
    assert len(app.get("plotly_chart")) >= 2
    assert not app.error


@each_page
def test_an_unfinished_run_shows_what_is_there_and_how_to_continue(monkeypatch, runs, page):
    root, made = runs
    app = open_page(monkeypatch, root, page, made["unfinished"])
    assert "Interrupted" in texts(app)
    assert "step 40 of 120" in texts(app)
    assert f"python -m unlearn_core run --resume {made['unfinished']}" in texts(app)
    assert app.get("plotly_chart")


@each_page
def test_a_run_that_is_still_running_shows_its_stage_and_can_be_refreshed(monkeypatch, tmp_path, page):
    run = example_run.create(tmp_path)
    run.write_status("running", "memorise", 30, 300)  # by this process, which lives
    app = open_page(monkeypatch, tmp_path, page)
    assert "Running · memorise · step 30 of 300" in texts(app)
    assert app.button[0].click().run().exception == []


@each_page
@pytest.mark.parametrize("damage", [b"\n", b"\xff"], ids=["torn line", "not UTF-8"])
def test_a_damaged_run_is_named_and_nothing_breaks(monkeypatch, runs, page, damage):
    root, made = runs
    path = root / made["damaged"] / "models" / "model_1" / "steps.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + damage + whole[500:])
    app = open_page(monkeypatch, root, page, made["damaged"])
    path.write_bytes(whole)
    assert any("expected" in error.value for error in app.error)


@each_page
def test_a_failed_run_shows_its_message(monkeypatch, tmp_path, page):
    run = example_run.create(tmp_path)
    run.write_status("failed", "model_2", message="out of memory")
    app = open_page(monkeypatch, tmp_path, page)
    assert "out of memory" in app.error[0].value


@each_page
def test_a_torn_status_is_named_above_the_page(monkeypatch, tmp_path, page):
    run = example_run.create(tmp_path)
    (run.path / "status.json").write_text("{")
    app = open_page(monkeypatch, tmp_path, page)
    assert "status.json" in app.error[0].value


@each_page
def test_a_page_started_without_the_frame_brings_it(monkeypatch, runs, page):
    """Each AppTest run is a fresh server: it finds the folder `pages` and starts a linked file without app.py."""
    root, _ = runs
    app = open_page(monkeypatch, root, page)
    assert len(app.title) == 1
    assert len(app.sidebar.selectbox) == 1


def test_folders_that_are_no_runs_are_named_in_a_warning(monkeypatch, runs):
    root, made = runs
    app = open_page(monkeypatch, root, "pages/overview.py", made["finished"])
    assert any(made["unreadable"] in warning.value for warning in app.warning)


def test_the_address_chooses_the_run_and_keeps_it_across_pages(monkeypatch, runs):
    root, made = runs
    app = open_page(monkeypatch, root, "pages/loss.py", made["unfinished"])
    assert app.query_params["run"] == made["unfinished"]
    assert app.sidebar.selectbox[0].value == made["unfinished"]


def test_choosing_a_run_changes_the_address(monkeypatch, runs):
    root, made = runs
    app = open_page(monkeypatch, root, "pages/overview.py")
    assert app.query_params["run"] == made["finished"]  # the newest
    app.sidebar.selectbox[0].select(made["unfinished"]).run()
    assert app.query_params["run"] == made["unfinished"]
    assert app.header[0].value == "Stopped early"


def test_an_address_with_an_unknown_run_says_so_and_shows_the_newest(monkeypatch, runs):
    root, made = runs
    app = open_page(monkeypatch, root, "pages/overview.py", "../../etc")
    assert "no readable run `../../etc`" in app.warning[0].value
    assert app.query_params["run"] == made["finished"]


def test_the_score_table_shows_what_is_stored(monkeypatch, runs):
    root, made = runs
    app = open_page(monkeypatch, root, "pages/overview.py", made["finished"])
    shown = next(table.value for table in app.dataframe if "verdict" in table.value and "model" in table.value)
    stored = Store(root).open(made["finished"]).scores()
    assert dict(zip(shown["model"], shown["aggregate"], strict=True)) == {m: s["aggregate"] for m, s in stored.items()}


def test_new_steps_appear_although_tables_are_cached(monkeypatch, tmp_path):
    run = example_run.create(tmp_path)
    run.append_step("model_1", {"step": 1, "epoch": 0.1, "tokens": 10, "seconds": 1.0, "loss": 3.0})
    app = open_page(monkeypatch, tmp_path, "pages/loss.py")
    assert "Model 1: 1 steps" in texts(app)
    run.append_step("model_1", {"step": 2, "epoch": 0.2, "tokens": 20, "seconds": 2.0, "loss": 2.0})
    app.run()
    assert "Model 1: 2 steps" in texts(app)


@pytest.mark.parametrize("x", ["step", "epoch", "tokens", "seconds"])
def test_the_switches_of_the_loss_page_redraw_it(monkeypatch, runs, x):
    root, made = runs
    app = open_page(monkeypatch, root, "pages/loss.py", made["finished"])
    app.segmented_control(key="x").set_value(x)
    app.toggle(key="weighted").set_value(False)
    app.toggle(key="log_y").set_value(True)
    app.run()
    assert not app.exception
    assert "Unweighted terms" in texts(app)
    assert '"type":"log"' in app.get("plotly_chart")[0].proto.spec
