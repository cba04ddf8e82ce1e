"""Jobs as real processes: started detached, queued, stopped gracefully and by force, killed, found again."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import psutil
import pytest

from unlearn_core import jobs, launching
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import read_json
from unlearn_core.store import Store

LONG = ["base.epochs=100000"]  # never ends by itself while a test looks at it


def smoke(*overrides):
    return recipes.load("smoke", overrides)


@pytest.fixture
def store(tmp_path):
    """A store whose jobs are ended with the test; `smoke_copy` lies in it."""
    store = Store(tmp_path / "runs")
    yield store
    for run in store.folders():
        jobs.stop(run, grace_s=0.1)


def wait(run, holds, seconds=90):
    """The run's status as soon as `holds(status)`."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        status = run.status()
        if holds(status):
            return status
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s: {run.status()}\n{run.log_tail()}")


def wait_state(run, state):
    return wait(run, lambda status: status["state"] == state)


def wait_step(run, model):
    wait(run, lambda _: len(run.steps(model)) >= 2)


def ended(run):
    wait(run, lambda _: run.job()["ended"])
    return run.job()


def family(run):
    """The watcher of a run's job and its children."""
    watcher = psutil.Process(run.job()["pid"])
    return [watcher, *watcher.children(recursive=True)]


# ---- the whole life of jobs ----------------------------------------------------------------------------------

def test_a_job_outlives_who_started_it_and_leads_a_group_of_its_own(store):
    starter = ("import sys; from unlearn_core import jobs, recipe; from unlearn_core.store import Store; "
               f"recipe = recipe.load('smoke', {LONG}); "
               "print(jobs.start_run(Store(sys.argv[1]), recipe, device='cpu').id)")
    done = subprocess.run([sys.executable, "-c", starter, str(store.root)], capture_output=True, text=True, check=True)
    run = store.open(done.stdout.strip())
    wait_step(run, "base")
    watcher = run.job()["pid"]
    assert os.getsid(watcher) == os.getpgid(watcher) == watcher
    assert run.job()["command"][:3] == [sys.executable, "-m", "unlearn_core"]
    assert run.status()["state"] == "running"
    assert jobs.memory_mb(run) > 50


def test_jobs_take_turns_on_a_device_in_the_order_of_their_start(store):
    first = jobs.start_run(store, smoke(*LONG), device="cpu")
    second, third = (jobs.start_run(store, smoke(), device="cpu") for _ in range(2))
    wait_step(first, "base")
    assert [run.id for run in jobs.queue(store)] == [second.id, third.id]
    assert jobs.holder(store, "cpu").id == first.id
    assert second.status()["state"] == "queued"
    jobs.stop(second)  # one that waits
    assert second.status()["state"] == "cancelled"
    assert [run.id for run in jobs.queue(store)] == [third.id]
    jobs.stop(first)
    wait_state(third, "finished")
    assert (third.scores().keys(), ended(third)["exit_code"]) == (
        {"untrained", "base", "model_1", "model_2", "merged"}, 0)


def test_a_run_that_a_terminal_started_makes_jobs_wait_and_can_be_stopped(store):
    command = [sys.executable, "-m", "unlearn_core", "run", "smoke", "--set", *LONG, "--runs-dir", str(store.root),
               "--device", "cpu"]
    terminal = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not store.runs():
        time.sleep(0.05)
    first = store.runs()[0]
    wait_step(first, "base")
    second = jobs.start_run(store, smoke(), device="cpu")
    time.sleep(3 * jobs.POLL_S)
    assert second.status()["state"] == "queued"
    jobs.stop(second)
    jobs.stop(first)
    assert terminal.wait(10) is not None
    assert first.status()["state"] == "cancelled"


def test_a_stopped_run_goes_on_where_it_was_and_gives_the_same_scores(store, smoke_run):
    run = jobs.start_run(store, smoke(), device="cpu")
    wait_step(run, "model_1")
    started = time.monotonic()
    jobs.stop(run)
    assert time.monotonic() - started < jobs.GRACE_S  # it ended by itself, not by force
    assert (run.status()["state"], run.status()["stage"]) == ("cancelled", "model_1")
    assert (ended(run)["cancelled"], run.job()["exit_code"]) == (True, 130)
    jobs.resume(run, device="cpu")
    wait_state(run, "finished")
    assert run.scores() == smoke_run.scores()


def test_a_process_that_does_not_listen_is_ended_by_force_with_its_whole_group(store):
    run = jobs.start_run(store, smoke(*LONG), device="cpu")
    wait_step(run, "base")
    processes = family(run)
    assert len(processes) == 2
    os.killpg(run.job()["pid"], signal.SIGSTOP)  # a stopped process gets no SIGTERM
    jobs.stop(run, grace_s=0.5)
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert run.status()["state"] == "cancelled"


def test_an_engine_killed_from_outside_is_a_failed_run_with_its_signal(store):
    run = jobs.start_run(store, smoke(*LONG), device="cpu")
    wait_step(run, "base")
    family(run)[1].kill()
    status = wait_state(run, "failed")
    assert status["message"] == "killed by SIGKILL (exit code -9; out of memory?)"
    assert (status["stage"], ended(run)["exit_code"]) == ("base", -9)


def test_a_job_killed_with_its_watcher_is_interrupted_and_can_be_resumed(store):
    run = jobs.start_run(store, smoke(), device="cpu")
    wait_step(run, "model_1")
    os.killpg(run.job()["pid"], signal.SIGKILL)
    wait_state(run, "interrupted")
    jobs.resume(run, device="cpu")
    wait_state(run, "finished")


def test_an_engine_whose_watcher_was_killed_still_holds_the_device(store):
    run = jobs.start_run(store, smoke(*LONG), device="cpu")
    wait_step(run, "base")
    watcher, engine = family(run)
    watcher.kill()
    second = jobs.start_run(store, smoke(), device="cpu")
    time.sleep(3 * jobs.POLL_S)
    assert (run.status()["state"], second.status()["state"]) == ("running", "queued")
    jobs.stop(run)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
    assert run.status()["state"] == "cancelled"


def test_a_run_that_cannot_begin_fails_with_the_reason_in_its_status_and_log(store):
    run = jobs.start_run(store, smoke("data.source=files", "data.path=nowhere"), device="cpu")
    status = wait_state(run, "failed")
    assert "nowhere" in status["message"]
    assert "no such folder" in run.log_tail()
    assert ended(run)["exit_code"] == 2


def test_scoring_checkpoints_is_a_job_that_leaves_the_run_finished(store, smoke_copy):
    run = smoke_copy
    jobs.measure(run, "evaluate", ["--checkpoints", "--models", "model_2", "--documents", "1", "--seed", "3"],
                 device="cpu")
    assert run.status()["state"] in ("queued", "running")
    assert ended(run)["exit_code"] == 0
    assert run.status()["state"] == "finished"
    found = run.trajectory()
    assert (found["documents_per_task"], found["seed"]) == (1, 3)
    assert [row["step"] for row in found["rows"]] == [step for step, _ in run.checkpoints("model_2")]


def test_scoring_that_is_stopped_by_force_leaves_the_run_finished(store, smoke_copy):
    run = smoke_copy
    jobs.measure(run, "evaluate", ["--checkpoints"], device="cpu")
    wait(run, lambda status: status["stage"].startswith("evaluate checkpoints"))
    jobs.stop(run, grace_s=0)
    assert ended(run)["cancelled"]
    assert run.status()["state"] == "finished"


# ---- weights of another run ----------------------------------------------------------------------------------

def test_a_run_from_the_weights_of_another_trains_no_base_and_starts_at_step_1(store, smoke_copy):
    recipe = smoke("model_1.gdr_weight=0", "model_1.klr_weight=0")
    run = jobs.start_run(store, recipe, device="cpu", source=smoke_copy)
    wait_state(run, "finished")
    assert run.steps("base") == smoke_copy.steps("base")
    assert run.steps("model_1")[0]["step"] == 1
    assert run.info()["started_from"] == {"run": smoke_copy.info()["id"], "adapters": {},
                                          "evaluations": ["untrained", "base"]}  # which are not measured twice
    assert run.scores()["base"] == smoke_copy.scores()["base"]
    assert run.scores()["model_2"] == smoke_copy.scores()["model_2"]  # the same recipe from the same base
    assert run.steps("model_1") != smoke_copy.steps("model_1")


# ---- refusals ------------------------------------------------------------------------------------------------

def test_a_run_at_work_is_started_only_once(store):
    run = jobs.start_run(store, smoke(*LONG), device="cpu")
    for again in (jobs.resume, lambda run, device: jobs.measure(run, "evaluate", device=device)):
        with pytest.raises(InputError, match="already working on it"):
            again(run, device="cpu")


def test_a_command_that_measures_nothing_is_no_job(smoke_copy):
    with pytest.raises(InputError, match="job; got export; expected one of ablate"):
        jobs.measure(smoke_copy, "export", device="cpu")


def test_a_finished_run_is_not_resumed(smoke_copy):
    with pytest.raises(InputError, match="finished run"):
        jobs.resume(smoke_copy, device="cpu")


def test_an_unknown_device_is_refused_before_a_folder_is_made(store):
    with pytest.raises(InputError, match=r"got cuda:99; expected one of .*cpu"):
        jobs.start_run(store, smoke(), device="cuda:99")
    assert not store.root.exists()


def test_read_only_mode_refuses_every_launch_and_stop(monkeypatch, store, smoke_copy):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    for launch in (lambda: jobs.start_run(store, smoke(), device="cpu"), lambda: jobs.resume(smoke_copy, device="cpu"),
                   lambda: jobs.measure(smoke_copy, "evaluate", device="cpu"), lambda: jobs.stop(smoke_copy)):
        with pytest.raises(InputError, match="LETHE_READ_ONLY"):
            launch()
    monkeypatch.setenv(jobs.READ_ONLY, "0")
    assert not jobs.read_only()
    assert [run.id for run in store.folders()] == [smoke_copy.id]


def test_stopping_a_run_at_rest_changes_nothing(smoke_copy):
    before = read_json(smoke_copy.path / "status.json")
    jobs.stop(smoke_copy)
    assert read_json(smoke_copy.path / "status.json") == before


def test_the_pid_of_a_job_that_another_process_has_by_now_is_not_its_own(smoke_copy):
    me = psutil.Process()
    smoke_copy.write_job(command=["x"], device="cpu", kind="run", queued=datetime.now(UTC).isoformat(), started=None,
                         ended=None, exit_code=None, cancelled=False, before={}, pid=me.pid,
                         process_started=me.create_time() - 60)
    assert not smoke_copy.job()["lives"]
    assert smoke_copy.status()["state"] == "finished"
    jobs.stop(smoke_copy)  # does not end this test


# ---- words ---------------------------------------------------------------------------------------------------

def test_the_cpu_is_always_a_device_and_its_memory_adds_up():
    cpu = jobs.devices()[-1]
    assert cpu.name == "cpu"
    assert 0 < cpu.used_mb < cpu.total_mb == psutil.virtual_memory().total / 2**20


def test_a_build_without_cuda_lists_no_gpu_even_where_the_driver_does(monkeypatch):
    monkeypatch.setattr(jobs, "_nvidia_smi", lambda query: ["0, NVIDIA H100 80GB HBM3, 81559, 4"])
    monkeypatch.setattr(jobs, "_torch_has_cuda", lambda: False)
    assert [device.name for device in jobs.devices()] == ["cpu"]
    monkeypatch.setattr(jobs, "_torch_has_cuda", lambda: True)
    assert jobs.devices()[0] == jobs.Device("cuda:0", "NVIDIA H100 80GB HBM3", 81559, 4)


def test_whether_torch_has_cuda_is_read_without_importing_it():
    code = "import sys; from unlearn_core import jobs; print(jobs._torch_has_cuda(), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    import torch
    assert told == [str(torch.version.cuda is not None), "False"]


@pytest.mark.parametrize(("code", "words"), [
    (2, "exit code 2"), (-9, "killed by SIGKILL (exit code -9; out of memory?)"),
    (-11, "killed by SIGSEGV (exit code -11)")])
def test_an_exit_code_in_words(code, words):
    assert jobs.describe_exit(code) == words


def test_a_command_is_shown_as_one_would_type_it():
    assert launching.command_line(["run", "my recipe.toml", "--set", "a=b"]) == (
        "python -m unlearn_core run 'my recipe.toml' --set a=b")
