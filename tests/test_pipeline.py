"""The whole method on the smoke recipe: the same to the bit each time, killed or not, and its parts fit other tools."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from unlearn_core import cli, data, models, pipeline, run_models
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.evaluation.evaluate import answer_rows
from unlearn_core.files import read_rows, write_json
from unlearn_core.merging.task_vectors import cosine, load_adapter
from unlearn_core.store import Store
from unlearn_core.training.schedule import Schedule
from unlearn_core.vocabulary import METHOD_TERMS, UNLEARNED

ROOT = Path(__file__).parent.parent
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SPEED = {"seconds", "tokens_per_second", "memory_mb"}  # differ from one execution to the next
SMOKE = recipes.load("smoke")

# Start, or go on with, the one run of a store, and die without warning at a step of a stage.
KILLED_AT = """
import os, signal, sys
from unlearn_core import pipeline, recipe, run_models
from unlearn_core.store import Store
root, stage, step = sys.argv[1:]
def report(now, done, total):
    if (now, done) == (stage, int(step)):
        os.kill(os.getpid(), signal.SIGKILL)
for run in Store(root).runs():
    pipeline.resume(run, device="cpu", report=report)
else:
    pipeline.start(recipe.load("smoke"), Store(root), device="cpu", report=report)
"""


def killed(store, stage, step):
    """Let a process work on the store's run until it kills itself; the run."""
    done = subprocess.run([sys.executable, "-c", KILLED_AT, str(store.root), stage, str(step)], cwd=ROOT,
                          env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [run] = store.runs()
    return run


def results(run):
    """{file inside the run: its content} for everything that a run finds, without times, speeds and its own id."""
    found = {}
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path).as_posix()
        if path.is_dir() or name in ("run.json", "status.json", "log.txt"):
            continue
        if path.name == "steps.jsonl":
            found[name] = [{key: value for key, value in row.items() if key not in SPEED} for row in read_rows(path)]
        elif path.name == "adapter_config.json":
            found[name] = {**json.loads(path.read_text()), "base_model_name_or_path": None}
        else:
            found[name] = path.read_bytes()
    return found


def differing(run, other):
    """Names of the files that differ or that only one of the two has."""
    left, right = results(run), results(other)
    return [name for name in sorted(left | right) if left.get(name) != right.get(name)]


def test_two_processes_share_one_run_and_take_half_the_steps(smoke_run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "unlearn_core",
         "run", "smoke", "--device", "cpu", "--runs-dir", str(tmp_path)],
        cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [run] = Store(tmp_path).runs()
    assert run.info()["processes"] == 2
    assert done.stdout.count("sub-scores") == 1  # one of them speaks
    assert run.scores()["base"] == smoke_run.scores()["base"]  # both read the same batches while memorising
    for name in UNLEARNED:
        assert len(run.steps(name)) == len(smoke_run.steps(name)) // 2
    assert run.is_evaluated("merged")


# ---- the same numbers each time ------------------------------------------------------------------------------------

def test_two_runs_of_one_recipe_and_seed_are_equal_to_the_bit_in_every_file(smoke_run, tmp_path):
    done = subprocess.run([sys.executable, "-m", "unlearn_core", "run", "smoke", "--runs-dir", str(tmp_path),
                           "--device", "cpu"], cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [other] = Store(tmp_path).runs()
    assert differing(smoke_run, other) == []
    assert {"scores.json", "data/forget.jsonl", "models/model_2/steps.jsonl", "models/base/model/model.safetensors",
            "models/merged/adapter/adapter_model.safetensors", "models/merged/answers.jsonl"} < results(other).keys()
    assert f"{other.path}: finished" in done.stdout
    assert "Traceback" not in done.stderr


def raising(error):
    """A report that stops the run at its first call, before the base is trained."""
    def report(stage, done, total):
        raise error
    return report


def test_another_seed_gives_other_data(smoke_run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pipeline.start(recipes.load("smoke", ["seed=1"]), Store(tmp_path), device="cpu",
                       report=raising(KeyboardInterrupt()))
    [run] = Store(tmp_path).runs()
    assert run.info()["seed"] == 1
    files = run.info()["data_hashes"].keys()
    assert files == smoke_run.info()["data_hashes"].keys()
    for file in ("forget.jsonl", "retain.jsonl", "holdout.jsonl", "attack.jsonl"):
        assert run.info()["data_hashes"][file] != smoke_run.info()["data_hashes"][file]


# ---- stopped and resumed -------------------------------------------------------------------------------------------

def test_a_run_killed_in_the_base_and_again_in_model_1_ends_as_if_it_had_never_stopped(smoke_run, tmp_path):
    store = Store(tmp_path)
    base_steps, steps = len(smoke_run.steps("base")), len(smoke_run.steps("model_1"))

    run = killed(store, "base", base_steps // 3)  # the state is saved at each fifth
    assert (run.status()["state"], run.status()["stage"]) == ("interrupted", "base")
    assert len(run.steps("base")) == base_steps // 3
    assert run.models() == ["untrained", "base"]
    assert not run.full_model_dir("base").exists()

    run = killed(store, "model_1", 2 * steps // 3)  # checkpoints at each quarter
    assert (run.status()["state"], run.status()["stage"]) == ("interrupted", "model_1")
    assert len(run.steps("base")) == base_steps
    assert len(run.steps("model_1")) == 2 * steps // 3
    assert 0 < max(step for step, _ in run.checkpoints("model_1")) < 2 * steps // 3
    assert not run.adapter_dir("model_1").exists()

    assert cli.main(["run", "--resume", run.id, "--runs-dir", str(tmp_path), "--device", "cpu"]) == 0
    assert run.status()["state"] == "finished"
    assert differing(smoke_run, run) == []


def test_a_finished_run_may_be_resumed_and_nothing_changes(smoke_run, smoke_copy):
    pipeline.resume(smoke_copy, device="cpu")
    assert smoke_copy.status()["state"] == "finished"
    assert differing(smoke_run, smoke_copy) == []


def test_a_run_killed_before_it_noted_the_hashes_of_its_data_notes_them_later(smoke_run, smoke_copy):
    before = smoke_copy.info()
    write_json(smoke_copy.path / "run.json", {key: value for key, value in before.items() if key != "data_hashes"})
    pipeline.resume(smoke_copy, device="cpu")
    after = smoke_copy.info()
    [resumed] = after.pop("resumed")  # when, and on what, the run went on
    assert after == before
    assert resumed["device"] == "cpu"
    assert resumed["versions"] == before["versions"]


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(smoke_copy):
    write_json(smoke_copy.path / "run.json", {**smoke_copy.info(), "processes": 2})
    shutil.rmtree(smoke_copy.adapter_dir("model_2"))  # so that there is something left to train
    with pytest.raises(InputError, match=r"got 1 processes; expected 2 as at its start.*--num_processes 2 -m"):
        pipeline.resume(smoke_copy, device="cpu")
    assert smoke_copy.status()["state"] == "finished"


def test_a_terminated_run_is_cancelled_with_code_130_and_says_how_to_go_on(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "unlearn_core", "run", "smoke", "--runs-dir", str(tmp_path),
                                "--device", "cpu"], cwd=ROOT, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(run.steps("base") for run in Store(tmp_path).runs()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, messages = process.communicate()
    assert process.returncode == 130
    assert messages.splitlines()[-1] == "cancelled; a run goes on with: python -m unlearn_core run --resume RUN"
    assert "Traceback" not in messages
    [run] = Store(tmp_path).runs()
    assert run.status()["state"] == "cancelled"
    assert run.steps("base") != []


@pytest.mark.parametrize(("error", "state", "message"), [
    (RuntimeError("no memory left"), "failed", "RuntimeError: no memory left"),
    (KeyboardInterrupt(), "cancelled", ""),
])
def test_a_run_that_stops_says_in_its_state_why_and_where(tmp_path, error, state, message):
    with pytest.raises(type(error)):
        pipeline.start(SMOKE, Store(tmp_path), device="cpu", report=raising(error))
    [run] = Store(tmp_path).runs()
    status = run.status()
    assert (status["state"], status["stage"], status["message"]) == (state, "base", message)


def test_a_run_whose_adapter_is_damaged_fails_by_name_and_finishes_once_it_is_repaired(smoke_run, smoke_copy):
    weights = smoke_copy.adapter_dir("model_1") / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    shutil.rmtree(smoke_copy.model_dir("merged"))
    with pytest.raises(InputError, match=r"model_1/adapter/adapter_model\.safetensors; got a damaged file"):
        pipeline.resume(smoke_copy, device="cpu")
    assert smoke_copy.status()["state"] == "failed"
    assert smoke_copy.status()["stage"] == "merge"
    assert str(weights) in smoke_copy.status()["message"]
    weights.write_bytes(whole)
    pipeline.resume(smoke_copy, device="cpu")
    assert smoke_copy.status()["state"] == "finished"
    assert differing(smoke_run, smoke_copy) == []


def test_a_run_that_a_live_process_works_on_is_not_touched(smoke_copy):
    smoke_copy.write_status("running", "model_1", 3, 9)  # by this process
    before = results(smoke_copy)
    for work in (pipeline.resume, pipeline.evaluate_again):
        with pytest.raises(InputError, match="still working on it"):
            work(smoke_copy, device="cpu")
    assert smoke_copy.status()["state"] == "running"
    assert results(smoke_copy) == before


# ---- what a run leaves ---------------------------------------------------------------------------------------------

OPTIMISER = {"step", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds", "tokens_per_second", "memory_mb"}
UNLEARNING = {*METHOD_TERMS, *(f"{term}_weighted" for term in METHOD_TERMS), "npo_brake", "forget_nll",
              "forget_nll_reference", "retain_nll", "retain_nll_reference"}


def test_every_step_is_logged_with_the_documented_columns(smoke_run):
    for name in ("base", *UNLEARNED):
        rows = smoke_run.steps(name)
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert {frozenset(row) for row in rows} == {frozenset(OPTIMISER | (UNLEARNING if name != "base" else set()))}
        assert all(first["tokens"] < second["tokens"] for first, second in itertools.pairwise(rows))


@pytest.mark.parametrize("name", UNLEARNED)
def test_the_loss_is_the_weighted_sum_of_its_terms_at_every_step(smoke_run, name):
    settings, dataset = getattr(SMOKE, name), data.load_saved(smoke_run.data_dir)
    rows = smoke_run.steps(name)
    assert len(rows) == Schedule(len(dataset.forget), len(dataset.retain), settings, seed=0).steps
    for row in rows:
        for term in METHOD_TERMS:
            assert row[f"{term}_weighted"] == pytest.approx(getattr(settings, f"{term}_weight") * row[term], rel=1e-6)
        assert row["loss"] == pytest.approx(sum(row[f"{term}_weighted"] for term in METHOD_TERMS), rel=1e-6)
    # Before the first update the adapter changes nothing: NPO is (2 / beta) ln 2 and no KL divergence is there.
    assert rows[0]["klr"] == pytest.approx(0, abs=1e-3)
    assert rows[0]["npo"] == pytest.approx(2 / settings.beta * torch.log(torch.tensor(2.0)).item(), rel=0.02)


@pytest.mark.parametrize("name", UNLEARNED)
def test_checkpoints_go_evenly_from_the_untouched_adapter_to_the_final_one(smoke_run, name):
    checkpoints, steps = smoke_run.checkpoints(name), len(smoke_run.steps(name))
    quarters = [-(-steps * part // SMOKE.model_1.checkpoints) for part in range(SMOKE.model_1.checkpoints + 1)]
    assert [step for step, _ in checkpoints] == quarters
    first, last, final = (load_adapter(path) for path in (checkpoints[0][1], checkpoints[-1][1],
                                                          smoke_run.adapter_dir(name)))
    assert all((factors.B == 0).all() for factors in first.modules.values())
    assert all(torch.equal(factors.A, final.modules[key].A) and torch.equal(factors.B, final.modules[key].B)
               for key, factors in last.modules.items())
    assert any((factors.B != 0).any() for factors in final.modules.values())


def test_both_models_start_from_the_same_adapter(smoke_run):
    first, second = (load_adapter(smoke_run.checkpoint_dir(name, 0)) for name in UNLEARNED)
    assert all(torch.equal(factors.A, second.modules[key].A) for key, factors in first.modules.items())


def test_the_merged_adapter_is_what_peft_makes_of_the_two_and_loads_there(smoke_run):
    base, tokenizer = models.load_model(str(smoke_run.full_model_dir("base")))
    both = PeftModel.from_pretrained(base, smoke_run.adapter_dir("model_1"), "model_1")
    both.load_adapter(smoke_run.adapter_dir("model_2"), "model_2")
    both.add_weighted_adapter(list(UNLEARNED), [1.0, 1.0], "ties", combination_type="ties", density=0.8)
    both.load_adapter(smoke_run.adapter_dir("merged"), "merged")
    ids = torch.tensor([tokenizer("Who took the lantern?")["input_ids"]])
    logits = {}
    with torch.no_grad():
        for name in ("model_1", "ties", "merged"):
            both.set_adapter(name)
            logits[name] = both(ids).logits
    assert torch.allclose(logits["merged"], logits["ties"], atol=1e-5)
    assert not torch.allclose(logits["merged"], logits["model_1"], atol=1e-2)


def test_an_exported_full_model_answers_as_the_adapter_was_scored(smoke_run, tmp_path):
    run_models.export(str(smoke_run.full_model_dir("base")), smoke_run.adapter_dir("merged"), tmp_path / "full")
    model, tokenizer = models.load_model(str(tmp_path / "full"))
    dataset = data.load_saved(smoke_run.data_dir)
    found = answer_rows(model, tokenizer, {"forget": dataset.forget, "retain": dataset.retain},
                        max_new_tokens=SMOKE.evaluation.max_new_tokens, batch_size=SMOKE.evaluation.batch_size)
    stored = smoke_run.answers("merged")
    assert [row.pop("nll") for row in found] == pytest.approx([row.pop("nll") for row in stored], rel=1e-5)
    assert found == stored
    assert len({row["generation"] for row in found}) > 10


def test_models_measured_anew_get_the_scores_of_the_first_time(smoke_run, smoke_copy):
    (smoke_copy.model_dir("merged") / "answers.jsonl").unlink()
    (smoke_copy.model_dir("merged") / "scores.json").unlink()
    pipeline.evaluate_again(smoke_copy, ["merged", "model_1"], device="cpu")
    assert differing(smoke_run, smoke_copy) == []
    assert smoke_copy.status()["state"] == "finished"


def test_a_measurement_that_fails_leaves_state_and_scores_as_they_were(smoke_run, smoke_copy):
    (smoke_copy.adapter_dir("merged") / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"merged/adapter/adapter_model\.safetensors; got no such file"):
        pipeline.evaluate_again(smoke_copy, ["merged"], device="cpu")
    assert smoke_copy.status()["state"] == "finished"
    assert differing(smoke_run, smoke_copy) == ["models/merged/adapter/adapter_model.safetensors"]


# ---- a base that has memorised already -----------------------------------------------------------------------------

def test_a_loaded_base_has_no_holdout_no_attack_and_no_untrained_model_and_what_is_not_measured_is_a_dash(
        smoke_run, tmp_path, capsys):
    run = pipeline.start(recipes.load("smoke", [
        "base.source=load", f"base.model={smoke_run.full_model_dir('base')}", "data.source=files",
        f"data.path={smoke_run.data_dir}", "unlearn.epochs=1", "unlearn.warmup_epochs=0", "unlearn.checkpoints=0",
        "evaluation.max_new_tokens=4"]), Store(tmp_path), device="cpu")
    assert list(run.scores()) == ["base", "model_1", "model_2", "merged"]
    assert data.load_saved(run.data_dir).holdout == []
    for found in run.scores().values():
        assert found.keys().isdisjoint({"mia_auc", "mia_score", "mmlu", "aggregate"})
        assert "task_aggregate" in found
    assert [step for step, _ in run.checkpoints("model_1")] == [0]

    assert cli.main(["show", str(run.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line.split() for line in lines if line.split()[:1] == ["merged"])
    task_aggregate = f"{run.scores()['merged']['task_aggregate']:.3f}"
    assert row == ["merged", "-", task_aggregate, "-", "-", "not", "measured", "-", "-"]
    assert not any("members" in line for line in lines)


# ---- weights of another run ----------------------------------------------------------------------------------

def test_training_from_adapters_of_another_run_begins_where_they_ended(tmp_path, smoke_run):
    recipe = recipes.load("smoke", ["unlearn.lr=1e-12", "unlearn.weight_decay=0", "unlearn.warmup_epochs=0"])
    run = pipeline.start(recipe, Store(tmp_path), device="cpu", source=smoke_run, adapters=True)
    for name in ("model_1", "model_2"):  # nothing moves at this learning rate
        assert cosine(load_adapter(run.adapter_dir(name)), load_adapter(smoke_run.adapter_dir(name))) > 0.999999
    assert run.steps("model_1")[0]["forget_nll"] > 2 * smoke_run.steps("model_1")[0]["forget_nll"]


def test_a_source_that_does_not_fit_leaves_no_run_behind(tmp_path, smoke_run):
    with pytest.raises(InputError, match="differs in seed"):
        pipeline.start(recipes.load("smoke", ["seed=9"]), Store(tmp_path), device="cpu", source=smoke_run)
    assert Store(tmp_path).folders() == []
