"""Live training: a log that grows, is torn, and is written anew; and charts whose specification stays the same."""

import json
import random

import pandas as pd
import pytest

from analysis import live, theme, training
from tests import example_run
from unlearn_core.errors import InputError
from unlearn_core.store import Run


def line(step, **values):
    return json.dumps({"step": step, **values}) + "\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


@pytest.fixture
def log(path):
    return live.StepLog(path)


def append(path, text):
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def steps(log):
    return [row["step"] for row in log.read()]


# ---- the log ---------------------------------------------------------------------------------------------------

def test_a_log_that_does_not_exist_yet_has_no_rows(path, log):
    assert log.read() == []
    append(path, line(1))
    assert steps(log) == [1]


def test_only_new_bytes_are_read(path, log, monkeypatch):
    append(path, "".join(line(step) for step in range(1, 1001)))
    assert len(log.read()) == 1000
    parsed = []
    monkeypatch.setattr(live.json, "loads", lambda text: parsed.append(text) or {"step": 1001})
    append(path, line(1001))
    assert steps(log)[-1] == 1001
    assert len(log.read()) == 1001
    assert parsed == [line(1001).strip()]


def test_an_unfinished_last_line_waits_for_its_end(path, log):
    text = line(2, loss=0.5, note="Zoë")
    append(path, line(1))
    for number in range(len(text) - 1):
        with path.open("a", encoding="utf-8") as file:
            file.write(text[number])
        assert steps(log) == [1]
    append(path, text[-1])
    assert log.read()[1] == {"step": 2, "loss": 0.5, "note": "Zoë"}


def test_any_way_of_cutting_the_bytes_gives_the_same_rows(path, tmp_path):
    chance, whole = random.Random(0), "".join(line(step, loss=1 / step) for step in range(1, 60)).encode()
    log, at = live.StepLog(path), 0
    while at < len(whole):
        size = chance.randint(1, 90)
        with path.open("ab") as file:
            file.write(whole[at: at + size])
        at += size
        log.read()
    assert log.read() == [json.loads(text) for text in whole.splitlines()]


def test_a_log_that_a_resumed_training_writes_anew_is_read_from_the_start(tmp_path):
    """As `Run.keep_steps` does it: the rows after the last checkpoint go, and come again with other numbers."""
    run = Run(tmp_path)
    for step in range(1, 11):
        run.append_step("model_1", {"step": step, "loss": 1.0})
    log = live.logs(run)["model_1"]
    assert steps(log) == list(range(1, 11))
    run.keep_steps("model_1", 4)
    assert steps(log) == [1, 2, 3, 4]
    for step in range(5, 30):  # longer than before by the next look
        run.append_step("model_1", {"step": step, "loss": 2.0})
    assert [row["loss"] for row in log.read()] == 4 * [1.0] + 25 * [2.0]


def test_a_file_that_becomes_shorter_in_its_place_is_read_from_the_start(path, log):
    append(path, line(1) + line(2) + line(3))
    assert steps(log) == [1, 2, 3]
    path.write_text(line(1, loss=9.0))
    assert log.read() == [{"step": 1, "loss": 9.0}]


def test_a_file_that_grows_but_whose_steps_go_back_is_read_from_the_start(path, log):
    append(path, line(1) + line(2) + line(3))
    log.read()
    path.write_text(line(1, new=1) + line(2, new=1) + line(3, new=1) + line(2, new=1)[:-1] + "\n")
    with path.open("r+") as file:  # the same file: as many bytes in front, then a step that was there before
        file.write(line(1) + line(2) + line(3) + line(2))
        file.truncate()
    assert steps(log) == [1, 2, 3, 2]


def test_a_log_that_vanishes_has_no_rows_and_comes_again(path, log):
    append(path, line(1) + line(2))
    log.read()
    path.unlink()
    assert log.read() == []
    append(path, line(1))
    assert steps(log) == [1]


@pytest.mark.parametrize("damage", ["{\n", "[1]\n", '{"loss": 1}\n', '{"step": null}\n', "\x00\n"])
def test_a_damaged_line_is_named_each_time_and_the_rows_before_it_stay(path, log, damage):
    append(path, line(1))
    log.read()
    append(path, damage + line(3))
    for _ in range(2):
        with pytest.raises(InputError, match=r"log\.jsonl, line 2; got a broken line"):
            log.read()
    assert [row["step"] for row in log.rows] == [1]


def test_a_folder_in_place_of_the_log_is_an_error_not_a_crash(path, log):
    path.mkdir()
    with pytest.raises(InputError, match=r"log\.jsonl"):
        log.read()


def test_the_readers_of_a_run_read_what_the_run_reads(smoke_run):
    for model, log in live.logs(smoke_run).items():
        assert log.read() == smoke_run.steps(model)
        assert len(log.rows) > 3


# ---- tables ----------------------------------------------------------------------------------------------------

def test_a_table_has_a_row_per_step_and_what_a_model_does_not_log_is_missing():
    table = live.table({"base": [{"step": 1, "loss": 3.0}], "model_1": [{"step": 1, "loss": 2.0, "npo": 0.0}]})
    assert table[["model", "step", "loss"]].values.tolist() == [["base", 1, 3.0], ["model_1", 1, 2.0]]
    assert table["npo"].isna().tolist() == [True, False]
    assert live.table({"base": []}).empty


def test_a_panel_is_thinned_and_keeps_its_extremes():
    chance = random.Random(1)
    rows = [{"step": step, "loss": chance.random()} for step in range(1, 9001)]
    rows[4321]["loss"], rows[7777]["loss"] = 50.0, -50.0
    points = live.panel(live.table({"model_1": rows}), "loss", ("model_1", "model_2"))
    assert len(points) <= training.MAX_POINTS
    assert {4322, 7778, 1, 9000} <= set(points["Step"])
    assert set(points["Model"]) == {"Model 1"}


def test_what_was_not_logged_has_no_points():
    table = live.table({"base": [{"step": 1, "loss": 3.0}]})
    assert live.panel(table, "npo", ("model_1", "model_2")).empty


# ---- charts ----------------------------------------------------------------------------------------------------

def spec(points):
    found = live.chart(points, ("model_1", "model_2"), "Loss").to_dict()
    found.pop("datasets")
    found.pop("data")
    return found


def test_the_specification_of_a_chart_does_not_depend_on_its_points():
    few = pd.DataFrame({"Step": [1.0], "Value": [0.5], "Model": ["Model 1"]})
    more = pd.DataFrame({"Step": [1.0, 2e6], "Value": [-3.0, 1e9], "Model": ["Model 1", "Model 2"]})
    assert spec(few) == spec(more)


def test_a_model_looks_the_same_as_on_every_other_chart():
    found = spec(pd.DataFrame({"Step": [1.0], "Value": [0.5], "Model": ["Model 2"]}))["encoding"]
    at = found["color"]["scale"]["domain"].index("Model 2")
    assert found["color"]["scale"]["range"][at] == theme.style("model_2").color
    assert found["strokeDash"]["scale"]["range"][at] == live.DASHES[theme.style("model_2").dash] != [1, 0]
    assert found["color"]["legend"]["values"] == ["Model 1", "Model 2"]


def test_a_chart_can_be_zoomed_without_catching_the_wheel_of_whoever_scrolls():
    zoom, = spec(pd.DataFrame({"Step": [1.0], "Value": [0.5], "Model": ["Model 2"]}))["params"]
    assert (zoom["name"], zoom["bind"], zoom["select"]["zoom"]) == (live.SELECTION, "scales", live.ZOOM)
    assert "ctrlKey" in live.ZOOM


def test_every_panel_of_an_example_run_has_points(tmp_path):
    run = example_run.finished(tmp_path)
    table = live.table({model: log.read() for model, log in live.logs(run).items()})
    for column, models in live.LOSSES | live.MACHINE:
        assert set(live.panel(table, column, models)["Model"]) == {theme.short_label(model) for model in models}
