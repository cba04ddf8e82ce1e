"""The optimisation loop: AdamW by hand, averaging over parts, clipping, log rows, and exact resuming."""

import contextlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from transformers import get_linear_schedule_with_warmup

from unlearn_core.errors import InputError
from unlearn_core.training.optimise import cosine_schedule, linear_schedule, optimise, saved_step

COLUMNS = {"step", "loss", "lr", "grad_norm", "tokens", "seconds", "tokens_per_second", "memory_mb"}
CLOCKS = ("seconds", "tokens_per_second", "memory_mb")


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


class Weights(torch.nn.Module):
    """A model that is only its weights."""

    def __init__(self, values: list[float]):
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values))


def train(accelerator, gradients: list[list[list[float]]], *, start: list[float], lr: float = 0.1, clip: float = 0.0,
          weight_decay: float = 0.0, beta2: float = 0.999) -> tuple[list[list[float]], list[dict]]:
    """Weights after each step and the log, where `gradients[step][part]` is the gradient of that part's loss."""
    model, rows, path = Weights(start), [], []

    def losses(step):
        for gradient in gradients[step]:
            loss = (model.values * torch.tensor(gradient)).sum()
            yield loss, {"loss": loss.detach(), "tokens": 10}

    def log(row):
        rows.append(row)
        path.append(model.values.tolist())

    optimise(model, losses, steps=len(gradients), lr_at=lambda step: lr, weight_decay=weight_decay, clip=clip,
             beta2=beta2, accelerator=accelerator, log=log)
    return path, rows


def adamw(gradients: list[float], start: float, lr: float, weight_decay: float, beta2: float) -> list[float]:
    """AdamW on one number (Loshchilov & Hutter 2019, algorithm 2), in plain Python."""
    weight, m, v, path = start, 0.0, 0.0, []
    for step, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, beta2 * v + (1 - beta2) * gradient**2
        weight -= lr * weight_decay * weight
        weight -= lr * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - beta2**step)) + 1e-8)
        path.append(weight)
    return path


# ---- one step ------------------------------------------------------------------------------------------------

def test_the_updates_are_adamws(accelerator):
    gradients = [0.5, -2.0, 3.0]
    path, _ = train(accelerator, [[[g]] for g in gradients], start=[4.0], weight_decay=0.1, beta2=0.97)
    assert [w for w, in path] == pytest.approx(adamw(gradients, 4.0, 0.1, 0.1, 0.97), rel=1e-6)


def test_gradients_and_rows_are_averaged_over_the_parts_of_a_step(accelerator):
    parts, rows = train(accelerator, [[[2.0], [4.0]], [[1.0], [-5.0]]], start=[1.0])
    whole, _ = train(accelerator, [[[3.0]], [[-2.0]]], start=[1.0])  # (2 + 4) / 2 and (1 - 5) / 2
    assert parts == whole
    assert rows[0]["loss"] == 3.0  # (2 * 1 + 4 * 1) / 2
    assert [row["grad_norm"] for row in rows] == pytest.approx([3.0, 2.0])


def test_clipping_scales_long_gradients_down_to_its_norm_and_leaves_short_ones(accelerator):
    gradients = [[[3.0, 4.0]], [[0.3, 0.4]]]  # norms 5 and 0.5
    path, rows = train(accelerator, gradients, start=[0.0, 0.0], clip=1.0)
    assert [row["grad_norm"] for row in rows] == pytest.approx([5.0, 0.5])  # before clipping
    expected = [adamw([g, h], 0.0, 0.1, 0.0, 0.999) for g, h in ((0.6, 0.3), (0.8, 0.4))]
    assert path[-1] == pytest.approx([both[-1] for both in expected], rel=1e-5)


def test_clip_0_leaves_every_gradient_as_it_is(accelerator):
    path, rows = train(accelerator, [[[300.0]], [[0.1]]], start=[0.0])
    assert path[-1] == pytest.approx(adamw([300.0, 0.1], 0.0, 0.1, 0.0, 0.999)[-1:], rel=1e-5)
    assert rows[0]["grad_norm"] == pytest.approx(300)


def test_frozen_parameters_are_not_touched(accelerator):
    model = Weights([1.0])
    model.frozen = torch.nn.Parameter(torch.tensor([5.0]), requires_grad=False)
    optimise(model, lambda step: [((model.values * model.frozen).sum(), {"tokens": 1})], steps=3,
             lr_at=lambda step: 0.1, weight_decay=0.5, clip=0.0, accelerator=accelerator, log=lambda row: None)
    assert model.frozen.item() == 5.0
    assert model.values.item() < 1.0


def test_every_step_logs_a_complete_row(accelerator):
    _, rows = train(accelerator, [[[1.0], [1.0]]] * 4, start=[0.0])
    assert all(row.keys() == COLUMNS for row in rows)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["tokens"] for row in rows] == [20, 40, 60, 80]  # cumulative; two parts of 10
    assert [row["lr"] for row in rows] == [0.1] * 4
    assert all(row["tokens_per_second"] > 0 and row["memory_mb"] > 1 for row in rows)
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    json.dumps(rows, allow_nan=False)  # plain numbers only


# ---- learning rates ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("warmup", "steps"), [(278, 1390), (139, 695), (0, 10), (1, 2), (5, 5), (0, 1)])
def test_the_linear_schedule_is_that_of_transformers(warmup, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    theirs = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    ours, lr_at = [], linear_schedule(1e-4, warmup, steps)
    expected = []
    for step in range(steps):
        expected.append(theirs.get_last_lr()[0])
        ours.append(lr_at(step))
        optimizer.step()
        theirs.step()
    assert ours == pytest.approx(expected, rel=1e-12)


def test_the_linear_schedule_starts_at_0_peaks_after_the_warm_up_and_would_reach_0_at_the_end():
    lr_at = linear_schedule(8.0, warmup=4, steps=12)
    assert [lr_at(step) for step in (0, 2, 4, 8, 11, 12)] == [0, 4, 8, 4, 1, 0]


def test_the_cosine_schedule_starts_above_0_peaks_after_the_warm_up_and_ends_at_a_tenth():
    lr_at = cosine_schedule(8.0, warmup=3, steps=13)
    assert [lr_at(step) for step in range(4)] == pytest.approx([2, 4, 6, 8])
    assert lr_at(8) == pytest.approx((8.0 + 0.8) / 2)  # half way down
    assert lr_at(13) == pytest.approx(0.8)


# ---- resuming ------------------------------------------------------------------------------------------------

class Stop(Exception):
    """Stands for a killed process."""


def noisy_training(accelerator, folder: Path | None, *, stop_at: int = 0, on_save=lambda step: None
                   ) -> tuple[dict, list[dict]]:
    """Eight steps on random data with dropout; (parameters, log). Stops after the log of step `stop_at`."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    rows = []

    def losses(step):
        for _ in range(2):
            loss = model(torch.randn(5, 4)).square().mean()
            yield loss, {"loss": loss.detach(), "tokens": 5}

    def log(row):
        rows.append(row)
        if row["step"] == stop_at:
            raise Stop

    with contextlib.suppress(Stop):
        optimise(model, losses, steps=8, lr_at=linear_schedule(0.05, 2, 8), weight_decay=0.1, clip=0.5,
                 accelerator=accelerator, log=log, state_dir=folder, save_at=frozenset({3, 6, 8}),
                 on_save=on_save)
    return {name: value.clone() for name, value in model.state_dict().items()}, rows


def without_clocks(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]


@pytest.mark.parametrize(("stop_at", "saved"), [(2, 0), (3, 0), (5, 3), (7, 6)])
def test_a_stopped_training_resumes_to_the_bit_with_dropout_and_random_data(accelerator, tmp_path, stop_at, saved):
    parameters, rows = noisy_training(accelerator, tmp_path / "unbroken")
    folder = tmp_path / "resume"
    broken, first = noisy_training(accelerator, folder, stop_at=stop_at)
    assert not torch.equal(broken["0.weight"], parameters["0.weight"])
    assert saved_step(folder) == saved

    torch.manual_seed(1234)  # another process would have another random state
    resumed, later = noisy_training(accelerator, folder)
    assert [row["step"] for row in later] == list(range(saved + 1, 9))
    assert all(torch.equal(resumed[name], parameters[name]) for name in parameters)
    assert without_clocks(first[:saved] + later) == without_clocks(rows)
    assert later[-1]["seconds"] >= (first[saved - 1]["seconds"] if saved else 0)  # time goes on from the saved state


def test_a_finished_training_leaves_no_state_behind(accelerator, tmp_path):
    before = []
    folder = tmp_path / "resume"
    noisy_training(accelerator, folder, on_save=lambda step: before.append(saved_step(folder)))
    assert before == [0, 3, 6]  # at the saves of steps 3, 6 and 8
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_takes_between_a_checkpoint_and_its_state_is_made_again(accelerator, tmp_path):
    made = []

    def on_save(step):
        made.append(step)
        if made == [3, 6]:
            raise Stop

    noisy_training(accelerator, tmp_path / "resume", on_save=on_save)
    assert saved_step(tmp_path / "resume") == 3
    noisy_training(accelerator, tmp_path / "resume", on_save=on_save)
    assert made == [3, 6, 6, 8]


def test_without_a_state_folder_nothing_is_written_and_the_result_is_the_same(accelerator, tmp_path):
    saves = []
    alone, _ = noisy_training(accelerator, None, on_save=saves.append)
    assert saves == [3, 6, 8]
    kept, _ = noisy_training(accelerator, tmp_path / "resume")
    assert all(torch.equal(alone[name], kept[name]) for name in kept)


def test_a_state_is_safetensors_and_json_only(accelerator, tmp_path):
    noisy_training(accelerator, tmp_path / "resume", stop_at=5)
    assert sorted(path.name for path in (tmp_path / "resume").iterdir()) == ["state.json", "state.safetensors"]
    about = json.loads((tmp_path / "resume" / "state.json").read_text())
    assert (about["step"], about["tokens"]) == (3, 3 * 2 * 5)
    assert [path.name for path in tmp_path.iterdir()] == ["resume"]  # no temporary folder


def test_no_state_folder_means_step_0(tmp_path):
    assert saved_step(tmp_path / "nowhere") == 0


@pytest.mark.parametrize("text", ['{"step": 3, "tok', '{"tokens": 1, "seconds": 2}', "[3]", "\x80"])
def test_a_torn_state_json_is_an_input_error_that_names_it(accelerator, tmp_path, text):
    noisy_training(accelerator, tmp_path / "resume", stop_at=5)
    (tmp_path / "resume" / "state.json").write_bytes(text.encode("latin-1"))
    for read in (saved_step, lambda folder: noisy_training(accelerator, folder)):
        with pytest.raises(InputError, match=r"resume/state\.json; got .*; remove its folder") as caught:
            read(tmp_path / "resume")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:100]), Path.unlink],
                         ids=["torn", "missing"])
def test_damaged_tensors_of_a_state_are_an_input_error_that_names_them(accelerator, tmp_path, damage):
    noisy_training(accelerator, tmp_path / "resume", stop_at=5)
    damage(tmp_path / "resume" / "state.safetensors")
    with pytest.raises(InputError, match=r"resume/state\.safetensors; got .*; remove its folder"):
        noisy_training(accelerator, tmp_path / "resume")


@pytest.mark.parametrize(("change", "words"), [
    (lambda tensors: tensors.update({"parameter/0.weight": tensors["parameter/0.weight"].bfloat16()}),
     r"0\.weight; got \(8, 4\) in torch\.bfloat16; expected \(8, 4\) in torch\.float32; .*another model or precision"),
    (lambda tensors: tensors.update({"parameter/0.weight": torch.zeros(16, 4)}),
     r"0\.weight; got \(16, 4\) in torch\.float32; expected \(8, 4\) in torch\.float32"),
    (lambda tensors: tensors.pop("parameter/2.bias"), r"got 'parameter/2\.bias'"),
    (lambda tensors: tensors.pop("exp_avg_sq/0.weight"), r"got 'exp_avg_sq/0\.weight'"),
    (lambda tensors: tensors.pop("rng/cpu"), r"got 'rng/cpu'")],
    ids=["precision", "shape", "no parameter", "no moment", "no random state"])
def test_a_state_of_another_model_or_precision_is_an_input_error_that_names_it(accelerator, tmp_path, change, words):
    noisy_training(accelerator, tmp_path / "resume", stop_at=5)
    path = tmp_path / "resume" / "state.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(InputError, match=rf"resume/state\.safetensors.*{words}") as caught:
        noisy_training(accelerator, tmp_path / "resume")
    assert "remove its folder to start this training again" in str(caught.value)


def test_a_crash_while_saving_keeps_the_older_state(accelerator, tmp_path):
    unbroken, _ = noisy_training(accelerator, tmp_path / "unbroken")
    noisy_training(accelerator, tmp_path / "resume", stop_at=5)
    half = tmp_path / ".resume.tmp"  # what a process killed inside the saving of step 6 leaves
    shutil.copytree(tmp_path / "resume", half)
    (half / "state.json").unlink()
    (half / "state.safetensors").write_bytes(b"half")
    assert saved_step(tmp_path / "resume") == 3
    resumed, _ = noisy_training(accelerator, tmp_path / "resume")
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
