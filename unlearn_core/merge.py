"""Merging LoRA adapters: TIES and linear, on the factors A and B (as PEFT) or on the weight changes delta W."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch

from unlearn_core.errors import InputError
from unlearn_core.task_vectors import (
    Adapter,
    Factors,
    check_compatible,
    concatenated_factors,
    delta,
    from_factors,
    norm,
    shortened,
)
from unlearn_core.vocabulary import MERGE_LEVELS, MERGE_METHODS

# ---- TIES (arXiv 2306.01708) on tensors ----------------------------------------------------------------------

def ties(tensors: Sequence[torch.Tensor], weights: Sequence[float], density: float) -> torch.Tensor:
    """TIES of tensors of one shape in PEFT's dialect: signs are elected before weighting, the divisor is a count."""
    trimmed = torch.stack([trim(tensor, density) for tensor in tensors])
    signs = elect_sign(trimmed)
    return disjoint_merge(trimmed, signs, weights)


def trim(x: torch.Tensor, density: float) -> torch.Tensor:
    """Keep the floor(density * n) entries of largest magnitude and zero the other ones; exactly that many are kept.

    Among equal magnitudes at the limit torch.topk chooses: on the CPU the same entries as in PEFT.
    """
    if density >= 1:
        return x
    magnitudes = x.abs().flatten()
    kept = torch.topk(magnitudes, int(density * magnitudes.numel()), sorted=False).indices
    mask = torch.zeros_like(magnitudes, dtype=torch.bool)
    mask[kept] = True
    return x.where(mask.view_as(x), 0)


def elect_sign(stack: torch.Tensor) -> torch.Tensor:
    """Sign (+1 or -1) of the larger total magnitude per entry of a stack (adapters, ...); a tie and 0 give +1."""
    return torch.where(stack.sum(dim=0) >= 0, 1, -1)


def disjoint_merge(stack: torch.Tensor, signs: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Mean of w_i x_i over those i whose x_i has the elected sign; 0 where none has.

    The divisor counts the contributors, whatever their weights: with weights (1, 0) an entry on which both agree
    is halved.
    """
    agrees = stack.sign() == signs
    return linear(stack * agrees, weights) / agrees.sum(dim=0).clamp(min=1)


def linear(tensors: Sequence[torch.Tensor] | torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Weighted sum."""
    return sum(tensor * weight for tensor, weight in zip(tensors, weights, strict=True))


# ---- adapters ------------------------------------------------------------------------------------------------

def merge(adapters: Sequence[Adapter], method: str = "ties", level: str = "factors", density: float = 0.8,
          weights: Sequence[float] | None = None, rank: int = 0, device: str | torch.device = "cpu") -> Adapter:
    """One adapter (scaling 1, on the CPU) out of two or more of the same base, module by module on `device`.

    level "factors" equals PEFT's `add_weighted_adapter(combination_type=method)`: A and B are merged apart from
    each other, so the ranks must be equal and the result depends on how delta W is factored. (Where PEFT keeps
    rsLoRA's scaling for the merge, the update here stays B A.)
    level "delta" merges delta W = scaling * B A, one dense matrix at a time for TIES; linear is exact and never
    dense. `rank` > 0 compresses each module to its best approximation of that rank; 0 keeps it exact, at rank
    min(out, in) for TIES and at the sum of the ranks for linear.
    `density` is the share that TIES keeps per matrix; `weights` default to 1 for each adapter.
    """
    weights = [1.0] * len(adapters) if weights is None else list(weights)
    _check(adapters, method, level, density, weights, rank)
    scalings = [adapter.scaling for adapter in adapters]
    modules = {}
    for name in adapters[0].modules:
        parts = [adapter.modules[name].to(device) for adapter in adapters]
        merged = (_merge_factors(parts, scalings, weights, method, density) if level == "factors" else
                  _merge_deltas(parts, scalings, weights, method, density, rank))
        modules[name] = merged.to("cpu")
    return from_factors(modules, adapters[0].config)


def norm_ratio(merged: Adapter, parents: Sequence[Adapter]) -> float:
    """||delta W of the merge|| / mean ||delta W_i||: 1 where merging kept the size of the update; nan if all are 0.

    Sums overshoot: identical parents give 4 for linear on factors, 2 for linear on delta W, 1 for TIES at density 1.
    """
    mean = sum(norm(parent) for parent in parents) / len(parents)
    return norm(merged) / mean if mean else math.nan


def _merge_factors(parts: list[Factors], scalings: list[float], weights: list[float], method: str,
                   density: float) -> Factors:
    """PEFT's dialect: each factor gets the root of weight * scaling, and A alone its sign."""
    combine = partial(ties, density=density) if method == "ties" else linear
    roots = [math.sqrt(abs(weight * scaling)) for weight, scaling in zip(weights, scalings, strict=True)]
    signed = [math.copysign(root, weight * scaling)
              for root, weight, scaling in zip(roots, weights, scalings, strict=True)]
    return Factors(A=combine([part.A for part in parts], weights=signed),
                   B=combine([part.B for part in parts], weights=roots))


def _merge_deltas(parts: list[Factors], scalings: list[float], weights: list[float], method: str,
                  density: float, rank: int) -> Factors:
    if method == "ties":
        deltas = [delta(part, scaling) for part, scaling in zip(parts, scalings, strict=True)]
        dense = ties(deltas, weights, density)
        return _best_of_rank(dense, rank) if rank else _as_factors(dense)
    exact = concatenated_factors(parts, [w * s for w, s in zip(weights, scalings, strict=True)])
    return _compressed(exact, rank) if rank else exact


def _as_factors(dense: torch.Tensor) -> Factors:
    """The matrix itself as one factor and the identity as the other: exact, and no SVD is needed."""
    rows, columns = dense.shape
    if rows < columns:
        return Factors(A=dense, B=torch.eye(rows, dtype=dense.dtype, device=dense.device))
    return Factors(A=torch.eye(columns, dtype=dense.dtype, device=dense.device), B=dense)


def _best_of_rank(dense: torch.Tensor, rank: int) -> Factors:
    """Closest matrix of that rank, with the singular values shared evenly between the factors."""
    u, values, vh = torch.linalg.svd(dense, full_matrices=False)
    roots = values[:rank].sqrt()
    return Factors(A=roots[:, None] * vh[:rank], B=u[:, :rank] * roots)


def _compressed(factors: Factors, rank: int) -> Factors:
    """Closest update of that rank, from a small core: B A = Q_B (R_B R_A^T) Q_A^T."""
    q_out, r_out = torch.linalg.qr(factors.B)
    q_in, r_in = torch.linalg.qr(factors.A.T)
    core = _best_of_rank(r_out @ r_in.T, rank)
    return Factors(A=core.A @ q_in.T, B=q_out @ core.B)


def _check(adapters: Sequence[Adapter], method: str, level: str, density: float, weights: list[float],
           rank: int) -> None:
    if len(adapters) < 2:
        raise InputError("merge", got=f"{len(adapters)} adapters", expected="at least two")
    for what, given, known in (("method", method, MERGE_METHODS), ("level", level, MERGE_LEVELS)):
        if given not in known:
            raise InputError(f"merge {what}", got=given, expected=f"one of {', '.join(known)}")
    if not 0 < density <= 1:
        raise InputError("merge density", got=density, expected="a share above 0 and at most 1")
    if len(weights) != len(adapters) or not all(math.isfinite(weight) for weight in weights) or not any(weights):
        raise InputError("merge weights", got=weights,
                         expected=f"{len(adapters)} finite numbers, one per adapter and not all 0")
    if rank < 0 or (rank and level == "factors"):
        raise InputError("merge rank", got=rank, expected="0 on factors (they keep their rank), at least 0 on delta W",
                         fix="set level to delta to compress the merge")
    check_compatible(adapters)
    ranks = [adapter.rank for adapter in adapters]
    if level == "factors" and len(set(ranks)) > 1:
        raise InputError("merge", got=f"adapters of rank {shortened([str(r) for r in ranks])}",
                         expected="equal ranks on factors", fix="set level to delta")
