"""What a GPU must give: the same as a CPU. The checks of benchmarks/gpu_check.py; without a GPU they check themselves
on the CPU, where everything must agree, and each that needs one is skipped with a word."""

import shutil
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu_check
from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core import recipe as recipes
from unlearn_core.evaluation.generation import generate
from unlearn_core.merging import task_vectors
from unlearn_core.merging.merge import merge
from unlearn_core.settings import Merge
from unlearn_core.store import Run, Store
from unlearn_core.vocabulary import UNLEARNED

GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if GPU else "cpu"
needs_gpu = pytest.mark.skipif(not GPU, reason="no CUDA device: checked on a machine with a GPU")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return gpu_check.cpu_run(tmp_path_factory.mktemp("gpu"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_gpu if name in gpu_check.GPU_ONLY else ())
                                  for name in gpu_check.CHECKS])
def test_the_device_gives_what_the_cpu_gives(run, tmp_path, name):
    numbers = gpu_check.CHECKS[name](run, DEVICE, tmp_path)
    assert set(numbers) == set(gpu_check.BOUNDS[name])
    assert gpu_check.beyond(name, numbers) == []
    if not GPU and name != "bf16":  # one device, twice
        assert max(numbers.values()) == 0


def test_bf16_is_measured_and_not_merely_bounded(run, tmp_path):
    assert gpu_check.bf16(run, DEVICE, tmp_path)["mean_nll"] > 1e-5


def test_a_difference_is_seen(run, tmp_path):
    """The merged model's rows in place of the base's are another run; a merge at another density is another merge."""
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    for name in ("documents.jsonl", "scores.json"):
        shutil.copy(run.model_dir("merged") / name, other.model_dir("base"))
    other.write_scores()
    assert gpu_check._nll_apart(run, other) > gpu_check.BOUNDS["run"]["nll"]
    assert gpu_check._scores_apart(run, other) > gpu_check.BOUNDS["run"]["sub_score"]
    adapters = [task_vectors.load_adapter(run.adapter_dir(name)) for name in UNLEARNED]
    one, other = (merge(adapters, replace(Merge(), density=density)) for density in (0.8, 0.7))
    apart = max((task_vectors.delta(one.modules[name]) - task_vectors.delta(other.modules[name])).abs().max().item()
                for name in one.modules)
    assert apart > gpu_check.BOUNDS["merging"]["ties factors"]
    assert gpu_check.beyond("bf16", {"mean_nll": 0.5, "nll": float("nan")}) == [
        "mean_nll = 0.5, at most 0.02", "nll = nan, at most 0.1"]


@needs_gpu
def test_generation_runs_in_bf16_on_a_gpu():
    model = tiny_model().to("cuda", torch.bfloat16)
    answers = generate(model, tiny_tokenizer(), ["the cat", "", "what is the capital of"], max_new_tokens=12)
    assert [answer.new_tokens > 0 for answer in answers] == [True] * 3


@needs_gpu
def test_a_run_on_a_gpu_goes_on_on_the_cpu(tmp_path):
    """Whoever loses the GPU for good can still finish; the state knows no device."""
    from unlearn_core import pipeline

    def stop(stage, done, total):
        if (stage, done) == ("model_1", 12):
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        pipeline.start(recipes.load("smoke"), Store(tmp_path), device="cuda:0", report=stop)
    [stopped] = Store(tmp_path).runs()
    pipeline.resume(stopped, device="cpu")
    assert stopped.status()["state"] == "finished"
    assert stopped.device() == "cpu"
