"""The Overview: filters and order of the run table, labels, import and export, and the comparison of runs."""

import io
import shutil
import zipfile
from datetime import datetime, timedelta

import pytest

from analysis import frames
from tests import example_run
from tests.test_pages import open_page, texts
from unlearn_core import archive
from unlearn_core.files import read_json, write_json
from unlearn_core.store import Run, Store

PAGE = "pages/overview.py"


@pytest.fixture
def store(tmp_path):
    """Three scored runs: "One" (tags a, b), "Two" (tag b, seed 1, the newest) and the archived "Three"."""
    root = tmp_path / "runs"
    for number, (title, tags, archived) in enumerate(
            (("Three", [], True), ("One", ["a", "b"], False), ("Two", ["b"], False))):
        run = example_run.finished(root, title, seed=max(number - 1, 0))
        run.write_meta(tags=tags, archived=archived)
    return Store(root)


def named(store, title):
    return next(run for run in store.runs() if run.meta()["title"] == title)


def opened(monkeypatch, store, title, **params):
    return open_page(monkeypatch, store.root, PAGE, named(store, title).id, **params)


def run_table(app):
    return next(element for element in app.dataframe if "archived" in element.value)


def titles(app):
    """Titles in the run table, from above."""
    return list(run_table(app).value["title"])


def labelled(elements, label):
    return next(element for element in elements if element.label == label)


def pick(app, *rows):
    """Pick rows of the run table by their titles."""
    shown = run_table(app)
    places = [list(shown.value["title"]).index(title) for title in rows]
    app.session_state[shown.key] = {"selection": {"rows": places, "columns": [], "cells": []}}
    return app.run()


# ---- the run table ---------------------------------------------------------------------------------------------

def test_archived_runs_are_hidden_until_asked_for(monkeypatch, store):
    app = opened(monkeypatch, store, "One")
    assert titles(app) == ["Two", "One"]
    assert "2 of 3 runs" in texts(app)
    app.toggle(key="overview_archived").set_value(True).run()
    assert titles(app) == ["Two", "One", "Three"]


@pytest.mark.parametrize(("params", "shown"), [
    ({"overview_text": "one"}, ["One"]),
    ({"overview_tag": "a"}, ["One"]),
    ({"overview_tag": "b"}, ["Two", "One"]),
    ({"overview_sort": "oldest", "overview_archived": "true"}, ["Three", "One", "Two"]),
    ({"overview_sort": "title"}, ["One", "Two"]),
    ({"overview_state": "finished"}, ["Two", "One"]),
    ({"overview_tag": "no such tag", "overview_sort": "no such order", "overview_state": "x"}, ["Two", "One"]),
])
def test_an_address_reopens_the_filters_and_the_order(monkeypatch, store, params, shown):
    assert titles(opened(monkeypatch, store, "One", **params)) == shown


def test_a_filter_redraws_the_table_and_is_bound_to_the_address(monkeypatch, store):
    app = opened(monkeypatch, store, "One")
    search = app.text_input(key="overview_text").set_value("two")
    app.run()
    assert titles(app) == ["Two"]
    assert search.proto.query_param_key == "overview_text"  # the browser writes it there


def test_filters_that_match_nothing_say_so_and_the_open_run_stays(monkeypatch, store):
    app = opened(monkeypatch, store, "One", overview_text="nothing like it")
    assert "No run matches these filters" in texts(app)
    assert app.header[0].value == "One"


def test_a_picked_row_is_opened_on_every_page(monkeypatch, store):
    app = pick(opened(monkeypatch, store, "One"), "Two")
    labelled(app.button, "Open").click().run()
    assert app.query_params["run"] == named(store, "Two").id
    assert app.header[0].value == "Two"


def test_nothing_is_picked_after_a_filter_has_changed_the_rows(monkeypatch, store):
    app = pick(opened(monkeypatch, store, "One"), "Two")
    assert not labelled(app.button, "Open").disabled
    app.text_input(key="overview_text").set_value("one").run()
    assert labelled(app.button, "Open").disabled


def test_the_bars_of_a_run_are_its_twelve_terms(monkeypatch, store):
    terms = run_table(opened(monkeypatch, store, "One")).value.set_index("title").loc["One", "terms"]
    assert list(terms) == frames.run_table([named(store, "One")])["terms"][0]


def test_three_hundred_runs_are_listed_filtered_and_compared(monkeypatch, tmp_path):
    first = example_run.finished(tmp_path, "Run 0")
    created = datetime.fromisoformat(first.info()["created"])
    for number in range(1, 300):
        run = Run(shutil.copytree(first.path, tmp_path / f"{first.id}-{number}"))
        write_json(run.path / "run.json",
                   read_json(run.path / "run.json") | {"created": (created - timedelta(hours=number)).isoformat()})
        run.write_meta(title=f"Run {number}", tags=[f"t{number % 7}"])
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert titles(app) == [f"Run {number}" for number in range(300)]
    app.multiselect(key="overview_tag").set_value(["t3"]).run()
    assert titles(app) == [f"Run {number}" for number in range(1, 300) if number % 7 == 3]
    labelled(app.button, "Latest 4").click().run()
    assert not app.exception
    assert app.multiselect(key="overview_compare").value == [f"{first.id}-{number}" for number in range(1, 5)]


# ---- title, tags, archive --------------------------------------------------------------------------------------

def test_renaming_tagging_and_archiving_are_kept_in_the_run_folder(monkeypatch, store):
    run = named(store, "One")
    app = opened(monkeypatch, store, "One")
    app.text_input(key=f"overview_title_{run.id}").set_value("  Better \n name ")
    app.multiselect(key=f"overview_tags_{run.id}").set_value(["b", " new "])
    app.toggle(key=f"overview_archive_{run.id}").set_value(True)
    labelled(app.button, "Save").click().run()
    assert run.meta() == {"title": "Better name", "tags": ["b", "new"], "archived": True}
    assert app.header[0].value == "Better name"
    assert titles(app) == ["Two"]
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file() and path.name != "meta.json"}


def test_a_title_with_markup_is_shown_as_text(monkeypatch, store):
    named(store, "One").write_meta(title="![x](http://example.org/p.png) <b>")
    app = open_page(monkeypatch, store.root, PAGE, named(store, "![x](http://example.org/p.png) <b>").id)
    assert not any("![" in element.value for element in [*app.markdown, *app.caption, *app.header, *app.subheader])


def test_a_folder_that_cannot_be_written_is_told(monkeypatch, store):
    def full(*args, **changes):
        raise OSError(28, "No space left on device")
    app = opened(monkeypatch, store, "One")
    monkeypatch.setattr(Run, "write_meta", full)
    labelled(app.button, "Save").click().run()
    assert not app.exception
    assert "No space left on device" in texts(app)


def test_read_only_hides_what_changes_the_store_and_refuses_it(monkeypatch, store):
    app = opened(monkeypatch, store, "One")
    monkeypatch.setenv("LETHE_READ_ONLY", "1")
    labelled(app.button, "Save").click().run()  # of a page that was open before
    assert named(store, "One")
    assert "LETHE_READ_ONLY" in texts(app)
    assert {button.label for button in app.button} & {"Save", "Import"} == set()
    assert titles(app) == ["Two", "One"]


# ---- import and export -----------------------------------------------------------------------------------------

def zip_bytes(run):
    target = io.BytesIO()
    archive.export_run(run, target, weights=False)
    return target.getvalue()


def import_upload(app, data, name="run.zip"):
    labelled(app.file_uploader, "Zip file of a run folder, as exported here").set_value((name, data, "application/zip"))
    return labelled(app.button, "Import").click().run()


def test_an_imported_zip_file_becomes_the_open_run(monkeypatch, store, tmp_path):
    other = example_run.finished(tmp_path / "other", "From elsewhere", seed=4)
    app = import_upload(opened(monkeypatch, store, "One"), zip_bytes(other))
    assert not app.exception
    assert app.header[0].value == "From elsewhere"
    assert app.query_params["run"] == other.id
    assert Store(store.root).open(other.id).scores() == other.scores()


def test_a_path_is_imported_too(monkeypatch, store, tmp_path):
    other = example_run.finished(tmp_path / "other", "From elsewhere", seed=4)
    app = opened(monkeypatch, store, "One")
    app.text_input(key="overview_import_path").set_value(f" {other.path} ")
    labelled(app.button, "Import").click().run()
    assert app.header[0].value == "From elsewhere"


@pytest.mark.parametrize(("name", "message"), [
    ("../evil.json", "a path that leaves the folder"), ("run/model.pkl", "got model.pkl"), ("run/a.txt", "no run.json"),
])
def test_a_hostile_zip_file_is_refused_in_words_and_nothing_is_written(monkeypatch, store, name, message):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened_zip:
        opened_zip.writestr(name, b"{}")
    before = sorted(store.root.iterdir())
    app = import_upload(opened(monkeypatch, store, "One"), target.getvalue())
    assert not app.exception
    assert message in texts(app)
    assert sorted(store.root.iterdir()) == before
    assert app.header[0].value == "One"


def test_importing_nothing_says_what_to_do(monkeypatch, store):
    app = opened(monkeypatch, store, "One")
    labelled(app.button, "Import").click().run()
    assert "Choose a zip file or give a path first" in texts(app)


def test_an_empty_store_can_be_filled_by_an_import(monkeypatch, tmp_path):
    other = example_run.finished(tmp_path / "other", "From elsewhere")
    app = open_page(monkeypatch, tmp_path / "runs", PAGE)
    assert "make demo" in texts(app)
    import_upload(app, zip_bytes(other))
    assert app.header[0].value == "From elsewhere"


def test_the_export_says_what_it_holds_and_packs_only_at_the_click(monkeypatch, store):
    run = named(store, "One")
    monkeypatch.setattr(archive, "export_run", None)  # opening the page must not call it
    app = opened(monkeypatch, store, "One")
    small = archive.export_size(run, weights=False) / 2**20
    labels = [button.proto.label for button in app.get("download_button")]
    assert f"Results and data: {small:,.1f} MiB before packing" in labels


def test_the_downloaded_file_can_be_imported(store, tmp_path):
    from pages import _overview_runs
    run = named(store, "One")
    copy = archive.import_run(tmp_path / "copy", io.BytesIO(_overview_runs._packed(run, weights=True)))
    assert copy.scores() == run.scores()


def test_a_run_too_large_for_a_browser_is_named_by_its_folder(monkeypatch, store):
    from pages import _overview_runs
    monkeypatch.setattr(_overview_runs, "MAX_DOWNLOAD", 10)
    app = opened(monkeypatch, store, "One")
    assert str(named(store, "One").path) in [code.value for code in app.code]


# ---- comparison ------------------------------------------------------------------------------------------------

def compared(monkeypatch, store, *others, **params):
    app = opened(monkeypatch, store, "One", overview_compare=[named(store, title).id for title in others], **params)
    assert not app.exception
    return app


def settings(app):
    return next(element.value for element in app.dataframe if "setting" in element.value)


def test_two_runs_show_only_the_settings_that_differ_until_all_are_asked_for(monkeypatch, store):
    app = compared(monkeypatch, store, "Two")
    shown = settings(app)
    assert list(shown["setting"]) == ["seed"]
    assert list(shown.iloc[0]) == ["seed", "0", "1"]
    app.toggle(key="overview_diff").set_value(False).run()
    assert len(settings(app)) > 60


def test_equal_runs_say_that_nothing_differs(monkeypatch, store):
    app = compared(monkeypatch, store, "Three")
    assert "recipes, data, code and versions of these runs are equal" in texts(app)


def test_the_scores_of_all_models_of_all_runs_stand_together(monkeypatch, store):
    app = compared(monkeypatch, store, "Two", "Three")
    scores = next(element.value for element in app.dataframe if {"number", "verdict"} <= set(element.value))
    assert list(scores.groupby("number").size()) == [5, 5, 5]
    for number, title in enumerate(("One", "Two", "Three"), start=1):
        own = scores[scores["number"] == number].set_index("model")["aggregate"]
        assert own.to_dict() == {model: found["aggregate"] for model, found in named(store, title).scores().items()}
    assert len(app.get("plotly_chart")) == 2


def test_picked_rows_are_compared(monkeypatch, store):
    app = pick(opened(monkeypatch, store, "One"), "Two")
    labelled(app.button, "Compare").click().run()
    assert app.query_params["run"] == named(store, "One").id
    assert app.multiselect(key="overview_compare").value == [named(store, "Two").id]
    assert list(settings(app)["setting"]) == ["seed"]


def test_an_address_with_unknown_runs_compares_the_others(monkeypatch, store):
    app = opened(monkeypatch, store, "One", overview_compare=["../../etc", named(store, "Two").id, "gone"])
    assert list(settings(app)["setting"]) == ["seed"]


def test_a_damaged_run_is_named_and_the_others_are_compared(monkeypatch, store):
    damaged = example_run.damaged(store.root)
    app = opened(monkeypatch, store, "One", overview_compare=[damaged.id, named(store, "Two").id])
    assert not app.exception
    assert any("scores.json" in element.value.replace("\\", "") for element in app.error)
    assert list(settings(app)["setting"]) == ["seed"]


def test_runs_without_scores_are_compared_by_their_settings(monkeypatch, tmp_path):
    ids = [example_run.create(tmp_path, seed=seed).id for seed in (0, 1)]
    app = open_page(monkeypatch, tmp_path, PAGE, ids[0], overview_compare=[ids[1]])
    assert list(settings(app)["setting"]) == ["seed"]
    assert "None of these runs has been scored yet" in texts(app)


def test_opening_a_run_that_is_compared_leaves_it_out_of_the_others(monkeypatch, store):
    app = compared(monkeypatch, store, "Two")
    app.sidebar.selectbox[0].select(named(store, "Two").id).run()
    assert not app.exception
    assert app.header[0].value == "Two"  # with no other run, it is shown by itself


def test_opening_a_picked_row_ends_the_comparison(monkeypatch, store):
    app = pick(compared(monkeypatch, store, "Two"), "Two")
    labelled(app.button, "Open").click().run()
    assert app.header[0].value == "Two"
    assert app.multiselect(key="overview_compare").value == []


# ---- the chosen run --------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("view", "title"), [
    ("Task Aggregate × attack", "Did the merge land on the 0.5 line, further right than its parents?"),
    ("Forgetting × retention", "Is the merge in the upper right corner, and its filling grey?"),
])
def test_either_view_of_the_trade_off_is_an_address(monkeypatch, store, view, title):
    app = opened(monkeypatch, store, "One", overview_tradeoff=view)
    assert title in [subheader.value for subheader in app.subheader]
    assert not app.exception


def test_a_run_that_is_written_to_while_it_is_read_is_shown(monkeypatch, tmp_path):
    run = example_run.unfinished(tmp_path)
    for model in ("base", "model_1"):
        with (run.model_dir(model) / "steps.jsonl").open("a") as file:
            file.write('{"step": 41, "lo')
    (run.path / ".scores.json.12.tmp").write_text("{")
    app = open_page(monkeypatch, tmp_path, PAGE, run.id)
    app.session_state["lineage_table"] = True  # unfolded
    app.run()
    assert not app.error
    stages = next(element.value for element in app.dataframe if "stage" in element.value).set_index("stage")["state"]
    assert (stages["model_1"], stages["merged"]) == ("started", "not yet")
