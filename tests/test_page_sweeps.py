"""The page Sweeps: without any, planned, under way, with failures, finished; the model and the address."""

import pytest

from tests import example_sweep
from tests.test_pages import open_page, texts, unescaped
from unlearn_core.files import write_json
from unlearn_core.store import Store
from unlearn_core.sweep import sweeps

PAGE = "pages/sweeps.py"
FIRST, SECOND = "merge.density=0.4", "merge.density=0.8"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


def finished(root, sweep, model="merged"):
    for number in range(len(sweep.configurations)):
        for seed in sweep.seeds:
            value = 0.5 + number / 10 + seed / 100 * (number + 1)
            example_sweep.finished(root, sweep, number, seed, {
                "base": {"task_aggregate": 0.0}, model: {"task_aggregate": value}})


def table(app, *columns):
    return next(found.value for found in app.dataframe if {*columns} <= set(found.value.columns))


def test_without_a_sweep_the_page_says_how_to_start_one(monkeypatch, root):
    app = open_page(monkeypatch, root, PAGE)
    assert "A sweep runs one recipe over values of its settings and over seeds" in texts(app)
    assert app.code[0].value == "python -m unlearn_core sweep demo --set merge.density=0.4,0.8 --seeds 0-4"
    assert "--variant NPO-alone unlearn.gdr_weight=0 unlearn.klr_weight=0" in app.code[1].value


def test_a_sweep_that_is_only_planned_shows_its_runs_and_the_command(monkeypatch, root):
    example_sweep.planned(root)
    app = open_page(monkeypatch, root, PAGE)
    assert "No run of this sweep has finished yet" in texts(app)
    assert app.code[0].value == "python -m unlearn_core sweep --resume smoke-merge.density"
    assert table(app, "state")["state"].tolist() == ["not begun"] * 4
    assert not app.get("plotly_chart")


def test_a_finished_sweep_shows_chart_means_and_differences_and_asks_for_nothing(monkeypatch, root):
    finished(root, example_sweep.planned(root, seeds=(0, 1, 2)))
    app = open_page(monkeypatch, root, PAGE)
    assert len(app.get("plotly_chart")) == 1
    means, differences = (found.value.set_index("configuration")["Task Aggregate"] for found in app.dataframe
                          if "Task Aggregate" in found.value.columns)
    assert means[FIRST] == "0.510 ± 0.025"  # 0.50, 0.51, 0.52: standard error 0.01 / sqrt 3, t(2) = 4.303
    assert differences.to_dict() == {SECOND: "+0.110 ± 0.025 ★"}
    assert "1 of 1 tested differences are told apart" in texts(app)
    assert not app.code
    assert not app.error


def test_failures_and_what_is_under_way_stand_above_with_their_reasons(monkeypatch, root):
    sweep = example_sweep.planned(root, seeds=(0, 1, 2))
    example_sweep.finished(root, sweep, 0, 0, {"merged": {"task_aggregate": 0.5}})
    example_sweep.begun(root, sweep, 0, 1).write_status("failed", "model_1", message="out of *memory*")
    damaged = example_sweep.finished(root, sweep, 1, 1, {"merged": {"task_aggregate": 0.5}})
    write_json(damaged.path / "scores.json", {"merged": 5})
    last = example_sweep.begun(root, sweep, 1, 2)
    last.write_status("cancelled", "model_2", 3, 9)
    app = open_page(monkeypatch, root, PAGE, last.id)
    assert unescaped(app.error[0].value) == f"Failed: {FIRST}, seed 1 · out of *memory*"
    assert "scores.json; got merged = 5" in unescaped(app.error[1].value)
    assert f"Cancelled: {SECOND}, seed 2 · model_2 3/9" in texts(app)
    assert "python -m unlearn_core sweep --resume smoke-merge.density" in [code.value for code in app.code]
    assert table(app, "state")["state"].tolist() == [
        "finished", "failed", "not begun", "not begun", "damaged", "cancelled"]


def test_while_a_run_is_worked_on_the_page_shows_its_stage_and_offers_no_second_start(monkeypatch, root):
    sweep = example_sweep.planned(root)
    run = example_sweep.begun(root, sweep, 0, 0)
    run.write_status("running", "model_1", 2, 9)  # by this process, which lives
    app = open_page(monkeypatch, root, PAGE, run.id)
    assert f"Running: {FIRST}, seed 0 · model_1 2/9" in texts(app)
    assert not any("sweep --resume" in code.value for code in app.code)


def test_the_page_is_drawn_again_when_a_run_has_finished(monkeypatch, root):
    sweep = example_sweep.planned(root)
    app = open_page(monkeypatch, root, PAGE)
    assert "No run of this sweep has finished yet" in texts(app)
    example_sweep.finished(root, sweep, 0, 0, {"merged": {"task_aggregate": 0.5}})
    app.run()
    assert len(app.get("plotly_chart")) == 1


def test_the_model_is_chosen_by_a_switch_and_by_the_address(monkeypatch, root):
    finished(root, example_sweep.planned(root, seeds=(0, 1)), model="model_1")
    app = open_page(monkeypatch, root, PAGE)
    assert app.segmented_control(key="sweep_model").options == ["Base", "Model 1"]
    app.segmented_control(key="sweep_model").set_value("model_1").run()
    assert "Model 1. Seeds 0, 1" in texts(app)
    app = open_page(monkeypatch, root, PAGE, sweep_model="Model 1")
    assert "Model 1. Seeds 0, 1" in texts(app)


def test_the_sweep_is_chosen_by_its_name_and_an_unknown_one_in_the_address_is_no_error(monkeypatch, root):
    example_sweep.planned(root)
    example_sweep.planned(root, seeds=(7,), name="another")
    assert "seeds 7" in texts(open_page(monkeypatch, root, PAGE, sweep="another"))
    assert "seeds 0, 1" in texts(open_page(monkeypatch, root, PAGE, sweep="smoke-merge.density"))
    assert "seeds 7" in texts(open_page(monkeypatch, root, PAGE, sweep="no such"))


def test_the_way_to_a_run_leads_to_that_run(monkeypatch, root):
    sweep = example_sweep.planned(root)
    finished(root, sweep)
    app = open_page(monkeypatch, root, PAGE)
    run = sweeps.runs_of(sweep, Store(root).runs())[SECOND, 1].id
    app.selectbox(key="sweep_run").set_value(run).run()
    links = app.get("page_link")
    assert [link.proto.label for link in links] == ["Its scores", "Its training", "Its answers"]
    assert {link.proto.query_string for link in links} == {f"run={run}"}


def test_a_damaged_plan_is_named_and_the_page_lives(monkeypatch, root):
    name = example_sweep.planned(root).name
    (root / ".sweeps" / f"{name}.json").write_text("{")
    app = open_page(monkeypatch, root, PAGE)
    assert "smoke-merge.density.json; got broken JSON" in unescaped(app.error[0].value)


def test_a_run_that_cannot_be_read_is_named(monkeypatch, root):
    sweep = example_sweep.planned(root)
    run = example_sweep.begun(root, sweep, 0, 0)
    (run.path / "recipe.json").write_text("{")
    app = open_page(monkeypatch, root, PAGE)
    assert f"Not readable: {run.id}: " in unescaped(app.warning[0].value)
    assert table(app, "state")["state"].tolist() == ["not begun"] * 4


def test_a_visitor_of_a_read_only_dashboard_sees_the_results_and_no_button_that_starts(monkeypatch, root):
    finished(root, example_sweep.planned(root))
    monkeypatch.setenv("LETHE_READ_ONLY", "1")
    app = open_page(monkeypatch, root, PAGE)
    assert len(app.get("plotly_chart")) == 1
    assert not app.button
