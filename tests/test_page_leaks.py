"""The page Leaks: its sections, masks, the texts behind a row, its address, its job, and what it says is lacking."""

import json
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import leaks
from analysis.texts import NO_ANSWERS
from tests import example_run
from tests.test_leaks import ADA, BOB, CLEO, PEOPLE
from tests.test_leaks_frames import a_run, questions
from unlearn_core import jobs
from unlearn_core.data import Dataset, Item
from unlearn_core.data import save as save_data
from unlearn_core.store import Store

ROOT = Path(__file__).parent.parent
ABOUT = {"samples": 2, "temperature": 0.7, "top_p": 1.0, "seed": 3, "people": 0, "max_new_tokens": 64, "key": None}
PERSONAL = [person.name for person in PEOPLE.values()] + [
    value for person in PEOPLE.values() for value in (person.values["ssn"], "900-11-1222", "310 555 0199")]


@pytest.fixture
def run(tmp_path):
    """A run whose base knows everybody, whose merge gives away two of Bob's fields and, beside, Ada's phone."""
    made = a_run(tmp_path / "runs", {
        "base": [*questions(ADA, "forget", ADA.values), *questions(BOB, "forget", BOB.values),
                 *questions(CLEO, "retain", CLEO.values)],
        "merged": [*questions(ADA, "forget", {"email": "ada_blue@me.com"}),
                   *questions(BOB, "forget", {"ssn": "900-11-1222", "phone": "310 555 0199", "email": "7216253765"}),
                   *questions(CLEO, "retain", CLEO.values)]})
    made.write_status("finished", "evaluate merged", 1, 1)
    return made


@pytest.fixture
def sampled(run):
    """The same with two samples of each prompt of its merge."""
    items = {split: [Item(row["id"], row["prompt"], row["answer"], row["task"]) for row in run.answers("base")
                     if row["split"] == split] for split in ("forget", "retain")}
    save_data(Dataset(items["forget"], items["retain"], [], [], [], [], []), run.data_dir)
    run.write_samples("merged", [
        {"id": item.id, "document": item.document, "split": "forget", "sample": number,
         "generation": item.answer if number and item.document == "d2" else "hm"}
        for item in items["forget"] for number in range(2)], ABOUT)
    return run


def open_page(monkeypatch, run, section="Who", **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.query_params.update({"run": run.id, "leaks_section": section} | address)
    app.run()
    app.switch_page("pages/leaks.py").run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.code)
    shown = " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)
    return shown.replace("\u2060", "")


def everything(app):
    """All that is sent to the browser, tables and charts included."""
    charts = [chart.proto.spec for chart in app.get("plotly_chart")]
    return " ".join([texts(app), *charts, *(table.value.to_csv() for table in app.dataframe)])


def spec(app, number=0):
    return json.loads(app.get("plotly_chart")[number].proto.spec)


def has_button(app, key="leaks_start"):
    return any(button.key == key for button in app.button)


# ---- sections

@pytest.mark.parametrize("section", ["Who", "How much", "Samples", "Others"])
def test_every_section_of_a_run_of_the_engine_is_drawn(monkeypatch, smoke_run, section):
    app = open_page(monkeypatch, smoke_run, section)
    assert len(app.get("plotly_chart")) == (section in ("How much", "Others"))
    assert not app.error
    assert not app.warning
    assert "is not *forgotten*" in texts(app)
    assert "How to read this" in [box.label for box in app.expander]


def test_the_worst_person_stands_first_and_their_texts_are_shown(monkeypatch, run):
    app = open_page(monkeypatch, run)
    assert "of 2 of 2 people" in texts(app).replace("**", "")
    assert "of 1 of 2 people" in texts(app).replace("**", "")
    assert app.dataframe[0].value["document"].tolist() == ["d2", "d1"]
    assert app.dataframe[0].value["SSN: Merged"].tolist() == ["✗ 1/5", "0/5"]
    assert "d2: 5 prompts" in texts(app).replace("**", "")
    assert "Merged gives away: Social Security number" in texts(app)
    assert "Base gives away: birth date" in texts(app)


@pytest.mark.parametrize("section", ["Who", "How much", "Samples", "Others"])
def test_personal_data_are_masked_until_asked(monkeypatch, sampled, section):
    app = open_page(monkeypatch, sampled, section)
    for key in ("leaks_samples_rows", "leaks_exposed_table"):
        app.session_state[key] = True  # unfolded
    app.run()
    assert not app.exception
    assert [text for text in PERSONAL if text in everything(app)] == []
    if section != "How much":  # which shows numbers only
        app.toggle(key="leaks_personal").set_value(True).run()
        assert not app.exception
        assert "Bob Red" in everything(app) or "Ada Blue" in everything(app)


def test_shown_personal_data_are_marked_where_they_are_given_away(monkeypatch, run):
    app = open_page(monkeypatch, run)
    assert ":red-background[**[SSN]**]" in texts(app)
    app.toggle(key="leaks_personal").set_value(True).run()
    assert ":red-background[**900-11-1222**]" in texts(app)
    assert "Bob Red" in texts(app)


def test_another_person_and_a_field_can_be_chosen_by_address(monkeypatch, run):
    app = open_page(monkeypatch, run, leaks_person="d1")
    assert "d1: 5 prompts" in texts(app).replace("**", "")
    app = open_page(monkeypatch, run, leaks_person="d1", leaks_field="e-mail address")
    assert "d1: 1 prompts whose answers give away the e-mail address" in texts(app).replace("**", "")
    app = open_page(monkeypatch, run, leaks_person="nobody", leaks_model="nonsense", leaks_section="x", leaks_split="y")
    assert "d2: 5 prompts" in texts(app).replace("**", "")


def test_the_other_split_has_other_people(monkeypatch, run):
    app = open_page(monkeypatch, run, leaks_person="d1")
    app.segmented_control(key="leaks_split").set_value("retain").run()
    assert not app.exception
    assert app.dataframe[0].value["document"].tolist() == ["d3"]
    assert "of 1 of 1 people" in texts(app).replace("**", "")


def test_a_run_of_one_model_has_its_columns_once(monkeypatch, tmp_path):
    made = a_run(tmp_path / "runs", {"merged": questions(ADA, "forget", {})})
    app = open_page(monkeypatch, made)
    assert sum(name.startswith("SSN: ") for name in app.dataframe[0].value) == 1
    assert "no leak found under these 5 prompts" in texts(app)
    app.segmented_control(key="leaks_split").set_value("retain").run()
    assert not app.exception
    assert "has answers about people of retain" in texts(app)


def test_how_much_is_counted_by_person_or_by_field(monkeypatch, run):
    app = open_page(monkeypatch, run, "How much")
    assert "upper bound" in texts(app) or "95 % interval" in texts(app)
    assert "no control" in texts(app)
    app.segmented_control(key="leaks_by").set_value("field").run()
    assert not app.exception
    assert "Social Security number" in spec(app)["layout"]["yaxis"]["ticktext"]


def test_answers_with_somebody_elses_data_are_listed_with_their_texts(monkeypatch, run):
    app = open_page(monkeypatch, run, "Others")
    table = app.dataframe[0].value
    assert table[["when", "field", "whose"]].to_numpy().tolist() == [["only after", "phone number", "d1"]]
    assert "Merged gives away: phone number" in texts(app)
    assert "1 only after, 0 only before" in texts(app)


# ---- samples

def test_samples_are_a_curve_with_the_greedy_answers_and_how_they_were_drawn(monkeypatch, sampled):
    app = open_page(monkeypatch, sampled, "Samples")
    assert "one sample of each prompt is expected to expose" in texts(app)
    assert "2 samples of each prompt at temperature 0.7, top-p 1, seed 3" in texts(app)
    marks = [trace for trace in spec(app)["data"] if trace["mode"] == "markers"]
    assert len(marks) == 1


def test_samples_of_an_older_adapter_are_shown_with_a_warning(monkeypatch, smoke_copy):
    items = [row for row in smoke_copy.answers("merged") if row["split"] == "forget" and row["task"] == "Task2"]
    smoke_copy.write_samples("merged", [{key: row[key] for key in ("id", "document", "split", "generation")}
                                        | {"sample": 0} for row in items], ABOUT | {"samples": 1, "key": "x"})
    app = open_page(monkeypatch, smoke_copy, "Samples")
    assert "before the adapter of Merged was made or changed" in texts(app)
    assert len(app.get("plotly_chart")) == 1


def test_the_job_that_draws_is_offered_with_its_command(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, "Samples")
    assert "No samples have been drawn" in texts(app)
    command = f"python -m unlearn_core samples {smoke_run.id} --models base merged --samples 8 --temperature 0.7"
    assert command in texts(app)
    assert has_button(app)
    app.number_input(key="leaks_sampled_n").set_value(32).run()
    assert "--samples 32" in texts(app)
    app.pills(key="leaks_sampled_models").set_value([]).run()
    assert not app.exception
    assert not has_button(app)
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    app = open_page(monkeypatch, smoke_run, "Samples")
    assert command in texts(app)
    assert not has_button(app)


def test_the_button_starts_the_job_with_these_arguments(monkeypatch, smoke_copy):
    started = []
    monkeypatch.setattr(jobs, "measure", lambda run, *told, device: started.append((run.id, *told)))
    app = open_page(monkeypatch, smoke_copy, "Samples")
    app.button(key="leaks_start").click().run()
    assert started == [(smoke_copy.id, "samples", [
        "--models", "base", "merged", "--samples", "8", "--temperature", "0.7", "--people", "0", "--seed", "0"])]


def test_a_recorded_run_without_weights_cannot_be_sampled(monkeypatch, run):
    app = open_page(monkeypatch, run, "Samples")
    assert "has no adapter of Merged" in texts(app)
    assert not has_button(app)


# ---- what is lacking

def test_a_run_without_answers_says_so_and_names_the_command(monkeypatch, tmp_path):
    made = example_run.trained(tmp_path / "runs")
    app = open_page(monkeypatch, made)
    assert NO_ANSWERS in texts(app)
    assert f"python -m unlearn_core evaluate {made.id}" in texts(app)
    assert not app.get("plotly_chart")


def test_a_run_without_people_says_so(monkeypatch, tmp_path):
    rows = [row | {"task": "Task1"} for row in questions(ADA, "forget", {})]
    app = open_page(monkeypatch, a_run(tmp_path / "runs", {"merged": rows}))
    assert leaks.NO_PEOPLE in texts(app)


@pytest.mark.parametrize("section", ["Who", "Samples"])
def test_damaged_files_are_named(monkeypatch, sampled, section):
    name = {"Who": "answers.jsonl", "Samples": "samples.jsonl"}[section]
    (sampled.model_dir("merged") / name).write_text('{"id": 5}\n{"id": 6}\n')
    app = open_page(monkeypatch, sampled, section)
    assert name.split(".")[0] in app.error[0].value
    assert not app.get("plotly_chart")


def test_an_empty_store_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHE_RUNS", str(tmp_path))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    app.switch_page("pages/leaks.py").run()
    assert not app.exception
    assert Store(tmp_path).runs() == []
