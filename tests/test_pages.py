"""Every page of the dashboard on an empty store, a finished, an unfinished, a running and a damaged run."""

import json
import logging
import re
import warnings
from pathlib import Path

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from pages import _widgets
from tests import example_run
from unlearn_core import recipe as recipes
from unlearn_core.files import read_json, write_json
from unlearn_core.store import RUN_FILES, Store, now

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pages").glob("[!_]*.py"))
CHARTED = ["pages/loss.py", "pages/overview.py"]  # whose charts need nothing but a run's scores and steps
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


def unescaped(text):
    """What a reader sees: escaped signs are signs, and what breaks a link has no width."""
    return without_escapes(text).replace("\u2060", "")


def without_escapes(text):
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def texts(app):
    """What a reader sees: an escaped character is the character."""
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    return " ".join(unescaped(element.value) for kind in kinds for element in kind)


def test_the_page_list_is_not_empty():
    assert "pages/overview.py" in PAGES


@each_page
def test_an_empty_store_is_no_error(monkeypatch, tmp_path, page):
    app = open_page(monkeypatch, tmp_path, page)
    assert len(app.title) == 1
    assert not app.error


@pytest.mark.parametrize("page", ["pages/overview.py", "pages/loss.py", "pages/generations.py"])
def test_without_a_run_a_page_about_runs_says_how_to_make_one(monkeypatch, tmp_path, page):
    app = open_page(monkeypatch, tmp_path, page)
    assert [code.value for code in app.code] == ["make demo", "python -m unlearn_core run demo"]


@each_page
def test_a_store_that_does_not_exist_is_an_empty_one(monkeypatch, tmp_path, page):
    app = open_page(monkeypatch, tmp_path / "nowhere", page)
    assert not app.error
    assert not (tmp_path / "nowhere").exists()  # looking makes no folder


@each_page
def test_a_finished_run_has_no_state_strip(monkeypatch, runs, page):
    root, made = runs
    app = open_page(monkeypatch, root, page, made["finished"])
    assert page not in CHARTED or len(app.get("plotly_chart")) >= 2
    assert "Interrupted" not in texts(app)
    assert not [button for button in app.button if button.key and button.key.startswith("strip_")]


@each_page
@pytest.mark.parametrize("made", ["smoke_run", "recorded_run"])
def test_a_run_of_the_engine_and_one_recorded_by_schema_version_1_are_shown(monkeypatch, request, made, page):
    run = request.getfixturevalue(made)
    app = open_page(monkeypatch, run.path.parent, page, run.id)
    assert page not in CHARTED or len(app.get("plotly_chart")) >= 2
    # A verdict that fails is red, too: a smoke run forgets nothing.
    assert [error for error in app.error if not unescaped(error.value).startswith("Failed: ")] == []


@each_page
def test_an_unfinished_run_shows_what_is_there_and_how_to_continue(monkeypatch, runs, page):
    root, made = runs
    app = open_page(monkeypatch, root, page, made["unfinished"])
    assert "Interrupted" in texts(app)
    assert "step 40 of 120" in texts(app)
    assert f"python -m unlearn_core run --resume {made['unfinished']}" in texts(app)
    assert {"strip_resume", "strip_fresh"} <= {button.key for button in app.button}
    assert page not in CHARTED or app.get("plotly_chart")


@each_page
def test_a_run_that_is_still_running_shows_its_stage_and_can_be_refreshed(monkeypatch, tmp_path, page):
    run = example_run.create(tmp_path)
    run.write_status("running", "memorise", 30, 300)  # by this process, which lives
    app = open_page(monkeypatch, tmp_path, page)
    assert "Running · memorise · step 30 of 300" in texts(app)
    assert app.button(key="strip_refresh").click().run().exception == []  # not Stop: it would end this test
    assert app.button(key="strip_stop").label == "Stop the run"


@each_page
@pytest.mark.parametrize("state", ["running", "cancelled"])
def test_in_read_only_mode_the_strip_offers_no_change(monkeypatch, tmp_path, page, state):
    run = example_run.create(tmp_path)
    run.write_status(state, "memorise", 30, 300)
    monkeypatch.setenv("LETHE_READ_ONLY", "1")
    app = open_page(monkeypatch, tmp_path, page)
    assert "step 30 of 300" in texts(app)
    assert {"strip_stop", "strip_resume", "strip_fresh"}.isdisjoint(button.key for button in app.button)


def test_what_could_not_be_done_is_said_above_the_page(monkeypatch, tmp_path):
    example_run.unfinished(tmp_path)
    app = open_page(monkeypatch, tmp_path, "pages/loss.py")
    monkeypatch.setenv("LETHE_READ_ONLY", "1")  # since the page was drawn
    app.button(key="strip_resume").click().run()
    assert any("got a request to change something" in unescaped(error.value) for error in app.error)


def test_a_job_that_failed_on_a_finished_run_is_named(monkeypatch, tmp_path):
    run = example_run.finished(tmp_path)
    run.log_path.write_text("error: no checkpoints\n")
    me = psutil.Process()
    run.write_job(command=["x"], device="cpu", kind="evaluate", queued=now(), started=now(), ended=now(), exit_code=2,
                  cancelled=False, before={}, pid=me.pid, process_started=me.create_time())
    app = open_page(monkeypatch, tmp_path, "pages/overview.py")
    assert "last job on this run failed: exit code 2. error: no checkpoints" in unescaped(app.error[0].value)


def test_a_run_in_the_queue_says_its_place_and_who_holds_the_device(monkeypatch, tmp_path):
    working = example_run.create(tmp_path, "Working")
    working.note(device="cpu")
    waiting = example_run.finished(tmp_path, "Waiting")
    me = psutil.Process()
    waiting.write_job(command=["x"], device="cpu", kind="evaluate", queued=now(), started=None, ended=None,
                      exit_code=None, cancelled=False, before={}, pid=me.pid, process_started=me.create_time())
    app = open_page(monkeypatch, tmp_path, "pages/overview.py", waiting.id)
    assert f"Queued · number 1 of 1 for cpu, which {working.id} uses" in unescaped(app.info[0].value)


@pytest.mark.parametrize("page", CHARTED)
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
    assert "status.json" in unescaped(app.error[0].value)


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
    assert any(made["unreadable"] in unescaped(warning.value) for warning in app.warning)


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
    assert "no readable run ../../etc in " in unescaped(app.warning[0].value)
    assert app.query_params["run"] == made["finished"]


# ---- text that is not our own ----------------------------------------------------------------------------------------

IMAGE = "![pixel](http://example.org/p.png)"


def test_plain_text_escapes_every_sign_of_markdown_and_stays_on_one_line():
    assert _widgets.plain("a ![x](u)\n# b") == r"a \!\[x\]\(u\) \# b"
    assert _widgets.plain("Zoë 5 🙂") == "Zoë 5 🙂"
    signs = "".join(map(chr, range(33, 127)))
    assert unescaped(_widgets.plain(signs)) == signs


@pytest.mark.parametrize("address", [
    "a_b@me.com", "see http://example.org/x", "HTTPS://example.org", "www.example.org"])
def test_plain_text_breaks_what_markdown_would_make_a_link_of_and_loses_nothing(address):
    # The rules of GitHub's Markdown for links without brackets.
    link = re.compile(r"[-.\w+]+@[-\w]+(\.[-\w]+)+|(https?://|www\.)[-.\w]+", re.I)
    shown = without_escapes(_widgets.plain(address))
    assert link.search(address)
    assert not link.search(shown)
    assert shown.replace("\u2060", "") == address


def markdown(app):
    """Every text that Streamlit renders as Markdown, as it is sent."""
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.header, app.subheader, app.title)
    return [element.value for kind in kinds for element in kind]


def assert_shown_without_an_image(app):
    sent = markdown(app)
    assert any(IMAGE in unescaped(text) for text in sent)
    assert not any("![" in text or re.search(r"\]\((?!method\?)", text) for text in sent)  # but for our own links


def test_a_title_with_an_image_is_shown_as_text(monkeypatch, tmp_path):
    run = example_run.create(tmp_path, IMAGE)
    run.write_status("failed", message=f"what {IMAGE}")
    app = open_page(monkeypatch, tmp_path, "pages/overview.py")
    assert unescaped(app.header[0].value) == IMAGE
    assert IMAGE in unescaped(app.error[0].value)
    assert_shown_without_an_image(app)


def test_an_address_with_an_image_is_shown_as_text(monkeypatch, tmp_path):
    example_run.create(tmp_path)
    assert_shown_without_an_image(open_page(monkeypatch, tmp_path, "pages/overview.py", f"`{IMAGE}`"))


@pytest.mark.parametrize("page", CHARTED)
def test_damaged_rows_with_an_image_are_shown_as_text(monkeypatch, tmp_path, page):
    run = example_run.create(tmp_path)
    for name in ("steps.jsonl", "scores.json"):
        path = run.model_dir("model_1") / name if name == "steps.jsonl" else run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([IMAGE]) + "\n")
    assert_shown_without_an_image(open_page(monkeypatch, tmp_path, page))


# ---- the run and the list ----------------------------------------------------------------------

@each_page
def test_a_trained_run_says_what_is_left_and_how_to_go_on(monkeypatch, tmp_path, page):
    run = example_run.trained(tmp_path)
    app = open_page(monkeypatch, tmp_path, page)
    assert unescaped(app.info[0].value) == "Trained, but not merged or scored yet"
    assert app.code[0].value == f"python -m unlearn_core run --resume {run.id}"
    if page == "pages/overview.py":
        assert "the scores come with the merge" in app.info[1].value
    if page == "pages/loss.py":
        assert len(app.get("plotly_chart")) >= 2


@each_page
@pytest.mark.parametrize("file", sorted(RUN_FILES))
def test_a_run_with_a_folder_in_place_of_a_file_takes_no_page_down(monkeypatch, tmp_path, page, file):
    run = example_run.create(tmp_path)
    (run.path / file).unlink()
    (run.path / file).mkdir()
    app = open_page(monkeypatch, tmp_path, page)
    assert f"{file}; got Is a directory" in texts(app)


@each_page
def test_odd_scores_and_an_odd_process_id_are_named_on_the_page(monkeypatch, tmp_path, page):
    run = example_run.finished(tmp_path)
    write_json(run.path / "scores.json", {"merged": 5})
    write_json(run.path / "status.json", read_json(run.path / "status.json") | {"pid": "x"})
    app = open_page(monkeypatch, tmp_path, page)
    assert "status.json; got pid = 'x'" in texts(app)
    assert page != "pages/overview.py" or "scores.json; got merged = 5" in texts(app)


def test_the_overview_reads_the_recipes_of_other_runs_once(monkeypatch, tmp_path):
    ids = [example_run.create(tmp_path, seed=seed).id for seed in range(3)]
    read, parse = [], recipes.parse

    def counted(raw, where):
        read.append(where)
        return parse(raw, where=where)
    monkeypatch.setattr(recipes, "parse", counted)
    open_page(monkeypatch, tmp_path, "pages/overview.py", ids[0])
    assert [read.count(f"{name}/recipe.json") for name in ids] == [2, 1, 1]  # the list, and the chosen one's page


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
