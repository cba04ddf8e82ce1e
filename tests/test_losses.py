"""The loss terms against plain Python on one item at a time, against known values, and against torch's own KL."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from unlearn_core.training import losses

REDUCTIONS = ("sequence_sum", "batch_mean", "token")
BETA = 0.1
RAGGED = [[0.5], [3.0, -1.0, 4.0]]  # Delta of each token of two rows, of 1 and 3 tokens


def padded(rows: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and mask (B, T); what stands at padded places must not matter."""
    width = max(map(len, rows))
    values = torch.tensor([row + [99.0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return values, mask


def npo_of(rows: list[list[float]], reduction: str, beta: float = BETA) -> float:
    differences, mask = padded(rows)
    return losses.npo(differences + 7.0, torch.full_like(differences, 7.0), mask, beta, reduction).item()


def brake_of(rows: list[list[float]], reduction: str, beta: float = BETA) -> float:
    differences, mask = padded(rows)
    return losses.npo_brake(differences + 7.0, torch.full_like(differences, 7.0), mask, beta, reduction).item()


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def deltas(rows: list[list[float]], reduction: str) -> list[float]:
    """The Deltas that a reduction puts through the sigmoid, in plain Python."""
    tokens = [value for row in rows for value in row]
    return {"sequence_sum": [sum(row) for row in rows], "batch_mean": [mean(tokens)], "token": tokens}[reduction]


def naive_npo(delta: float, beta: float = BETA) -> float:
    return 2 / beta * math.log(1 + math.exp(-beta * delta))  # -(2 / beta) log sigmoid(beta Delta)


def random_batch(positions: int = 5, vocabulary: int = 11):
    """Logits (B, T, V) with a gradient, -log p of a random token at each position, and the mask of 3, 2, 1 of these."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, positions, vocabulary, generator=generator) * 2
    tokens = torch.randint(vocabulary, (3, positions), generator=generator)
    nll = -logits.requires_grad_().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    return logits, nll, torch.arange(positions) >= positions - torch.tensor([[3], [2], [1]])


# ---- NPO -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_npo_at_the_reference_is_two_over_beta_times_ln_2(reduction, beta):
    expected = 2 / beta * math.log(2)  # 13.863 for beta 0.1
    assert npo_of([[0.0], [0.0, 0.0, 0.0]], reduction, beta) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("delta", "value"), [(0, 13.863), (1, 12.888), (5, 9.482), (10.8, 5.85), (20, 2.54)])
def test_npo_of_one_token_falls_slowly_with_its_delta(reduction, delta, value):
    assert npo_of([[delta]], reduction) == pytest.approx(value, abs=0.005)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("delta", "value"), [(0, 1.0), (1, 0.95), (5, 0.76), (10.8, 0.51), (20, 0.24)])
def test_the_brake_of_one_token_is_the_slope_that_is_left(reduction, delta, value):
    assert brake_of([[delta]], reduction) == pytest.approx(value, abs=0.006)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_npo_and_brake_equal_plain_python_on_rows_of_unequal_length(reduction):
    found = deltas(RAGGED, reduction)
    assert npo_of(RAGGED, reduction) == pytest.approx(mean([naive_npo(d) for d in found]), rel=1e-6)
    assert brake_of(RAGGED, reduction) == pytest.approx(mean([2 / (1 + math.exp(BETA * d)) for d in found]), rel=1e-6)


def test_the_three_reductions_of_the_same_rows_differ():
    assert deltas(RAGGED, "sequence_sum") == [0.5, 6.0]
    assert deltas(RAGGED, "batch_mean") == [6.5 / 4]
    assert deltas(RAGGED, "token") == [0.5, 3.0, -1.0, 4.0]
    values = [npo_of(RAGGED, reduction) for reduction in REDUCTIONS]
    assert min(abs(a - b) for a, b in ((values[0], values[1]), (values[0], values[2]), (values[1], values[2]))) > 0.01


def test_sequence_sum_counts_a_sequence_by_the_sum_of_its_tokens():
    assert npo_of([[1.0, 2.0]], "sequence_sum") == npo_of([[3.0]], "sequence_sum")
    assert npo_of([[1.0, 2.0]], "batch_mean") == npo_of([[1.5]], "batch_mean")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_gradient_of_npo_at_the_reference_is_minus_that_of_the_cross_entropy(reduction):
    logits, nll, mask = random_batch()
    sequences = (nll * mask).sum(1).mean()
    cross_entropy = sequences if reduction == "sequence_sum" else nll[mask].mean()
    npo = losses.npo(nll, nll.detach(), mask, BETA, reduction)
    npo_gradient, = torch.autograd.grad(npo, logits, retain_graph=True)
    gradient, = torch.autograd.grad(cross_entropy, logits)
    assert gradient.abs().max() > 0.01
    torch.testing.assert_close(npo_gradient, -gradient)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_brake_is_minus_the_slope_of_npo_when_all_deltas_grow_together(reduction):
    differences, mask = padded(RAGGED)
    shift = torch.zeros((), requires_grad=True)
    losses.npo(differences + shift, torch.zeros_like(differences), mask, BETA, reduction).backward()
    if reduction == "sequence_sum":  # a shift of each token moves a sum by its number of tokens
        expected = mean([len(row) * 2 / (1 + math.exp(BETA * sum(row))) for row in RAGGED])
    else:
        expected = brake_of(RAGGED, reduction)
    assert -shift.grad.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_npo_with_a_small_beta_is_gradient_ascent(reduction):
    beta = 1e-2  # -(2 / beta) log sigmoid(beta D) = (2 / beta) ln 2 - D + beta D^2 / 4 - ...
    ascent = 2 / beta * math.log(2) - mean(deltas(RAGGED, reduction))
    curvature = beta / 4 * mean([d**2 for d in deltas(RAGGED, reduction)])
    assert npo_of(RAGGED, reduction, beta) == pytest.approx(ascent + curvature, abs=1e-4)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="sum_of_squares"):
        npo_of([[1.0]], "sum_of_squares")


# ---- what padding and batching change ------------------------------------------------------------------------

@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_padding_changes_neither_npo_nor_gdr(reduction):
    one, wide = [[1.0, 2.0]], torch.tensor([[50.0, 1.0, 2.0, -50.0]])
    mask = torch.tensor([[False, True, True, False]])
    assert losses.npo(wide, torch.zeros(1, 4), mask, BETA, reduction).item() == npo_of(one, reduction)
    assert losses.gdr(wide, mask).item() == 1.5


@pytest.mark.parametrize(("reduction", "same"), [("sequence_sum", True), ("batch_mean", False), ("token", False)])
def test_only_npo_of_sequences_is_the_mean_over_its_items(reduction, same):
    each = mean([npo_of([row], reduction) for row in RAGGED])
    assert (npo_of(RAGGED, reduction) == pytest.approx(each, rel=1e-6)) is same


def test_token_npo_of_rows_of_one_length_is_the_mean_over_its_items_and_batch_mean_is_not():
    rows = [[0.0, 1.0], [20.0, 40.0]]
    each = {reduction: mean([npo_of([row], reduction) for row in rows]) for reduction in REDUCTIONS}
    assert npo_of(rows, "token") == pytest.approx(each["token"], rel=1e-6)
    assert npo_of(rows, "batch_mean") < each["batch_mean"] - 1  # log sigmoid of a mean is not the mean of log sigmoids


def test_gdr_weighs_tokens_alike_and_not_items():
    nll, mask = padded([[1.0], [3.0, 3.0, 3.0]])
    assert losses.gdr(nll, mask).item() == (1 + 3 + 3 + 3) / 4  # the mean of the items' means would be 2


def test_gdr_of_no_answer_token_is_zero_and_has_no_gradient():
    nll = torch.ones(2, 3, requires_grad=True)
    value = losses.gdr(nll, torch.zeros(2, 3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert torch.all(nll.grad == 0)


# ---- KLR -----------------------------------------------------------------------------------------------------

def random_logits(seed: int, positions: int = 5, vocabulary: int = 11) -> torch.Tensor:
    return torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def test_klr_is_torchs_kl_from_the_reference_to_the_model():
    model, reference = random_logits(0), random_logits(1)
    divergences = [kl_divergence(Categorical(logits=p), Categorical(logits=q)).item()
                   for p, q in zip(reference, model, strict=True)]
    assert min(divergences) > 0.1
    value = losses.klr(model.log_softmax(-1), reference.log_softmax(-1)).item()
    assert value == pytest.approx(mean(divergences), rel=1e-5)
    other_way = mean([kl_divergence(Categorical(logits=q), Categorical(logits=p)).item()
                      for p, q in zip(reference, model, strict=True)])
    assert abs(other_way - mean(divergences)) > 0.1


def test_klr_of_two_coins_can_be_read_off():
    reference, model = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)  # 0.1438
    assert losses.klr(model.log(), reference.log()).item() == pytest.approx(expected, rel=1e-6)


def test_klr_at_the_reference_is_zero_with_zero_gradient():
    logits = random_logits(0).requires_grad_()
    value = losses.klr(logits.log_softmax(-1), logits.detach().log_softmax(-1))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max().item() == pytest.approx(0, abs=1e-7)


def test_klr_of_no_position_is_zero():
    nothing = torch.zeros(0, 11)
    assert losses.klr(nothing, nothing).item() == 0


def test_klr_is_the_sum_over_the_vocabulary_and_the_mean_over_positions():
    model, reference = (random_logits(seed, positions=3).log_softmax(-1) for seed in (0, 1))
    naive = mean([sum(math.exp(r) * (r - m) for r, m in zip(row_r, row_m, strict=True))
                  for row_r, row_m in zip(reference.tolist(), model.tolist(), strict=True)])
    assert losses.klr(model, reference).item() == pytest.approx(naive, rel=1e-5)


def top_k(reference, k):
    """(log-probabilities, tokens) of the k likeliest of each position."""
    found = reference.topk(k)
    return found.values, found.indices


def test_klr_on_all_tokens_is_klr_and_on_fewer_a_lower_bound_that_grows():
    model, reference = (random_logits(seed, positions=5).log_softmax(-1) for seed in (0, 1))
    values = [losses.klr_top_k(model, *top_k(reference, k)).item() for k in (1, 3, 7, 11)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(losses.klr(model, reference).item(), rel=1e-5)
    assert 0 < values[0] < 0.9 * values[-1]


def test_top_k_takes_the_other_tokens_as_one():
    reference, model = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.2, 0.3, 0.5]]).log()
    value = losses.klr_top_k(model, *top_k(reference, 1)).item()
    assert value == pytest.approx(0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8))  # the rest: 0.5 and 0.8


@pytest.mark.parametrize("k", [1, 3, 11])
def test_top_k_at_the_reference_is_zero_with_zero_gradient(k):
    logits = random_logits(0).requires_grad_()
    value = losses.klr_top_k(logits.log_softmax(-1), *top_k(logits.detach().log_softmax(-1), k))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max().item() == pytest.approx(0, abs=1e-6)


# ---- other terms -------------------------------------------------------------------------------------------------

def test_gradient_ascent_is_minus_the_token_mean():
    nll, mask = padded(RAGGED)
    assert losses.gradient_ascent(nll, mask).item() == pytest.approx(-6.5 / 4)  # .5 + 3 - 1 + 4 over 4 tokens


def test_simnpo_divides_a_sequence_by_its_length_and_needs_no_reference():
    nll, mask = padded([[2.0], [1.0, 3.0, 2.0]])
    terms = [2 / 4.5 * math.log(1 + math.exp(-4.5 * 2.0))] * 2  # both sequences have a mean of 2
    assert losses.simnpo(nll, mask, 4.5).item() == pytest.approx(mean(terms))
    longer, longer_mask = padded([[2.0] * 9])
    assert losses.simnpo(longer, longer_mask, 4.5).item() == pytest.approx(terms[0])


def test_the_uniform_target_is_reached_where_all_tokens_are_equally_likely():
    even = torch.zeros(2, 11).log_softmax(-1)
    assert losses.uniform(even).item() == pytest.approx(0, abs=1e-6)
    skewed = torch.tensor([[0.7, 0.2, 0.1]]).log()
    assert losses.uniform(skewed).item() == pytest.approx(mean([math.log(1 / 3 / p) for p in (0.7, 0.2, 0.1)]))
