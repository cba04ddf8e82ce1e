"""The bundled example runs open with today's code, are small, and name no machine; and the script that makes them.

Whoever changes the run folder so that these no longer open has to bring a migration, or `make example` anew.
"""

import importlib.util
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.test_pages import PAGES
from unlearn_core import cli, recorded
from unlearn_core.judging import verify
from unlearn_core.store import Run, Store

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples"
EXAMPLES = [run.id for run in Store("nowhere", FOLDER).runs()]  # as the dashboard lists them
PLACES = re.compile(rb"""(?<![\w.])/(tmp|home|root|work|Users|mnt)/""")


def example(name):
    return Run(FOLDER / name)


# ---- the bundled ones ------------------------------------------------------------------------------------------------

def test_there_are_examples_to_open():
    assert EXAMPLES
    assert Store("nowhere", FOLDER).problems() == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_small_recording_that_says_when_and_how(name):
    run = example(name)
    facts, info = run.recorded(), run.info()
    assert info["id"] == name
    assert (info["schema_version"], run.status()["state"]) == (1, "finished")
    assert facts["when"] > info["created"]
    assert facts["command"] == f"python -m unlearn_core record {name}{' --without-texts' * run.lacks_texts()}"
    assert facts["again"].startswith("python -m unlearn_core ")
    assert info["command"]
    assert info["commit"]
    assert info["versions"]["torch"]
    assert sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file()) <= recorded.MAX_BYTES


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_no_weights_and_names_no_place_of_a_machine(name):
    files = [path for path in example(name).path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".jsonl", ".csv", ".safetensors"}
    assert {path.name for path in files if path.suffix == ".safetensors"} <= {
        "weights.safetensors", "signs.safetensors", "balance.safetensors"}
    assert [path for path in files if path.suffix != ".safetensors" and PLACES.search(path.read_bytes())] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_hashes_and_scores_of_an_example_are_right(name):
    checks = verify.verify(example(name))
    assert [f"{check.what}: {check.where}" for check in checks if check.equal is False] == []
    data = [check.equal for check in checks if check.what.startswith("data files")]
    assert data == [None if example(name).lacks_texts() else True]


@pytest.mark.skipif(not EXAMPLES, reason="no examples, which another test tells")
def test_the_first_example_is_the_demo_with_all_measured_that_pages_show():
    run, beside = map(example, EXAMPLES[:2])
    assert (run.recipe().name, run.recipe().seed) == ("demo", 0)
    assert_full(run)
    assert {beside.recipe().model_1.gdr_weight, beside.recipe().model_2.klr_weight} == {0}
    assert beside.info()["started_from"]["run"] == run.id
    assert beside.trajectory()["rows"]


def test_the_real_model_is_a_recording_of_statistics_alone():
    run = next(run for run in map(example, EXAMPLES) if run.recipe().base.source == "memorise")
    assert run.lacks_texts()
    assert run.recipe().name == "smollm2-lume-cpu"
    assert run.scores()["merged"]["task_aggregate"] > 0
    assert all(run.arrays(name)[0] for name in ("weights", "signs"))


def assert_full(run):
    """Nothing lacks that a page would call not measured."""
    assert {row["kind"] for row in run.merges()["rows"]} == {"density", "method", "method at one norm", "path",
                                                             "surface"}
    assert {row["model"] for row in run.trajectory()["rows"]} == {"model_1", "model_2"}
    assert {row["kind"] for row in run.ablations()["rows"]} == {"whole", "layer", "module", "sign", "direction"}
    assert run.balance()["families"]
    assert run.probes() == ["depth", "prompts", "quantisation", "relearning", "shadows", "truth_ratio"]
    assert "retrained" in run.scores()
    assert run.samples("merged")[0]
    assert run.samples("base")[0]
    assert run.gates()["locked"] < run.readings()[0]["at"]
    assert all(run.arrays(name)[0] for name in ("weights", "signs", "balance"))


def shown(monkeypatch, page, name):
    monkeypatch.setenv("LETHE_RUNS", "nowhere")
    monkeypatch.setenv("LETHE_EXAMPLES", str(FOLDER))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["run"] = name
    app.run()
    if page != "pages/overview.py":
        app.switch_page(page).run()
    return app


# What is shown of further ones is shown by the same code; these pages say most of what a run lacks, without texts all.
SHOWN = [(name, page) for name in EXAMPLES for page in PAGES if name == EXAMPLES[0] or example(name).lacks_texts()
         or page in ("pages/overview.py", "pages/loss.py", "pages/story.py")]


@pytest.mark.parametrize(("name", "page"), SHOWN)
def test_every_page_shows_an_example(monkeypatch, name, page):
    app = shown(monkeypatch, page, name)
    assert not app.exception
    assert [error.value for error in app.error if error.icon == ":material/broken_image:"] == []
    assert "Recorded example" in app.info[0].value


# ---- the script that makes them --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def make():
    """examples/make.py as a module."""
    spec = importlib.util.spec_from_file_location("make_examples", ROOT / "examples" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_knows_only_commands_of_the_engine_and_locks_thresholds_first(make):
    for command in [*make.MEASURED, *make.BESIDE, " ".join(["run demo", "--weights-of", "RUN", *make.NPO_ALONE])]:
        assert cli.parser().parse_args(command.split()).command
    assert make.MEASURED[0] == "thresholds RUN --lock"


def test_a_command_that_ended_is_listed_and_not_run_again_and_one_that_failed_ends_the_script(make, tmp_path):
    done = tmp_path / "done.txt"
    make._once(Store(tmp_path), "list")
    assert done.read_text() == "list\n"
    with pytest.raises(SystemExit, match="2"):
        make._once(Store(tmp_path), "show nothing")
    assert done.read_text() == "list\n"
    done.write_text("list\nshow nothing\n")
    make._once(Store(tmp_path), "show nothing")  # would fail if it were run
