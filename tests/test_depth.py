"""States put into the base: against one item at a time with hooks of its own, its properties, on four architectures."""

import copy
import math

import pytest
import torch

from tests.test_memory import KINDS, random_model
from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.data import Item
from unlearn_core.errors import InputError
from unlearn_core.evaluation import depth

ITEMS = [Item("asc1", "the cat sat", " on the mat", "Task1"),
         Item("aqa0", "what is the capital of", " France", "Task1"),
         Item("bsc1", "Paris and the mat sat on the cat and", " London sat on the mat of the capital", "Task3")]


def other_model(kind, layer_scale=0.3, layers=slice(None)):
    """The random model of a kind with noise in the weights of some layers."""
    model = copy.deepcopy(random_model(kind))
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in depth.decoder_layers(model)[layers]:
            for parameter in layer.parameters():
                parameter += layer_scale * torch.randn_like(parameter)
    return model


def naive(base, source, tokenizer, item):
    """What exchanging each layer's states costs, for one item without padding, by a hook on that layer alone."""
    prompt, answer = tokenizer(item.prompt)["input_ids"], tokenizer(item.answer)["input_ids"]
    ids, places = torch.tensor([prompt + answer]), range(len(prompt) - 1, len(prompt) + len(answer) - 1)

    def mean_log_p():
        log_p = base(ids).logits[0].double().log_softmax(-1)
        return sum(float(log_p[place, ids[0, place + 1]]) for place in places) / len(places)

    def first(output):
        return output[0] if isinstance(output, tuple) else output

    found = []
    with torch.no_grad():
        before = mean_log_p()
        for own, theirs in zip(depth.decoder_layers(base), depth.decoder_layers(source), strict=True):
            kept = []
            handle = theirs.register_forward_hook(lambda _, __, output, kept=kept: kept.append(first(output)))
            source(ids)
            handle.remove()

            def exchange(_, __, output, kept=kept):
                state = first(output).clone()
                for place in places:
                    state[:, place] = kept[0][:, place]
                return (state, *output[1:]) if isinstance(output, tuple) else state

            handle = own.register_forward_hook(exchange)
            found.append(before - mean_log_p())
            handle.remove()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_drop_is_that_of_one_item_at_a_time_with_hooks(kind):
    base, source, tokenizer = random_model(kind), other_model(kind), tiny_tokenizer()
    found = depth.drops(base, source, tokenizer, ITEMS)
    for item, values in zip(ITEMS, found, strict=True):
        assert values == pytest.approx(naive(base, source, tokenizer, item), rel=1e-3, abs=1e-4)
    assert max(map(abs, found[0])) > 0.1  # the two models differ


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_s_own_states_cost_nothing(kind):
    for values in depth.drops(random_model(kind), random_model(kind), tiny_tokenizer(), ITEMS):
        assert values == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_differs_in_its_last_layer_alone_costs_nothing_below_it(kind):
    base, source = random_model(kind), other_model(kind, layers=slice(-1, None))
    for values in depth.drops(base, source, tiny_tokenizer(), ITEMS):
        assert values[0] == pytest.approx(0, abs=1e-5)
        assert abs(values[1]) > 0.01


def test_what_only_the_head_changes_does_not_count_as_depth():
    source = tiny_model()
    with torch.no_grad():
        source.get_output_embeddings().weight.mul_(-1)  # every answer is refused, and nothing inside has changed
    for values in depth.drops(tiny_model(), source, tiny_tokenizer(), ITEMS):
        assert values == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_and_padding_change_nothing(batch_size):
    base, source, tokenizer = random_model("olmo"), other_model("olmo"), tiny_tokenizer()
    together = depth.drops(base, source, tokenizer, ITEMS)
    apart = depth.drops(base, source, tokenizer, ITEMS, batch_size=batch_size)
    for one, other in zip(together, apart, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_both_models_are_left_as_they_were():
    base, source, tokenizer = tiny_model().train(), tiny_model(1), tiny_tokenizer()
    ids = torch.tensor([tokenizer("the cat sat on")["input_ids"]])
    before = base(ids).logits
    depth.drops(base, source, tokenizer, ITEMS)
    assert torch.equal(base(ids).logits, before)
    assert base.training
    assert not source.training
    for model in (base, source):
        for layer in depth.decoder_layers(model):
            assert "forward" not in vars(layer)
            assert not layer._forward_hooks


def test_an_answer_without_a_token_is_not_measured_and_one_beyond_the_positions_keeps_its_end():
    empty = Item("dsc1", "the cat sat on the mat", "", "Task1")
    long = Item("esc1", "the cat sat on the mat " * 6, " France", "Task1")
    base, source, tokenizer = tiny_model(positions=16), tiny_model(1, positions=16), tiny_tokenizer()
    found = depth.drops(base, source, tokenizer, [empty, long])
    assert found[0] is None
    # Only the last 16 tokens of its text are read.
    tail = tokenizer(long.prompt)["input_ids"][-16 + len(tokenizer(long.answer)["input_ids"]):]
    short = Item("esc1", tokenizer.decode(tail), " France", "Task1")
    assert tokenizer(short.prompt)["input_ids"] == tail
    assert found[1] == pytest.approx(naive(base, source, tokenizer, short), rel=1e-3, abs=1e-4)


def test_a_loss_that_is_no_number_is_not_measured():
    source = tiny_model(1)
    with torch.no_grad():
        depth.decoder_layers(source)[0].mlp.down_proj.weight.fill_(math.nan)
    assert depth.drops(tiny_model(), source, tiny_tokenizer(), ITEMS) == [None] * 3


# ---- what does not fit

def test_models_of_two_shapes_are_not_compared_and_one_without_a_list_of_layers_is_not_measured():
    assert depth.obstacle(random_model("llama"), other_model("llama")) == ""
    assert "another shape" in depth.obstacle(random_model("llama"), random_model("neox"))
    hidden = random_model("llama")
    hidden.config.num_hidden_layers = 3
    assert depth.decoder_layers(hidden) is None
    assert "no list of decoder layers" in depth.obstacle(random_model("llama"), hidden)


def test_layers_that_run_in_another_order_are_refused():
    base = tiny_model()
    base.model.layers.append(base.model.layers[0])  # the first runs again as the third
    base.config.num_hidden_layers = 3
    with pytest.raises(InputError, match="got layers that ran in the order"):
        depth.drops(base, tiny_model(), tiny_tokenizer(), ITEMS)


# ---- the score

@pytest.mark.parametrize(("d1", "d2", "expected"), [
    ([1.0, 3.0], [0.0, 0.0], 0.0),  # intact: as the base
    ([1.0, 3.0], [1.0, 3.0], 1.0),  # as the reference
    ([1.0, 3.0], [0.5, 0.75], (0.5 + 0.75) / 4),  # each layer counts as much as it encodes
    ([1.0, 3.0], [9.0, -2.0], 1.0 / 4),  # more than the reference counts as much, a gain as nothing
    ([0.04, 2.0], [0.04, 1.0], 0.5)])  # below the threshold a layer encodes nothing
def test_the_score_is_the_share_of_the_references_drop_that_the_model_has_too(d1, d2, expected):
    assert depth.depth_score(d1, d2) == pytest.approx(expected)


def test_an_answer_that_no_layer_encodes_has_no_score():
    assert depth.depth_score([0.05, -1.0], [1.0, 1.0]) is None
