"""The command line: help that teaches, one-line errors that leave the store unharmed, and what the commands do."""

import argparse
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.test_pipeline import differing
from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core import cli, models, run_models, tables
from unlearn_core import recipe as recipes
from unlearn_core.data import readers
from unlearn_core.evaluation import official
from unlearn_core.merging.merge import merge
from unlearn_core.merging.task_vectors import load_adapter
from unlearn_core.settings import Lora, Merge
from unlearn_core.store import Store
from unlearn_core.trials import variants
from unlearn_core.vocabulary import UNLEARNED

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def handler_restored():
    """`main` takes over SIGTERM for its process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def call(capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""
    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()
    return run


@pytest.fixture
def refused(call):
    """Run a command that must end with a one-line error, code 2 and no output; the error."""
    def run(*arguments):
        code, out, err = call(*arguments)
        *before, last = err.splitlines()
        assert (code, out) == (2, "")
        assert last.startswith("error: ")
        assert not any("error" in line.lower() or "Traceback" in line for line in before)
        return last
    return run


def missing(words, text):
    return [word for word in words if word not in text]


# ---- help ----------------------------------------------------------------------------------------------------------

def parsers(parser, path=()):
    """(words of the command, its parser) for every command that can be run."""
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not commands:
        yield path, parser
    for action in commands:
        for name, inner in action.choices.items():
            yield from parsers(inner, (*path, name))


COMMANDS = dict(parsers(cli.parser()))


def test_the_commands_are_those_of_the_method():
    assert sorted(" ".join(words) for words in COMMANDS) == [
        "ablate", "balance", "data check", "data fetch", "estimate", "evaluate", "export", "list", "merge",
        "merge-sweep", "models fetch", "probe", "read-test", "record", "run", "samples", "score", "shadows", "show",
        "sweep", "thresholds", "train", "verify", "weights"]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_every_option_explains_itself(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m unlearn_core {' '.join(words)}" in text
    assert " ".join(COMMANDS[words].description.split()) in " ".join(text.split())
    assert [action.dest for action in COMMANDS[words]._actions if not action.help] == []


def test_the_main_help_has_examples_exit_codes_and_what_a_run_is(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert missing(["unlearn_core run demo", "run --resume RUN", "id of a run", "2 bad input", "130"], text) == []
    listed = "".join(COMMANDS[("run",)].format_help().split())  # a line may end inside a name with a hyphen
    assert missing([path.stem for path in recipes.RECIPES.glob("*.toml")], listed) == []


@pytest.mark.parametrize("arguments", [[], ["rum"], ["run", "--sed", "3", "--fast"], ["show"], ["merge"]])
def test_an_unknown_command_or_option_shows_the_usage_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m unlearn_core" in capsys.readouterr().err


# ---- an empty store, a listed one ------------------------------------------------------------------------------------

def test_an_empty_or_absent_store_lists_how_to_make_a_run(call, tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        code, out, err = call("list", "--runs-dir", root)
        assert (code, out, err) == (0, f"no runs in {root}; make one with: python -m unlearn_core run demo\n", "")
    assert not (tmp_path / "none").exists()


def test_an_unknown_run_is_an_error_in_a_process_of_its_own_too(tmp_path):
    done = subprocess.run([sys.executable, "-m", "unlearn_core", "show", "smoke-7", "--runs-dir", str(tmp_path)],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: run; got smoke-7; expected the id of a run in {tmp_path} or a run folder; "
                           "list the runs with: python -m unlearn_core list\n")


def test_the_list_shows_the_merged_models_scores_and_names_what_cannot_be_read(call, smoke_store, smoke_copy):
    half, torn = (shutil.copytree(smoke_copy.path, smoke_store.root / name) for name in ("half", "torn"))
    (half / "recipe.json").unlink()
    (torn / "scores.json").write_text("{")
    code, out, err = call("list", "--runs-dir", smoke_store.root)
    merged = smoke_copy.scores()["merged"]
    assert code == 0
    assert [line.split() for line in out.splitlines() if "finished" in line] == [
        [smoke_copy.id, "finished", *smoke_copy.info()["created"][:19].split("T"), "smoke", "0",
         f"{merged['task_aggregate']:.3f}", f"{merged['mia_auc']:.3f}"]]
    assert sorted(line.split(";")[0] for line in err.splitlines()) == [
        "not readable: half: run half", f"not readable: torn: {torn / 'scores.json'}"]


def test_long_and_bracketed_names_are_listed_as_they_are(call, tmp_path):
    long = Store(tmp_path).create(recipes.parse({"name": "x" * 300}), {})
    name = "a[bold]name"
    run = Store(tmp_path / "two").create(recipes.parse({"name": name}), {})
    assert f" {long.id} " in call("list", "--runs-dir", tmp_path)[1]
    assert name in call("list", "--runs-dir", tmp_path / "two")[1].split()
    code, out, _ = call("show", run.path)
    assert code == 0
    assert f"{run.path}: running, data 0/0\n" in out
    assert f"  name = {name!r}\n" in out
    assert out.endswith("no scores yet\n")


def test_a_run_is_shown_with_recipe_state_and_all_its_scores(call, smoke_run):
    code, out, _ = call("show", smoke_run.id, "--runs-dir", smoke_run.path.parent)
    assert code == 0
    assert out.startswith(f"{smoke_run.path}: finished\n")
    assert "  base.hidden_size = " in out
    rows = [line.split() for line in out.splitlines()]
    merged = smoke_run.scores()["merged"]
    [headlines, cells] = [row for row in rows if row[:1] == ["merged"]]
    assert headlines[1:5] == [f"{merged[key]:.3f}" for key in ("aggregate", "task_aggregate", "mia_score", "mia_auc")]
    sides = [f"{side}_{name}_{task}" for side in ("forget", "retain") for task in (1, 2, 3)
             for name in ("regurgitation", "knowledge")]
    assert cells[1:] == [f"{merged[key]:.2f}" for key in sides]
    # The untrained model's answers are not measured.
    headlines, cells = [row for row in rows if row[:1] == ["untrained"]]
    assert headlines[1:3] == ["-", "-"]
    assert cells[1:] == ["-"] * 12
    assert "9 members with 6 non-members" in out


def test_a_failed_run_is_shown_with_its_message(call, tmp_path):
    run = Store(tmp_path).create(recipes.load("smoke"), {})
    run.write_status("failed", "model_1", 3, 9, "out of memory [GPU 0]")
    assert call("show", run.path)[1].startswith(f"{run.path}: failed, model_1 3/9 (out of memory [GPU 0])\n")


def test_what_was_not_measured_is_a_dash_and_a_measured_zero_is_a_zero(call, tmp_path):
    run = Store(tmp_path).create(recipes.load("smoke"), {})
    run.write_evaluation("base", answers=[], documents=[], mmlu=[], intervals={},
                         scores={"task_aggregate": 0.0, "forget_knowledge_1": 0.0})
    run.write_scores()
    _, out, _ = call("show", run.path)
    headlines, cells = [line.split() for line in out.splitlines() if line.split()[:1] == ["base"]]
    assert headlines == ["base", "-", "0.000", "-", "-", "not", "measured", "-", "-"]
    assert cells == ["base", "-", "0.00", *["-"] * 10]
    assert "members" not in out


# ---- bad data --------------------------------------------------------------------------------------------------------

GOOD = {side: [{"id": f"{side}{n}{kind}", "input": f"{side} {n} {kind}", "output": "yes", "task": task}
               for n, task in enumerate(("Task1", "Task2", "Task3")) for kind in ("sc1", "qa0")]
        for side in ("forget", "retain")}
LINES = [json.dumps(row) for row in GOOD["forget"]]


def changed(number, **fields):
    """The good lines with one changed; a value of None takes the field out."""
    row = {key: value for key, value in {**GOOD["forget"][number - 1], **fields}.items() if value is not None}
    return [*LINES[:number - 1], json.dumps(row), *LINES[number:]]


BAD_DATA = {
    "missing field": (changed(2, output=None), ["line 2: field output", "got only id, input, task"]),
    "empty file": ([], ["got an empty file", "expected at least one row"]),
    "torn line": ([*LINES[:3], LINES[3][:20]], ["line 4", "got broken JSON", "expected one whole JSON object"]),
    "duplicate id": (changed(3, id="forget0sc1"), ["line 3: duplicate id", "got forget0sc1", "line 1"]),
    "no type": (changed(4, id="forget1"), ["line 4: id", "got forget1", "expected a document id, then sc or qa"]),
    "overlap": (changed(5, id="retain2sc1"), ["retain.jsonl", "got 1 shared items, the first retain2sc1 = retain2sc1",
                                              "data.allow_overlap=true"]),
    "no UTF-8": ([*LINES[:1], LINES[1].replace("yes", "déjà").encode("latin-1"), *LINES[2:]],
                 ["line 2", "got byte 0xe9", "expected UTF-8", "convert the file to UTF-8"]),
    "unknown task": (changed(1, task="Task4"), ["line 1: task", "got Task4", "one of Task1, Task2, Task3"]),
}


def write_lines(path, lines):
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(json.loads(line)).encode()
                               if line.endswith("}") else line.encode()) + b"\n" for line in lines))


def on_files(folder, *more):
    """Arguments of a run on the files of a folder."""
    return ("run", "smoke", "--set", "data.source=files", "--set", f"data.path={folder}", "--device", "cpu",
            "--runs-dir", folder / "runs", *more)


def left(folder):
    """Everything in the store of `on_files`."""
    root = folder / "runs"
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


@pytest.fixture
def files(tmp_path):
    """A folder with good data."""
    for side, rows in GOOD.items():
        readers.write_items(tmp_path / f"{side}.jsonl", [
            readers.Item(row["id"], row["input"], row["output"], row["task"]) for row in rows])
    return tmp_path


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_one_line_that_names_the_file_and_leaves_no_run(refused, files, kind):
    lines, words = BAD_DATA[kind]
    write_lines(files / "forget.jsonl", lines)
    error = refused(*on_files(files))
    assert missing([str(files / "forget.jsonl"), "expected", *words], error) == []
    assert left(files) == []


@pytest.mark.parametrize(("name", "content", "words"), [
    ("forget.jsonl", None, ["got no forget file", "or name it in data.forget"]),
    ("mmlu/test/a_test.csv", "q,1,2,3,4,E\n", ["a_test.csv, line 1", "answer 'E'", "expected"]),
    ("mmlu/dev/a_dev.csv", "q,1,2\n", ["a_dev.csv, line 1", "3 columns"]),
])
def test_other_bad_files_leave_no_run_either(refused, files, name, content, words):
    for part in ("dev", "test"):
        (files / "mmlu" / part).mkdir(parents=True)
        (files / "mmlu" / part / f"a_{part}.csv").write_text("q,1,2,3,4,A\n")
    (files / name).unlink() if content is None else (files / name).write_text(content)
    assert missing(words, refused(*on_files(files))) == []
    assert left(files) == []


def test_member_files_that_are_asked_for_and_missing_leave_no_run(refused, files):
    error = refused(*on_files(files, "--set", "evaluation.mia_members=files"))
    assert missing(["evaluation.mia_members", "member.jsonl and nonmember.jsonl"], error) == []
    assert left(files) == []


def test_a_refused_run_does_not_harm_the_runs_beside_it(refused, files, smoke_store, smoke_copy, smoke_run):
    (files / "forget.jsonl").write_text("")
    refused(*on_files(files, "--runs-dir", smoke_store.root))
    assert [run.id for run in smoke_store.runs()] == [smoke_copy.id]
    assert smoke_store.problems() == []
    assert differing(smoke_copy, smoke_run) == []


# ---- bad models and adapters -----------------------------------------------------------------------------------------

@pytest.fixture
def model(tmp_path):
    """A whole model folder."""
    models.save_model(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(("damage", "words"), [
    (lambda folder: shutil.rmtree(folder), ["expected an existing folder or a hub id"]),
    (lambda folder: (folder / "config.json").unlink(), ["got no config.json", "expected a model saved in"]),
    (lambda folder: (folder / "config.json").write_text("{"), ["got a config.json that cannot be"]),
    (lambda folder: (folder / "config.json").write_text("{}"), ["expected a causal language model"]),
    (lambda folder: (folder / "model.safetensors").unlink(), ["check that config, weights (safetensors)"]),
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), ["weights (safetensors)"]),
    (lambda folder: os.truncate(folder / "model.safetensors", 5000), ["expected a causal language model"]),
    (lambda folder: [path.unlink() for path in folder.glob("*token*")], ["got no tokenizer"]),
], ids=["gone", "no config", "torn config", "empty config", "no weights", "pickle", "torn weights", "no tokenizer"])
def test_a_folder_that_is_no_whole_model_is_named_and_leaves_no_run(refused, files, model, damage, words):
    damage(model)
    error = refused(*on_files(files, "--set", "base.source=load", "--set", f"base.model={model}"))
    assert missing([str(model), *words], error) == []
    assert left(files) == []


def adapter_for(base, folder, seed=0):
    """A fresh adapter of `base`, saved."""
    models.save_adapter(models.add_adapter(base, Lora(r=4, alpha=4.0), seed), folder, "tiny")
    return folder


def test_an_adapter_for_another_base_is_refused_and_nothing_is_written(refused, smoke_run, tmp_path):
    own = [smoke_run.adapter_dir(name) for name in UNLEARNED]
    models.save_model(tiny_model(), tiny_tokenizer(), tmp_path / "other")
    error = refused("merge", "--adapters", *own, "--out", tmp_path / "merged", "--base", tmp_path / "other",
                    "--full-model", tmp_path / "full")
    assert missing([f"adapter {tmp_path / 'merged'}", f"got an adapter trained on {smoke_run.id}/models/base/model",
                    f"expected one for {tmp_path / 'other'}", "use the adapter of this base"], error) == []
    foreign = adapter_for(tiny_model(), tmp_path / "foreign")
    error = refused("merge", "--adapters", own[0], foreign, "--out", tmp_path / "merged")
    assert missing(["tiny", "expected"], error) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "other"]


def test_a_run_with_an_adapter_of_another_base_is_not_evaluated(refused, smoke_copy, tmp_path):
    shutil.rmtree(smoke_copy.adapter_dir("merged"))
    adapter_for(tiny_model(), smoke_copy.adapter_dir("merged"))
    error = refused("evaluate", smoke_copy.path, "--models", "merged", "--device", "cpu")
    assert missing([f"adapter {smoke_copy.adapter_dir('merged')}", "got an adapter trained on tiny"], error) == []
    assert smoke_copy.status()["state"] == "finished"


def test_an_adapter_of_another_runs_base_is_refused_even_if_its_shapes_fit(refused, smoke_copy):
    config = smoke_copy.adapter_dir("merged") / "adapter_config.json"
    config.write_text(config.read_text().replace(smoke_copy.id, "smoke-seed7-20260101-000000"))
    error = refused("evaluate", smoke_copy.path, "--models", "merged", "--device", "cpu")
    assert missing(["got an adapter trained on smoke-seed7-20260101-000000", f"expected one for {smoke_copy.id}"],
                   error) == []


def test_a_prompt_that_leaves_no_answer_token_is_an_error_and_a_cut_answer_is_counted(call, refused, tmp_path):
    short = ["--set", "encoding.max_length=12", "--device", "cpu", "--runs-dir", tmp_path]
    assert "no answer token left" in refused("run", "smoke", "--set", "encoding.prompt_share=1.0", *short)
    code, out, _ = call("run", "smoke", "--set", "base.epochs=1", "--set", "unlearn.epochs=1", *short)
    assert code == 0
    [run] = [run for run in Store(tmp_path).runs() if run.status()["state"] == "finished"]
    assert run.info()["truncated_answers"] > 0
    assert f"warning: {run.info()['truncated_answers']} answers lose their end" in out


# ---- half-deleted runs -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [("show",), ("evaluate",), ("run", "--resume")], ids=" ".join)
@pytest.mark.parametrize(("part", "words"), [
    ("run.json", ["got no run.json", "expected a run folder made by Lethe"]),
    ("recipe.json", ["got no recipe.json", "restore it or remove it"]),
])
def test_a_run_without_its_first_files_is_refused_by_every_command(refused, smoke_copy, command, part, words):
    (smoke_copy.path / part).unlink()
    assert missing(words, refused(*command, smoke_copy.path)) == []


@pytest.mark.parametrize(("command", "part", "words"), [
    ("evaluate", "data/forget.jsonl", ["data/forget.jsonl", "expected a readable file"]),
    ("evaluate", "data/attack.jsonl", ["data/attack.jsonl"]),
    ("evaluate", "models/base/model/model.safetensors", ["models/base/model", "weights (safetensors)"]),
    ("evaluate", "models/model_2/adapter", ["model_2/adapter", "expected an existing folder with a LoRA"]),
    ("resume", "models/model_2/adapter/adapter_config.json", ["model_2/adapter/adapter_config.json", "no such file"]),
    ("resume", "data/retain.jsonl", ["data/retain.jsonl", "expected a readable file"]),
])
def test_a_run_that_lost_a_part_names_it_and_keeps_its_scores(refused, smoke_copy, command, part, words):
    scores = smoke_copy.scores()
    path = smoke_copy.path / part
    path.unlink() if path.is_file() else shutil.rmtree(path)
    if command == "resume":
        shutil.rmtree(smoke_copy.adapter_dir("merged"))
        error = refused("run", "--resume", smoke_copy.path, "--device", "cpu")
        assert smoke_copy.status()["state"] == "failed"
        assert smoke_copy.status()["message"].endswith(error.removeprefix("error: "))
    else:
        error = refused("evaluate", smoke_copy.path, "--device", "cpu")
        assert smoke_copy.status()["state"] == "finished"
    assert missing(words, error) == []
    assert smoke_copy.scores() == scores


# ---- bad arguments ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("arguments", "words"), [
    (["run"], "got no recipe; expected a recipe such as demo, or --resume RUN"),
    (["run", "smokee"], "did you mean smoke?"),
    (["run", "smoke", "--seed", "-1"], "smoke.toml: seed; got -1; expected at least 0"),
    (["run", "smoke", "--set", "merge.denisty=0.5"], "did you mean density?"),
    (["run", "smoke", "--set", "merge.density"], "--set; got merge.density; expected table.key=value"),
    (["run", "smoke", "--device", "gpu"], "--device; got gpu; expected auto, cpu, cuda or cuda:N"),
    (["run", "smoke", "--device", "cuda:99"], "--device; got cuda:99; expected one of the"),
    (["run", "smoke", "--set", "world.stories=1800"], "expected at most 3600"),
    (["run", "smoke", "--set", 'evaluation.mmlu_subjects=["oposites"]'], "did you mean opposites?"),
    (["run", "--resume", "smoke-7"], "got smoke-7; expected the id of a run"),
    (["run", "smoke", "--resume", "smoke-7"], "a run keeps its recipe"),
    (["train", "smokee"], "did you mean smoke?"),
    (["evaluate", "smoke-7"], "got smoke-7; expected the id of a run"),
    (["score", "nowhere"], "nowhere; got no such folder"),
    (["merge-sweep", "smoke-7"], "got smoke-7; expected the id of a run"),
    (["balance", "smoke-7"], "got smoke-7; expected the id of a run"),
    (["ablate", "smoke-7"], "got smoke-7; expected the id of a run"),
    (["samples", "smoke-7"], "got smoke-7; expected the id of a run"),
    (["read-test", "smoke-7"], "got smoke-7; expected the id of a run"),
    (["shadows", "smoke-7"], "got smoke-7; expected the id of a run"),
])
def test_bad_arguments_are_one_line_and_leave_no_run(refused, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LETHE_RUNS", str(tmp_path / "runs"))
    assert words in refused(*arguments)
    assert left(tmp_path) == []


def test_a_model_that_a_run_has_not_is_refused_with_those_that_it_has(refused, smoke_copy):
    error = refused("evaluate", smoke_copy.path, "--models", "retrained")
    assert error == "error: evaluate --models; got retrained; expected one of untrained, base, model_1, model_2, merged"


def test_a_runs_folder_that_is_a_file_is_an_error(refused, tmp_path):
    (tmp_path / "runs").write_text("")
    assert "choose another one with --runs-dir" in refused("run", "smoke", "--runs-dir", tmp_path / "runs")


def test_a_full_disk_is_one_line_with_code_1_and_leaves_no_half_run(call, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        code, out, err = call("run", "smoke", "--runs-dir", tmp_path, "--device", "cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, out) == (1, "")
    assert err == "error: [Errno 27] File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    Store(tmp_path).create(recipes.load("smoke"), {})
    for command in (["list", "--runs-dir", str(tmp_path)], ["list", "--runs-dir", str(tmp_path / "none")]):
        process = subprocess.Popen([sys.executable, "-m", "unlearn_core", *command], cwd=ROOT, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (0, "")
        process.stderr.close()


# ---- train, merge, score ---------------------------------------------------------------------------------------------

def test_training_first_and_resuming_then_gives_what_one_run_gives(call, smoke_run, tmp_path):
    code, out, _ = call("train", "smoke", "--runs-dir", tmp_path, "--device", "cpu")
    [run] = Store(tmp_path).runs()
    assert code == 0
    assert f"python -m unlearn_core run --resume {run.path}" in out
    assert run.scores() == {}
    assert not run.adapter_dir("merged").exists()
    assert "not merged or scored yet" in call("show", run.path)[1]
    assert call("run", "--resume", run.path, "--device", "cpu")[0] == 0
    assert differing(smoke_run, run) == []


@pytest.mark.parametrize(("settings", "expected"), [
    (["--preset", "mergekit", "--method", "dare_ties", "--density", "0.5"],
     Merge("dare_ties", "delta", 0.5, elect="after", divisor="none", rescale="l1")),
    (["--preset", "ties-paper", "--weights", "1", "-0.5"], Merge("ties", "delta", weights=(1.0, -0.5),
                                                                   trim_scope="global")),
    (["--method", "cat", "--rank", "3"], Merge("cat", rank=3)),
    (["--level", "delta", "--elect", "after", "--divisor", "weights", "--seed", "5"],
     Merge(level="delta", elect="after", divisor="weights", seed=5)),
])
def test_the_settings_of_a_merge_come_from_a_preset_and_its_changes(call, smoke_run, tmp_path, settings, expected):
    parents = [smoke_run.adapter_dir(name) for name in UNLEARNED]
    code, _, _ = call("merge", "--adapters", *parents, "--out", tmp_path / "merged", *settings)
    assert code == 0
    wanted = merge([load_adapter(folder) for folder in parents], expected)
    found = load_adapter(tmp_path / "merged")
    for name, factors in wanted.modules.items():
        torch.testing.assert_close(found.modules[name].B @ found.modules[name].A, factors.B @ factors.A)


def test_three_adapters_of_unequal_rank_are_merged_and_a_full_disk_leaves_nothing(call, smoke_run, tmp_path):
    parents = [smoke_run.adapter_dir(name) for name in (*UNLEARNED, "merged")]
    code, out, err = call("merge", "--adapters", *parents, "--out", tmp_path / "three", "--level", "delta")
    assert (code, err) == (0, "")
    assert "cosine to each: " in out
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code, out, err = call("merge", "--adapters", *parents, "--out", tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["three"]


def test_sweep_balance_and_ablation_print_what_they_scored(call, smoke_copy, monkeypatch):
    monkeypatch.setattr(variants, "SCALES", (1.0,))
    monkeypatch.setattr(variants, "MIX", (0.5,))
    some = [smoke_copy.path, "--documents", "1", "--device", "cpu"]
    code, out, _ = call("merge-sweep", *some, "--density", "0.5,0.8")
    assert code == 0
    assert ["density", "TIES,", "density", "0.5"] in [line.split()[:4] for line in out.splitlines()]
    code, out, _ = call("balance", *some)
    assert code == 0
    assert "Too little to conclude anything" in out
    code, out, _ = call("ablate", *some, "--parts", "layer", "--draws", "1", "--mode", "remove", "flip")
    assert code == 0
    lines = [line.split()[:3] for line in out.splitlines()]
    assert ["layer", "0", "remove"] in lines
    assert ["layer", "1", "flip"] in lines
    assert sum(line[:3] == ["1", "random", "parts,"] for line in lines) == 4
    assert call("merge-sweep", *some)[0] == 2  # nothing to vary


def test_samples_are_drawn_and_their_leaks_printed_per_model(call, refused, smoke_copy):
    code, out, _ = call("samples", smoke_copy.path, "--models", "base", "merged", "--samples", "2", "--temperature",
                        "0.5", "--people", "1", "--seed", "3", "--device", "cpu")
    assert code == 0
    lines = [line.split()[:5] for line in out.splitlines()]
    assert ["base", "1", "2", "0.5", "3"] in lines
    assert ["merged", "1", "2", "0.5", "3"] in lines
    assert "leak@k: share of the people" in out
    assert "a temperature above 0" in refused("samples", smoke_copy.path, "--temperature", "0", "--device", "cpu")


def test_merging_two_adapters_by_hand_gives_the_runs_merged_adapter(call, smoke_run, tmp_path):
    code, out, _ = call("merge", "--adapters", *(smoke_run.adapter_dir(name) for name in UNLEARNED),
                        "--out", tmp_path / "merged")
    assert code == 0
    assert out.startswith(f"merged adapter: {tmp_path / 'merged'}\nits update is ")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "merged" / file).read_bytes() == (smoke_run.adapter_dir("merged") / file).read_bytes()


def test_a_merge_with_its_base_is_also_written_as_a_full_model(call, smoke_run, tmp_path):
    base = smoke_run.full_model_dir("base")
    code, out, _ = call("merge", "--adapters", *(smoke_run.adapter_dir(name) for name in UNLEARNED), "--out",
                        tmp_path / "merged", "--base", base, "--full-model", tmp_path / "full")
    assert (code, out.splitlines()[-1]) == (0, f"full model: {tmp_path / 'full'}")
    full, tokenizer = models.load_model(str(tmp_path / "full"))
    run_model, _ = run_models.load(smoke_run, smoke_run.recipe(), "merged", "cpu")
    ids = torch.tensor([tokenizer("What is the capital of")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(full(ids).logits, run_model(ids).logits)


def test_a_model_of_a_run_is_exported_whole_and_refused_where_it_is_not_there(call, smoke_run, tmp_path):
    runs = ("--runs-dir", smoke_run.path.parent)
    code, out, _ = call("export", smoke_run.id, "--model", "model_2", "--out", tmp_path / "full", *runs)
    assert (code, out) == (0, f"full model: {tmp_path / 'full'}\n")
    full, _ = models.load_model(str(tmp_path / "full"))
    of_run, _ = run_models.load(smoke_run, smoke_run.recipe(), "model_2", "cpu")
    for name, tensor in of_run.state_dict().items():
        assert torch.equal(full.state_dict()[name], tensor)
    code, _, said = call("export", smoke_run.id, "--out", tmp_path / "full", *runs)
    assert (code, "got something that exists" in said) == (2, True)
    code, _, said = call("export", smoke_run.id, "--model", "model_3", "--out", tmp_path / "other", *runs)
    assert (code, "model_3" in said, (tmp_path / "other").exists()) == (2, True, False)


@pytest.mark.parametrize(("more", "words"), [
    (["--out", "."], "--out .; got something that exists; expected a new folder"),
    (["--out", "new", "--full-model", "."], "--full-model .; got something that exists"),
    (["--out", "new", "--full-model", "full"], "got only one of --base and --full-model"),
    (["--out", "new", "--density", "2"], "merge density; got 2.0"),
    (["--out", "new", "--density", "nan"], "merge density; got nan"),
    (["--out", "new", "--weights", "1"], "merge weights; got [1.0]; expected 2 finite numbers"),
    (["--out", "new", "--rank", "2"], "set level to delta"),
    (["--out", "new", "--device", "gpu"], "--device; got gpu"),
    (["--out", "new", "--base", "nowhere/to/be/found", "--full-model", "full"], "model; got nowhere/to/be/found"),
])
def test_a_merge_that_cannot_be_writes_nothing(refused, smoke_run, tmp_path, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    adapters = [smoke_run.adapter_dir(name) for name in UNLEARNED]
    assert words in refused("merge", "--adapters", *adapters, *more)
    assert list(tmp_path.iterdir()) == []


def test_one_adapter_or_a_folder_that_is_none_cannot_be_merged(refused, smoke_run, tmp_path):
    adapter = smoke_run.adapter_dir("model_1")
    assert "got 1 adapters; expected at least two" in refused("merge", "--adapters", adapter, "--out", tmp_path / "new")
    assert "adapter_config.json; got no such file" in refused("merge", "--adapters", adapter, tmp_path, "--out",
                                                              tmp_path / "new")


OFFICIAL_KEYS = ["forget-set", "retain-set", "mia_loss_acc", "mmlu_average", "aggregated-terms",
                 "harmonic-mean-task-aggregate", "aggregate-score", "mia_final_score"]


def as_official(run, model, folder):
    """A model's answers in the files that the official script writes."""
    (folder / "mia_results").mkdir(parents=True)
    for split in ("forget", "retain"):
        with (folder / f"{split}_0.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "task", "input", "expected_output", "model_output", "nll"])
            writer.writeheader()
            writer.writerows({"id": row["id"], "task": row["task"], "input": row["prompt"], "nll": row["nll"],
                              "expected_output": row["answer"], "model_output": row["generation"]}
                             for row in run.answers(model) if row["split"] == split)
    for side, member in (("member", True), ("nonmember", False)):
        rows = [f"{row['nll']!r}\n" for row in run.documents(model) if row["member"] is member]
        (folder / "mia_results" / f"{side}_0.csv").write_text("nll\n" + "".join(rows))
    (folder / "metrics.json").write_text(json.dumps({"average_acc": run.scores()[model]["mmlu"]}))


def test_score_prints_the_official_keys_and_agrees_with_the_runs_own_scores(call, smoke_run, tmp_path):
    as_official(smoke_run, "merged", tmp_path / "answers")
    code, out, err = call("score", tmp_path / "answers")
    result, own = json.loads(out), smoke_run.scores()["merged"]
    assert (code, err) == (0, "")
    assert sorted(result) == sorted(OFFICIAL_KEYS)
    assert result["forget-set"].keys() == {"overall-regurgitation-score", "overall-knowledge-score", "Task1", "Task2",
                                           "Task3"}
    assert len(result["aggregated-terms"]) == 12
    for key, metric in (("harmonic-mean-task-aggregate", "task_aggregate"), ("mia_loss_acc", "mia_auc"),
                        ("mia_final_score", "mia_score"), ("mmlu_average", "mmlu"), ("aggregate-score", "aggregate")):
        assert result[key] == pytest.approx(own[metric], abs=1e-12)
    assert result["forget-set"]["Task2"]["knowledge-score"] == pytest.approx(own["forget_knowledge_2"], abs=1e-12)


def test_score_warns_below_the_organisers_mmlu_threshold(call, smoke_run, tmp_path):
    as_official(smoke_run, "merged", tmp_path)
    (tmp_path / "metrics.json").write_text('{"average_acc": 0.3}')
    code, out, err = call("score", tmp_path)
    assert code == 0
    assert json.loads(out)["mmlu_average"] == 0.3
    assert err == f"warning: {official.warning(json.loads(out))}\n"
    assert "0.371" in err


def test_check_passes_good_data_and_names_each_bad_row_with_code_2(call, files):
    code, out, err = call("data", "check", files)
    assert (code, err) == (0, "")
    write_lines(files / "forget.jsonl", changed(2, output=None))
    code, out, err = call("data", "check", files)
    assert code == 2
    assert f"{files / 'forget.jsonl'}, line 2: field output" in out
    assert err == f"error: {files}; got 1 errors; expected data without errors\n"
    code, _, err = call("data", "check", files / "nowhere.jsonl")
    assert code == 2
    assert err.startswith(f"error: {files / 'nowhere.jsonl'}; got ")


def test_a_number_is_a_number_and_nothing_is_a_dash():
    assert (tables._number(0.0), tables._number(None)) == ("0.000", "-")
