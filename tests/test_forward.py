"""Rows through a model: the same numbers padded, packed and one by one, with and without a head that takes a mask."""

import types

import pytest
import torch
import torch.nn.functional as F
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tests.tiny_lm import tiny_model
from unlearn_core.encoding import Encoded
from unlearn_core.training import forward
from unlearn_core.training.forward import NOTHING, Reader

ROWS = [Encoded([5, 6, 7, 8, 9, 10], 3, False), Encoded([11, 12], 1, False), Encoded([13, 14, 15, 16], 0, False),
        Encoded([17, 18, 19], 1, False)]
WANTED = [NOTHING, "answer", "real", "real"]


def neox():
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.3)).eval()


def naive(model, row: Encoded, wanted: str):
    """(NLL of the answer tokens, log-probabilities at the wanted positions) by a forward of the row alone."""
    log_probs = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    first = max(row.prompt_tokens, 1)
    nll = torch.stack([-log_probs[t - 1, row.ids[t]] for t in range(first, len(row.ids))])
    return nll, {NOTHING: log_probs[:0], "answer": log_probs[first - 1: -1], "real": log_probs}[wanted]


@pytest.mark.parametrize("make", [tiny_model, neox])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("settings", [{"side": "left"}, {"side": "right"}, {"side": "left", "width": 9},
                                      {"side": "left", "packed": True}])
@torch.no_grad()
def test_rows_read_together_are_the_rows_read_alone(make, masked, settings):
    model = make()
    assert forward.takes_mask(model)
    reader = Reader(model, pad_id=0, **settings)
    reader.takes_mask = masked
    for row, wanted, read in zip(ROWS, WANTED, reader.read(model, ROWS, WANTED), strict=True):
        nll, log_probs = naive(model, row, wanted)
        torch.testing.assert_close(read.nll, nll, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(read.log_probs, log_probs, rtol=1e-4, atol=1e-5)
        assert len(read.nll) == forward.answer_tokens(row)
        assert len(read.log_probs) == forward.count_positions(row, wanted)


@torch.no_grad()
def test_the_loss_of_texts_is_torchs_over_all_their_tokens_but_the_first_of_each():
    model = tiny_model()
    logits = torch.cat([model(torch.tensor([row.ids])).logits[0, :-1] for row in ROWS])
    labels = torch.tensor([token for row in ROWS for token in row.ids[1:]])  # 5 + 1 + 3 + 2 of them
    expected = F.cross_entropy(logits, labels)
    torch.testing.assert_close(Reader(model, pad_id=0, side="right").text_nll(model, ROWS), expected)


@torch.no_grad()
def test_losses_of_a_bfloat16_model_are_computed_in_float32():
    model, row = tiny_model().bfloat16(), ROWS[0]
    [read] = Reader(model, pad_id=0, side="left").read(model, [row], [NOTHING])
    logits = model(torch.tensor([row.ids])).logits[0, 2:5]
    assert logits.dtype == torch.bfloat16
    expected = F.cross_entropy(logits.float(), torch.tensor(row.ids[3:]), reduction="none")
    torch.testing.assert_close(read.nll, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("side", "real"), [("left", slice(2, None)), ("right", slice(0, 4))])
@torch.no_grad()
def test_padded_positions_are_all_of_the_slot_with_the_row_in_its_place(side, real):
    model = tiny_model()
    reader = Reader(model, pad_id=0, side=side, width=6)
    [read] = reader.read(model, [ROWS[2]], ["padded"])
    assert read.log_probs.shape == (6, 320)
    assert forward.count_positions(ROWS[2], "padded", 6) == 6
    torch.testing.assert_close(read.log_probs[real], naive(model, ROWS[2], "real")[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_packed_rows_do_not_see_one_another():
    model = tiny_model()
    reader = Reader(model, pad_id=0, side="left", packed=True)
    first, _ = reader.read(model, [ROWS[0], ROWS[1]], ["real", NOTHING])
    _, second = reader.read(model, [ROWS[3], ROWS[0]], [NOTHING, "real"])
    torch.testing.assert_close(first.log_probs, second.log_probs, rtol=1e-4, atol=1e-5)
    # Without restarting positions the second row would go on where the first one ends.
    together = model(torch.tensor([[*ROWS[3].ids, *ROWS[0].ids]])).logits[0, 3:].log_softmax(-1)
    assert (together - second.log_probs).abs().max() > 0.1


def older(self, input_ids, logits_to_keep=0, **more):
    """A forward as it was before boolean masks: a tensor chooses columns for all rows."""
    hidden = self.model(input_ids=input_ids, **more).last_hidden_state
    kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
    return types.SimpleNamespace(logits=self.lm_head(hidden[:, kept, :]))


def ignoring(self, input_ids, logits_to_keep=0, **more):
    return types.SimpleNamespace(logits=self.lm_head(self.model(input_ids=input_ids, **more).last_hidden_state))


def without(self, input_ids, use_cache=None):
    return types.SimpleNamespace(logits=self.lm_head(self.model(input_ids=input_ids).last_hidden_state))


@pytest.mark.parametrize("method", [older, ignoring, without])
def test_a_model_that_takes_no_mask_is_recognised(method, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model, "forward", types.MethodType(method, model))
    assert not forward.takes_mask(model)


def test_the_head_runs_only_where_a_loss_reads():
    model, seen = tiny_model(), []
    reader = Reader(model, pad_id=0, side="left")
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[:-1].numel()))
    reader.read(model, ROWS, [NOTHING] * 4)
    assert seen == [3 + 1 + 3 + 2]  # labelled tokens; padded to the longest row there are 24 positions
    seen.clear()
    reader.takes_mask = False  # as under older versions of transformers
    reader.read(model, ROWS, [NOTHING] * 4)
    assert seen == [3 + 1 + 3 + 2]


@torch.no_grad()
def test_a_compiled_model_that_takes_no_mask_is_read_as_well():
    model = tiny_model()
    reader = Reader(model, pad_id=0, side="left")
    expected = reader.read(model, ROWS, WANTED)
    reader.takes_mask = False
    for _ in range(2):
        found = reader.read(torch.compile(model, backend="eager", dynamic=True), ROWS, WANTED)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close((one.nll, one.log_probs), (other.nll, other.log_probs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("lengths", "overhead", "groups"), [
    ([7], 0, [[0]]),
    ([7, 7, 7], 1, [[0, 1, 2]]),  # nothing to save
    ([5, 256, 5, 6], 2, [[1], [3, 0, 2]]),  # 256 + 3 * 6 = 274 positions instead of 4 * 256 = 1024
    ([5, 256, 5, 6], 1, [[1], [3], [0, 2]]),  # 256 + 6 + 2 * 5 = 272, and 3 forwards instead of 2
    ([5, 256, 5, 6], 749, [[1], [3, 0, 2]]),  # saves 750, one more forward costs 749
    ([5, 256, 5, 6], 751, [[1, 3, 0, 2]]),
    ([10, 9, 2, 1], 2, [[0, 1], [2, 3]]),  # 20 + 4 + 2 * 2; all apart: 22 + 4 * 2
])
def test_rows_part_by_length_where_that_saves_more_padding_than_it_costs(lengths, overhead, groups):
    assert forward.length_groups(lengths, overhead) == groups


def test_the_overhead_in_positions_is_smaller_for_a_larger_model():
    model = tiny_model()
    weights = sum(p.numel() for p in model.parameters())
    assert forward.overhead(model) == pytest.approx(forward.CPU_OVERHEAD * 2 / weights)
