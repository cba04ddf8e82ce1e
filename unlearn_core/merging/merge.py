"""Merging LoRA adapters: prune each, elect signs, combine; on the factors A and B (as PEFT) or on delta W."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import (
    Adapter,
    Factors,
    check_compatible,
    concatenated_factors,
    delta,
    from_factors,
    norm,
    shortened,
)
from unlearn_core.settings import Merge
from unlearn_core.vocabulary import (
    MERGE_DIVISORS,
    MERGE_ELECTIONS,
    MERGE_LEVELS,
    MERGE_METHODS,
    MERGE_RESCALES,
    MERGE_SCOPES,
)

Tensors = Sequence[torch.Tensor]
TRIMMING, DROPPING = ("ties", "magnitude_prune"), ("dare_ties", "dare_linear")  # by magnitude, and at random
ELECTING = ("ties", "dare_ties")

BLOCK = 2**16  # entries that are merged at a time
UNRELATED = 0.2  # cosine of the A of two adapters below which they were not initialised alike


# ---- on tensors ------------------------------------------------------------------------------------------------

def combine(tensors: Tensors, choice: Merge, generator: torch.Generator | None = None,
            limits: Sequence[float] | None = None) -> torch.Tensor:
    """The merge of tensors of one shape by any method but "cat".

    `generator` draws what DARE drops; `limits`, one per tensor, are magnitudes below which global trimming zeroes.
    """
    if choice.method in DROPPING:
        rescale = "density" if choice.rescale == "usual" else choice.rescale
        tensors = [rescaled(drop(x, choice.density, generator), x, choice.density, rescale) for x in tensors]
    scales = [1.0] * len(tensors)
    if choice.method not in TRIMMING or choice.density >= 1:
        limits = [0.0] * len(tensors)
    else:
        if limits is None:
            tensors, limits = zip(*(_with_limit(x, choice.density) for x in tensors), strict=True)
        if choice.rescale in ("density", "l1"):
            scales = [_scale(x, limit, choice) for x, limit in zip(tensors, limits, strict=True)]
    # In blocks that stay in the processor's cache: many passes over a large matrix would wait for the memory.
    flat, merged = [x.reshape(-1) for x in tensors], torch.empty(tensors[0].numel()).to(tensors[0])
    for start in range(0, merged.numel(), BLOCK):
        here = slice(start, start + BLOCK)
        block = [_shrunk(x[here], limit) for x, limit in zip(flat, limits, strict=True)]
        merged[here] = _combined([x if scale == 1 else x * scale for x, scale in zip(block, scales, strict=True)],
                                 choice)
    return merged.view(tensors[0].shape)


def _combined(pruned: Tensors, choice: Merge) -> torch.Tensor:
    weights = choice.weights
    judged = pruned if choice.elect == "before" else _weighted(pruned, weights)
    if choice.method in ELECTING:
        return disjoint_merge(pruned, elect_sign(judged), weights, choice.elect, choice.divisor)
    if choice.method == "negmerge":
        pruned = _unanimous(pruned, judged)
    divisor = {"weights": sum(weights), "count": len(pruned), "none": 1.0}
    usual = "count" if choice.method == "negmerge" else "none"
    return linear(pruned, weights) / (divisor[usual if choice.divisor == "usual" else choice.divisor] or 1.0)


def ties(tensors: Tensors, weights: Sequence[float], density: float) -> torch.Tensor:
    """TIES (arXiv 2306.01708) of tensors of one shape in PEFT's dialect: elected before weighting, divided by count."""
    return combine(tensors, Merge("ties", density=density, weights=tuple(weights)))


def trim(x: torch.Tensor, density: float) -> torch.Tensor:
    """Keep the floor(density * n) entries of largest magnitude and zero the other ones; exactly that many are kept.

    Among equal magnitudes at the limit torch.topk chooses: on the CPU the same entries as in PEFT.
    """
    return x if density >= 1 else _shrunk(*_with_limit(x, density))


def _with_limit(x: torch.Tensor, density: float) -> tuple[torch.Tensor, float]:
    """(x, the magnitude from which on its entries are kept); where others tie with it, what is kept and 0."""
    kept = int(density * x.numel())
    if not kept:
        return torch.zeros_like(x), 0.0
    magnitudes, place = x.abs().flatten(), x.numel() - kept
    if x.device.type == "cpu":  # numpy's selection is some ten times as fast as torch's
        values = magnitudes.numpy()
        values.partition(place)
        limit, tied = values[place].item(), bool((values[:place] == values[place]).any())
    else:
        limit = torch.kthvalue(magnitudes, place + 1).values.item()
        tied = bool((magnitudes >= limit).sum() != kept)
    if not tied:
        return x, limit
    mask = torch.zeros(x.numel(), dtype=torch.bool, device=x.device)
    mask[torch.topk(x.abs().flatten(), kept, sorted=False).indices] = True
    return x.where(mask.view_as(x), 0), 0.0


def _shrunk(x: torch.Tensor, limit: float) -> torch.Tensor:
    """`x` with 0 for magnitudes below the limit."""
    if limit == 0:
        return x
    below = np.nextafter(np.float32(limit), np.float32(0)).item()  # hardshrink keeps what is above its limit
    return torch.nn.functional.hardshrink(x, below)


def drop(x: torch.Tensor, density: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """Keep each entry with probability `density` (DARE, arXiv 2311.03099), drawn on the CPU so that devices agree.

    Nothing is rescaled here.
    """
    if density >= 1:
        return x
    return x * torch.bernoulli(torch.full(x.shape, density), generator=generator).to(x.device, x.dtype)


def rescaled(pruned: torch.Tensor, whole: torch.Tensor, density: float, rescale: str) -> torch.Tensor:
    """`pruned` over the density, which keeps its expectation where entries were drawn (PEFT, DARE's paper), or times
    what gives it the L1 norm of `whole` (mergekit), or as it is ("none")."""
    if rescale == "density":
        return pruned / density
    left = pruned.abs().sum() if rescale == "l1" else 0
    return pruned * (whole.abs().sum() / left) if left else pruned


def _scale(x: torch.Tensor, limit: float, choice: Merge) -> float:
    """What a trimmed tensor is multiplied by."""
    if choice.rescale == "density":
        return 1 / choice.density
    left = _shrunk(x, limit).abs().sum().item()
    return x.abs().sum().item() / left if left else 1.0


def elect_sign(tensors: Tensors) -> torch.Tensor:
    """Sign (+1 or -1) of the larger total magnitude per entry over tensors of one shape; a tie gives +1."""
    total = _total(tensors)
    return torch.copysign(torch.ones((), dtype=total.dtype, device=total.device), total)


def disjoint_merge(tensors: Tensors, signs: torch.Tensor, weights: Sequence[float], elect: str = "before",
                   divisor: str = "count") -> torch.Tensor:
    """Weighted mean of those tensors which have the elected sign, per entry; 0 where none has.

    `elect` "before": the sign of x_i itself counts; "after": that of w_i x_i (mergekit). `divisor` "count" (or
    "usual"): how many contribute, whatever their weights, so with weights (1, 0) an entry on which both agree is
    halved; "weights": the sum of the weights of those that contribute; "none": a sum.
    """
    total, share = torch.zeros_like(signs), torch.zeros_like(signs)
    for x, weight in zip(tensors, weights, strict=True):
        first, then = (1.0, weight) if elect == "before" else (weight, 1.0)
        agreeing = (x * signs if first == 1 else x * first * signs).clamp_(min=0)  # magnitudes
        if divisor != "none":
            share.add_(agreeing > 0, alpha=weight if divisor == "weights" else 1)
        total.add_(agreeing, alpha=then)
    if divisor != "none":
        total /= share.masked_fill_(share.abs() < 1e-8, 1) if divisor == "weights" else share.clamp_(min=1)
    return total.mul_(signs)


def linear(tensors: Tensors, weights: Sequence[float]) -> torch.Tensor:
    """Weighted sum."""
    return sum(tensor * weight for tensor, weight in zip(tensors, weights, strict=True))


def _weighted(tensors: Tensors, weights: Sequence[float]) -> list[torch.Tensor]:
    return [tensor * weight for tensor, weight in zip(tensors, weights, strict=True)]


def _total(tensors: Tensors) -> torch.Tensor:
    first, *others = tensors
    return sum(others, first)


def _unanimous(tensors: Tensors, judged: Tensors) -> list[torch.Tensor]:
    """`tensors` where the entries of all of `judged` have one sign, 0 elsewhere (NegMerge, arXiv 2410.05583)."""
    stack = torch.stack(list(judged))
    mask = (stack > 0).all(dim=0) | (stack < 0).all(dim=0)
    return [tensor.where(mask, 0) for tensor in tensors]


def magnitude_limit(parts: Callable[[], Iterator[torch.Tensor]], density: float) -> float:
    """Exact floor(density * n)-th largest magnitude over all fp32 tensors of `parts()`, which is walked twice.

    Nothing is sorted or kept: the bit patterns of magnitudes order as the magnitudes do, so their upper 16 bits are
    counted first, and then the lower 16 of those in the one bin where the limit lies.
    """
    counts = sum(torch.bincount(_bits(x) >> 16, minlength=2**15) for x in parts())
    kept = int(density * int(counts.sum()))
    if not kept:
        return math.inf
    above = counts.flip(0).cumsum(0)
    place = int((above < kept).sum())
    upper = 2**15 - 1 - place
    kept -= int(above[place - 1]) if place else 0
    lower = sum(torch.bincount(bits[bits >> 16 == upper] & 0xFFFF, minlength=2**16)
                for bits in (_bits(x) for x in parts()))
    last = 2**16 - 1 - int((lower.flip(0).cumsum(0) < kept).sum())
    return torch.tensor(upper << 16 | last, dtype=torch.int32).view(torch.float32).item()


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.float().abs().flatten().view(torch.int32)


# ---- on adapters -----------------------------------------------------------------------------------------------

def merge(adapters: Sequence[Adapter], choice: Merge | None = None, device: str | torch.device = "cpu") -> Adapter:
    """One adapter (scaling 1, on the CPU) out of two or more of the same base, module by module on `device`.

    level "factors": A and B are merged apart from each other as in PEFT's `add_weighted_adapter`, so the ranks must
    be equal and the result depends on how delta W is factored. (Where PEFT keeps rsLoRA's scaling for the merge, the
    update here stays B A.) level "delta" merges delta W = scaling * B A, one dense matrix at a time; a weighted sum
    is exact and never dense there, and so is "cat" on either level. `choice.rank` > 0 compresses each module to its
    best approximation of that rank; 0 keeps it exact, at rank min(out, in), a weighted sum at the sum of the ranks.
    `choice` is by default `Merge()` with weight 1 for each adapter. What it names wrongly is an InputError.
    """
    choice = Merge(weights=(1.0,) * len(adapters)) if choice is None else choice
    _check(adapters, choice)
    together = [(name, [adapter.modules[name] for adapter in adapters]) for name in adapters[0].modules]
    scalings = [adapter.scaling for adapter in adapters]
    limits = _limits(together, scalings, choice, device)
    modules = {}
    for name, parts in together:
        here = [part.to(device) for part in parts]
        generator = torch.Generator().manual_seed(zlib.crc32(f"{choice.seed}/{name}".encode()))
        if choice.level == "factors" and choice.method != "cat":
            merged = _merge_factors(here, scalings, choice, generator, limits)
        else:
            merged = _merge_deltas(here, scalings, choice, generator, limits)
        modules[name] = merged.to("cpu")
    return from_factors(modules, adapters[0].config)


def warnings(adapters: Sequence[Adapter], choice: Merge) -> list[str]:
    """What a reader should know about a merge that `merge` carries out all the same."""
    found = []
    if choice.level == "factors" and choice.method != "cat" and len({a.rank for a in adapters}) == 1:
        first = _all_of_a(adapters[0])
        cosines = [torch.nn.functional.cosine_similarity(first, _all_of_a(other), dim=0).item()
                   for other in adapters[1:]]
        if min(cosines) < UNRELATED:
            found.append(f"the factors A of these adapters have a cosine of {min(cosines):.2f}: they do not come from "
                         "one initialisation, so merging factors mixes unrelated directions; level delta does not "
                         "depend on how an update is factored")
    return found


def norm_ratio(merged: Adapter, parents: Sequence[Adapter]) -> float:
    """||delta W of the merge|| / mean ||delta W_i||: 1 where merging kept the size of the update; nan if all are 0.

    Sums overshoot: identical parents give 4 for linear on factors, 2 for linear on delta W, 1 for TIES at density 1.
    """
    mean = sum(norm(parent) for parent in parents) / len(parents)
    return norm(merged) / mean if mean else math.nan


def _all_of_a(adapter: Adapter) -> torch.Tensor:
    return torch.cat([adapter.modules[name].A.flatten() for name in sorted(adapter.modules)])


def _limits(together: list[tuple[str, list[Factors]]], scalings: list[float], choice: Merge,
            device: str | torch.device) -> list[float] | None:
    """The magnitude at which each adapter as a whole is trimmed; None where each matrix is trimmed by itself."""
    if choice.trim_scope == "matrix" or choice.method not in TRIMMING or choice.density >= 1:
        return None

    def tensors(number: int) -> Iterator[torch.Tensor]:
        for _, parts in together:
            part = parts[number].to(device)
            yield from (part.A, part.B) if choice.level == "factors" else (delta(part, scalings[number]),)

    return [magnitude_limit(lambda number=number: tensors(number), choice.density) for number in range(len(scalings))]


def _merge_factors(parts: list[Factors], scalings: list[float], choice: Merge, generator: torch.Generator,
                   limits: list[float] | None) -> Factors:
    """PEFT's dialect: each factor gets the root of weight * scaling, and A alone its sign."""
    roots = [math.sqrt(abs(weight * scaling)) for weight, scaling in zip(choice.weights, scalings, strict=True)]
    signed = [math.copysign(root, weight * scaling)
              for root, weight, scaling in zip(roots, choice.weights, scalings, strict=True)]
    return Factors(A=combine([part.A for part in parts], replace(choice, weights=signed), generator, limits),
                   B=combine([part.B for part in parts], replace(choice, weights=roots), generator, limits))


def _merge_deltas(parts: list[Factors], scalings: list[float], choice: Merge, generator: torch.Generator,
                  limits: list[float] | None) -> Factors:
    if choice.method in ("linear", "cat"):
        share = {"weights": sum(choice.weights), "count": len(parts)}.get(choice.divisor, 1.0) or 1.0
        exact = concatenated_factors(parts, [weight * scaling / share for weight, scaling
                                             in zip(choice.weights, scalings, strict=True)])
        return compressed(exact, choice.rank) if choice.rank else exact
    dense = combine([delta(part, scaling) for part, scaling in zip(parts, scalings, strict=True)], choice, generator,
                    limits)
    return best_of_rank(dense, choice.rank) if choice.rank else as_factors(dense)


# ---- rank ------------------------------------------------------------------------------------------------------

def as_factors(dense: torch.Tensor) -> Factors:
    """The matrix itself as one factor and the identity as the other: exact, and no SVD is needed."""
    rows, columns = dense.shape
    if rows < columns:
        return Factors(A=dense, B=torch.eye(rows, dtype=dense.dtype, device=dense.device))
    return Factors(A=torch.eye(columns, dtype=dense.dtype, device=dense.device), B=dense)


def best_of_rank(dense: torch.Tensor, rank: int) -> Factors:
    """Closest matrix of that rank, with the singular values shared evenly between the factors."""
    u, values, vh = torch.linalg.svd(dense, full_matrices=False)
    roots = values[:rank].sqrt()
    return Factors(A=roots[:, None] * vh[:rank], B=u[:, :rank] * roots)


def compressed(factors: Factors, rank: int) -> Factors:
    """Closest update of that rank, from a small core: B A = Q_B (R_B R_A^T) Q_A^T."""
    q_out, r_out = torch.linalg.qr(factors.B)
    q_in, r_in = torch.linalg.qr(factors.A.T)
    core = best_of_rank(r_out @ r_in.T, rank)
    return Factors(A=core.A @ q_in.T, B=q_out @ core.B)


# ---- bad input -------------------------------------------------------------------------------------------------

def _check(adapters: Sequence[Adapter], choice: Merge) -> None:
    weights = list(choice.weights)
    if len(adapters) < 2:
        raise InputError("merge", got=f"{len(adapters)} adapters", expected="at least two")
    for what, given, known in (
            ("method", choice.method, MERGE_METHODS), ("level", choice.level, MERGE_LEVELS),
            ("trim_scope", choice.trim_scope, MERGE_SCOPES), ("elect", choice.elect, MERGE_ELECTIONS),
            ("divisor", choice.divisor, MERGE_DIVISORS), ("rescale", choice.rescale, MERGE_RESCALES)):
        if given not in known:
            raise InputError(f"merge {what}", got=given, expected=f"one of {', '.join(known)}")
    if not 0 < choice.density <= 1:
        raise InputError("merge density", got=choice.density, expected="a share above 0 and at most 1")
    if len(weights) != len(adapters) or not all(math.isfinite(weight) for weight in weights) or not any(weights):
        raise InputError("merge weights", got=weights,
                         expected=f"{len(adapters)} finite numbers, one per adapter and not all 0")
    keeps_rank = choice.level == "factors" and choice.method != "cat"
    if choice.rank < 0 or (choice.rank and keeps_rank):
        raise InputError("merge rank", got=choice.rank, expected="0 on factors (they keep their rank), at least 0 on "
                         "delta W", fix="set level to delta to compress the merge")
    check_compatible(adapters)
    ranks = [adapter.rank for adapter in adapters]
    if keeps_rank and len(set(ranks)) > 1:
        raise InputError("merge", got=f"adapters of rank {shortened([str(r) for r in ranks])}",
                         expected="equal ranks on factors", fix="set level to delta")
