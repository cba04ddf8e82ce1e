"""How pages show a recording: at the first start, marked as what it is, with nothing that would change it."""

import re
import shutil
from pathlib import Path

import pytest

from tests import example_run
from tests.test_pages import PAGES, open_page, texts, unescaped
from unlearn_core import recorded
from unlearn_core.files import write_json

each_page = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(scope="module")
def folder(smoke_run, tmp_path_factory):
    """A folder of examples with a recording of the smoke run."""
    return recorded.record(smoke_run, tmp_path_factory.mktemp("examples")).path.parent


@pytest.fixture
def opened(monkeypatch, folder, tmp_path):
    """Opens a page on a store without runs, or on this one, beside the recording."""
    monkeypatch.setenv("LETHE_EXAMPLES", str(folder))
    return lambda page, run=None, root=tmp_path / "none", **params: open_page(monkeypatch, root, page, run, **params)


@each_page
def test_at_the_first_start_every_page_shows_the_example_and_says_what_it_is(opened, folder, page):
    app = opened(page)
    name = next(folder.iterdir()).name
    assert app.sidebar.selectbox[0].value == name
    assert app.sidebar.selectbox[0].options == [f"example: {name}"]
    strip = unescaped(app.info[0].value)
    assert re.match(r"\*\*Recorded example\*\*, \d\d \w+ \d{4}, small in scale", strip)
    assert "`make demo`" in strip
    assert "A small model of 146 thousand parameters" in texts(app)
    assert "the mechanism, not the size of any effect" in texts(app)
    assert f"recorded by python -m unlearn_core record {name}" in texts(app)
    # Nothing that would start something on it.
    assert [button.label for button in app.button if button.icon == ":material/play_arrow:"
            and button.label != "Start the run"] == []
    assert [error.value for error in app.error if error.icon == ":material/broken_image:"] == []


@pytest.mark.parametrize("root", ["", "runs"])
def test_without_examples_a_run_is_chosen_as_before(monkeypatch, tmp_path, root):
    monkeypatch.setenv("LETHE_EXAMPLES", root and str(tmp_path / root))
    app = open_page(monkeypatch, tmp_path, "pages/loss.py")
    assert app.sidebar.selectbox[0].options == []
    assert [code.value for code in app.code] == ["make demo", "python -m unlearn_core run demo"]


def test_a_run_of_ones_own_comes_first_and_has_no_strip(opened, tmp_path, folder):
    run = example_run.finished(tmp_path / "runs", "Mine")
    app = opened("pages/overview.py", root=tmp_path / "runs")
    assert app.sidebar.selectbox[0].options == [run.id, f"example: {next(folder.iterdir()).name}"]
    assert app.header[0].value == "Mine"
    assert "Recorded example" not in texts(app)
    assert "Rename, tag, archive" in actions(app)


def actions(app):
    """What can be done with the run, by the popovers beside its title."""
    return [label for element in app.get("popover") if (label := element.proto.popover.label) != "Definitions"]


def test_an_example_with_a_title_is_offered_by_it(opened, folder, monkeypatch, tmp_path):
    copy = shutil.copytree(next(folder.iterdir()), tmp_path / "examples" / "one")
    write_json(copy / "meta.json", {"title": "Demo, NPO alone"})
    monkeypatch.setenv("LETHE_EXAMPLES", str(copy.parent))
    assert opened("pages/sweeps.py").sidebar.selectbox[0].options == ["example: Demo, NPO alone"]


def test_the_time_of_a_new_run_is_not_told_by_a_recording_of_another_machine(opened):
    app = opened("pages/train.py")
    app.selectbox(key="train_start").select("smoke").run()
    assert "no earlier run on this device tells" in texts(app)


def test_the_overview_marks_it_exports_it_and_does_not_change_it(opened, folder):
    app = opened("pages/overview.py")
    table = next(element.value for element in app.dataframe if "archived" in element.value)
    assert list(table["name"]) == [f"example: {next(folder.iterdir()).name}"]
    assert actions(app) == ["Export"]
    assert [button.key for button in app.get("download_button")
            if button.key.startswith("overview_export")] == ["overview_export_False"]


@pytest.mark.parametrize(("page", "choice", "words"), [
    ("pages/weights.py", ("weights_section", "ablation"), "not measured before the run was recorded"),
    ("pages/robustness.py", ("robust_section", "depth"), "not measured before the run was recorded"),
    ("pages/loss.py", ("loss_section", "npo"), "which a recording has not"),
    ("pages/loss.py", ("loss_section", "scores"), "a recorded run comes without weights"),
    ("pages/merge.py", ("merge_section", "balance"), "not measured before the run was recorded")])
def test_what_was_not_measured_is_not_offered(opened, page, choice, words):
    app = opened(page)
    app.segmented_control(key=choice[0]).set_value(choice[1]).run()
    assert not app.exception
    assert words in texts(app)
    assert [button.label for button in app.button if button.icon == ":material/play_arrow:"] == []


def test_commands_that_read_it_name_its_folder(opened, folder):
    app = opened("pages/robustness.py")
    command = next(code.value for code in app.code if "verify" in code.value).splitlines()[-1]
    path = Path(command.split()[-1])
    assert path.resolve() == next(folder.iterdir()).resolve()
    assert not [button for button in app.button if button.key in ("robust_lock", "robust_change")]


def test_its_recipe_can_be_cloned_but_its_weights_not(opened):
    app = opened("pages/train.py", train_view="Watch")
    assert "Clone its recipe" in [button.label for button in app.button]
    assert "train_fresh" not in [button.key for button in app.button]


def test_a_copy_in_the_own_store_is_a_recording_too(opened, folder, tmp_path):
    source = next(folder.iterdir())
    shutil.copytree(source, tmp_path / "runs" / source.name)
    app = opened("pages/overview.py", root=tmp_path / "runs")
    assert "Recorded example" in texts(app)
    assert actions(app) == ["Export"]
