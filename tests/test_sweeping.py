"""Sweeps carried out: each base is trained once, what stopped goes on, what fails is named and ends nothing else."""

import os
from contextlib import contextmanager

import pytest

from unlearn_core import cli, pipeline
from unlearn_core.errors import DeviceError, InputError
from unlearn_core.store import Store
from unlearn_core.sweep import sweep_grid, sweeping, sweeps

# The smoke recipe in a second: nothing but which stages are carried out, and how often, is looked at here.
QUICK = ["base.epochs=1", "unlearn.epochs=1", "unlearn.warmup_epochs=0", "unlearn.checkpoints=0", "world.stories=2",
         "world.people=2", "world.biographies=2", "world.quiz_per_subject=1", "evaluation.max_new_tokens=2",
         "evaluation.open_questions=1", "evaluation.mmlu_shots=0"]
BROKEN = ["broken", "base.source=load", "base.model=/nowhere/model"]


def planned(store, *settings, variants=(), seeds=(0,), name=""):
    return sweeps.add(store, sweep_grid.plan("smoke", [*QUICK, *settings], variants, seeds, name=name))


def states(store, sweep):
    return [cell.state for cell in sweeps.cells(sweep, store.runs())]


def weights(run):
    return (run.full_model_dir("base") / "model.safetensors").stat().st_ino


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(store, sweep, the runs of a first call that was interrupted in model_1 of the second run, and how they stood;
    the bases that were trained): two values of the density on two seeds, carried out to the end."""
    store, trained = Store(tmp_path_factory.mktemp("swept") / "runs"), []
    sweep = planned(store, "merge.density=0.4,0.8", seeds=(0, 1))

    @contextmanager
    def interrupting():
        def report(label, done, total):
            if label.startswith("seed 0, 2/2") and done == 1:
                raise KeyboardInterrupt
        yield report

    def counted(run, recipe, name, *others, memorise=pipeline.memorise):
        trained.append((recipe.seed, name))
        memorise(run, recipe, name, *others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "memorise", counted)
        with pytest.raises(KeyboardInterrupt):
            sweeping.carry_out(store, sweep, device="cpu", shown=interrupting)
        stopped = {run.id: run.status()["state"] for run in store.runs()}
        sweeping.carry_out(store, sweep, device="cpu")
    return store, sweep, stopped, trained


def test_a_sweep_that_was_interrupted_goes_on_with_the_same_runs(swept):
    store, sweep, stopped, _ = swept
    assert sorted(stopped.values()) == ["cancelled", "finished"]
    cells = sweeps.cells(sweep, store.runs())
    assert [cell.state for cell in cells] == ["finished"] * 4
    assert len(store.runs()) == 4
    assert set(stopped) == {cell.run.id for cell in cells if cell.seed == 0}
    goes_on = next(run for run in store.runs() if stopped.get(run.id) == "cancelled")
    assert len(goes_on.info()["resumed"]) == 2


def test_the_base_of_each_seed_is_trained_once_and_taken_over_with_what_was_measured_on_it(swept):
    store, sweep, _, trained = swept
    assert trained == [(0, "base"), (1, "base")]
    found = sweeps.runs_of(sweep, store.runs())
    for seed in (0, 1):
        first, second = (found[f"merge.density={density}", seed] for density in (0.4, 0.8))
        assert second.info()["started_from"] == {"run": first.id, "adapters": {}, "evaluations": ["untrained", "base"]}
        assert "started_from" not in first.info()
        assert weights(first) == weights(second)  # one file, two names
        for model in ("untrained", "base"):
            assert second.answers(model) == first.answers(model)
            assert second.scores()[model] == first.scores()[model]
        assert first.adapter_keys()["model_1"] == second.adapter_keys()["model_1"]
        assert first.adapter_keys()["merged"] != second.adapter_keys()["merged"]


def test_a_run_that_took_its_base_over_is_equal_to_one_that_was_started_alone(swept, tmp_path):
    store, sweep, _, _ = swept
    second = sweeps.runs_of(sweep, store.runs())["merge.density=0.8", 1]
    alone = pipeline.start(second.recipe(), Store(tmp_path), device="cpu")
    assert alone.scores() == second.scores()
    assert alone.adapter_keys() == second.adapter_keys()


def test_runs_bear_the_sweep_as_a_tag_and_their_configuration_as_a_title(swept):
    store, sweep, _, _ = swept
    run = sweeps.runs_of(sweep, store.runs())["merge.density=0.8", 1]
    assert run.meta() == {"title": "merge.density=0.8, seed 1", "tags": ["smoke-merge.density"], "archived": False}
    assert run.sweep() == (sweep.name, "merge.density=0.8")


def test_a_finished_sweep_does_nothing(swept):
    store, sweep, _, _ = swept
    before = {run.id: run.last_status() for run in store.runs()}
    told = []
    sweeping.carry_out(store, sweep, device="cpu", told=told.append)
    assert told == []
    assert {run.id: run.last_status() for run in store.runs()} == before


def begin(swept, *settings):
    """A run of another sweep of the same store, begun beside a finished run of seed 0."""
    store, sweep, _, _ = swept
    other = planned(store, *settings, name="other" + "".join(filter(str.isalnum, "".join(settings))))
    source = sweeps.runs_of(sweep, store.runs())["merge.density=0.4", 0]
    made_with = {key: source.info()[key] for key in ("device", "commit", "versions")}
    return source, sweeping._begin(store, other, other.configurations[0], 0, [source], made_with)


@pytest.mark.parametrize("setting", ["base.lr=1e-3", "encoding.max_length=128", "data.holdout_share=0.4", "threads=2",
                                     "precision=bf16", "evaluation.mia_members=forget_task1"])
def test_a_run_with_other_data_or_another_base_takes_nothing_over(swept, setting):
    _, run = begin(swept, setting)
    assert "started_from" not in run.info()
    assert not run.data_dir.exists()
    run.discard()


def test_with_other_settings_of_the_evaluation_the_base_is_taken_over_and_measured_anew(swept):
    source, run = begin(swept, "evaluation.batch_size=8")
    assert run.info()["started_from"]["run"] == source.id
    assert weights(run) == weights(source)
    assert not run.is_evaluated("base")
    run.discard()


def test_what_another_version_measured_is_not_taken_over(swept):
    source, run = begin(swept, "lora.r=2")
    assert run.is_evaluated("base")
    run.discard()
    store, _, _, _ = swept
    again = store.create(source.recipe(), {"device": "cpu", "commit": "another", "versions": {}})
    again.begin_with(source)
    assert not again.is_evaluated("base")
    again.discard()


def test_a_failure_is_named_ends_nothing_and_is_tried_once_more(tmp_path, capsys):
    store = Store(tmp_path)
    sweep = planned(store, variants=[BROKEN, ["whole"]], name="variants")
    told = []
    sweeping.carry_out(store, sweep, device="cpu", told=told.append)
    assert states(store, sweep) == ["failed", "finished"]
    failed = sweeps.runs_of(sweep, store.runs())["broken", 0]
    assert len(told) == 1
    assert told[0].startswith(f"failed: seed 0, 1/2: broken ({failed.id}): InputError: model")
    line = f"failed: broken, seed 0 ({failed.id}): InputError: model; got /nowhere/model"
    assert line in sweeps.report(sweep, sweeps.cells(sweep, store.runs()))
    assert cli.main(["sweep", "--report", "variants", "--runs-dir", str(tmp_path)]) == 1
    assert line in capsys.readouterr().out
    sweeping.carry_out(store, sweep, device="cpu")
    assert len(sweeps.runs_of(sweep, store.runs())["broken", 0].info()["resumed"]) == 2
    assert len(store.runs()) == 2


def test_a_folder_whose_process_died_before_any_work_is_made_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    sweep = planned(store)
    half = sweeping._begin(store, sweep, sweep.configurations[0], 0, [], {})
    half.data_dir.mkdir()  # as if the copy of the data had been cut off
    done = []
    monkeypatch.setattr(pipeline, "resume", lambda run, **_: done.append(run.id))
    sweeping.carry_out(store, sweep, device="cpu")
    assert not half.data_dir.exists()
    assert [run.id for run in store.runs()] == done


def test_a_seed_that_another_process_works_on_is_left_to_it(tmp_path):
    store = Store(tmp_path)
    sweep, told = planned(store, seeds=(0,)), []
    with store.sweep_claimed(sweep.name, 0) as ours:
        assert ours
        sweeping.carry_out(store, sweep, device="cpu", told=told.append)
    assert told == ["seed 0: another process works on it"]
    assert store.runs() == []


def test_a_run_that_somebody_works_on_is_left_alone(tmp_path):
    store = Store(tmp_path)
    sweep, told = planned(store), []
    run = sweeping._begin(store, sweep, sweep.configurations[0], 0, [], {})
    run.write_status("running", "model_1", 1, 9)  # by this process, which lives
    sweeping.carry_out(store, sweep, device="cpu", told=told.append)
    assert told == [f"left alone: seed 0, 1/1: smoke ({run.id} is running)"]


def test_a_device_that_is_gone_ends_the_sweep(tmp_path, monkeypatch):
    store, begun = Store(tmp_path), []
    sweep = planned(store, "merge.density=0.4,0.8")

    def gone(run, **_):
        begun.append(run.id)
        raise DeviceError("the GPU stopped working") from RuntimeError("CUDA error: unspecified launch failure")
    monkeypatch.setattr(pipeline, "resume", gone)
    with pytest.raises(DeviceError, match="stopped working"):
        sweeping.carry_out(store, sweep, device="cpu")
    assert len(begun) == 1


def test_processes_that_share_a_run_cannot_share_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    store = Store(tmp_path)
    with pytest.raises(InputError, match="several processes that share a run"):
        sweeping.carry_out(store, planned(store), device="cpu")


# ---- the command ---------------------------------------------------------------------------------------------

@pytest.fixture
def call(capsys, tmp_path):
    """Run `sweep` in a runs folder: (exit code, stdout, stderr)."""
    def run(*arguments):
        code = cli.main(["sweep", *arguments, "--runs-dir", str(tmp_path / "runs")])
        return code, *capsys.readouterr()
    return run


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "expected a recipe, or --resume SWEEP, or --report SWEEP"),
    (["smoke", "--report", "x"], "one of them only"),
    (["--resume", "x"], "got x; expected one of none"),
    (["--report", "x", "--set", "lora.r=2"], "settings beside --resume or --report"),
    (["--report", "x", "--seeds", "0"], "settings beside --resume or --report"),
    (["smoke", "--seeds", "1,1"], "expected each seed once"),
    (["smoke", "--set", "lora.rank=2"], "unknown setting lora.rank"),
    (["smoke", "--set", "merge.density=0.4,"], "a value before and after each comma"),
    (["smoke", "--variant", "lora.r=8"], "expected first a name"),
    (["smoke", "--seeds", "0-300"], "got 301 runs; expected at most 200"),
    (["smoke", "--name", "../x"], "name of a sweep")])
def test_bad_input_is_one_line_and_leaves_no_run(call, tmp_path, arguments, said):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert Store(tmp_path / "runs").folders() == []


def test_the_command_counts_carries_out_and_prints_and_a_resume_with_seeds_adds(call, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(pipeline, "resume", lambda run, **_: ran.append(run.recipe().seed))
    code, out, err = call("smoke", "--set", "merge.density=0.4,0.8", "--seeds", "0-1", "--device", "cpu")
    assert (code, ran) == (0, [0, 0, 1, 1])
    assert "sweep smoke-merge.density: 4 runs planned: 4 not begun." in err
    assert "| merge.density=0.4 | 0 of 2 | - |" in out
    ran.clear()
    call("--resume", "smoke-merge.density", "--seeds", "5", "--device", "cpu")
    assert ran == [5, 5]
    assert sweeps.read(Store(tmp_path / "runs"), "smoke-merge.density").seeds == (0, 1, 5)


def test_an_interrupted_command_says_how_to_go_on(call, monkeypatch):
    def interrupt(run, **_):
        raise KeyboardInterrupt
    monkeypatch.setattr(pipeline, "resume", interrupt)
    code, _, err = call("smoke", "--device", "cpu")
    assert code == 130
    assert "it goes on with: python -m unlearn_core sweep --resume smoke-seeds" in err


def test_links_are_made_where_there_can_be_some_and_copies_elsewhere(swept, tmp_path, monkeypatch):
    store, sweep, _, _ = swept
    source = sweeps.runs_of(sweep, store.runs())["merge.density=0.4", 0]

    def refused(*_):
        raise OSError("no links here")
    monkeypatch.setattr(os, "link", refused)
    run = Store(tmp_path).create(source.recipe(), {})
    run.begin_with(source)
    assert weights(run) != weights(source)
    assert run.base_key() == source.base_key()
