"""Seeds of a sweep in processes of their own: started, heard, and ended with the one that started them."""

import pytest

from tests.test_sweeping import BROKEN, planned, states
from unlearn_core.errors import InputError
from unlearn_core.store import Store
from unlearn_core.sweep import sweeping


def test_several_jobs_need_a_number_of_threads(tmp_path):
    store = Store(tmp_path)
    sweep = planned(store, "threads=0")
    with pytest.raises(InputError, match="threads = 0"):
        sweeping.carry_out_apart(store, sweep, jobs=2, device="cpu")
    with pytest.raises(InputError, match="--jobs; got 0"):
        sweeping.carry_out_apart(store, sweep, jobs=0, device="cpu")


def test_seeds_in_processes_of_their_own_are_carried_out_and_heard(tmp_path):
    store = Store(tmp_path)
    sweep, told = planned(store, variants=[BROKEN], seeds=(0, 1)), []
    sweeping.carry_out_apart(store, sweep, jobs=2, device="cpu", told=told.append)
    assert states(store, sweep) == ["failed", "failed"]
    for seed in (0, 1):
        assert any(line.startswith(f"failed: seed {seed}, 1/1: broken") for line in told)


def test_the_end_of_the_parent_ends_its_processes(tmp_path, monkeypatch):
    store, processes = Store(tmp_path), []
    sweep = planned(store, seeds=(0,))

    def counted(*arguments, make=sweeping._process):
        processes.append(make(*arguments))
        return processes[-1]
    monkeypatch.setattr(sweeping, "_process", counted)

    def interrupt(_):
        raise KeyboardInterrupt
    monkeypatch.setattr(sweeping.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweeping.carry_out_apart(store, sweep, jobs=1, device="cpu")
    assert [process.poll() is None for process in processes] == [False]
