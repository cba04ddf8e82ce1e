"""Weights rounded to a few bits: against a naive loop and torch's own fake quantisation, and undone without a trace."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.tiny_lm import tiny_model
from unlearn_core import data, run_models
from unlearn_core.data import persons
from unlearn_core.encoding import encode_all
from unlearn_core.errors import InputError
from unlearn_core.evaluation.recall import recall
from unlearn_core.judging import quantise
from unlearn_core.training.forward import NOTHING, Reader

GRIDS = [(8, 0), (4, 8), (4, 32), (4, 5), (4, 1000)]  # bits and group; 24 columns are no multiple of 32 or 5


def drawn(rows=6, columns=24, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def naive(weight, bits, group):
    """Each weight by itself: the nearest multiple of its group's largest magnitude over 127 or 7."""
    most, found = {8: 127, 4: 7}[bits], weight.clone()
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            first = j // group * group if group else 0
            near = weight[i, first:first + group] if group else weight[i]
            scale = max(abs(float(w)) for w in near) / most
            found[i, j] = round(float(weight[i, j]) / scale) * scale
    return found


# ---- one matrix

@pytest.mark.parametrize(("bits", "group"), GRIDS)
def test_rounding_is_that_of_a_naive_loop(bits, group):
    torch.testing.assert_close(quantise.rounded(drawn(), bits, group), naive(drawn(), bits, group))


@pytest.mark.parametrize(("bits", "group"), [(8, 24), (4, 8)])
def test_rounding_is_torchs_fake_quantisation_of_each_group(bits, group):
    most, groups = 2 ** (bits - 1) - 1, drawn().reshape(-1, group)
    scales = groups.abs().amax(1) / most
    wanted = torch.fake_quantize_per_channel_affine(groups, scales, torch.zeros(len(groups), dtype=torch.int32), 0,
                                                    -most, most)
    torch.testing.assert_close(quantise.rounded(drawn(), bits, group), wanted.reshape(6, 24))


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 8), (4, 24)])
def test_no_weight_moves_by_more_than_half_a_step_and_there_are_no_more_levels_than_bits_allow(bits, group):
    weight, most = drawn(rows=40), {8: 127, 4: 7}[bits]
    found = quantise.rounded(weight, bits, group)
    groups = weight.reshape(-1, group or 24)
    scales = groups.abs().amax(1, keepdim=True) / most
    assert ((groups - found.reshape(groups.shape)).abs() <= scales / 2 * (1 + 1e-5)).all()
    assert max(len(row.unique()) for row in found.reshape(groups.shape)) <= 2 * most + 1


def test_what_is_rounded_already_stays():
    once = quantise.rounded(drawn(), 4, 8)
    torch.testing.assert_close(quantise.rounded(once, 4, 8), once, rtol=1e-6, atol=0)


def test_zeros_stay_zero_and_the_dtype_is_kept():
    weight = drawn().to(torch.bfloat16)
    weight[0] = 0
    found = quantise.rounded(weight, 4, 8)
    assert (found[0] == 0).all()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, quantise.rounded(weight.float(), 4, 8).to(torch.bfloat16))


# ---- a model

def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("setting", quantise.SETTINGS)
def test_linear_weights_alone_are_rounded_and_afterwards_they_are_as_before(setting):
    model = tiny_model()
    before = state(model)
    with quantise.quantised(model, setting, group=16):
        for name, tensor in model.state_dict().items():
            rounded = "proj" in name and setting != "fp"  # the embeddings, the norms and the head have other names
            assert torch.equal(tensor, before[name]) is not rounded
            if rounded:
                bits, group = {"int8": (8, 0), "int4": (4, 16)}[setting]
                torch.testing.assert_close(tensor, quantise.rounded(before[name], bits, group))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_error_inside_leaves_no_trace_either():
    model = tiny_model()
    before = state(model)
    with pytest.raises(RuntimeError), quantise.quantised(model, "int4"):
        raise RuntimeError
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_share_that_is_rounded_is_the_linear_layers_own():
    # two layers of 4 x 32 x 32 in attention and 3 x 32 x 64 in the MLP; 320 x 32 each in embeddings and head, no norms
    linear, rest = 2 * (4 * 32 * 32 + 3 * 32 * 64), 2 * 320 * 32
    assert quantise.rounded_share(tiny_model()) == pytest.approx(linear / (linear + rest))


def gpt2(layers):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=layers, n_head=2, n_positions=8,
                                      bos_token_id=0, eos_token_id=0))


def test_a_layer_that_keeps_its_weights_the_other_way_round_is_rounded_by_output_channel_too():
    model, name = gpt2(1), "transformer.h.0.mlp.c_fc"
    before = model.get_submodule(name).weight.detach().clone()  # (in, out)
    with quantise.quantised(model, "int8"):
        torch.testing.assert_close(model.get_submodule(name).weight.T, naive(before.T, 8, 0))
    assert torch.equal(model.get_submodule(name).weight, before)


def test_a_model_in_which_nothing_would_be_rounded_is_refused():
    with pytest.raises(InputError, match="GPT2LMHeadModel, which has no linear layer but its head"):
        quantise.linear_weights(gpt2(0))
    with pytest.raises(InputError, match="got int3; expected one of fp, int8, int4"), \
            quantise.quantised(tiny_model(), "int3"):
        pass


# ---- a planted truth

def int4_recovering(run, group=quantise.GROUP, steps=25):
    """(model, tokenizer) that forgot forget in what int4 rounds away: int4 gives back the base's answers.

    The run's base is put on int4's grid and then trained away from forget, but each weight only within 0.45 steps of
    its grid point. The weights at the outermost level of a group, which set its scale, stay as they are.
    """
    recipe, dataset = run.recipe(), data.load_saved(run.data_dir)
    model, tokenizer = run_models.load(run, recipe, "base", "cpu")
    weights = quantise.linear_weights(model)
    boxes = {}
    for name, weight in weights.items():
        weight.data.copy_(quantise.rounded(weight.data, 4, group))
        scale = (weight.data.unflatten(1, (-1, group)).abs().amax(-1, keepdim=True) / 7).expand(-1, -1, group)
        room = torch.where((weight.data / scale.flatten(1)).round().abs() < 7, 0.45 * scale.flatten(1), 0)
        boxes[name] = weight.data - room, weight.data + room
    reader = Reader(model, pad_id=tokenizer.pad_token_id, side="left")
    texts = [encode_all(tokenizer, items, recipe.encoding) for items in (dataset.forget, dataset.retain)]
    optimizer = torch.optim.Adam(weights.values(), lr=3e-3)
    for _ in range(steps):
        forget, retain = (torch.cat([row.nll for row in reader.read(model, rows, [NOTHING] * len(rows))]).mean()
                          for rows in texts)
        optimizer.zero_grad()
        (retain - forget.clamp(max=6.0)).backward()
        optimizer.step()
        for name, weight in weights.items():
            weight.data.clamp_(*boxes[name])
    return model, tokenizer


def test_int4_gives_back_what_small_changes_of_the_weights_had_hidden(smoke_run):
    dataset = data.load_saved(smoke_run.data_dir)
    people = persons.persons([*dataset.forget, *dataset.retain])

    def values(model, tokenizer, setting):
        with quantise.quantised(model, setting):
            rows = recall(model, tokenizer, dataset.forget, people=people, max_new_tokens=24)
        return {row["measure"]: row["value"] for row in rows}

    planted = int4_recovering(smoke_run)
    base = run_models.load(smoke_run, smoke_run.recipe(), "base", "cpu")
    hidden, stored, back = (values(*planted, setting) for setting in quantise.SETTINGS)
    assert back == pytest.approx(values(*base, "int4"), abs=1e-4)
    assert (hidden["leaking"], back["leaking"]) == (0, 1)
    assert hidden["exact_match"] < 0.1 < 0.5 < back["exact_match"]
    assert hidden["extraction_strength"] < 0.15 < 0.4 < back["extraction_strength"]
    assert stored["exact_match"] == pytest.approx(hidden["exact_match"], abs=0.1)  # int8 is too fine to undo it
