"""The model host on a real run: every model as if it had been loaded alone, whatever was asked before."""

import itertools
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_core import run_models
from unlearn_core.errors import InputError
from unlearn_core.evaluation.generation import generate
from unlearn_core.host import ModelHost, available, checkpoints
from unlearn_core.store import Run, Store

PROMPTS = 8
MODELS = ("untrained", "base", "model_1", "model_2", "merged")  # of the smoke run


@pytest.fixture(scope="module")
def prompts(smoke_run):
    return [row["prompt"] for row in smoke_run.answers("base")[:PROMPTS]]


@pytest.fixture(scope="module")
def alone(smoke_run, prompts):
    """{model: its greedy answers when it is loaded by itself, adapter merged into the weights}."""
    found = {}
    for name in MODELS:
        model, tokenizer = run_models.load(smoke_run, smoke_run.recipe(), name, "cpu")
        found[name] = [generation.text for generation in generate(model, tokenizer, prompts, max_new_tokens=12)]
    assert len({tuple(texts) for texts in found.values()}) >= 4  # the models can be told apart
    return found


@pytest.fixture
def host(smoke_run):
    host = ModelHost()
    host.open(smoke_run, "cpu")
    return host


def greedy(host, name, prompts):
    return [answers[0].text for answers in host.answer(name, prompts, max_new_tokens=12)]


def test_importing_the_host_does_not_load_torch():
    code = "import sys, unlearn_core.host; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_each_model_answers_as_if_loaded_alone_in_any_order_of_switching(host, alone, prompts):
    for first, second in itertools.permutations(MODELS, 2):
        assert greedy(host, first, prompts[:2]) == alone[first][:2]
        assert greedy(host, second, prompts[:2]) == alone[second][:2]
    for name in MODELS:
        assert greedy(host, name, prompts) == alone[name]


def test_callers_in_several_threads_get_the_model_that_they_asked_for(host, alone, prompts):
    found = {}

    def ask(name):
        found[name] = [greedy(host, name, prompts) for _ in range(3)]
    threads = [threading.Thread(target=ask, args=(name,)) for name in MODELS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [alone[name]] * 3 for name in MODELS}


def test_samples_are_drawn_as_often_as_asked_and_the_same_for_the_same_seed(host, prompts):
    draw = {seed: host.answer("model_1", prompts[:2], max_new_tokens=6, samples=3, temperature=1.5, seed=seed)
            for seed in (0, 1)}
    assert [len(answers) for answers in draw[0]] == [3, 3]
    assert host.answer("model_1", prompts[:2], max_new_tokens=6, samples=3, temperature=1.5, seed=0) == draw[0]
    assert draw[0] != draw[1]


def test_token_probabilities_are_those_of_the_model_asked_for(host, smoke_run):
    row = next(row for row in smoke_run.answers("model_1") if row["split"] == "forget" and row["kind"] == "qa")
    for name in ("base", "model_1"):
        nll = {r["id"]: r["nll"] for r in smoke_run.answers(name)}[row["id"]]
        tokens = host.token_log_probs(name, row["prompt"], row["answer"])
        assert -sum(token.log_prob for token in tokens) / len(tokens) == pytest.approx(nll, abs=1e-4)


def test_another_run_takes_the_place_of_the_first_and_unloading_empties_the_host(host, smoke_run, smoke_copy):
    assert (host.loaded().run, host.loaded().models) == (smoke_run.id, MODELS)
    assert host.loaded().memory_mb > 0.1
    (smoke_copy.path / "models/merged").rename(smoke_copy.path / "hidden")
    host.open(smoke_copy, "cpu")
    assert host.loaded().models == ("untrained", "base", "model_1", "model_2")
    host.unload()
    assert host.loaded() is None
    with pytest.raises(InputError, match="no model is loaded"):
        host.answer("base", ["a"])


def test_what_is_loaded_is_kept_until_the_weights_on_disk_change(smoke_copy, prompts, alone):
    host = ModelHost()
    host.open(smoke_copy, "cpu")
    kept = host._plain
    host.open(smoke_copy, "cpu")
    assert host._plain is kept
    shutil.rmtree(smoke_copy.adapter_dir("model_1"))
    shutil.copytree(smoke_copy.adapter_dir("model_2"), smoke_copy.adapter_dir("model_1"), copy_function=shutil.copy)
    host.open(smoke_copy, "cpu")
    assert greedy(host, "model_1", prompts) == alone["model_2"]


def test_a_run_that_has_only_its_base_answers_with_the_base(smoke_copy, alone, prompts):
    for name in ("model_1", "model_2", "merged", "untrained"):
        shutil.rmtree(smoke_copy.model_dir(name))
    host = ModelHost()
    host.open(smoke_copy, "cpu")
    assert host.loaded().models == ("base",)
    assert greedy(host, "base", prompts) == alone["base"]


def test_a_merge_of_full_rank_can_be_hosted_beside_its_parents(smoke_copy, prompts):
    from unlearn_core.merging.merge import merge
    from unlearn_core.merging.task_vectors import load_adapter, save_adapter
    from unlearn_core.settings import Merge
    parents = [load_adapter(smoke_copy.adapter_dir(name)) for name in ("model_1", "model_2")]
    shutil.rmtree(smoke_copy.adapter_dir("merged"))
    save_adapter(merge(parents, Merge("ties", level="delta")), smoke_copy.adapter_dir("merged"))
    model, tokenizer = run_models.load(smoke_copy, smoke_copy.recipe(), "merged", "cpu")
    host = ModelHost()
    host.open(smoke_copy, "cpu")
    wanted = [generation.text for generation in generate(model, tokenizer, prompts, max_new_tokens=12)]
    assert greedy(host, "merged", prompts) == wanted


def test_a_run_without_weights_says_so(recorded_run):
    assert available(recorded_run) == []
    with pytest.raises(InputError, match="no weights of a base model"):
        ModelHost().open(recorded_run, "cpu")


def test_an_adapter_of_another_run_is_refused(smoke_copy):
    path = smoke_copy.adapter_dir("model_1") / "adapter_config.json"
    path.write_text(path.read_text().replace(smoke_copy.info()["id"], "another-run"))
    with pytest.raises(InputError, match="trained on another-run"):
        ModelHost().open(Run(smoke_copy.path), "cpu")


def test_a_run_that_has_not_begun_has_no_models(tmp_path, smoke_run):
    run = Store(tmp_path / "new").create(smoke_run.recipe(), {}, state="interrupted")
    assert available(run) == []


# ---- checkpoints, turns, and what goes wrong -----------------------------------------------------------------------

def test_a_checkpoint_answers_as_its_adapter_merged_into_the_weights(host, smoke_run, alone, prompts):
    step, folder = smoke_run.checkpoints("model_1")[1]
    name = f"model_1@{step}"
    assert name in checkpoints(smoke_run)
    assert host.models() == [*MODELS, *checkpoints(smoke_run)]
    model, tokenizer = run_models.with_adapter(smoke_run, smoke_run.recipe(), folder, "cpu")
    wanted = [generation.text for generation in generate(model, tokenizer, prompts, max_new_tokens=12)]
    before = host.loaded().memory_mb
    assert greedy(host, name, prompts) == wanted
    assert host.loaded().memory_mb > before
    assert greedy(host, "model_1", prompts) == alone["model_1"]
    assert greedy(host, "base", prompts) == alone["base"]


def test_the_checkpoint_of_step_0_is_the_base_even_where_no_adapter_was_loaded_before(smoke_copy, alone, prompts):
    for name in ("model_1", "model_2", "merged"):
        shutil.rmtree(smoke_copy.adapter_dir(name))
    host = ModelHost()
    host.open(smoke_copy, "cpu")
    assert greedy(host, "model_2@0", prompts) == alone["base"]
    assert greedy(host, "base", prompts) == alone["base"]


@pytest.mark.parametrize("name", ["", "model_3", "model_1@999999", "model_1@x", "@", "../base"])
def test_an_unknown_name_is_refused_and_the_others_answer_on(host, alone, prompts, name):
    with pytest.raises(InputError, match="only untrained, base, model_1"):
        host.answer(name, prompts)
    assert greedy(host, "merged", prompts[:1]) == alone["merged"][:1]


def test_an_opened_run_is_not_taken_away_before_its_caller_is_done(smoke_run, smoke_copy, alone, prompts):
    host, done = ModelHost(), []

    def ask():
        with host.opened(smoke_copy, "cpu"):
            done.append(greedy(host, "base", prompts[:1]))

    other = threading.Thread(target=ask)
    with host.opened(smoke_run, "cpu"):
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive()
        assert done == []
        assert greedy(host, "merged", prompts) == alone["merged"]
        reader = []
        thread = threading.Thread(target=lambda: reader.append(host.loaded().run))
        thread.start()
        thread.join(timeout=5)
        assert reader == [smoke_run.id]  # what is in memory can be read meanwhile
    other.join(timeout=60)
    assert done == [alone["base"][:1]]


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["torn", "gone"])
def test_a_damaged_adapter_is_named_and_nothing_half_loaded_stays(smoke_copy, alone, prompts, file, damage):
    host, path = ModelHost(), smoke_copy.adapter_dir("model_2") / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "torn":
        path.write_bytes(whole[:20])
    with pytest.raises(InputError, match=file):
        host.open(smoke_copy, "cpu")
    assert host.loaded() is None
    path.write_bytes(whole)
    host.open(smoke_copy, "cpu")
    assert greedy(host, "model_2", prompts) == alone["model_2"]


def test_a_checkpoint_of_other_sizes_is_refused_each_time_it_is_asked_for(smoke_copy, alone, prompts):
    step, folder = smoke_copy.checkpoints("model_1")[1]
    path = folder / "adapter_model.safetensors"
    save_file({name: torch.cat([tensor, tensor]) if "lora_B" in name else tensor
               for name, tensor in load_file(path).items()}, path)
    host = ModelHost()
    for _ in range(2):
        host.open(smoke_copy, "cpu")
        with pytest.raises(InputError, match="an adapter for this base model"):
            host.answer(f"model_1@{step}", prompts)
    host.open(smoke_copy, "cpu")
    assert greedy(host, "model_1", prompts) == alone["model_1"]


def test_too_little_memory_is_said_in_one_line_and_everything_is_given_back(host, monkeypatch, prompts):
    def full(*arguments, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    monkeypatch.setattr("unlearn_core.evaluation.generation.generate", full)
    with pytest.raises(InputError, match="memory of cpu; got not enough for this model"):
        host.answer("merged", prompts)
    assert host.loaded() is None


def test_listing_checkpoints_loads_no_torch(smoke_run):
    code = ("import sys; from pathlib import Path; from unlearn_core import host; from unlearn_core.store import Run; "
            "run = Run(Path(sys.argv[1])); assert host.available(run) and host.checkpoints(run); "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code, str(smoke_run.path)]).returncode == 0
