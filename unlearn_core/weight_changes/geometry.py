"""Geometry of weight changes: sizes, angles and spectra from the LoRA factors, entries some rows at a time.

Pure functions of adapters; what of a run they are computed on is decided in `weights`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from unlearn_core.merging.task_vectors import Adapter, Factors, inner_by_module, one_thread

VALUES = 64  # singular values that are kept of each matrix
BINS = 121  # of a histogram; odd, so that 0 lies in the middle of one
REACH = 6.0  # root mean squares on either side of 0 that a histogram covers; its outer bins take what lies beyond
AT_ONCE = 2**20  # entries of a dense delta W
MAP = 32  # rows and columns of a down-sampled matrix
LARGE_RANK = 512  # from here on the largest singular values are found by iteration
ROUNDING = 1e-12  # share of the squared norms below which a difference of float64 sums is nothing but rounding
Progress = Callable[[int, int], None]


# ---- one set of adapters ---------------------------------------------------------------------------------------

def statistics(adapters: dict[str, Adapter], base_norms: dict[str, float] | None = None, *, entries: bool = True,
               device: str | torch.device = "cpu", progress: Progress = lambda *_: None) -> dict[str, np.ndarray]:
    """Arrays over the adapters (in their order) and modules (in the order of the first); all change the same modules.

    From the factors alone:
      norm (adapters, modules): ||delta W||_F;  base_norm (modules): ||W||_F, from `base_norms`, NaN where unknown
      inner (adapters, adapters, modules): <delta W_i, delta W_j>, summed in float64
      singular_values (adapters, modules, 64): the largest first, 0 behind the last (see `singular_values`)
    With `entries`, from some rows of a dense delta W at a time:
      histogram (adapters, modules, 121) and histogram_edges (modules, 122): counts in bins that all adapters share
      largest (adapters, modules): largest magnitude;  map (adapters, modules, 32, 32): root mean square of each block
    """
    names, base_norms = list(next(iter(adapters.values())).modules), base_norms or {}
    found = []
    with one_thread():
        for number, name in enumerate(names, start=1):
            parts = [_scaled(adapter.modules[name].to(device), adapter.scaling) for adapter in adapters.values()]
            found.append(_of_factors(parts))
            if entries:
                found[-1] |= _of_entries(parts, found[-1]["inner"].diagonal().clamp(min=0).sqrt())
            progress(number, len(names))
    stacked = {key: np.stack([one[key].cpu().numpy() for one in found], axis=-1 if key == "inner" else 1)
               for key in found[0] if key != "histogram_edges"}
    if entries:
        stacked["histogram_edges"] = np.stack([one["histogram_edges"].cpu().numpy() for one in found])
    stacked["norm"] = np.sqrt(np.maximum(np.einsum("iim->im", stacked["inner"]), 0))
    stacked["base_norm"] = np.array([base_norms.get(name, math.nan) for name in names])
    return {key: np.ascontiguousarray(array) for key, array in stacked.items()}


def _scaled(factors: Factors, scaling: float) -> Factors:
    return Factors(factors.A, factors.B * scaling)


def _of_factors(parts: Sequence[Factors]) -> dict[str, torch.Tensor]:
    """Inner products and singular values of one module; <B1 A1, B2 A2> = sum((B1^T B2) * (A1 A2^T))."""
    wide = [Factors(part.A.double(), part.B.double()) for part in parts]
    inner = torch.empty(len(parts), len(parts), dtype=torch.float64)
    values = []
    for i, one in enumerate(wide):
        for j, two in enumerate(wide[:i + 1]):
            gram_a, gram_b = one.A @ two.A.T, one.B.T @ two.B
            inner[i, j] = inner[j, i] = (gram_a * gram_b).sum()
        # At the end of the inner loop the two Gram matrices are those of the adapter itself.
        values.append(_largest_by_iteration(parts[i]) if len(gram_a) > LARGE_RANK else _from_grams(gram_a, gram_b))
    return {"inner": inner, "singular_values": torch.stack(values).float()}


def singular_values(factors: Factors) -> torch.Tensor:
    """The 64 largest singular values of B A, descending, 0 behind the last; float64, never dense up to rank 512.

    They are those of the small core R_B R_A^T, where R^T R = G is the Gram matrix of a factor, as in its QR. G is
    taken in float64, which leaves the digits that float32 factors have: 1e-7 of the product of their norms, below
    which a value is 0. From rank 512 on subspace iteration finds them, the last ones a few per cent too small.
    """
    if factors.A.shape[0] > LARGE_RANK:
        return _largest_by_iteration(factors)
    wide = Factors(factors.A.double(), factors.B.double())
    return _from_grams(wide.A @ wide.A.T, wide.B.T @ wide.B)


def _from_grams(gram_a: torch.Tensor, gram_b: torch.Tensor) -> torch.Tensor:
    root_a, root_b = _root(gram_a), _root(gram_b)
    values = torch.linalg.svdvals(root_b @ root_a.T)
    floor = 1e-7 * root_a.norm() * root_b.norm()
    return _padded(torch.where(values > floor, values, 0))


def _root(gram: torch.Tensor) -> torch.Tensor:
    """R with R^T R = G; unlike Cholesky's it exists for a G of any rank."""
    values, vectors = torch.linalg.eigh(gram)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


def _largest_by_iteration(factors: Factors) -> torch.Tensor:
    """Subspace iteration with some spare directions, multiplying by the factors only; the start is always the same."""
    (_, columns), (rows, _) = factors.A.shape, factors.B.shape
    count = min(VALUES + 32, rows, columns)
    start = torch.randn(columns, count, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(start.to(factors.A))[0]
    for _ in range(6):
        left = torch.linalg.qr(factors.B @ (factors.A @ basis))[0]
        basis = torch.linalg.qr(factors.A.T @ (factors.B.T @ left))[0]
    return _padded(torch.linalg.svdvals(factors.B @ (factors.A @ basis)).double()[:VALUES])


def _padded(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(values[:VALUES], (0, max(0, VALUES - len(values)))).cpu()


def _of_entries(parts: Sequence[Factors], norms: torch.Tensor) -> dict[str, torch.Tensor]:
    """Histogram, largest magnitude and map of each adapter's delta W of one module, some rows at a time."""
    entries = parts[0].B.shape[0] * parts[0].A.shape[1]
    limit = REACH * norms.max().item() / math.sqrt(entries) or 1.0
    found = [_entries(part, limit) for part in parts]
    edges = torch.linspace(-limit, limit, BINS + 1, dtype=torch.float64)
    return {"histogram_edges": edges, **{key: torch.stack([one[key] for one in found]).cpu() for key in found[0]}}


def _entries(factors: Factors, limit: float) -> dict[str, torch.Tensor]:
    A, B = factors.A, factors.B
    (rows, columns), device = (B.shape[0], A.shape[1]), A.device
    size = max(1, AT_ONCE // columns)
    # All blocks use the same memory: asking for new memory takes longer than what is computed in it.
    dense, scaled = A.new_empty(size, columns), A.new_empty(size, columns)
    bins = torch.empty(size, columns, dtype=torch.int64, device=device)
    down, across = _averager(rows).to(A), _averager(columns).to(A)
    counts = torch.zeros(BINS, dtype=torch.int64, device=device)
    largest, mean_squares = A.new_zeros(()), A.new_zeros(MAP, columns)
    for first in range(0, rows, size):
        part = B[first:first + size]
        block, number = torch.mm(part, A, out=dense[:len(part)]), bins[:len(part)]
        number.copy_(torch.add(block, limit, out=scaled[:len(part)]).mul_(BINS / (2 * limit)).clamp_(0, BINS - 1))
        counts += torch.bincount(number.flatten(), minlength=BINS)
        largest = torch.maximum(largest, torch.stack(block.aminmax()).abs().max())
        mean_squares += down[:, first:first + size] @ block.square_()
    return {"histogram": counts, "largest": largest, "map": (mean_squares @ across.T).sqrt()}


def _averager(size: int) -> torch.Tensor:
    """Matrix (32, size) that takes the mean of each of 32 even stretches; short axes have stretches that overlap."""
    matrix = torch.zeros(MAP, size)
    for block in range(MAP):
        first = block * size // MAP
        last = max(first + 1, (block + 1) * size // MAP)
        matrix[block, first:last] = 1 / (last - first)
    return matrix


# ---- changes during a training -------------------------------------------------------------------------------

def split_products(start: Adapter, points: Iterable[Adapter], end: Adapter,
                   progress: Progress = lambda *_: None) -> dict[str, np.ndarray]:
    """How the way of a training from `start` to `end` is split at each point s: for "delta" (delta W) and "factors"
    (the entries of A and B) an array (points, modules, 3) of ||0->s||^2, ||s->end||^2 and <0->s, s->end>.

    All norms and angles of the three changes follow, since 0->end is the sum of the parts; the three numbers of
    several modules add up. `points` is read one at a time. Fig. 4 of arXiv 2503.21088.
    """
    found: dict[str, list[np.ndarray]] = {"delta": [], "factors": []}
    products = {"delta": inner_by_module, "factors": factor_inner_by_module}
    fixed = {level: [_numbers(product(*pair)) for pair in ((start, start), (start, end), (end, end))]
             for level, product in products.items()}
    for number, point in enumerate(points, start=1):
        with one_thread():
            for level, product in products.items():
                own = [_numbers(product(point, other)) for other in (point, start, end)]
                found[level].append(_parts(*own, *fixed[level]))
        progress(number, 0)
    return {level: np.stack(rows) for level, rows in found.items()}


def factor_inner_by_module(first: Adapter, second: Adapter) -> dict[str, float]:
    """<A_1, A_2> + <B_1, B_2> of each module of two adapters of one rank: the factors as one long vector."""
    return {name: sum(torch.dot(x.double().flatten(), y.double().flatten()).item()
                      for x, y in ((one.A, second.modules[name].A), (one.B, second.modules[name].B)))
            for name, one in first.modules.items()}


def _numbers(by_module: dict[str, float]) -> np.ndarray:
    return np.array(list(by_module.values()))


def _parts(ss: np.ndarray, s0: np.ndarray, se: np.ndarray, oo: np.ndarray, oe: np.ndarray,
           ee: np.ndarray) -> np.ndarray:
    """Products of s - 0 and end - s out of those of the three points; what is only rounding is 0."""
    before, after, both = ss - 2 * s0 + oo, ee - 2 * se + ss, se - ss - oe + s0
    least = ROUNDING * np.maximum(np.maximum(ss, oo), ee)
    before, after = np.where(before > least, before, 0), np.where(after > least, after, 0)
    return np.stack([before, after, np.where((before > 0) & (after > 0), both, 0)], axis=-1)
