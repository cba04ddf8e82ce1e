"""Detached engine processes: started, queued per device, stopped, and found again from their run folder. Torch-free.

A job is a watcher (this file as a program) in a session of its own. It waits until its device is free, then runs one
command of the command line as its child, in its process group, and writes down how that ended. Whoever started it may
go away: `job.json` in the run folder and the watcher's pid and start time are all that is needed to see it or stop it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import filelock
import psutil

from unlearn_core import launching
from unlearn_core.errors import InputError
from unlearn_core.provenance import surroundings
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, Store, now

READ_ONLY = "LETHE_READ_ONLY"
POLL_S = 0.5  # between two looks at the queue
MEASURES = ("ablate", "balance", "evaluate", "merge-sweep", "probe", "read-test", "samples", "shadows", "train",
            "weights")  # commands that change nothing of how the run itself ended
GRACE_S = 10.0  # between the request to stop and the end by force
CODE = Path(__file__).resolve().parent.parent


# ---- devices -------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Device:
    """One device to train on; memory in MiB (of the machine for the CPU)."""

    name: str
    label: str
    total_mb: float
    used_mb: float


def devices() -> list[Device]:
    """GPUs that this installation of torch can use, then the CPU. Asks nvidia-smi, since importing torch is slow."""
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    return [*_gpus(), Device("cpu", f"CPU ({os.cpu_count()} cores)", memory.total / 2**20, used / 2**20)]


def _gpus() -> list[Device]:
    if not _torch_has_cuda():
        return []
    rows = [line.split(", ") for line in _nvidia_smi("--query-gpu=index,name,memory.total,memory.used")]
    return [Device(f"cuda:{index}", name, float(total), float(used)) for index, name, total, used in rows]


def _torch_has_cuda() -> bool:
    """Whether torch is a CUDA build, read from its version file without importing it."""
    found = util.find_spec("torch")
    version = Path(found.origin).parent / "version.py" if found and found.origin else None
    return bool(version and version.is_file() and "\ncuda: Optional[str] = '" in version.read_text(encoding="utf-8"))


def _nvidia_smi(query: str) -> list[str]:
    try:
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader,nounits"], capture_output=True, text=True,
                              check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


# ---- start ---------------------------------------------------------------------------------------------------

def read_only() -> bool:
    """Whether the dashboard may only look: LETHE_READ_ONLY is set to something other than 0."""
    return os.environ.get(READ_ONLY, "0") not in ("", "0")


def refuse_if_read_only() -> None:
    """An InputError in read-only mode; whatever launches or writes on a person's behalf calls this first."""
    if read_only():
        raise InputError(READ_ONLY, got="a request to change something", expected="only looking",
                         fix=f"start the dashboard without {READ_ONLY}")


def start_run(store: Store, recipe: Recipe, *, device: str, source: Run | None = None, adapters: bool = False) -> Run:
    """A new run of the recipe, carried out by a job. `source`: see `Run.begin_with`."""
    refuse_if_read_only()
    _known(device)
    info = {"seed": recipe.seed, "processes": 1, "command": ["unlearn_core", "run", recipe.name],
            **surroundings(device)}
    run = store.create(recipe, info, state="interrupted")
    try:
        if source is not None:
            run.begin_with(source, adapters=adapters)
        _launch(run, "run", ["run", "--resume", str(run.path.resolve())], device)
    except BaseException:
        run.discard()
        raise
    return run


def resume(run: Run, *, device: str) -> None:
    """A job that goes on with a run at its last checkpoint."""
    refuse_if_read_only()
    run.refuse_if_recorded()
    _known(device)
    if run.status()["state"] == "finished":
        raise InputError(f"run {run.id}", got="a finished run", expected="one that stopped before its end")
    processes = launching.needed(run) or 1
    if processes > 1:
        again = launching.command_line(["run", "--resume", run.id], processes)
        raise InputError(f"run {run.id}", got=f"a run of {processes} processes", expected="a run of one",
                         fix=f"go on in a terminal with: {again}")
    _launch(run, "run", ["run", "--resume", str(run.path.resolve())], device)


def measure(run: Run, command: str, arguments: Sequence[str] = (), *, device: str) -> None:
    """A job that measures something on a run that has ended: `command` (one of `MEASURES`) with its arguments but for
    RUN and --device, as one would type it."""
    refuse_if_read_only()
    run.refuse_if_recorded()
    _known(device)
    if command not in MEASURES:
        raise InputError("job", got=command, expected=f"one of {', '.join(MEASURES)}")
    _launch(run, "evaluate", [command, str(run.path.resolve()), *arguments], device)


def _known(device: str) -> None:
    names = [found.name for found in devices()]
    if device not in names:
        raise InputError("device", got=device, expected=f"one of {', '.join(names)}")


def _launch(run: Run, kind: str, arguments: list[str], device: str) -> None:
    """Start the watcher, detached from this process, and write who it is."""
    with filelock.FileLock(run.path / ".launch.lock"):  # two clicks in two browsers
        if run.status()["state"] in ("queued", "running"):
            raise InputError(f"run {run.id}", got="a process that is already working on it",
                             expected="a run that stopped", fix="stop it first, or wait")
        command = [sys.executable, "-m", "unlearn_core", *arguments, "--device", device]
        paths = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
        with run.log_path.open("ab") as log:
            watcher = subprocess.Popen(
                [sys.executable, "-m", "unlearn_core.jobs", str(run.path.resolve())], stdin=subprocess.PIPE,
                stdout=log, stderr=log, start_new_session=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
        run.write_job(command=command, device=device, kind=kind, before=run.last_status(), queued=now(), started=None,
                      ended=None, exit_code=None, cancelled=False, pid=watcher.pid,
                      process_started=psutil.Process(watcher.pid).create_time())
        watcher.stdin.close()  # it has waited for job.json to be there


# ---- queue ---------------------------------------------------------------------------------------------------

def queue(store: Store, device: str | None = None) -> list[Run]:
    """Runs whose jobs wait (for `device`), the next one first."""
    return [run for _, run in sorted(((run.job()["queued"], run) for run in _in_state(store, "queued")
                                      if device in (None, run.job()["device"])), key=lambda entry: entry[0])]


def holder(store: Store, device: str) -> Run | None:
    """The run that is being worked on on a device, by a job or from a terminal; None where there is none."""
    return next((run for run in _in_state(store, "running") if device in _devices(run)), None)


def _devices(run: Run) -> set[str]:
    """What a run is worked on: of several processes each has a GPU, from the first one on."""
    job = run.job()
    if job and job["lives"]:
        return {job["device"]}
    device, processes = run.device(), run.info().get("processes", 1)
    return {device} if processes == 1 or device == "cpu" else {f"cuda:{number}" for number in range(processes)}


def _in_state(store: Store, state: str) -> list[Run]:
    found = []
    for run in store.folders():
        try:
            if run.status()["state"] == state:
                run.info()
                found.append(run)
        except InputError:  # a damaged run holds no device
            continue
    return found


def memory_mb(run: Run) -> float | None:
    """Memory in MiB of a living job's processes: on its GPU where it has one, else resident; None where none lives."""
    job = run.job()
    if job is None or not job["lives"]:
        return None
    try:
        watcher = psutil.Process(job["pid"])
        processes = [watcher, *watcher.children(recursive=True)]
        if job["device"].startswith("cuda"):
            rows = [line.split(", ") for line in _nvidia_smi("--query-compute-apps=pid,used_memory")]
            return sum(float(used) for pid, used in rows if int(pid) in {p.pid for p in processes})
        return sum(process.memory_info().rss for process in processes) / 2**20
    except (psutil.Error, ValueError):  # ended in between; a driver that does not tell
        return None


# ---- stop ----------------------------------------------------------------------------------------------------

def stop(run: Run, grace_s: float = GRACE_S) -> None:
    """End the run's processes: ask them to, wait up to `grace_s` seconds, then by force. The run is `cancelled`.

    Stops a run that a terminal started, too. Nothing happens where nothing runs.
    """
    refuse_if_read_only()
    job, status = run.job(), run.status()
    if job is not None and job["lives"]:
        pid, started, send = job["pid"], job["process_started"], os.killpg  # the watcher leads the group
    elif status["state"] == "running":
        pid, started, send = status["pid"], status["process_started"], os.kill
    else:
        return
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) >= 1.0:  # another process has its number by now
            return
        family = [process, *process.children(recursive=True)]
        send(pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=grace_s)
        if alive:
            send(pid, signal.SIGKILL)
            psutil.wait_procs(alive, timeout=5)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass  # it ended by itself
    _note_end(run, None, cancelled=True)


def _note_end(run: Run, exit_code: int | None, cancelled: bool) -> None:
    """Write how a job ended, and the state of the run where the engine could not: it was killed, or never began."""
    job = run.job()
    if job is not None and job["ended"] is None:
        run.write_job(exit_code=exit_code, cancelled=cancelled, ended=now())
    status = run.last_status()
    if status["state"] != "interrupted":
        return
    place = status["stage"], status["step"], status["total"]
    if job is not None and job["kind"] == "evaluate":  # measuring does not change how the run itself ended
        run.restore_status(job["before"])
    elif cancelled:
        run.write_status("cancelled", *place)
    elif exit_code is not None:
        last_words = run.log_tail(1) if exit_code > 0 else ""
        run.write_status("failed", *place, message=": ".join(filter(None, [describe_exit(exit_code), last_words])))


def describe_exit(code: int) -> str:
    """An exit code in words, such as "exit code 2" or "killed by SIGKILL (exit code -9; out of memory?)"."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"killed by {name} (exit code {code}{'; out of memory?' if name == 'SIGKILL' else ''})"


# ---- the watcher ---------------------------------------------------------------------------------------------

def watch(run: Run) -> None:
    """Wait for the device, run the job's command, write down how it ended. The body of the watcher's process."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job, store = run.job(), Store(run.path.parent)
    if job is None:  # who started us died before it could say what to do
        return
    lock = filelock.FileLock(store.root / f".{job['device'].replace(':', '-')}.lock")
    while not asked and not _is_next(store, run, job["device"], lock):
        time.sleep(POLL_S)
    code = None
    if not asked:
        run.write_job(started=now())
        child = subprocess.Popen(job["command"], stdin=subprocess.DEVNULL)
        code = child.wait()  # goes on after a signal, which the whole group gets
    _note_end(run, code, cancelled=bool(asked))


def _is_next(store: Store, run: Run, device: str, lock: filelock.FileLock) -> bool:
    """Whether the run is the first that waits, nobody works on the device, and the lock is now ours."""
    waiting = queue(store, device)
    if not waiting or waiting[0].id != run.id or holder(store, device) is not None:
        return False
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    return True


if __name__ == "__main__":
    sys.stdin.read()  # until whoever started us has written job.json
    watch(Run(Path(sys.argv[1])))
