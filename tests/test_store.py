"""The run folder: nothing half written, nothing half read, and a state that tells whether the process still lives."""

import contextlib
import resource
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import pytest

from analysis import frames, training
from unlearn_core import data, tables
from unlearn_core import recipe as recipes
from unlearn_core import store as stores
from unlearn_core.errors import InputError
from unlearn_core.evaluation import score
from unlearn_core.files import read_json, read_rows, recovered, replace_dir, replacing_dir, write_json, write_rows
from unlearn_core.store import Run, Store
from unlearn_core.vocabulary import LOSS_TERMS, METHOD_TERMS

ROOT = Path(__file__).parent.parent
SMOKE = recipes.load("smoke")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def run(store):
    return store.create(SMOKE, {"seed": 0})


@contextlib.contextmanager
def full_disk(room):
    """Writing more than `room` bytes into a file fails, as on a full disk and for every user, root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- small files -----------------------------------------------------------------------------------------------

def test_an_unfinished_last_line_is_skipped_and_the_whole_ones_are_read(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}')
    assert read_rows(path) == []
    assert read_rows(tmp_path / "none.jsonl") == []


def test_a_line_cut_in_the_middle_of_a_character_is_skipped_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"name": "Zoë"}\n{"name": "Zoë'.encode()[:-1])
    assert read_rows(path) == [{"name": "Zoë"}]


@pytest.mark.parametrize("line", [b'{"step": 2', b"\xff", b"[2]", b"2", b"[" * 100_000],
                         ids=["torn", "not UTF-8", "list", "number", "too deep"])
def test_a_broken_line_before_the_last_is_an_error_with_file_and_line(tmp_path, line):
    path = tmp_path / "steps.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}, line 2; got ")
    assert "expected a JSON object" in str(caught.value)


@pytest.mark.parametrize("text", [b'{"a": ', b"", b"\xff\xfe", b"[1, 2]", b"3", b'"text"', b"null"])
def test_json_that_is_no_whole_object_is_an_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "scores.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}; got ")
    assert "restore it, or remove the run folder" in str(caught.value)
    assert read_json(tmp_path / "none.json") is None


ODD = "a\u2028b\u2029c\x85d\x0be\r\nf\x00g\\ \"h\" 🙂 \x1b[31m </td>"


def test_line_separators_and_other_odd_characters_survive(tmp_path, run):
    write_rows(tmp_path / "rows.jsonl", [{"generation": ODD}, {"generation": "next"}])
    assert read_rows(tmp_path / "rows.jsonl") == [{"generation": ODD}, {"generation": "next"}]
    run.write_evaluation("base", answers=[{"generation": ODD}], documents=[], mmlu=[], scores={}, intervals={})
    assert run.answers("base") == [{"generation": ODD}]
    write_json(tmp_path / "meta.json", {"title": ODD})
    assert read_json(tmp_path / "meta.json") == {"title": ODD}


def test_on_a_full_disk_the_old_content_stays_and_nothing_is_left_beside_it(tmp_path):
    write_json(tmp_path / "scores.json", {"old": 1})
    write_rows(tmp_path / "rows.jsonl", [{"old": 1}])
    with full_disk(room=1000):
        with pytest.raises(OSError, match="too large"):
            write_json(tmp_path / "scores.json", {"new": "x" * 2000})
        with pytest.raises(OSError, match="too large"):
            write_rows(tmp_path / "rows.jsonl", [{"new": "x" * 100}] * 1000)
    assert read_json(tmp_path / "scores.json") == {"old": 1}
    assert read_rows(tmp_path / "rows.jsonl") == [{"old": 1}]
    assert names(tmp_path) == ["rows.jsonl", "scores.json"]


def test_a_value_that_is_no_json_leaves_the_old_content(tmp_path):
    write_json(tmp_path / "scores.json", {"mmlu": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"mmlu": float("nan")})
    assert read_json(tmp_path / "scores.json") == {"mmlu": 0.5}
    assert names(tmp_path) == ["scores.json"]


def test_replacing_a_folder_takes_the_new_files_only(tmp_path):
    for name, file in (("adapter", "old"), ("new", "fresh")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("")
    replace_dir(tmp_path / "new", tmp_path / "adapter")
    assert names(tmp_path) == ["adapter"]
    assert names(tmp_path / "adapter") == ["fresh"]


@pytest.mark.parametrize("read", [read_json, read_rows])
def test_a_folder_or_a_file_in_place_of_a_parent_is_an_error_that_names_the_path(tmp_path, read):
    (tmp_path / "recipe.json").mkdir()
    with pytest.raises(InputError, match=r"recipe\.json; got Is a directory; expected a JSON object"):
        read(tmp_path / "recipe.json")
    (tmp_path / "models").write_text("")
    with pytest.raises(InputError, match=r"steps\.jsonl; got Not a directory"):
        read(tmp_path / "models" / "steps.jsonl")


def killed_between_the_two_moves(target):
    """What `replace_dir` leaves if it dies after moving the old folder away: only .NAME.old and the new one."""
    old = target.with_name(f".{target.name}.old")
    old.mkdir()
    (old / "saved").write_text("step 10")
    return old


def test_a_folder_whose_replacement_was_killed_midway_is_recovered(tmp_path):
    target = tmp_path / "resume"
    assert recovered(target) == target  # nothing there, nothing done
    assert not target.exists()
    killed_between_the_two_moves(target)
    assert recovered(target) == target
    assert (target / "saved").read_text() == "step 10"
    assert names(tmp_path) == ["resume"]


def test_a_finished_replacement_is_not_undone_by_what_is_left_of_the_old_folder(tmp_path):
    killed_between_the_two_moves(tmp_path / "resume")
    (tmp_path / "resume").mkdir()
    assert names(recovered(tmp_path / "resume")) == []


def test_the_next_replacement_loses_the_old_folder_only_once_the_new_one_is_whole(tmp_path):
    target = tmp_path / "resume"
    killed_between_the_two_moves(target)
    with pytest.raises(KeyboardInterrupt), replacing_dir(target):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["resume"]
    assert names(target) == ["saved"]
    with replacing_dir(target) as folder:
        (folder / "newer").write_text("step 20")
    assert names(tmp_path) == ["resume"]
    assert names(target) == ["newer"]


def test_a_message_keeps_its_letters_and_shows_control_characters_as_escapes():
    error = InputError("line 1", got="\x1b[2Jé \u202e\udcff\nend", expected="a\x00b")
    assert str(error) == r"line 1; got \x1b[2Jé \u202e\udcff end; expected a\x00b"


# ---- making and opening runs -------------------------------------------------------------------------------------

def test_a_new_run_has_its_recipe_its_manifest_and_a_state(store, run):
    assert run.recipe() == SMOKE
    assert run.info()["id"] == run.id == run.path.name
    assert run.info()["schema_version"] == stores.SCHEMA_VERSION
    assert run.status()["state"] == "running"  # by this process
    assert [r.id for r in store.runs()] == [run.id]
    assert store.problems() == []


class Stopped(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def test_runs_made_in_the_same_second_get_ids_of_their_own(store, monkeypatch):
    monkeypatch.setattr(stores, "datetime", Stopped)
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


# ---- steps and results -----------------------------------------------------------------------------------------------

def test_dropping_the_steps_after_the_last_checkpoint_takes_a_torn_line_too(run):
    for step in (1, 2, 3):
        run.append_step("model_1", {"step": step})
    with (run.model_dir("model_1") / "steps.jsonl").open("a") as file:
        file.write('{"step": 4, "np')
    run.keep_steps("model_1", 2)
    run.append_step("model_1", {"step": 3})
    assert run.steps("model_1") == [{"step": 1}, {"step": 2}, {"step": 3}]
    assert run.steps("model_2") == []


def test_a_model_is_evaluated_once_its_last_file_is_there_and_the_runs_scores_have_it(run):
    write_rows(run.model_dir("base") / "answers.jsonl", [{"id": "a"}])
    assert not run.is_evaluated("base")
    run.write_evaluation("merged", answers=[], documents=[], mmlu=[], scores={"mmlu": 0.5}, intervals={"mmlu": [0, 1]})
    run.write_scores()
    assert run.is_evaluated("merged")
    assert run.scores() == {"merged": {"mmlu": 0.5}}
    assert run.intervals() == {"merged": {"mmlu": [0, 1]}}


def test_models_are_listed_in_the_order_of_the_method_and_unknown_ones_last(run):
    for name in ("zeta", "merged", "base", "model_2", "untrained", "alpha"):
        run.model_dir(name).mkdir(parents=True)
    assert run.models() == ["untrained", "base", "model_2", "merged", "alpha", "zeta"]


def test_checkpoints_are_in_the_order_of_their_steps_without_unfinished_ones(run):
    for step in (1_000_000, 20, 0):
        run.checkpoint_dir("model_1", step).mkdir(parents=True)
    (run.model_dir("model_1") / "checkpoints" / ".step-000030.tmp").mkdir()
    assert [step for step, _ in run.checkpoints("model_1")] == [0, 20, 1_000_000]


# ---- a recorded run of schema version 1 ------------------------------------------------------------------------------

SCORED = ["untrained", "base", "model_1", "model_2", "merged"]


def test_a_recorded_run_is_listed_without_a_problem(recorded_run):
    store = Store(recorded_run.path.parent)
    assert [r.id for r in store.runs()] == ["run-v1"]
    assert store.problems() == []


def test_every_part_of_a_recorded_run_is_read(recorded_run):
    info, recipe = recorded_run.info(), recorded_run.recipe()
    assert info["schema_version"] == 1
    assert (recipe.name, info["seed"], info["device"]) == ("smoke", recipe.seed, "cpu")
    assert recorded_run.status()["state"] == "finished"
    assert recorded_run.meta() == {"title": "", "tags": [], "archived": False}
    assert recorded_run.models() == list(recorded_run.scores()) == list(recorded_run.intervals()) == SCORED
    assert recorded_run.steps("base")[-1]["epoch"] == recipe.base.epochs
    for model in ("model_1", "model_2"):
        assert recorded_run.steps(model)[-1]["epoch"] == pytest.approx(getattr(recipe, model).epochs, rel=0.1)
        assert recorded_run.checkpoints(model) == []


def test_the_data_of_a_recorded_run_are_those_that_it_noted(recorded_run):
    dataset = data.load_saved(recorded_run.data_dir)
    assert data.hashes(recorded_run.data_dir) == recorded_run.info()["data_hashes"]
    answered = [row["id"] for row in recorded_run.answers("merged")]
    assert answered == [item.id for item in dataset.forget + dataset.retain]
    assert [row["document"] for row in recorded_run.documents("merged")] == [d.document for d in dataset.attack]
    assert len(recorded_run.mmlu("merged")) == len(dataset.mmlu_test)


@pytest.mark.parametrize("model", SCORED)
def test_the_scores_of_a_recorded_run_follow_from_its_rows(recorded_run, model):
    found = score.scores(recorded_run.answers(model), recorded_run.documents(model), recorded_run.mmlu(model))
    assert found == pytest.approx(recorded_run.scores()[model], abs=1e-12)


def test_a_recorded_run_fills_every_table(recorded_run):
    listed = frames.run_table([recorded_run]).iloc[0]
    assert listed["problem"] == ""
    assert listed["aggregate"] == recorded_run.scores()["merged"]["aggregate"]
    scores = frames.score_table(recorded_run)
    assert list(scores["model"]) == SCORED
    assert scores.set_index("model").loc["merged", ["aggregate", "mia_auc_low", "mmlu_gate"]].notna().all()
    cells = frames.sub_scores(recorded_run)
    assert cells[cells["model"] == "merged"]["value"].notna().sum() == 12
    steps = training.steps(recorded_run)
    assert set(steps["model"]) == {"model_1", "model_2"}
    others = {f"{term}{end}" for term in LOSS_TERMS if term not in METHOD_TERMS for end in ("", "_weighted")}
    assert set(steps.columns[steps.isna().any()]) == others
    assert list(training.base_steps(recorded_run).columns[training.base_steps(recorded_run).isna().any()]) == []


def test_a_recorded_run_that_lost_its_answers_still_shows_its_scores(recorded_run):
    shutil.rmtree(recorded_run.model_dir("merged"))
    assert recorded_run.answers("merged") == []
    assert "merged" in recorded_run.scores()
    assert "merged" in list(frames.score_table(recorded_run)["model"])


def test_reading_a_run_changes_no_file(recorded_run):
    def contents():
        return {path: path.read_bytes() for path in recorded_run.path.rglob("*") if path.is_file()}
    before = contents()
    for read in (recorded_run.info, recorded_run.recipe, recorded_run.status, recorded_run.scores):
        read()
    frames.score_table(Run(recorded_run.path))
    assert contents() == before


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


# ---- trajectory ----------------------------------------------------------------------------------------------

TRAJECTORY = {"documents_per_task": 2, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24, "rows": [
    {"model": "model_1", "step": 0, "epoch": 0.0, "scores": {"mia_auc": 1.0}, "intervals": {"mia_auc": [0.9, 1.0]}}]}


def test_a_trajectory_is_read_as_it_was_written(run):
    assert run.trajectory() == {}
    run.write_trajectory(TRAJECTORY)
    assert run.trajectory() == TRAJECTORY


@pytest.mark.parametrize("odd", [{"seed": "0"}, {"rows": 5}, {"rows": [5]}, {"rows": [{"model": "model_1"}]},
                                 {"rows": [TRAJECTORY["rows"][0] | {"scores": {"mia_auc": "high"}}]}])
def test_an_odd_trajectory_is_an_error_that_names_the_file(run, odd):
    write_json(run.path / "trajectory.json", TRAJECTORY | odd)
    with pytest.raises(InputError, match=r"trajectory\.json; got .*; expected a JSON object"):
        run.trajectory()


# ---- other merges, ablations, balance ----------------------------------------------------------------------------

SUBSET = {"documents_per_task": 2, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24}
MERGE = {"kind": "density", "name": "TIES, density 0.5", "norm_ratio": 1.1, "cosines": {"model_1": 0.9},
         "scores": {"mia_auc": 0.5}, "intervals": {"mia_auc": [0.4, 0.6]}}
ABLATION = {"kind": "layer", "part": "0", "mode": "remove", "draw": 0, "share": None, "norm_share": 0.5, "scores": {},
            "intervals": {}}
BALANCE = {"target": 0.5, "readings": [], "families": [{"family": "mix of both", "folds": []}]}


def test_merges_ablations_and_balance_are_read_as_they_were_written(run):
    assert run.merges() == run.ablations() == run.balance() == {}
    run.write_merges(SUBSET | {"rows": [MERGE]})
    run.write_ablations(SUBSET | {"rows": [ABLATION]})
    run.write_balance(BALANCE)
    assert run.merges()["rows"] == [MERGE]
    assert run.ablations()["rows"] == [ABLATION]
    assert run.balance() == BALANCE


@pytest.mark.parametrize(("name", "content"), [
    ("merges", SUBSET | {"rows": [MERGE | {"name": 5}]}), ("merges", SUBSET | {"rows": [MERGE | {"norm_ratio": None}]}),
    ("merges", {"rows": [MERGE]}), ("merges", SUBSET | {"rows": [MERGE | {"cosines": [1]}]}),
    ("ablations", SUBSET | {"rows": [ABLATION | {"draw": -1}]}),
    ("ablations", SUBSET | {"rows": [ABLATION | {"mode": 1}]}),
    ("ablations", SUBSET | {"rows": [ABLATION | {"share": "half"}]}), ("balance", BALANCE | {"families": 5}),
    ("balance", BALANCE | {"target": None}), ("balance", BALANCE | {"families": [{"family": 1, "folds": []}]})])
def test_odd_merges_ablations_and_balances_are_errors_that_name_the_file(run, name, content):
    write_json(run.path / f"{name}.json", content)
    with pytest.raises(InputError, match=rf"{name}\.json; got .*; expected a JSON object"):
        getattr(run, name)()


def test_arrays_come_back_with_what_they_are_about_and_a_torn_file_is_named(run):
    assert run.arrays("weights") == ({}, {})
    run.write_arrays("weights", {"norm": np.arange(6.0).reshape(2, 3)}, {"adapters": ["model_1", "model_2"]})
    arrays, about = run.arrays("weights")
    assert arrays["norm"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert about == {"adapters": ["model_1", "model_2"]}
    path = run.path / "weights.safetensors"
    for torn in (b"", path.read_bytes()[:-3], b"{}"):
        path.write_bytes(torn)
        with pytest.raises(InputError, match=r"weights\.safetensors; got a damaged file .*remove it and measure again"):
            run.arrays("weights")


# ---- weights of another run ------------------------------------------------------------------------------------

def taking_over(tmp_path, smoke_run, *overrides, adapters=False):
    run = Store(tmp_path / "taken").create(recipes.load("smoke", overrides), {}, state="interrupted")
    run.take_over(smoke_run, adapters=adapters)
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
        run.take_over(recorded_run)


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
