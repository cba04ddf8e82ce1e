"""The real app in a real browser: each page in each state by its link, and a run driven from its start to its end.

Screenshots go to $LETHE_SCREENSHOTS where it is set.
"""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import browser as b
from tests import example_run, example_sweep
from unlearn_core import jobs
from unlearn_core import recipe as recipes
from unlearn_core.files import read_rows
from unlearn_core.store import Store

PAGES = ("overview", "data", "train", "sweeps", "loss", "merge", "weights", "signs", "metrics", "leaks", "robustness",
         "generations", "report", "story", "method")
REFRESH_MS = 2000  # between two drawings of the live charts
GROWING = '[data-testid="stVegaLiteChart"][aria-label="Does the total loss fall?"]'
AXES = f"() => [...document.querySelectorAll('{GROWING} svg text')].map(text => text.textContent).join(' ')"

pytestmark = pytest.mark.skipif(
    b.chromium() is None and "CI" not in os.environ,
    reason="no Chromium here: install Debian's package chromium, or name a browser in $CHROMIUM")


@pytest.fixture(scope="module")
def browser():
    assert b.chromium(), "CI must install Chromium: see .ci/run"
    with b.browser() as running:
        yield running


@pytest.fixture(scope="module")
def gallery(tmp_path_factory, smoke_run):
    """A served store with a run in each state: {state: run id}, and the address."""
    root = tmp_path_factory.mktemp("gallery") / "runs"
    shutil.copytree(smoke_run.path, root / smoke_run.id)
    made = {build.__name__: build(root).id for build in (
        example_run.finished, example_run.unfinished, example_run.trained, example_run.damaged)}
    example_sweep.scored(root, example_sweep.planned(root, seeds=range(3)))
    with b.served(root) as address:
        yield address, made | {"smoke": smoke_run.id}


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    """The address of a dashboard without runs."""
    root = tmp_path_factory.mktemp("nothing") / "runs"
    with b.served(root) as address:
        yield address


def look(page, name):
    """A picture of the page, after what must never be seen was looked for."""
    assert b.problems(page) == []
    folder = os.environ.get("LETHE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    picture = b.whole_page(page, Path(folder) / f"{name}.png" if folder else None)
    assert b.problems(page) == []
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), dtype=float)
    assert pixels.std() > 5  # grey levels: neither a blank page nor a black one
    return pixels


# ---- every page by its link ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_a_finished_run_opens_by_link_and_has_nothing_broken(browser, gallery, name):
    address, made = gallery
    with b.tab(browser, b.link(address, name, made["smoke"]), width=1400) as page:
        assert np.median(sound(page, name, "light-1400")) > 128


def test_in_the_dark_on_a_narrow_screen_no_page_has_anything_broken(browser, gallery):
    address, made = gallery
    with b.tab(browser, b.link(address, PAGES[0], made["smoke"]), scheme="dark", width=1000) as page:
        for name in PAGES:
            page.set_viewport_size({"width": 1000, "height": 1000})  # the last picture made it as long as its page
            b.switch(page, name)
            assert np.median(sound(page, name, "dark-1000")) < 128


def sound(page, name, appearance):
    """The picture of a page of a finished run, on which nothing is broken and nothing inaccessible."""
    pixels = look(page, f"{name}-{appearance}")
    assert page.locator("h1").inner_text() == b.title(name)
    # A verdict that fails is red, too: a smoke run forgets nothing.
    errors = page.locator('[data-testid="stAlertContentError"]').all_inner_texts()
    assert [text for text in errors if "Failed: " not in text] == []
    assert b.inaccessible(page) == [], name
    return pixels


def test_a_picture_without_words_would_be_found(browser, nothing):
    with b.tab(browser, nothing) as page:
        page.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<img src=\"data:,\">')")
        assert any(line.startswith("image-alt: ") for line in b.inaccessible(page))


def test_every_page_without_any_run_says_what_to_do(browser, nothing):
    walk(browser, nothing, "", "empty")


@pytest.mark.parametrize("state", ["unfinished", "trained", "damaged"])
def test_every_page_of_a_partial_or_damaged_run_explains_itself(browser, gallery, state):
    address, made = gallery
    walk(browser, address, made[state], state)


def walk(browser, address, run, state):
    """From page to page in one tab, with a look at each."""
    with b.tab(browser, b.link(address, PAGES[0], run)) as page:
        for name in PAGES:
            b.switch(page, name)
            assert b.problems(page) == [], name
            assert run in page.url
            if "LETHE_SCREENSHOTS" in os.environ:
                look(page, f"{name}-{state}")


# ---- a run from its start to its end ---------------------------------------------------------------------------

@pytest.fixture
def workshop(tmp_path):
    """A store with a saved recipe that trains long enough to watch it; its jobs end with the test."""
    store = Store(tmp_path / "runs")
    slow = recipes.load("smoke", ["name=watched", "model_1.epochs=150", "model_1.checkpoints=75"])
    store.save_recipe("watched", recipes.as_toml(slow))
    yield store
    for run in store.folders():
        jobs.stop(run, grace_s=0.1)


def wait_state(page, run, state, seconds=240):
    """Wait for the run, on the disk, to be in a state."""
    for _ in range(seconds * 10):
        if (found := run.status())["state"] == state:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"after {seconds} s: {found}")


def axes(page):
    """The labels of the axes of a live chart."""
    return page.evaluate(AXES)


def zoom_in(page):
    """Zoom into that chart with the wheel."""
    page.wait_for_selector(GROWING + " svg")
    box = page.locator(GROWING).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = axes(page)
    page.keyboard.down("Control")
    for _ in range(6):
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(100)
    page.keyboard.up("Control")
    page.wait_for_function(f"before => ({AXES})() !== before", arg=before)
    page.wait_for_timeout(REFRESH_MS)  # the wheel has come to rest


def test_a_run_is_started_watched_left_found_again_stopped_and_finished(browser, workshop):
    store = workshop
    with b.served(store.root) as address, b.tab(browser, f"{address}/train") as page:
        b.choose(page, "Start from", "watched")
        b.click(page, "Start the run")
        page.wait_for_url("**/train?*run=watched*")
        run = store.runs()[0]
        page.get_by_text("Running").first.wait_for()
        live = "[data-testid='stVegaLiteChart'] canvas, [data-testid='stVegaLiteChart'] svg"
        page.wait_for_selector(live)
        link = page.url.removeprefix(address)
    assert run.status()["state"] == "running"  # the tab is closed and the server gone
    with b.served(store.root) as address:
        with b.tab(browser, address + link) as page, b.tab(browser, address + link) as second:
            for each in (page, second):
                each.get_by_text("Running · model_1").first.wait_for()
                each.wait_for_selector(live)
            zoom_in(page)
            zoomed = axes(page)
            before = axes(second)
            second.wait_for_function(f"before => ({AXES})() !== before", arg=before)
            page.wait_for_timeout(2 * REFRESH_MS)  # by now new points have come here too
            assert axes(page) == zoomed != before
            b.click(page, "Stop the run")
            wait_state(page, run, "cancelled", 30)
            for each in (page, second):
                each.get_by_text("Cancelled").first.wait_for()
                assert b.problems(each) == []
            whole = run.recipe().model_1.steps(len(read_rows(run.data_dir / "forget.jsonl")))
            assert 0 < len(run.steps("model_1")) < whole
            b.click(page, "Resume")
            page.get_by_text("Running").first.wait_for()
        with b.tab(browser, address + link) as page:
            wait_state(page, run, "finished")
            page.get_by_text("Finished").first.wait_for()
            look(page, "train-finished")
    assert [row["step"] for row in run.steps("model_1")] == list(range(1, whole + 1))


# ---- looking only ----------------------------------------------------------------------------------------------

def test_read_only_mode_offers_nothing_that_launches_or_writes(browser, tmp_path, smoke_run):
    shutil.copytree(smoke_run.path, tmp_path / "runs" / smoke_run.id)
    run = example_run.unfinished(tmp_path / "runs")
    with b.served(tmp_path / "runs", LETHE_READ_ONLY="1") as address, \
            b.tab(browser, b.link(address, PAGES[0], run.id)) as page:
        for name in PAGES:
            b.switch(page, name)
            assert b.problems(page) == [], name
            names = [button.inner_text() for button in page.get_by_role("button").all()]
            launching = {"Stop the run", "Resume", "Start", "Start the run", "Start fresh from these weights",
                         "Save", "Import", "Evaluate checkpoints", "Generate", "Measure the weights",
                         "Score these merges", "Score these parts", "Merge and evaluate",
                         "Draw the samples"}
            assert launching.isdisjoint(names)


def test_a_forget_request_is_saved_from_its_part_of_the_page_and_a_refusal_stands_there(browser, tmp_path, smoke_run):
    root = tmp_path / "runs"
    shutil.copytree(smoke_run.path, root / smoke_run.id)
    with b.served(root) as address, b.tab(browser, b.link(address, "data", smoke_run.id)
                                          + "&data_view=Forget request&data_request_tasks=Task1") as page:
        for name, answer in (("../out", "expected at most 60 letters"), ("only-task1", "Saved as only-task1")):
            page.get_by_label("Name of the data set").fill(name)
            page.get_by_role("button", name="Save as a data set").click()
            page.get_by_test_id("stAlert").filter(has_text=answer).wait_for()
        b.settle(page)
        assert page.get_by_test_id("stAlert").count() == 1  # the refusal is gone
    assert Store(root).datasets() == ["only-task1"]
