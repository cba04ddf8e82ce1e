"""A device that is full or gone: one sentence with advice, a run that goes on, and nothing else taken for it."""

import shutil

import numpy as np
import pytest
import torch

from unlearn_core import advice, cli, pipeline
from unlearn_core import recipe as recipes
from unlearn_core.errors import DeviceError, InputError
from unlearn_core.evaluation import generation, memory
from unlearn_core.store import Run, Store
from unlearn_core.training import losses
from unlearn_core.training.optimise import saved_step

FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.90 GiB memory in use.")
GONE = torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously "
                              "reported at some other API call.\nCompile with `TORCH_USE_CUDA_DSA`.")
AGAIN = "python -m unlearn_core run --resume runs/one"


def of_the_cpu():
    """The error of torch's CPU allocator, raised for real."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    return caught.value


def of_numpy():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**60, dtype=np.uint8)
    return caught.value


# ---- which errors ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("error", [
    FULL, RuntimeError("CUDA error: out of memory"), torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), MemoryError()], ids=repr)
def test_memory_that_ran_out_is_known_whoever_says_it(error):
    assert advice.is_out_of_memory(error)
    assert not advice.is_device_gone(error)


def test_the_real_errors_of_the_cpu_are_known():
    assert advice.is_out_of_memory(of_the_cpu())
    assert advice.is_out_of_memory(of_numpy())


@pytest.mark.parametrize("error", [
    GONE, RuntimeError("CUDA driver error: device not ready"), RuntimeError("No CUDA GPUs are available"),
    RuntimeError("CUDA error: device-side assert triggered"), RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")],
    ids=lambda error: str(error).partition("\n")[0])
def test_a_gpu_that_failed_is_known(error):
    assert advice.is_device_gone(error)
    assert not advice.is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("The size of tensor a (4) must match the size of tensor b (32)"),
                                   ValueError("out of memory"), InputError("out of memory"), KeyError("CUDA error")],
                         ids=repr)
def test_other_errors_are_left_alone(error):
    assert advice.device_error(error, recipes.load("demo"), "model_1", AGAIN) is None
    with pytest.raises(type(error)), advice.explained(recipes.load("demo"), lambda: "model_1", AGAIN):
        raise error


# ---- what to do --------------------------------------------------------------------------------------------------

def test_the_sentence_has_what_was_asked_for_what_was_free_and_how_to_go_on():
    told = str(advice.device_error(FULL, recipes.load("demo"), "model_1", AGAIN))
    assert told.startswith("model_1: out of memory (2.00 GiB asked for, 1.20 GiB free); ")
    assert f"go on with: {AGAIN} --set model_1.joined=false --set model_1.gradient_checkpointing=true; " in told
    assert "\n" not in told


def test_the_cpus_sentence_has_the_memory_that_the_machine_has_free():
    told = str(advice.device_error(of_the_cpu(), recipes.load("demo"), "base", AGAIN))
    assert told.startswith("base: out of memory (4194304.00 GiB asked for, ")  # 2^50 fp32 numbers
    assert "B free)" in told


@pytest.mark.parametrize(("name", "changes", "stage", "same", "other"), [
    ("demo", [], "model_1", [["model_1.joined=false"], ["model_1.gradient_checkpointing=true"]],
     [["encoding.max_length=128"], ["precision=bf16"]]),  # 1 item a micro-batch: no smaller batch
    # the paper's second model: 2 x 4 items a step stay 8; checkpointing is on, its padding is read by KLR
    ("paper", [], "model_2", [["model_2.joined=false"]],
     [["model_2.batch_size=1", "model_2.gradient_accumulation=8"], ["model_2.klr_positions=real"],
      ["encoding.max_length=128"]]),
    ("demo", ["model_2.batch_size=6", "unlearn.joined=false", "unlearn.klr_reference=fp32"], "model_2",
     [["model_2.gradient_checkpointing=true"], ["model_2.klr_reference_place=disk"]],
     [["model_2.batch_size=3", "model_2.gradient_accumulation=8"], ["encoding.max_length=128"], ["precision=bf16"]]),
    ("demo", [], "base", [["base.gradient_checkpointing=true"]], [["base.batch_size=4"], ["encoding.max_length=128"]]),
    ("demo", ["base.batch_size=1", "encoding.max_length=40", "base.gradient_checkpointing=true"], "retrained-2",
     [], []),
    ("demo", [], "evaluate merged: answers", [], [["precision=bf16"]]),
    ("paper", ["precision=fp32"], "base", [], [["precision=bf16"]]),  # it is loaded, not trained
    ("paper", [], "merge", [], []),
])
def test_the_settings_are_those_that_help_in_the_stage_and_that_the_recipe_has_not_taken_yet(name, changes, stage, same,
                                                                                           other):
    recipe = recipes.load(name, changes)
    assert advice.settings(recipe, stage) == (same, other)
    for alternative in [*same, *other]:
        recipes.changed(recipe, alternative)  # each is one that a recipe takes


def test_a_smaller_batch_keeps_the_items_of_a_step():
    recipe = recipes.load("demo", ["model_2.batch_size=15", "model_2.gradient_accumulation=2"])
    smaller = recipes.changed(recipe, advice.settings(recipe, "model_2")[1][0])
    assert smaller.model_2.batch_size == 5  # the largest half or less that divides 15
    assert smaller.model_2.per_step() == recipe.model_2.per_step() == 30


def test_the_settings_for_a_resumed_run_are_those_that_a_resumed_run_takes():
    recipe = recipes.load("demo", ["unlearn.klr_reference=fp32"])
    for stage in ("base", "model_1", "model_2"):
        for alternative in advice.settings(recipe, stage)[0]:
            assert advice.resumed(recipe, alternative) != recipe


@pytest.mark.parametrize("change", ["model_1.batch_size=2", "model_1.lr=1", "precision=bf16", "encoding.max_length=64",
                                    "merge.density=0.5", "seed=3", "name=other"])
def test_a_resumed_run_takes_no_setting_that_changes_its_results(change):
    with pytest.raises(InputError, match=f"run --resume; got --set {change.partition('=')[0]}; expected settings that "
                                         "do not change results: base.compiled, base.gradient_checkpointing"):
        advice.resumed(recipes.load("demo"), ["model_1.joined=false", change])


# ---- in a run ----------------------------------------------------------------------------------------------------

def failing(function, error, *calls):
    """The function, but for its calls number `calls`, which raise the error."""
    count = 0

    def wrapped(*arguments, **named):
        nonlocal count
        count += 1
        if count in calls:
            raise error
        return function(*arguments, **named)
    return wrapped


@pytest.fixture
def before_model_1(smoke_copy):
    """A run that has its base and goes on with model_1."""
    for name in ("model_1", "model_2", "merged"):
        shutil.rmtree(smoke_copy.model_dir(name))
    smoke_copy.write_status("interrupted", "model_1")
    return smoke_copy


def resume(run, *more):
    return cli.main(["run", "--resume", str(run.path), "--device", "cpu", *more])


def unlike(run, other):
    """Names of the models whose adapters or scores differ in two runs."""
    def found(one, name):
        weights = one.adapter_weights().get(name)
        return one.scores().get(name), weights and weights.read_bytes()
    return [name for name in run.scores() if found(run, name) != found(other, name)]


def test_a_gpu_that_is_full_in_training_ends_in_one_line_and_the_run_goes_on_to_the_same_results(
        smoke_run, before_model_1, monkeypatch, capsys):
    run = before_model_1
    with monkeypatch.context() as patched:
        patched.setattr(losses, "npo", failing(losses.npo, FULL, 61))  # 4 micro-batches a step: in step 16
        assert resume(run) == cli.FAILED
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: model_1: out of memory (2.00 GiB asked for, 1.20 GiB free); what was done is kept; "
                            f"go on with: python -m unlearn_core run --resume {run.path} --set model_1.joined=false")
    assert (run.status()["state"], run.status()["stage"], run.status()["step"]) == ("failed", "model_1", 15)
    assert error.removeprefix("error: ") in run.status()["message"]
    assert error.removeprefix("error: ") in run.log_tail()
    assert resume(run) == 0
    assert unlike(smoke_run, run) == []


def test_a_run_goes_on_with_settings_that_need_less_memory_and_says_since_when(smoke_run, before_model_1, monkeypatch):
    """Checkpointing computes the same numbers twice, so the losses stay; what was set is kept by a later resume."""
    run = before_model_1
    with monkeypatch.context() as patched:
        patched.setattr(losses, "npo", failing(losses.npo, FULL, 61))
        assert resume(run) == cli.FAILED
        patched.setattr(losses, "npo", failing(losses.npo, FULL, 9))
        assert resume(run, "--set", "model_1.gradient_checkpointing=true") == cli.FAILED
    assert resume(run, "--set", "evaluation.batch_size=3") == 0
    changed = {name: (old, new) for name, old, new in recipes.differing(smoke_run.recipe(), Run(run.path).recipe())}
    assert changed == {"model_1.gradient_checkpointing": (False, True), "evaluation.batch_size": (64, 3)}
    assert [entry.get("set") for entry in run.info()["resumed"]] == [
        None, ["model_1.gradient_checkpointing=true"], ["evaluation.batch_size=3"]]
    for name in ("model_1", "model_2"):
        assert [row["loss"] for row in run.steps(name)] == pytest.approx(
            [row["loss"] for row in smoke_run.steps(name)], rel=1e-4)
    for name, scores in smoke_run.scores().items():
        assert run.scores()[name]["mia_auc"] == pytest.approx(scores["mia_auc"], abs=1e-6)


def test_settings_that_change_results_leave_a_stopped_run_as_it_is(before_model_1, capsys):
    recipe = before_model_1.recipe()
    assert resume(before_model_1, "--set", "model_1.lr=1") == cli.BAD_INPUT
    assert "error: run --resume; got --set model_1.lr; expected settings that do not change results" in (
        capsys.readouterr().err)
    assert Run(before_model_1.path).recipe() == recipe


def test_a_finished_run_takes_no_settings(smoke_copy):
    with pytest.raises(InputError, match="got settings for a finished run"):
        pipeline.resume(smoke_copy, settings=["evaluation.batch_size=3"], device="cpu")
    assert smoke_copy.recipe().evaluation.batch_size == 64


def test_a_gpu_that_disappears_ends_in_one_line_and_the_state_to_go_on_with_is_there(before_model_1, monkeypatch,
                                                                                     capsys):
    run = before_model_1
    monkeypatch.setattr(losses, "gdr", failing(losses.gdr, GONE, 80))
    assert resume(run) == cli.FAILED
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: model_1: the GPU stopped working; got CUDA error: unspecified launch failure; "
                            "expected a device that answers; what was done is kept; go on with: ")
    assert f"python -m unlearn_core run --resume {run.path}; nvidia-smi" in error
    assert (run.status()["state"], run.status()["step"]) == ("failed", 19)
    assert 0 < saved_step(run.resume_dir("model_1")) < 19


def test_memory_that_runs_out_in_the_base_keeps_the_run_and_its_state(tmp_path, monkeypatch, capsys):
    """Really: after the 150th step the CPU is asked for more than any machine has."""
    def append(run, model, row):
        torch.empty(2**50 if row["step"] == 150 else 1)
        return before(run, model, row)
    before = Run.append_step
    monkeypatch.setattr(Run, "append_step", append)
    assert cli.main(["run", "smoke", "--runs-dir", str(tmp_path), "--device", "cpu"]) == cli.FAILED
    [run] = Store(tmp_path).runs()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: base: out of memory (4194304.00 GiB asked for, " in error
    assert f"run --resume {run.path} --set base.gradient_checkpointing=true" in error
    assert (run.status()["state"], run.status()["stage"]) == ("failed", "base")
    assert 0 < saved_step(run.resume_dir("base")) < 150


# ---- evaluation --------------------------------------------------------------------------------------------------

def test_an_evaluation_halves_its_batches_until_they_fit_and_scores_the_same(smoke_run, smoke_copy, monkeypatch):
    """Not more than 5 rows find room, when answers are written and when losses are taken."""
    sizes = {"written": [], "scored": []}

    def room_for_five(name, function, rows_of):
        def wrapped(*arguments):
            sizes[name].append(len(rows_of(arguments)))
            if sizes[name][-1] > 5:
                raise FULL
            return function(*arguments)
        return wrapped
    with monkeypatch.context() as patched:
        patched.setattr(generation, "_write", room_for_five("written", generation._write, lambda given: given[1]))
        patched.setattr(memory, "_read", room_for_five("scored", memory._read, lambda given: given[2]))
        pipeline.evaluate_again(smoke_copy, ["merged"], device="cpu")
    for found in sizes.values():
        assert max(found) > 5  # what did not fit was tried
        assert sum(size > 5 for size in found) < len(found) / 2  # and not again and again
    old, new = smoke_run.scores()["merged"], smoke_copy.scores()["merged"]
    assert new == pytest.approx(old, abs=1e-6)


def test_an_evaluation_of_which_not_one_row_fits_leaves_the_run_as_it_was(smoke_run, smoke_copy, monkeypatch, capsys):
    def full(*_):
        raise FULL
    monkeypatch.setattr(generation, "_write", full)
    code = cli.main(["evaluate", smoke_copy.id, "--models", "merged", "--runs-dir", str(smoke_copy.path.parent),
                     "--device", "cpu"])
    assert code == cli.FAILED
    told = capsys.readouterr().err
    assert "error: evaluate merged: answers: out of memory (2.00 GiB asked for, 1.20 GiB free)" in told
    assert smoke_copy.status()["state"] == "finished"
    assert smoke_copy.scores() == smoke_run.scores()


# ---- on the command line -----------------------------------------------------------------------------------------

def test_a_command_without_a_run_says_it_in_one_line_too(smoke_run, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise FULL
    monkeypatch.setattr("unlearn_core.merging.merge.merge", full)
    adapters = [str(smoke_run.adapter_dir(name)) for name in ("model_1", "model_2")]
    assert cli.main(["merge", "--adapters", *adapters, "--out", str(tmp_path / "merged")]) == cli.FAILED
    assert capsys.readouterr().err == ("error: out of memory (2.00 GiB asked for, 1.20 GiB free); close what else "
                                       "needs memory, take a smaller batch or model, or give another --device\n")


def test_an_error_of_the_program_itself_is_not_explained_away(smoke_run, tmp_path, monkeypatch):
    def wrong(*_):
        raise RuntimeError("The size of tensor a (4) must match the size of tensor b (32)")
    monkeypatch.setattr("unlearn_core.merging.merge.merge", wrong)
    adapters = [str(smoke_run.adapter_dir(name)) for name in ("model_1", "model_2")]
    with pytest.raises(RuntimeError, match="must match"):
        cli.main(["merge", "--adapters", *adapters, "--out", str(tmp_path / "merged")])


def test_a_device_error_is_one_line_whatever_it_quotes():
    assert str(DeviceError("model_1: full", got="a\nb", fix="c\x07")) == "model_1: full; got a b; c\\x07"
