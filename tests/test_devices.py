"""One run shared by two real processes: killed, resumed, and the curve of one; other data seen; strange launchers."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tests.test_train import free_port
from unlearn_core import cli, jobs, launching, pipeline
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import read_rows
from unlearn_core.merging.task_vectors import load_adapter
from unlearn_core.store import Run, Store
from unlearn_core.vocabulary import UNLEARNED

ROOT = Path(__file__).parent.parent
SPEED = {"seconds", "tokens_per_second", "memory_mb"}  # differ from one execution to the next
# `accelerate launch` by this Python
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", launching.LAUNCH_FILE,
          "--num_processes", "2"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
SETTINGS = ["lora.dropout=0", "evaluation.max_new_tokens=4"]
KILLED_AT = 15  # step of model_1; the state is saved after 6, 11, 17 and 22
SHARED = [*SETTINGS, "unlearn.gradient_accumulation=2"]  # the smoke recipe accumulates 4 micro-batches

# Start a run; the main process kills the other one without warning at a step of model_1.
OTHER_KILLED_AT = """
import os, psutil, sys
from unlearn_core import pipeline, recipe
from unlearn_core.store import Run, Store
root, source, step, *settings = sys.argv[1:]
def report(now, done, total):
    if (now, done) == ("model_1", int(step)):
        for process in psutil.Process(os.getppid()).children():
            if process.pid != os.getpid():
                process.kill()
pipeline.start(recipe.load("smoke", settings), Store(root), device="cpu", report=report, source=Run(source))
"""


def launch(*arguments):
    """What two processes of accelerate's launcher say; the exit code and the output."""
    done = subprocess.run([*LAUNCH, *map(str, arguments)], cwd=ROOT, env=ONE_THREAD, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
    return done.returncode, done.stdout


def sets(settings):
    return [part for setting in settings for part in ("--set", setting)]


def curve(run, name):
    """The logged steps of a model, without speeds."""
    return [{key: value for key, value in row.items() if key not in SPEED}
            for row in read_rows(run.steps_path(name))]


@pytest.fixture(scope="module")
def alone(smoke_run, tmp_path_factory):
    """The smoke recipe without dropout, unlearned by one process."""
    return pipeline.start(recipes.load("smoke", SETTINGS), Store(tmp_path_factory.mktemp("alone")), device="cpu",
                          source=smoke_run)


@pytest.fixture(scope="module")
def killed(smoke_run, tmp_path_factory):
    """The same with half the accumulation, shared by two, of which the second is killed in model_1: (run, its state and
    steps then, exit code)."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "killing.py").write_text(OTHER_KILLED_AT)
    code, said = launch(folder / "killing.py", folder / "runs", smoke_run.path, KILLED_AT, *SHARED)
    runs = Store(folder / "runs").runs()
    assert len(runs) == 1, said
    return runs[0], runs[0].status(), runs[0].steps("model_1"), code


@pytest.fixture(scope="module")
def shared(killed):
    """That run, which two have finished; and what they said."""
    run, *_ = killed
    code, said = launch("-m", "unlearn_core", "run", "--resume", run.path, "--device", "cpu")
    assert code == 0, said
    return run, said


# ---- as one process ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", UNLEARNED)
def test_two_processes_killed_and_resumed_have_the_loss_curve_of_one(alone, shared, name):
    run, _ = shared
    assert (alone.info()["processes"], run.info()["processes"]) == (1, 2)
    ours, theirs = curve(alone, name), curve(run, name)
    assert len(ours) == {"model_1": 22, "model_2": 11}[name]
    assert [row["step"] for row in theirs] == [row["step"] for row in ours]  # each once, in order
    for one, two in zip(ours, theirs, strict=True):
        assert two["tokens"] == one["tokens"]  # the same items until then
        for key in one:
            assert two[key] == pytest.approx(one[key], rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("name", [*UNLEARNED, "merged"])
def test_two_processes_leave_whole_adapters_equal_to_those_of_one(alone, shared, name):
    ours, theirs = (load_adapter(run.adapter_dir(name)).modules for run in (alone, shared[0]))
    assert theirs.keys() == ours.keys()
    for module, factors in ours.items():
        torch.testing.assert_close(theirs[module].A, factors.A, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(theirs[module].B, factors.B, rtol=1e-3, atol=1e-4)
    if name in UNLEARNED:
        assert [step for step, _ in shared[0].checkpoints(name)] == [step for step, _ in alone.checkpoints(name)]


def test_two_processes_end_with_the_scores_of_one_and_one_of_them_writes_and_speaks(alone, shared):
    run, said = shared
    assert (run.status()["state"], run.device()) == ("finished", "cpu")
    assert said.count("sub-scores") == 1
    for name, scores in alone.scores().items():
        assert run.scores()[name] == pytest.approx(scores, abs=1e-3)
    ours, theirs = ({path.relative_to(found.path) for path in found.path.rglob("*")} for found in (alone, run))
    assert theirs - {run.log_path.relative_to(run.path)} == ours  # no file of a second writer


def test_without_less_accumulation_two_processes_make_half_the_updates():
    for model, one, two in ((recipes.load("smoke").model_1, 22, 11), (recipes.load("smoke").model_2, 11, 5)):
        assert (model.steps(30), model.steps(30, 2)) == (one, two)  # floor(3 * 30 / (4 * batch * processes))


def test_a_process_that_is_killed_ends_the_other_and_the_run_tells_how_it_goes_on(killed):
    run, status, steps, code = killed
    assert code == 1
    # Either the main process misses the other one first, or the launcher asks it to stop.
    assert (status["state"], status["stage"]) in (("failed", "model_1"), ("cancelled", "model_1"))
    assert [row["step"] for row in steps] == list(range(1, KILLED_AT + 1))
    if status["state"] == "failed":
        assert "another process of this run has ended; expected all 2" in status["message"]
        assert f"--num_processes 2 -m unlearn_core run --resume {run.path}" in status["message"]


def test_what_two_processes_have_trained_one_may_merge_and_measure(smoke_copy):
    smoke_copy.note(processes=2)
    pipeline.resume(smoke_copy, device="cpu")
    assert launching.needed(smoke_copy) is None


def test_a_run_of_several_processes_holds_as_many_devices(tmp_path):
    for device, held in (("cpu:0", {"cpu"}), ("cuda:0", {"cuda:0", "cuda:1"})):
        run = Store(tmp_path).create(recipes.load("smoke"), {"device": device, "processes": 2})
        run.write_status("running")
        assert {name for name in ("cpu", "cuda:0", "cuda:1", "cuda:2")
                if jobs.holder(Store(tmp_path), name)} == held
        run.discard()


# ---- what they must agree on ---------------------------------------------------------------------------------

# Each process in a folder of its own, as on machines without a shared file system, meets one bad input after the other.
APART = """
import json, os, sys
from unlearn_core import pipeline, processes, recipe
from unlearn_core.errors import InputError
from unlearn_core.store import Run, Store
accelerator = pipeline.make_accelerator("auto")
me = accelerator.process_index
told = [[accelerator.num_processes, str(accelerator.device)]]
def met(work):
    accelerator.wait_for_everyone()
    try:
        told.append(["done", str(work())])
    except (InputError, SystemExit) as error:
        told.append([type(error).__name__, str(error)])
os.chdir(sys.argv[1 + me])
met(lambda: pipeline.start(recipe.load("smoke"), Store("runs")))
met(lambda: pipeline.resume(Run("changed")))
met(lambda: pipeline.resume(Run("stale")))
met(lambda: pipeline.start(recipe.load("smoke", ["data.source=files", "data.path=nowhere"]), Store("runs")))
met(lambda: pipeline.resume(Run("of_four")))
met(lambda: pipeline.evaluate_again(Run("changed")))
met(lambda: processes.agree(accelerator, lambda: {"torch": "2.1" if me else "2.0", "numpy": "1"}))
met(lambda: processes.of_main(accelerator, lambda: me + 7))
print(json.dumps(told))
"""


def copied(run, target, **facts):
    """A copy of a run that has still to be trained."""
    shutil.copytree(run.path, target, ignore=shutil.ignore_patterns("model_1", "model_2", "merged", "scores.json"))
    copy = Run(target)
    copy.write_status("cancelled", "model_1")
    copy.note(**{"processes": 2, **facts})
    return copy


@pytest.fixture(scope="module")
def apart(smoke_run, tmp_path_factory):
    """What the two of `APART` met, by process."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for folder in folders:
        copied(smoke_run, folder / "stale")
        copied(smoke_run, folder / "of_four", processes=4)
        changed = copied(smoke_run, folder / "changed")
    with (changed.data_dir / "forget.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    port = str(free_port())
    workers = [subprocess.Popen(
        [sys.executable, "-c", APART, *map(str, folders)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=ROOT, env={**ONE_THREAD, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}) for rank in range(2)]
    try:
        ends = [worker.communicate(timeout=100) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], ends[0][1] + ends[1][1]
    assert list(Store(folders[0] / "runs").folders()) == []  # bad input leaves no run behind
    return [json.loads(out.splitlines()[-1]) for out, _ in ends]


def test_on_a_machine_without_a_gpu_the_processes_that_were_launched_share_the_run(apart):
    assert apart[0][0] == apart[1][0] == [2, "cpu:0"]


@pytest.mark.parametrize(("place", "told"), [
    (1, "process 1 on {node}: the run folder; got nothing; expected smoke-seed0-"),
    (2, "process 1 on {node}: forget.jsonl of the run's data; got "),
    (3, "process 1 on {node}: time of the run's status; got "),
    (4, "nowhere"),
    (5, "run of_four; got 2 processes; expected 4 as at its start"),
    (6, "launcher; got 2 processes; expected one: only run and train are shared"),
    (7, "process 1 on {node}: torch; got 2.1; expected 2.0 as the main process has it on {node}; give all")],
    ids=["no shared folder", "other data", "a copy of the run", "no data", "other number", "evaluate", "versions"])
def test_what_is_wrong_is_told_by_the_main_process_alone_and_both_end(apart, place, told):
    kind, message = apart[0][place]
    assert kind == "InputError"
    assert told.format(node=platform.node()) in message
    assert apart[1][place] == (apart[0][place] if "only run and train" in told else ["SystemExit", "2"])


def test_what_the_main_process_finds_all_have(apart):
    assert apart[0][8] == apart[1][8] == ["done", "7"]


# ---- launchers -----------------------------------------------------------------------------------------------

def launch_lines():
    """The documented lines."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("docs/install.md", "docs/devices.md"))
    return [line.split("  #")[0] for line in text.splitlines() if line.startswith("accelerate launch")]


@pytest.mark.parametrize("line", launch_lines())
def test_a_documented_launch_line_starts_a_run_by_our_file(line):
    words = launch_command_parser().parse_args(shlex.split(line)[2:])
    assert (words.config_file, words.module, words.training_script) == (launching.LAUNCH_FILE, True, "unlearn_core")
    assert words.num_processes > 1
    options = cli.parser().parse_args(words.training_script_args)
    assert options.resume or recipes.load(options.recipe, options.set).name == options.recipe


def environment_of(*options):
    """What accelerate's launcher puts into the environment of the processes that it starts."""
    arguments = launch_command_parser().parse_args([*options, "-m", "unlearn_core", "run", "smoke"])
    return prepare_multi_gpu_env(_validate_launch_command(arguments)[0])


def test_our_launch_file_is_one_that_accelerate_starts_processes_from_and_that_is_taken(monkeypatch):
    found = load_config_from_file(str(ROOT / launching.LAUNCH_FILE))
    assert (found.distributed_type.value, found.mixed_precision) == ("MULTI_GPU", "no")
    for variable, value in environment_of("--config_file", launching.LAUNCH_FILE, "--num_processes", "2").items():
        monkeypatch.setenv(variable, value)
    launching.check("auto", gpus=0)


@pytest.mark.parametrize(("options", "told"), [
    (["--use_fsdp"], "launcher: FSDP; got true; expected false; use --config_file unlearn_core/launch/"),
    (["--multi_gpu", "--mixed_precision", "bf16"], "mixed precision; got bf16; expected no; set it in the recipe"),
    (["--multi_gpu", "--dynamo_backend", "inductor"], "compilation; got inductor; expected no")])
def test_a_launcher_that_asks_for_more_is_refused_by_the_variables_that_it_sets(monkeypatch, options, told):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    for variable, value in environment_of(*options, "--num_processes", "2", "--num_machines", "1").items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=told):
        pipeline.make_accelerator("cpu")


@pytest.mark.parametrize(("variables", "device", "gpus", "told"), [
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, "auto", 0, "DeepSpeed; got true"),
    ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "auto", 0, "gradient accumulation; got 4; expected 1"),
    ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "cuda:1", 2, "got cuda:1 for 2 processes; expected auto, cuda or"),
    ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, "cuda", 2, "got 4 on this machine; expected at most 2, one for"),
    # what `accelerate launch --cpu --num_processes 2` sets, which then starts one process
    ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, "cpu", 0, "got one process, where accelerate was")])
def test_what_would_go_wrong_without_a_word_is_refused(monkeypatch, variables, device, gpus, told):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=told):
        launching.check(device, gpus)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_have_the_loss_curve_of_one_process(alone, smoke_run, tmp_path):
    code, said = launch("-m", "unlearn_core", "run", "smoke", *sets(SHARED), "--weights-of", smoke_run.path,
                        "--device", "cuda", "--runs-dir", tmp_path)
    assert code == 0, said
    [run] = Store(tmp_path).runs()
    for name in UNLEARNED:
        for one, two in zip(curve(alone, name), curve(run, name), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-2)
