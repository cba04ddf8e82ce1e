"""The benchmark of a training step: both sides compute the same, on LUME's lengths cut as the released code cuts."""

import pytest
import torch

from benchmarks import train_step as benchmark
from benchmarks.train_step import Case
from unlearn_core.settings import Unlearning


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return benchmark.adapted(benchmark.original("demo", "cpu")).train()


@pytest.mark.parametrize("positions", ["real", "answer", "padded"])
@pytest.mark.parametrize("name", benchmark.PAPER)
def test_the_naive_form_and_ours_have_the_same_loss_and_gradients(model, monkeypatch, name, positions):
    for side in ("FORGET", "RETAIN"):  # fewer items, so that the reference is quick
        monkeypatch.setattr(benchmark, side, " ".join(getattr(benchmark, side).split()[:8]))
    recomputing = benchmark.CHECKPOINTING["both" if name == "model_1" else "naive"]
    case = Case(model, Unlearning(klr_positions=positions, **benchmark.PAPER[name]), seed=2, checkpointing=recomputing)
    case.second = benchmark.original("demo", "cpu")
    loss, gradients = benchmark.difference(case)
    assert loss < 1e-5
    assert gradients < 1e-5


def test_items_have_the_lengths_of_lume_cut_as_the_released_code_cuts_them():
    rows = benchmark.items("9+4 247+68 300+20", vocabulary=50, seed=0)
    assert [(len(row.ids), row.prompt_tokens, row.truncated) for row in rows] == [
        (13, 9, False), (256, 204, True), (224, 204, False)]
    assert len(benchmark.FORGET.split()) == len(benchmark.RETAIN.split()) == 128


def test_a_step_reads_as_many_tokens_as_its_items_have(model):
    case = Case(model, Unlearning(klr_weight=0.0, batch_size=2), seed=2)
    [first, *_] = case.schedule.micro_batches(0)
    own = sum(len(case.texts.forget[i].ids) for i in first.forget) + sum(
        len(case.texts.retain[i].ids) for i in first.retain)
    assert 0 < own < case.tokens(0)
