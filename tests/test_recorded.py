"""Recordings: what a recorded run keeps to the bit, what it leaves out, and that nothing changes it afterwards."""

import io
import json
import math
import shlex
import shutil

import numpy as np
import pytest

from analysis.gates import judge
from tests import example_run
from unlearn_core import archive, cli, jobs, recorded
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import read_json, write_json
from unlearn_core.judging import gates, verify
from unlearn_core.store import Run, Store

SECRET = "/home/somebody/secret place"  # the last part alone may stay
EXACT = ("scores.json", "intervals.json", "recipe.json")


@pytest.fixture(scope="module")
def recording(smoke_run, tmp_path_factory):
    return recorded.record(smoke_run, tmp_path_factory.mktemp("examples"))


@pytest.fixture
def private(recording, tmp_path):
    """A copy of the recording in a store of its own."""
    return Run(shutil.copytree(recording.path, tmp_path / "runs" / recording.id))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers(value):
    """Every float in a JSON value, in order."""
    if isinstance(value, float):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for one in inner for number in numbers(one)]


# ---- what is in it ---------------------------------------------------------------------------------------------------

def test_a_recording_has_all_results_and_neither_weights_nor_log_nor_process(smoke_run, recording):
    results = {path.relative_to(smoke_run.path).as_posix() for path in smoke_run.result_files()
               if not {"adapter", "model", "checkpoints", "resume"} & set(path.parts)}
    assert "models/merged/answers.jsonl" in results
    assert results <= contents(recording.path).keys()
    assert not [name for name in contents(recording.path) if "adapter" in name or "checkpoint" in name
                or name.startswith((".", "log", "job")) or (name.endswith(".safetensors") and "/" in name)]
    assert read_json(recording.status_path).keys().isdisjoint({"pid", "process_started"})
    assert recording.status()["state"] == "finished"


def test_data_and_scores_and_all_that_scores_are_computed_from_are_as_they_were(smoke_run, recording):
    before, after = contents(smoke_run.path), contents(recording.path)
    data = [name for name in before if name.startswith("data/")]
    assert len(data) == 13
    assert {name: after[name] for name in data} == {name: before[name] for name in data}
    for model in smoke_run.models():
        for read in (Run.answers, Run.documents, Run.mmlu, Run.knowledge):
            assert read(recording, model) == read(smoke_run, model)
    assert [read_json(recording.path / name) for name in EXACT] == [read_json(smoke_run.path / name) for name in EXACT]
    assert recording.scores() == smoke_run.scores()


def test_without_texts_nothing_that_was_asked_or_answered_is_in_it_and_all_numbers_are(smoke_run, tmp_path):
    made = recorded.record(smoke_run, tmp_path, texts=False)
    said = {row[key] for model in smoke_run.models() for row in smoke_run.answers(model)
            for key in ("prompt", "answer", "generation") if len(row[key]) > 20}
    assert len(said) > 50
    everything = b"".join(contents(made.path).values()).decode("utf-8", errors="replace")
    assert [text for text in said if text in everything or json.dumps(text) in everything] == []
    assert made.scores() == smoke_run.scores()
    assert [row["nll"] for row in made.documents("merged")] == [row["nll"] for row in smoke_run.documents("merged")]
    assert len(made.memory("merged")) == len(smoke_run.memory("merged"))
    assert made.lacks_texts()
    assert "The texts of its data and of its answers are not part of the recording." in made.recorded()["scale"]
    assert made.recorded()["command"].endswith("--without-texts")
    assert [check.what for check in verify.verify(made) if check.equal is False] == []
    verdict = {one.gate.key: one.reason for one in judge(made).gates}
    assert verdict["retention"] == "Not measured: it follows from answers, which are not part of the recording."


@pytest.mark.parametrize("read", [Run.steps, Run.memory])
def test_steps_and_memory_keep_six_digits(smoke_run, recording, read):
    before, after = numbers(read(smoke_run, "model_1")), numbers(read(recording, "model_1"))
    assert len(before) == len(after) > 100
    assert before != after
    assert after == [float(f"{value:.6g}") for value in before]


def test_statistics_of_weights_keep_their_numbers_and_a_picture_a_hundredth(smoke_run, recording):
    for name in ("weights", "signs"):
        (before, about), (after, told) = smoke_run.arrays(name), recording.arrays(name)
        assert told == about
        for key, array in before.items():
            assert after[key].dtype in (np.float32, np.int32)
            np.testing.assert_allclose(after[key], array, rtol=0.01 if key == "map" else 1e-6)
    assert (recording.path / "weights.safetensors").stat().st_size < 0.7 * (
        smoke_run.path / "weights.safetensors").stat().st_size


@pytest.mark.parametrize(("value", "short"), [
    (2 / 3, 0.666667), (1234567.0, 1234570.0), (1234567, 1234567), (True, True), (1e-9 / 3, 3.33333e-10), (None, None),
    ({"a": [0.1234567, "0.1234567"]}, {"a": [0.123457, "0.1234567"]})])
def test_numbers_that_are_not_whole_are_shortened(value, short):
    assert recorded.rounded(value) == short


@pytest.mark.parametrize(("text", "left"), [
    ("/one/a/b", "b"), ("--out=/one/x.json y", "--out=x.json y"), ("/one", "one"), ("at /one/a/, so", "at a, so"),
    ("/one/my files/a b", "a b"), ("../one", "one"), ("--set path=../../one/lume", "--set path=lume"), ("...", "..."),
    ("https://arxiv.org/abs/2503.21088", "https://arxiv.org/abs/2503.21088"), ("data/lume", "data/lume"),
    ("1/2", "1/2"), ("hf://datasets/a/b", "hf://datasets/a/b"), ("a / b", "a / b")])
def test_a_path_that_is_absolute_or_leads_out_is_its_last_part_and_nothing_else_is_touched(text, left):
    assert recorded.without_places(text) == left
    assert recorded.without_places({text: [text, 1]}) == {left: [left, 1]}


def test_nothing_says_where_on_a_machine_it_was(smoke_copy, tmp_path):
    smoke_copy.note(command=["unlearn_core", "run", "smoke", "--runs-dir", SECRET], lists={"forget": {SECRET: "a1"}},
                    sweep={"name": "mine", "configuration": "x"})
    smoke_copy.log(f"read {SECRET}")
    smoke_copy.write_probe("depth", {"from": SECRET}, [])
    made = recorded.record(smoke_copy, tmp_path / "out")
    assert [name for name, data in contents(made.path).items() if b"somebody" in data] == []
    assert made.info()["command"][-1] == "secret place"
    assert made.sweep() == ("", "")  # whose plan is not here


# ---- what it says of itself ------------------------------------------------------------------------------------------

def test_the_manifest_says_when_how_how_large_and_of_which_weights(smoke_run, recording):
    facts, info = recording.recorded(), recording.info()
    kept = ("id", "created", "seed", "device", "commit", "versions", "data_hashes")
    assert [info[key] for key in kept] == [smoke_run.info()[key] for key in kept]
    assert facts["command"] == f"python -m unlearn_core record {smoke_run.id}"
    assert facts["when"] > info["created"]
    assert facts["scale"].startswith("A small model of 146 thousand parameters, trained from scratch, on a generated "
                                     "world (9 documents to forget, 9 to retain).")
    assert facts["sizes"]["parameters"] == 145_920
    sizes = [len(data) for name, data in contents(recording.path).items() if name != "run.json"]
    assert facts["sizes"]["files"] == len(sizes) + 1
    assert 0 < facts["sizes"]["bytes"] - sum(sizes) < 3000  # the manifest before this was added
    assert (recording.adapter_keys(), recording.base_key()) == (smoke_run.adapter_keys(), smoke_run.base_key())
    assert recording.adapter_weights() == {}
    assert smoke_run.recorded() == {}


def test_the_command_that_it_names_makes_a_run_of_the_same_recipe(smoke_copy, tmp_path):
    smoke_copy.change_recipe(recipes.load("smoke", ["unlearn.gdr_weight=0", "merge.weights=[1,0.5]", "seed=3"]))
    words = shlex.split(recorded.record(smoke_copy, tmp_path / "out").recorded()["again"])
    assert words[:4] == ["python", "-m", "unlearn_core", "run"]
    options = cli.parser().parse_args(words[3:])
    assert recipes.load(options.recipe, options.set) == smoke_copy.recipe()


def test_of_a_recipe_of_ones_own_it_names_what_was_typed(tmp_path):
    run = example_run.finished(tmp_path / "runs")
    run.note(command=["unlearn_core", "run", f"{SECRET}/mine.toml", "--seed", "2"])
    facts = recorded.record(run, tmp_path / "out").recorded()
    assert facts["again"] == "python -m unlearn_core run mine.toml --seed 2"
    assert facts["base"] is None
    assert facts["adapters"] == {}


@pytest.mark.parametrize("odd", [
    {"when": "yesterday"}, {"again": 3}, {"sizes": {"bytes": "many"}}, {"adapters": {"merged": None}}, {"base": 1}])
def test_an_odd_value_in_what_it_says_is_named(private, odd):
    manifest = read_json(private.path / "run.json")
    write_json(private.path / "run.json", manifest | {"recorded": manifest["recorded"] | odd})
    with pytest.raises(InputError, match=r"run\.json; got recorded = "):
        private.recorded()


# ---- whole or not at all ---------------------------------------------------------------------------------------------

def test_a_run_that_is_not_finished_and_a_recording_are_not_recorded(tmp_path, recording):
    with pytest.raises(InputError, match="got a run that is interrupted; expected a finished one"):
        recorded.record(example_run.unfinished(tmp_path / "runs"), tmp_path / "out")
    with pytest.raises(InputError, match="got a recording"):
        recorded.record(recording, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_that_is_too_large_names_its_largest_files_and_the_older_one_stays(smoke_run, tmp_path, monkeypatch):
    before = contents(recorded.record(smoke_run, tmp_path).path)
    monkeypatch.setattr(recorded, "MAX_BYTES", 100_000)
    with pytest.raises(InputError, match=r"MB, most in signs\.safetensors 0\.\d\d, weights\..*at most 0\.1 MB"):
        recorded.record(smoke_run, tmp_path)
    assert contents(tmp_path) == {f"{smoke_run.id}/{name}": data for name, data in before.items()}


def test_a_damaged_run_leaves_nothing(smoke_copy, tmp_path):
    smoke_copy.steps_path("model_2").write_text("{}\nno json\n")
    with pytest.raises(InputError, match=r"steps.jsonl, line 2"):
        recorded.record(smoke_copy, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_recording_again_replaces_the_older_one(smoke_copy, tmp_path):
    first = recorded.record(smoke_copy, tmp_path / "out")
    (first.path / "left over").write_text("x")
    smoke_copy.write_meta(title="Better")
    again = recorded.record(smoke_copy, tmp_path / "out")
    assert again.meta()["title"] == "Better"
    assert not (again.path / "left over").exists()


# ---- nothing changes it ----------------------------------------------------------------------------------------------

COMMANDS = ["run --resume RUN", "train RUN --without forget", "evaluate RUN", "evaluate RUN --checkpoints",
            "merge-sweep RUN --methods", "balance RUN", "read-test RUN", "shadows RUN", "ablate RUN", "samples RUN",
            "probe RUN depth", "thresholds RUN --lock", "thresholds RUN --set utility=0.5", "weights RUN",
            "export RUN --out OUT"]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_would_change_it_says_that_it_is_a_recording_and_how_to_make_a_run(private, capsys, line):
    before = contents(private.path)
    out = private.path.parent / "out"
    words = line.replace("RUN", private.id).replace("OUT", str(out)).split()
    assert cli.main([*words, "--runs-dir", str(private.path.parent)]) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert f"error: run {private.id}; got a recording, which has no weights" in said
    assert "make one with: python -m unlearn_core run smoke" in said
    assert contents(private.path) == before
    assert not out.exists()


@pytest.mark.parametrize("change", [
    lambda run: run.write_meta(title="x"), lambda run: run.note(seed=1), lambda run: run.write_job(kind="run"),
    lambda run: run.claimed().__enter__(), gates.lock, lambda run: jobs.resume(run, device="cpu"),
    lambda run: jobs.measure(run, "probe", ["depth"], device="cpu")])
def test_neither_the_engine_nor_a_page_changes_it(private, change):
    before = contents(private.path)
    with pytest.raises(InputError, match="got a recording"):
        change(private)
    assert contents(private.path) == before


def test_its_base_cannot_be_taken_over(private, tmp_path):
    new = Store(tmp_path / "new").create(private.recipe(), {"seed": 0})
    with pytest.raises(InputError, match="no base model"):
        new.begin_with(private)


# ---- what still works ------------------------------------------------------------------------------------------------

def test_verify_finds_everything_equal_and_says_what_takes_weights(recording):
    checks = verify.verify(recording)
    assert [check.what for check in checks if check.equal is False] == []
    assert {check.what: check.where for check in checks if check.equal is None} == dict.fromkeys(
        (verify.MERGED, verify.BASE, "answers from the models"), verify.GONE)
    assert {"data files", "merged: scores from rows", "statistics of weights: of these weights",
            "evaluation of merged: of these weights"} <= {check.what for check in checks if check.equal}


def test_verify_finds_a_score_that_was_changed_in_a_recording(private):
    scores = private.scores()
    scores["merged"]["mia_auc"] += 0.001
    write_json(private.path / "scores.json", scores)
    assert [check.what for check in verify.verify(private) if check.equal is False] == ["merged: scores from rows"]


def test_of_brought_models_verify_says_that_they_are_not_there(private):
    write_json(private.path / "run.json", read_json(private.path / "run.json") | {
        "brought": {"merged": {"model": "model", "adapter": None, "sha256": "a"}}})
    found = {check.what: check for check in verify.verify(private)}
    assert (found[verify.BROUGHT].equal, found[verify.BROUGHT].where) == (None, verify.GONE)
    assert verify.MERGED not in found


def test_it_is_exported_and_imported_as_a_recording(recording, tmp_path):
    target = io.BytesIO()
    archive.export_run(recording, target, weights=False)
    run = archive.import_run(tmp_path / "store", target)
    assert run.recorded() == recording.recorded()
    assert contents(run.path) == contents(recording.path)


def test_show_takes_its_folder_and_list_shows_own_runs_alone(recording, tmp_path, capsys):
    assert cli.main(["show", str(recording.path), "--runs-dir", str(tmp_path)]) == 0
    assert "A small model of 146 thousand parameters" in capsys.readouterr().out
    assert cli.main(["list", "--runs-dir", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_the_command_says_where_it_is_and_how_large(smoke_run, tmp_path, capsys):
    assert cli.main(["record", str(smoke_run.path), "--out", str(tmp_path / "out")]) == 0
    assert f"recorded: {tmp_path / 'out' / smoke_run.id} (0." in capsys.readouterr().out
    assert [run.id for run in Store(tmp_path / "out").runs()] == [smoke_run.id]


# ---- the store's second folder ---------------------------------------------------------------------------------------

@pytest.fixture
def both(tmp_path):
    """A store with two own runs and three examples, of which one has the id of an own run."""
    own = [example_run.create(tmp_path / "runs", f"own {number}") for number in range(2)]
    for name in ("b", "a", own[0].id):
        shutil.copytree(own[0].path, tmp_path / "examples" / name)
    return Store(tmp_path / "runs", tmp_path / "examples"), own


def test_examples_are_listed_by_name_after_the_own_runs_of_which_the_newest_is_first(both):
    store, own = both
    assert [run.id for run in store.runs()] == [own[1].id, own[0].id, "a", "b"]
    assert [store.is_example(run) for run in store.runs()] == [False, False, True, True]


def test_an_id_opens_the_own_run_first_and_else_the_example(both):
    store, own = both
    assert store.open(own[0].id).path == own[0].path
    assert store.open("a").path == store.examples / "a"
    with pytest.raises(InputError, match="expected the id of a run"):
        Store(store.root).open("a")


def test_an_example_that_cannot_be_read_is_a_problem(both):
    store, _ = both
    (store.examples / "a" / "run.json").write_text("{")
    assert [run.id for run in store.runs()][-1] == "b"
    assert [problem[:3] for problem in store.problems()] == ["a: "]


def test_a_folder_of_examples_that_is_not_there_is_an_empty_one(tmp_path):
    assert Store(tmp_path, tmp_path / "none").runs() == []


def test_json_of_a_recording_has_no_number_that_json_does_not_know(recording):
    for path in recording.path.rglob("*.json"):
        assert all(map(math.isfinite, numbers(json.loads(path.read_text(encoding="utf-8")))))
