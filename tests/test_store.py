"""The run folder and the folder of runs: what opens, what is named as damaged, and whether a process still lives."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from tests.test_files import full_disk, names
from unlearn_core import recipe as recipes
from unlearn_core import tables
from unlearn_core.errors import InputError
from unlearn_core.files import read_json, write_json
from unlearn_core.store import Run, Store, folder
from unlearn_core.store import run as run_folder

ROOT = Path(__file__).parent.parent
SMOKE = recipes.load("smoke")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def run(store):
    return store.create(SMOKE, {"seed": 0})


# ---- making and opening runs -------------------------------------------------------------------------------------

def test_a_new_run_has_its_recipe_its_manifest_and_a_state(store, run):
    assert run.recipe() == SMOKE
    assert run.info()["id"] == run.id == run.path.name
    assert run.info()["schema_version"] == folder.SCHEMA_VERSION
    assert run.status()["state"] == "running"  # by this process
    assert [r.id for r in store.runs()] == [run.id]
    assert store.problems() == []


class Stopped(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def test_runs_made_in_the_same_second_get_ids_of_their_own(store, monkeypatch):
    monkeypatch.setattr(run_folder, "datetime", Stopped)
    made = [store.create(SMOKE, {}).id for _ in range(3)]
    assert made == [f"smoke-seed0-20260102-030405{tail}" for tail in ("", "-1", "-2")]
    assert sorted(r.id for r in store.runs()) == made


@pytest.mark.parametrize("name", ["../../evil", "..", "/etc/evil", "a/b", "", "ö [x] \n;rm", "con.fig"])
def test_whatever_a_recipe_is_called_its_run_lies_in_the_store_and_opens_by_its_id(store, name):
    run = store.create(recipes.parse({"name": name}), {})
    assert run.path.parent == store.root
    assert store.open(run.id).path == run.path
    assert run.recipe().name == name


def test_an_id_never_leads_out_of_the_store(store, run, tmp_path, monkeypatch):
    outside = Store(tmp_path / "other").create(SMOKE, {})
    (tmp_path / "far" / "away").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "far" / "away")
    for name in (f"../other/{outside.id}", "..", ".", "", f"./{run.id}", f"{run.id}/../{run.id}", "a\0b"):
        with pytest.raises(InputError):
            store.open(name)
    assert store.open(str(outside.path)).id == outside.id  # a folder that a person names is another matter


def test_an_unknown_run_says_where_it_was_looked_for(store):
    with pytest.raises(InputError, match=r"got smoke-7; expected the id of a run in .*runs or a run folder; list the"):
        store.open("smoke-7")


def test_a_run_that_cannot_be_written_leaves_no_folder(store):
    with full_disk(room=10), pytest.raises(OSError, match="too large"):
        store.create(SMOKE, {})
    assert names(store.root) == []


def test_a_runs_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=r"runs folder .*; got File exists; expected a folder that can be written"):
        Store(tmp_path / "runs").create(SMOKE, {})
    assert Store(tmp_path / "runs").runs() == []


# ---- damaged run folders -----------------------------------------------------------------------------------------

def test_a_newer_schema_is_refused_with_both_versions(store, run):
    run.note(schema_version=2)
    with pytest.raises(InputError, match=r"got schema version 2; expected version 1; open it with the version"):
        store.open(run.id)
    assert store.runs() == []
    assert [line for line in store.problems() if line.startswith(run.id) and "schema version 2" in line] != []


@pytest.mark.parametrize(("file", "content", "words"), [
    ("run.json", None, "no run.json"),
    ("run.json", "{", "broken JSON"),
    ("run.json", "[]", "got []"),
    ("run.json", '{"schema_version": 1}', "created = None"),
    ("recipe.json", None, "no recipe.json"),
    ("recipe.json", "[]", "got []"),
    ("recipe.json", '{"speed": 1}', "unknown setting speed"),
    ("recipe.json", '{"unlearn": 1}', "expected a table"),
])
def test_a_half_deleted_run_is_one_named_problem_and_hides_no_other_run(store, run, file, content, words):
    other = store.create(SMOKE, {})
    (run.path / file).unlink() if content is None else (run.path / file).write_text(content)
    assert [r.id for r in store.runs()] == [other.id]
    [problem] = store.problems()
    assert problem.startswith(f"{run.id}: ")
    assert words in problem


def test_files_and_hidden_folders_in_the_store_are_no_problem(store, run):
    (store.root / "notes.txt").write_text("")
    (store.root / ".trash").mkdir()
    assert [r.id for r in store.runs()] == [run.id]
    assert store.problems() == []


def test_a_folder_that_holds_no_file_of_a_run_is_neither_a_run_nor_a_problem(store, run):
    (store.root / "benchmark" / "figures").mkdir(parents=True)
    (store.root / "benchmark" / "results.json").write_text("{}")
    (store.root / "empty").mkdir()
    runs, problems = store.scan()
    assert [r.id for r in runs] == [run.id]
    assert problems == []


@pytest.mark.parametrize("file", ["run.json", "recipe.json"])
def test_a_folder_in_place_of_a_file_is_one_problem_and_hides_no_other_run(store, run, file):
    other = store.create(SMOKE, {})
    (run.path / file).unlink()
    (run.path / file).mkdir()
    runs, [problem] = store.scan()
    assert [r.id for r in runs] == [other.id]
    assert f"{file}; got Is a directory" in problem


@pytest.mark.parametrize("created", ["yesterday", "2026-01-02T03:04:05", 5])
def test_a_run_without_a_time_of_creation_is_a_problem(store, run, created):
    run.note(created=created)
    assert store.runs() == []
    assert "created = " in store.problems()[0]


@pytest.mark.parametrize("odd", [
    {"pid": "x"}, {"pid": -1}, {"pid": 0}, {"pid": True}, {"pid": 1.5}, {"process_started": "noon"}, {"step": "3"},
    {"step": -1}, {"total": None}, {"stage": 5}, {"message": ["a"]}, {"updated": "noon"}, {"updated": 7},
    {"state": ["running"]}, {"state": None}], ids=str)
def test_an_odd_value_in_a_status_is_an_error_that_names_file_and_key(run, odd):
    [(key, value)] = odd.items()
    write_json(run.path / "status.json", read_json(run.path / "status.json") | odd)
    with pytest.raises(InputError) as caught:
        run.status()
    assert str(caught.value).startswith(f"{run.path / 'status.json'}; got {key} = {value!r}; ")


def test_a_status_that_names_only_a_state_gets_the_other_keys(run):
    for state, shown in (("failed", "failed"), ("trained", "trained"), ("running", "interrupted")):
        write_json(run.path / "status.json", {"state": state})
        assert run.status() == {"state": shown, "stage": "", "step": 0, "total": 0, "message": ""}


def test_a_process_id_beyond_the_systems_is_of_no_living_process(run):
    write_json(run.path / "status.json", {"state": "running", "pid": 2**70})
    assert run.status()["state"] == "interrupted"


@pytest.mark.parametrize("odd", [5, [], "x", None, {"mmlu": "0.5"}, {"mmlu": None}, {"mmlu": True}], ids=str)
def test_scores_and_intervals_that_are_no_numbers_are_an_error_that_names_the_model(run, odd):
    for name, read in (("scores.json", run.scores), ("intervals.json", run.intervals)):
        write_json(run.path / name, {"base": {}, "merged": odd})
        with pytest.raises(InputError, match=rf"{name}; got merged = "):
            read()


@pytest.mark.parametrize("odd", [0.5, [0.1], [0.1, 0.2, 0.3], ["0", "1"], {"low": 0}], ids=str)
def test_an_interval_is_a_pair_of_numbers(run, odd):
    write_json(run.path / "intervals.json", {"merged": {"mia_auc": odd}})
    with pytest.raises(InputError, match=r"intervals\.json; got merged = "):
        run.intervals()


def test_a_title_that_is_no_text_is_an_error(run):
    write_json(run.path / "meta.json", {"title": 5})
    with pytest.raises(InputError, match=r"meta\.json; got title = 5"):
        run.meta()


@pytest.mark.parametrize("text", ["{}", '{"state": "asleep"}', "[]", '{"state'])
def test_a_status_file_that_says_no_state_is_an_error_that_names_it(run, text):
    (run.path / "status.json").write_text(text)
    with pytest.raises(InputError, match=r"status\.json; got .*; expected a JSON object"):
        run.status()


def test_a_process_that_dies_while_it_measures_leaves_a_finished_run_finished(run):
    run.write_status("finished", "done")
    before = run.last_status()
    run.write_status("running", "balance", 3, 192, before=before)
    assert run.status()["state"] == "running"
    written = read_json(run.path / "status.json")
    write_json(run.path / "status.json", written | {"process_started": written["process_started"] - 100})  # it is gone
    assert {key: run.status()[key] for key in before} == before
    assert "before" not in run.status()


def test_a_run_without_a_status_file_is_an_interrupted_one(run):
    (run.path / "status.json").unlink()
    assert run.status() == {"state": "interrupted", "stage": "", "step": 0, "total": 0, "message": ""}


# ---- state ---------------------------------------------------------------------------------------------------------

WORKER = """
import sys
from unlearn_core.store import Run
Run(sys.argv[1]).write_status("running", "model_1", 3, 9)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(run):
    """A live process that has written that it is running."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(run.path)], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_is_running_while_its_process_lives_and_interrupted_once_it_is_dead(run, worker):
    written = read_json(run.path / "status.json")
    assert run.status() == written
    assert (written["state"], written["stage"], written["step"], written["total"]) == ("running", "model_1", 3, 9)
    worker.kill()
    while psutil.Process(worker.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert run.status()["state"] == "interrupted"  # dead, though its parent has not noticed yet
    worker.wait()
    assert run.status() == {**written, "state": "interrupted"}
    assert read_json(run.path / "status.json") == written  # reading changes nothing


def test_a_later_process_with_the_same_id_does_not_bring_a_run_back(run):
    run.write_status("running", "model_1")
    mine = read_json(run.path / "status.json")
    assert run.status()["state"] == "running"
    write_json(run.path / "status.json", {**mine, "process_started": mine["process_started"] - 60})
    assert run.status()["state"] == "interrupted"


@pytest.mark.parametrize("state", ["finished", "failed", "cancelled"])
def test_a_state_that_is_not_running_does_not_depend_on_the_process(run, state):
    run.write_status(state, "merge", 1, 1, "why")
    write_json(run.path / "status.json", {**read_json(run.path / "status.json"), "pid": 2**22 + 1})
    status = run.status()
    assert (status["state"], status["message"]) == (state, "why")


def test_a_trained_run_is_printed_with_its_state_and_without_a_step(run, capsys):
    run.write_status("trained", "train")
    tables.print_run(run)
    assert capsys.readouterr().out == f"{run.path}: trained\nnot merged or scored yet\n"


# ---- what a person gives a run, and what the dashboard makes --------------------------------------------------

def test_changing_a_title_keeps_the_tags(run):
    run.write_meta(tags=["npo", "seed 0"])
    run.write_meta(title="First try", archived=True)
    assert run.meta() == {"title": "First try", "tags": ["npo", "seed 0"], "archived": True}


@pytest.mark.parametrize("odd", [{"tags": "npo"}, {"tags": [1]}, {"archived": "yes"}])
def test_an_odd_value_in_meta_is_named(run, odd):
    write_json(run.path / "meta.json", odd)
    with pytest.raises(InputError, match=r"meta\.json; got (tags|archived) = "):
        run.meta()


def test_the_tail_of_a_long_log_is_its_last_lines(run):
    assert run.log_tail() == ""
    run.log_path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert run.log_tail(2) == "line 99998\nline 99999"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a b", "x" * 61])
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path, name):
    store = Store(tmp_path)
    for use in (store.dataset_dir, lambda name: store.save_recipe(name, "")):
        with pytest.raises(InputError, match="expected at most 60 letters"):
            use(name)


def test_saved_recipes_and_data_sets_are_listed_and_are_no_runs(tmp_path):
    store = Store(tmp_path)
    assert (store.datasets(), store.saved_recipes()) == ([], [])
    path = store.save_recipe("mine", 'name = "mine"')
    store.dataset_dir("cut").mkdir(parents=True)
    assert store.saved_recipes() == [path]
    assert path.read_text() == 'name = "mine"'
    assert store.datasets() == ["cut"]
    assert store.scan() == ([], [])


def test_a_run_is_claimed_by_one_at_a_time_and_free_again_after_an_error(run):
    def fail():
        with run.claimed():
            raise KeyError
    with run.claimed(), pytest.raises(InputError, match="still working on it"), Run(run.path).claimed():
        pass
    with pytest.raises(KeyError):
        fail()
    with run.claimed():
        pass


# ---- weights of another run ------------------------------------------------------------------------------------

def taking_over(tmp_path, smoke_run, *overrides, adapters=False):
    run = Store(tmp_path / "taken").create(recipes.load("smoke", overrides), {}, state="interrupted")
    run.begin_with(smoke_run, adapters=adapters)
    return run


def test_data_and_base_are_taken_over_file_by_file_and_no_result_is(tmp_path, smoke_run):
    run = taking_over(tmp_path, smoke_run, "unlearn.lr=1e-3")
    for place in ("data", "models/base/model", "models/untrained/model"):
        files = {path.relative_to(smoke_run.path): path.read_bytes()
                 for path in (smoke_run.path / place).rglob("*") if path.is_file()}
        assert files
        assert {path: (run.path / path).read_bytes() for path in files} == files
    assert not run.is_evaluated("base")
    assert not run.adapter_dir("model_1").exists()
    assert run.scores() == {}


def test_with_adapters_the_last_ones_are_where_training_begins(tmp_path, smoke_run):
    run = taking_over(tmp_path, smoke_run, adapters=True)
    weights = "adapter_model.safetensors"
    for name in ("model_1", "model_2"):
        assert ((run.initial_adapter_dir(name) / weights).read_bytes()
                == (smoke_run.adapter_dir(name) / weights).read_bytes())
    last = {name: smoke_run.checkpoints(name)[-1][0] for name in ("model_1", "model_2")}
    assert run.info()["started_from"] == {"run": smoke_run.info()["id"], "adapters": last}


@pytest.mark.parametrize("setting", ["seed=1", "base.epochs=17", "world.people=5"])
def test_a_recipe_with_another_base_cannot_take_one_over(tmp_path, smoke_run, setting):
    with pytest.raises(InputError, match=f"differs in {setting.split('=')[0]}; expected the same there"):
        taking_over(tmp_path, smoke_run, setting)


def test_another_rank_matters_only_where_adapters_are_taken_over(tmp_path, smoke_run):
    taking_over(tmp_path, smoke_run, "lora.r=8")
    with pytest.raises(InputError, match=r"differs in lora\.r"):
        taking_over(tmp_path, smoke_run, "lora.r=8", adapters=True)


def test_a_run_without_weights_gives_none(tmp_path, recorded_run):
    run = Store(tmp_path / "taken").create(recorded_run.recipe(), {}, state="interrupted")
    with pytest.raises(InputError, match="no base model in its folder"):
        run.begin_with(recorded_run)


def test_the_last_step_is_read_without_an_unfinished_line(run):
    assert run.last_step("model_1") is None
    for step in range(1, 3000):
        run.append_step("model_1", {"step": step, "loss": 1 / step})
    with run.steps_path("model_1").open("a") as file:
        file.write('{"step": 30')
    assert run.last_step("model_1") == run.steps("model_1")[-1] == {"step": 2999, "loss": 1 / 2999}


def test_result_files_are_those_of_data_and_models_but_not_of_checkpoints_or_the_process(smoke_run):
    found = {path.relative_to(smoke_run.path).as_posix() for path in smoke_run.result_files()}
    assert {"scores.json", "data/forget.jsonl", "models/merged/answers.jsonl", "models/model_1/steps.jsonl",
            "models/merged/adapter/adapter_config.json"} <= found
    assert not {path for path in found if "checkpoints" in path or path.endswith("status.json")}


def test_models_are_listed_in_run_order_and_further_seeds_beside_the_first(tmp_path):
    run = Store(tmp_path).create(recipes.load("smoke"), {})
    for name in ("tested", "zeta", "retrained-2", "merged", "retrained", "untrained", "alpha"):
        run.model_dir(name).mkdir(parents=True)
    assert run.models() == ["untrained", "retrained", "retrained-2", "merged", "tested", "alpha", "zeta"]
