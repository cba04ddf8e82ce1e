"""Sign statistics of a TIES merge of two adapters: what becomes of every entry, at many densities in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from unlearn_core.errors import InputError
from unlearn_core.merging.merge import disjoint_merge, elect_sign
from unlearn_core.merging.task_vectors import Adapter, Factors, check_compatible, delta, one_thread
from unlearn_core.vocabulary import SPACES, TIES_STATES, UNLEARNED

SCHEMA = 1
GRID = tuple(round(0.05 * step, 2) for step in range(1, 21))
SUMS = ("n", "t1*t1", "t2*t2", "t1*t2", "|t1|", "|t2|")
WINDOW = 8  # rows and columns of an excerpt
CANDIDATES = 12  # places along each side at which an excerpt may begin
BINS = 2**15  # upper halves of the bits of a magnitude
CHUNK = 2**16  # entries at a time, so that what is made of them stays in the processor's cache
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


# ---- two matrices --------------------------------------------------------------------------------------------

def classes(t1: torch.Tensor, t2: torch.Tensor, densities: Sequence[float]) -> np.ndarray:
    """(densities, 6 states, 6 sums), float64: in which state of a TIES merge the entries are, and their sums.

    States `TIES_STATES`: an entry is trimmed in both, kept only in 1, only in 2, or in both, with one sign ("agree")
    or as a conflict that the larger magnitude wins (a tie elects +). Sums `SUMS` of the values as they were before
    trimming, so that the norm of a merge and its inner products with both parents follow for any weights. What is
    kept: see `thresholds`. `densities` ascend; both tensors are float32 and of one shape.
    """
    return classes_above(t1, t2, thresholds(t1, densities), thresholds(t2, densities))


def thresholds(t: torch.Tensor, densities: Sequence[float]) -> torch.Tensor:
    """(densities,) magnitude from which on an entry is kept: the floor(density * n)-th largest, exactly.

    All entries equal to it are kept, where `merge.trim` chooses among them; 0 never is. Infinite where none is kept.
    Selection by the bits of a float, whose order is that of the magnitudes: count the upper half of the bits, then
    sort the few entries that share it with a threshold.
    """
    n = t.numel()
    kept = torch.tensor([min(int(density * n), n) for density in densities])
    counts = sum(_over_chunks(lambda x: torch.bincount(_upper_bits(x), minlength=BINS).cpu(), t))
    ends = counts.cumsum(0)
    ranks = (n - kept).clamp(max=n - 1)  # of the smallest entry that is kept
    bins = torch.searchsorted(ends, ranks, right=True)
    near = torch.zeros(BINS, dtype=torch.bool)
    near[bins] = True
    near_counts = counts * near
    near = near.to(t.device)
    found = torch.cat(_over_chunks(lambda x: x[near.index_select(0, _upper_bits(x))], t)).abs().sort().values.cpu()
    place = (near_counts.cumsum(0) - near_counts)[bins] + ranks - (ends - counts)[bins]
    return torch.where(kept > 0, found[place].clamp(min=SMALLEST), torch.inf)


def _upper_bits(x: torch.Tensor) -> torch.Tensor:
    return x.abs().view(torch.int32) >> 16


def classes_above(t1: torch.Tensor, t2: torch.Tensor, limits1: torch.Tensor, limits2: torch.Tensor) -> np.ndarray:
    """`classes` for given `thresholds`.

    One pass: the level of an entry is the number of densities that keep it; entries are summed by both levels and
    their relation, and the states at each density are rectangles of that table.
    """
    levels = len(limits1) + 1
    level1, level2 = (_Level(limits, t1.device) for limits in (limits1, limits2))

    def summed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        level = level1(x) * levels + level2(y)
        return _sums(x, y, level * 3 + _relation(x, y), levels * levels * 3).cpu()

    table = sum(_over_chunks(summed, t1, t2)).view(levels, levels, 3, len(SUMS)).numpy()
    return np.stack([_states(table, least) for least in range(levels - 1, 0, -1)])


def _over_chunks(work: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> list[torch.Tensor]:
    """`work` on one chunk of each tensor after the other, in order."""
    return [work(*chunk) for chunk in zip(*(t.flatten().split(CHUNK) for t in tensors), strict=True)]


class _Level:
    """How many thresholds an entry reaches. The upper bits decide it for most entries, several times as fast."""

    def __init__(self, limits: torch.Tensor, device: torch.device):
        self.rising = limits.flip(0).to(device)
        least = torch.arange(BINS, dtype=torch.int32, device=device) << 16
        lowest, highest = (self._search(bits.view(torch.float32)) for bits in (least, least + 2**16 - 1))
        self.known = torch.where(lowest == highest, lowest, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        level = self.known.index_select(0, _upper_bits(x))
        open_ = (level < 0).nonzero().squeeze(1)
        return level.index_copy_(0, open_, self._search(x[open_].abs()))

    def _search(self, magnitudes: torch.Tensor) -> torch.Tensor:
        return torch.bucketize(magnitudes, self.rising, right=True, out_int32=True)


def _relation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """0: one sign, 1: a conflict that x wins, 2: one that y wins."""
    positive = x > 0
    conflict = positive ^ (y > 0)
    return conflict.int() + (conflict & (positive ^ (x + y >= 0)))


def _sums(x: torch.Tensor, y: torch.Tensor, code: torch.Tensor, codes: int) -> torch.Tensor:
    """(codes, sums) of two flat tensors by the code of each entry."""
    x, y = x.double(), y.double()
    weights = (x * x, y * y, x * y, x.abs(), y.abs())
    return torch.stack([torch.bincount(code, minlength=codes).double(),
                        *(torch.bincount(code, weight, minlength=codes) for weight in weights)], dim=1)


def _states(table: np.ndarray, least: int) -> np.ndarray:
    """(states, sums) where an entry is kept if its level is at least `least`."""
    both = table[least:, least:].sum((0, 1))
    return np.stack([table[:least, :least].sum((0, 1, 2)), table[least:, :least].sum((0, 1, 2)),
                     table[:least, least:].sum((0, 1, 2)), *both])


def states(t1: torch.Tensor, t2: torch.Tensor, limit1: float, limit2: float) -> torch.Tensor:
    """Index into `TIES_STATES` of each entry, for the `thresholds` of one density."""
    kept1, kept2 = t1.abs() >= limit1, t2.abs() >= limit2
    return torch.where(kept1 & kept2, 3 + _relation(t1, t2), kept1 + 2 * kept2)


def excerpt(t1: torch.Tensor, t2: torch.Tensor, limit1: float, limit2: float, size: int = WINDOW) -> tuple[int, int]:
    """First row and column of a window of two matrices that shows TIES at work: always the same one.

    Of a grid of candidates the one with the most different `states`, then with the most magnitude lost in conflicts.
    """
    def shows(place: tuple[int, int]) -> tuple[int, float]:
        x, y = (window(t, place, size) for t in (t1, t2))
        found = states(x, y, limit1, limit2)
        lost = torch.minimum(x.abs(), y.abs())[found > 3].double().sum().item()
        return len(found.unique()), lost
    rows, columns = (np.linspace(0, max(side - size, 0), CANDIDATES).astype(int) for side in t1.shape)
    return max(((row, column) for row in rows.tolist() for column in columns.tolist()), key=shows)


def window(t: torch.Tensor, place: tuple[int, int], size: int = WINDOW) -> torch.Tensor:
    """The rows and columns of a matrix from a place on; fewer at its end."""
    return t[place[0]:place[0] + size, place[1]:place[1] + size]


# ---- factors -------------------------------------------------------------------------------------------------

def factor_products(parts: Sequence[Factors], scalings: Sequence[float], limits: dict[str, Sequence[torch.Tensor]],
                    ) -> tuple[np.ndarray, np.ndarray]:
    """gram (densities, 4, 4) and against (densities, 4, 2): the norm and directions of factor-level TIES.

    PEFT's merge of the factors is A = sum_i a_i A'_i, B = sum_j b_j B'_j with b_i = |w_i s_i|^(1/2) and a_i the same
    with the sign of w_i s_i (see `merge.merge`; w: weight, s: scaling). A'_i is what TIES lets through of A_i, over
    the number of contributors to each entry, so it does not depend on the weights. The update B A is then a sum of
    the four products B'_1 A'_1, B'_1 A'_2, B'_2 A'_1, B'_2 A'_2: `gram` has their Frobenius inner products, `against`
    those with the parents' scaled updates, all from r x r products. `limits`: `thresholds` of both, by factor.
    """
    grams, againsts = [], []
    for number in range(len(limits["A"][0])):
        own, cross = {}, {}
        for factor in "AB":
            old = [getattr(part, factor) for part in parts]
            new = _let_through(old, [limit[number] for limit in limits[factor]])
            own[factor], cross[factor] = _inner(new, new, factor), _inner(new, old, factor)
        grams.append(torch.einsum("acij,bdij->abcd", own["B"], own["A"]).reshape(4, 4))
        againsts.append(torch.einsum("apij,bpij->abp", cross["B"], cross["A"]).reshape(4, 2))
    against = torch.stack(againsts).cpu() * torch.tensor(scalings, dtype=torch.float64)
    return torch.stack(grams).cpu().numpy(), against.numpy()


def _let_through(factors: Sequence[torch.Tensor], limits: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    trimmed = [x.where(x.abs() >= limit, 0) for x, limit in zip(factors, limits, strict=True)]
    signs = elect_sign(trimmed)
    return [disjoint_merge(trimmed, signs, weights) for weights in ((1.0, 0.0), (0.0, 1.0))]


def _inner(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], factor: str) -> torch.Tensor:
    """(2, 2, r, r): A A^T or B^T B of each of two factors with each of two others."""
    products = [x @ y.T if factor == "A" else x.T @ y
                for x, y in itertools.product([x.double() for x in first], [y.double() for y in second])]
    return torch.stack(products).view(2, 2, *products[0].shape)


# ---- adapters ------------------------------------------------------------------------------------------------

def statistics(first: Adapter, second: Adapter, densities: Sequence[float] = GRID, spaces: Sequence[str] = SPACES,
               excerpt_density: float = 0.8, device: str | torch.device = "cpu",
               progress: Callable[[int, int], None] = lambda *_: None) -> tuple[dict[str, np.ndarray], dict]:
    """Sign statistics of two adapters, one matrix at a time, and what they are about.

    Arrays, with one row per module: a space's own name ("A", "B", "dW" = scaling * B A): `classes`, (densities, 6, 6);
    with A and B also `gram` (densities, 4, 4) and `against` (densities, 4, 2), see `factor_products`; with dW also
    `thresholds` (densities, 2), `excerpt` (2, 8, 8), the entries of both in a window chosen at `excerpt_density` (nan
    beyond the end of a small matrix), and `excerpt_at` (2), its first row and column.
    About: schema, modules, shapes ((out, in) of each), densities (rising), states, sums, spaces, left_out ({space:
    why}), models, ranks and scalings (of both), excerpt_density.
    `progress(done, total)` counts modules.
    """
    check_compatible([first, second])
    densities = sorted({round(float(density), 6) for density in (*densities, excerpt_density)})
    if not densities or not (densities[0] > 0 and densities[-1] <= 1):
        raise InputError("sign statistics: densities", got=densities, expected="shares above 0 and at most 1")
    left_out = {space: f"the adapters have ranks {first.rank} and {second.rank}: their factors cannot be compared "
                       "entry by entry" for space in spaces if space != "dW" and first.rank != second.rank}
    measured = [space for space in spaces if space not in left_out]
    scalings = [first.scaling, second.scaling]
    usual = densities.index(round(excerpt_density, 6))
    rows: dict[str, list] = {}
    with one_thread():
        for done, name in enumerate(first.modules):
            progress(done, len(first.modules))
            parts = [adapter.modules[name].to(device) for adapter in (first, second)]
            for key, value in _module(parts, scalings, densities, measured, usual):
                rows.setdefault(key, []).append(value)
    progress(len(first.modules), len(first.modules))
    return {key: np.stack(values) for key, values in rows.items()}, {
        "schema": SCHEMA, "modules": list(first.modules), "densities": densities, "states": list(TIES_STATES),
        "shapes": [[factors.B.shape[0], factors.A.shape[1]] for factors in first.modules.values()],
        "sums": list(SUMS), "spaces": measured, "left_out": left_out, "models": list(UNLEARNED),
        "ranks": [first.rank, second.rank], "scalings": scalings, "excerpt_density": densities[usual]}


def _module(parts: Sequence[Factors], scalings: Sequence[float], densities: Sequence[float], spaces: Sequence[str],
            usual: int) -> Iterator[tuple[str, np.ndarray]]:
    limits = {}
    for factor in "AB":
        if factor in spaces:
            pair = [getattr(part, factor) for part in parts]
            limits[factor] = [thresholds(t, densities) for t in pair]
            yield factor, classes_above(*pair, *limits[factor])
    if len(limits) == 2:
        yield from zip(("gram", "against"), factor_products(parts, scalings, limits), strict=True)
    if "dW" in spaces:
        pair = [delta(part, scaling) for part, scaling in zip(parts, scalings, strict=True)]
        both = [thresholds(t, densities) for t in pair]
        yield "dW", classes_above(*pair, *both)
        yield "thresholds", torch.stack(both, dim=1).numpy()
        place = excerpt(*pair, *(limit[usual].item() for limit in both))
        yield "excerpt_at", np.array(place)
        yield "excerpt", np.stack([_padded(window(t, place)) for t in pair])


def _padded(shown: torch.Tensor) -> np.ndarray:
    missing = [WINDOW - side for side in shown.shape]
    return torch.nn.functional.pad(shown, (0, missing[1], 0, missing[0]), value=torch.nan).cpu().numpy()
