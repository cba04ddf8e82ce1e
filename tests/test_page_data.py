"""The data page: every source, personal data hidden until asked, uploads with all their problems, forget requests."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis import data_frames
from pages import _data_records, _widgets
from tests import example_run
from unlearn_core.data import persons, request, world
from unlearn_core.data.readers import read_items, write_items
from unlearn_core.settings import World
from unlearn_core.store import Store

ROOT = Path(__file__).parent.parent
SIDES = world.generate(World(stories=3, people=4, biographies=3), 2)
PEOPLE = persons.persons(SIDES.forget + SIDES.retain)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lume").mkdir()
    write_items(tmp_path / "lume" / "forget.jsonl", SIDES.forget)
    write_items(tmp_path / "lume" / "retain.jsonl", SIDES.retain)
    return tmp_path / "lume"


def open_page(monkeypatch, root, **params):
    monkeypatch.setenv("LETHE_RUNS", str(root))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params.update(params)
    app.run()
    app.switch_page("pages/data.py").run()
    assert not app.exception
    return app


def on_folder(monkeypatch, root, folder, view="counts"):
    """The page of a folder, without any run."""
    app = open_page(monkeypatch, root)
    app.segmented_control(key="data_source").set_value("folder").run()
    app.text_input(key="data_path").set_value(str(folder)).run()
    return show(app, view)


def show(app, view):
    app.segmented_control(key="data_view").set_value(view).run()
    assert not app.exception
    return app


def unescaped(text):
    """What a reader sees: escaped signs are signs, and what breaks a link has no width."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text).replace(_widgets.WORD_JOINER, "")


def texts(app):
    """Everything that a reader sees as text, tables included."""
    kinds = (app.warning, app.error, app.info, app.success, app.caption, app.markdown, app.code, app.subheader)
    shown = [unescaped(element.value) for kind in kinds for element in kind]
    options = [str(option) for kind in (app.selectbox, app.multiselect) for widget in kind for option in widget.options]
    return "\n".join([*shown, *options, *(table.value.to_csv() for table in app.dataframe)])


def jsonl(items):
    return "".join(json.dumps({"id": i.id, "input": i.prompt, "output": i.answer, "task": i.task}) + "\n"
                   for i in items).encode()


def upload(app, **files):
    for split, (name, content) in files.items():
        app.file_uploader(key=f"data_upload_{split}").upload(name, content)
    app.run()
    assert not app.exception
    return app


def uploading(monkeypatch, root, **files):
    app = open_page(monkeypatch, root)
    app.segmented_control(key="data_source").set_value("upload").run()
    return upload(app, **files)


# ---- sources -------------------------------------------------------------------------------------------------

def test_an_empty_store_says_how_to_make_a_run_and_offers_the_other_sources(monkeypatch, tmp_path, folder):
    app = open_page(monkeypatch, tmp_path / "runs")
    assert [code.value for code in app.code] == ["make demo", "python -m unlearn_core run demo"]
    app.segmented_control(key="data_source").set_value("made").run()
    assert "No data set was made here yet" in texts(app)
    app.segmented_control(key="data_source").set_value("upload").run()
    assert len(app.file_uploader) == 2
    app = on_folder(monkeypatch, tmp_path / "runs", folder)
    assert f"forget {len(SIDES.forget)}, retain {len(SIDES.retain)} items, every row readable" in texts(app)
    assert len(app.get("plotly_chart")) == 2
    assert "estimated" in texts(app)  # no run, no tokenizer


@pytest.mark.parametrize("view", ["counts", "duplicates", "records", "request", "subset"])
@pytest.mark.parametrize("made", ["smoke_run", "recorded_run"])
def test_every_view_of_a_run_opens(monkeypatch, request, made, view):
    run = request.getfixturevalue(made)
    app = show(open_page(monkeypatch, run.path.parent, run=run.id), view)
    assert not app.error
    assert not app.warning


@pytest.mark.parametrize("view", ["counts", "duplicates", "records", "request", "subset"])
def test_every_view_of_a_folder_opens_without_a_run(monkeypatch, tmp_path, folder, view):
    app = on_folder(monkeypatch, tmp_path / "runs", folder, view)
    assert not app.error


def test_tokens_are_counted_with_the_runs_tokenizer_and_estimated_without(monkeypatch, smoke_run, recorded_run):
    assert "counted with the tokenizer" in texts(open_page(monkeypatch, smoke_run.path.parent, run=smoke_run.id))
    assert "estimated" in texts(open_page(monkeypatch, recorded_run.path.parent, run=recorded_run.id))


def test_a_run_without_data_yet_says_so_and_a_torn_file_is_named(monkeypatch, tmp_path, smoke_copy):
    run = example_run.create(tmp_path / "new")
    assert "no data yet" in texts(open_page(monkeypatch, tmp_path / "new", run=run.id))
    path = smoke_copy.data_dir / "forget.jsonl"
    path.write_bytes(path.read_bytes()[:500])
    app = open_page(monkeypatch, smoke_copy.path.parent, run=smoke_copy.id)
    assert "forget.jsonl, line" in unescaped(app.error[0].value)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "x" * 3000, "[click](http://evil.example) **bold**"])
def test_a_path_that_is_no_data_is_one_clear_line(monkeypatch, tmp_path, path):
    app = on_folder_path(monkeypatch, tmp_path, path)
    assert len(app.error) == 1
    assert "expected" in app.error[0].value
    assert "](http" not in app.error[0].value


def on_folder_path(monkeypatch, tmp_path, path):
    app = open_page(monkeypatch, tmp_path)
    app.segmented_control(key="data_source").set_value("folder").run()
    app.text_input(key="data_path").set_value(path).run()
    assert not app.exception
    return app


def test_a_folder_with_bad_rows_shows_them_and_goes_on_with_the_good_ones(monkeypatch, tmp_path, folder):
    with (folder / "retain.jsonl").open("a") as file:
        file.write('{"id": "torn')
    app = on_folder(monkeypatch, tmp_path / "runs", folder)
    assert "1 problem in" in app.error[0].value
    assert app.dataframe[0].value["row"].tolist() == [len(SIDES.retain) + 1]
    assert len(app.get("plotly_chart")) == 2
    assert "without errors" in texts(show(app, "request"))


def test_a_read_only_dashboard_reads_no_folders_and_saves_nothing(monkeypatch, tmp_path, smoke_run):
    monkeypatch.setenv("LETHE_READ_ONLY", "1")
    app = open_page(monkeypatch, smoke_run.path.parent, run=smoke_run.id)
    assert app.segmented_control(key="data_source").options == ["Chosen run", "Made here", "Upload"]
    show(app, "request").pills(key="data_request_tasks").set_value(["Task1"]).run()
    assert "stay in forget" in texts(app)
    assert not [button for button in app.button if "Save" in button.label]


# ---- personal data -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("view", ["counts", "duplicates", "records", "request", "subset"])
def test_no_view_shows_a_persons_name_or_value_before_it_is_asked(monkeypatch, tmp_path, folder, view):
    app = on_folder(monkeypatch, tmp_path / "runs", folder, view)
    if view == "request":
        app.pills(key="data_fields").set_value(["ssn", "email"]).run()
    if view == "duplicates":
        app.slider(key="data_threshold").set_value(0.2).run()
    shown = texts(app)
    for person in PEOPLE.values():
        assert person.name not in shown
        for key, value in person.values.items():
            assert not persons.occurrences(shown, key, value)


@pytest.mark.parametrize("view", ["duplicates", "records", "request"])
def test_the_switch_shows_them_and_is_not_in_the_address(monkeypatch, tmp_path, folder, view):
    app = on_folder(monkeypatch, tmp_path / "runs", folder, view)
    app.toggle(key="data_personal").set_value(True).run()
    if view == "duplicates":
        app.slider(key="data_threshold").set_value(0.2).run()
    assert any(person.name in texts(app) for person in PEOPLE.values())
    assert "data_personal" not in app.query_params


def test_the_tokens_of_a_person_wait_for_the_switch(monkeypatch, smoke_run):
    app = show(open_page(monkeypatch, smoke_run.path.parent, run=smoke_run.id), "records")
    app.pills(key="data_task").set_value("Task2").run()
    assert "tokens spell personal data" in texts(app)
    assert ":blue-background" not in app.markdown[-1].value
    app.toggle(key="data_personal").set_value(True).run()
    assert any(":blue-background[**" in markdown.value for markdown in app.markdown)
    assert not app.exception


# ---- records -------------------------------------------------------------------------------------------------

def test_records_are_filtered_and_searched(monkeypatch, tmp_path, folder):
    app = on_folder(monkeypatch, tmp_path / "runs", folder, "records")
    app.pills(key="data_split").set_value("retain")
    app.pills(key="data_kind").set_value("qa").run()
    table = app.dataframe[0].value
    assert set(table["split"]) == {"retain"}
    assert set(table["kind"]) == {"qa"}
    app.text_input(key="data_search").set_value("no such words").run()
    assert "0 records" in texts(app)


def test_an_address_opens_the_exact_view(monkeypatch, tmp_path, folder):
    app = open_page(monkeypatch, tmp_path / "runs", data_source="Folder", data_path=str(folder), data_view="Records",
                    data_split="retain", data_kind="question", data_task="Task2", data_search="birth")
    table = app.dataframe[0].value
    assert len(table) == 4  # one question of each of the four people
    assert set(table["split"]) == {"retain"}


def test_a_record_of_a_run_leads_to_its_generations(monkeypatch, smoke_run):
    app = show(open_page(monkeypatch, smoke_run.path.parent, run=smoke_run.id), "records")
    link = app.get("page_link")[0].proto
    assert link.page.endswith("generations")
    assert app.selectbox(key="data_item").value.split("sc")[0].strip('"') in link.query_string
    assert smoke_run.id in link.query_string


def test_tokens_are_marked_without_colour_too_and_stay_text():
    looks = list(_data_records.LOOKS.values())
    plain = [re.sub(r":[a-z]+(-background)?", "", look) for look in looks]
    assert plain[1] not in (plain[0], plain[2])  # prompt, cut and answer differ in more than colour
    tokens = pd.DataFrame({"token": [" **x**", "\n", "](http://a)"], "part": [data_frames.PROMPT] * 3})
    shown = _data_records.token_row(tokens)
    assert unescaped(shown) == ":gray-background[·**x**] :gray-background[⏎] :gray-background[](http://a)]"
    assert r"\]\(http" in shown
    assert "://" not in shown.replace("\\", "")  # nor does Markdown make a link of it by itself


def test_long_cuts_are_shortened():
    tokens = pd.DataFrame({"token": ["w"] * 1000, "part": [data_frames.CUT_PROMPT] * 1000})
    shown = _data_records.token_row(tokens)
    assert "800 more" in shown
    assert shown.count("~~w~~") == _data_records.MOST_CUT


# ---- uploads -------------------------------------------------------------------------------------------------

def test_an_upload_lists_every_problem_by_row(monkeypatch, tmp_path):
    good = json.dumps({"id": "1sc1", "input": "a", "output": "b", "task": "Task1"})
    bad = "\n".join([good, '{"id": "2"}', good, "[]", '{"torn'])
    app = uploading(monkeypatch, tmp_path, forget=("mine.jsonl", bad.encode()))
    table = app.dataframe[0].value
    assert set(table["file"]) == {"mine.jsonl"}
    # row 2: no input, output and task, and an id without sc or qa; row 3 repeats an id
    assert table["row"].tolist() == [2, 2, 2, 2, 3, 4, 5]
    assert "7 problems" in app.error[0].value
    assert not [button for button in app.button if "Save" in button.label]


@pytest.mark.parametrize(("name", "content"), [
    ("x.csv", b"id,prompt,output,task\n1sc1,a,b,Task1\n"), ("x.csv", b"\xff\xfe\x00"), ("x.jsonl", b""),
    ("x.parquet", b"PAR1 torn"), ("x.json", b'{"id": 5}'), ("a\nb.jsonl", b"{}")])
def test_a_wrong_column_and_a_torn_file_are_problems_and_no_traceback(monkeypatch, tmp_path, name, content):
    app = uploading(monkeypatch, tmp_path, forget=(name, content))
    assert "problem" in app.error[0].value
    assert len(app.dataframe[0].value) >= 1


def test_very_many_problems_are_counted_and_the_first_are_listed(monkeypatch, tmp_path):
    app = uploading(monkeypatch, tmp_path, forget=("x.jsonl", b"{\n" * 5000))
    assert "5000 problems" in app.error[0].value
    assert len(app.dataframe[0].value) == 1000
    assert "4000 more problems are in the CSV" in texts(app)


def test_a_good_upload_is_saved_under_a_name_and_never_over_another(monkeypatch, tmp_path):
    app = uploading(monkeypatch, tmp_path, forget=("f.jsonl", jsonl(SIDES.forget)),
                    retain=("r.csv", csv_of(SIDES.retain)))
    assert not app.error
    assert not Store(tmp_path).datasets()
    save_as(app, "upload", "mine")
    assert read_items(Store(tmp_path).dataset_dir("mine") / "forget.jsonl") == SIDES.forget
    assert read_items(Store(tmp_path).dataset_dir("mine") / "retain.jsonl") == SIDES.retain
    assert f"data.path={Store(tmp_path).dataset_dir('mine')}" in texts(app)
    for name, said in (("mine", "expected a new name"), ("../x", "name of a data set"), ("", "name of a data set")):
        save_as(app, "upload", name)
        assert said in texts(app)
    assert Store(tmp_path).datasets() == ["mine"]
    app.segmented_control(key="data_source").set_value("made").run()
    assert "source: upload" in texts(app)
    assert f"forget {len(SIDES.forget)}" in texts(app)


def csv_of(items):
    rows = [{"id": i.id, "input": i.prompt, "output": i.answer, "task": i.task} for i in items]
    return pd.DataFrame(rows).to_csv(index=False).encode()


def save_as(app, form, name):
    app.text_input(key=f"data_{form}_name").set_value(name)
    next(button for button in app.button if "Save" in button.label).click().run()
    assert not app.exception


def test_an_upload_outlives_a_visit_to_another_page(monkeypatch, tmp_path):
    app = uploading(monkeypatch, tmp_path, forget=("f.jsonl", jsonl(SIDES.forget)))
    app.switch_page("pages/overview.py").run()
    app.switch_page("pages/data.py").run()
    assert not app.exception
    assert "In use: f.jsonl" in texts(app)
    assert f"forget {len(SIDES.forget)}" in texts(app)


# ---- forget request and subset ---------------------------------------------------------------------------------

def test_a_request_by_field_is_explained_saved_and_shown_as_a_command(monkeypatch, tmp_path, folder):
    root = tmp_path / "runs"
    app = on_folder(monkeypatch, root, folder, "request")
    app.pills(key="data_fields").set_value(["ssn"]).run()
    told = texts(app)
    assert "4 questions ask for the Social Security number." in told
    assert "4 texts stay in forget because they hold the Social Security number" in told
    assert "they hold other fields as well" in told
    app.text_input(key="data_request_by").set_value("Ada [x](y)")
    save_as(app, "request", "numbers")
    made = Store(root).dataset_dir("numbers")
    assert request.origin(made)["asked_by"] == "Ada [x](y)"
    assert request.origin(made)["fields"] == ["ssn"]
    assert len(read_items(made / "forget.jsonl")) == 8
    assert len(read_items(made / "retain.jsonl")) == len(SIDES.retain) + len(SIDES.forget) - 8
    assert any("data.allow_overlap=true" in code.value for code in app.code)


def test_requests_by_document_task_and_person_are_previewed(monkeypatch, tmp_path, folder):
    app = on_folder(monkeypatch, tmp_path / "runs", folder, "request")
    app.multiselect(key="data_documents").set_value([SIDES.forget[0].document]).run()
    assert "2 items stay in forget" in texts(app)
    app.multiselect(key="data_documents").set_value([])
    app.multiselect(key="data_persons").set_value([next(iter(persons.persons(SIDES.forget)))]).run()
    assert "6 items stay in forget" in texts(app)
    app.multiselect(key="data_persons").set_value([])
    app.pills(key="data_request_tasks").set_value(["Task1", "Task3"]).run()
    assert "12 items stay in forget" in texts(app)
    assert not app.exception


def test_a_chosen_person_stays_chosen_when_names_appear(monkeypatch, tmp_path, folder):
    app = on_folder(monkeypatch, tmp_path / "runs", folder, "request")
    somebody = next(iter(persons.persons(SIDES.forget)))
    app.multiselect(key="data_persons").set_value([somebody]).run()
    app.toggle(key="data_personal").set_value(True).run()
    assert app.multiselect(key="data_persons").value == [somebody]
    assert "6 items stay in forget" in texts(app)


def test_a_subset_is_previewed_with_its_settings(monkeypatch, tmp_path, folder):
    app = on_folder(monkeypatch, tmp_path / "runs", folder, "subset")
    app.number_input(key="data_per_task").set_value(2)
    app.number_input(key="data_subset_seed").set_value(5)
    app.session_state["data_subset_table"] = True  # unfolded
    app.run()
    assert "--set data.documents_per_task=2 --set data.subset_seed=5" in [code.value for code in app.code]
    table = app.dataframe[0].value
    assert (table["documents_kept"] == 2).all()


def test_the_page_loads_no_torch(tmp_path, folder):
    code = f"""
import os, sys
os.environ["LETHE_RUNS"] = {str(tmp_path / "runs")!r}
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("app.py", default_timeout=60).run()
app.switch_page("pages/data.py").run()
app.segmented_control(key="data_source").set_value("folder").run()
app.text_input(key="data_path").set_value({str(folder)!r}).run()
app.segmented_control(key="data_view").set_value("records").run()
assert len(app.dataframe) == 1
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_names_and_ids_that_are_not_ours_stay_text(monkeypatch, tmp_path):
    evil = "![x](http://evil.example/a.png)"
    rows = [{"id": f"{evil}sc1", "input": evil, "output": f":red[{evil}]", "task": "Task1"}]
    content = "\n".join(map(json.dumps, rows)).encode()
    app = uploading(monkeypatch, tmp_path, forget=(f"{evil}.jsonl", content), retain=("r.jsonl", content))
    for view in ("counts", "duplicates", "records", "request", "subset"):
        show(app, view)
        rendered = [element.value for kind in (app.markdown, app.caption, app.error, app.warning, app.info, app.success)
                    for element in kind]
        assert not [text for text in rendered if "](http" in text]
