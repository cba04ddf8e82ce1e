"""Interventions on a merged update: a part of it removed, kept alone or flipped, beside random parts of equal size.

Where the weights changed most is not by itself where something was forgotten. Each part has a control: as many entries
(or directions) chosen at random and scaled to the same norm, put in its place.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import Adapter, delta
from unlearn_core.vocabulary import TIES_STATES
from unlearn_core.weight_changes import signs

MODES = ("remove", "keep", "flip")
KINDS = ("layer", "module", "matrix", "sign", "direction")
DIRECTIONS = (1, 4, 16)
OTHER = "outside the layers"

Matrices = Callable[[str], torch.Tensor]  # name of a module -> a matrix of the shape of its delta W


@dataclass(frozen=True, eq=False)
class Part:
    """A chosen part of an update, one matrix per module, and how a random one of its size is drawn.

    `of(module)` is what the part has of the update there, `random(module, generator)` a random part of as many entries
    or directions; both sum with what they leave out to the update. `share` is the part of all entries (None for
    directions, which have no entries of their own).
    """

    kind: str
    name: str
    of: Matrices
    random: Callable[[str, torch.Generator], torch.Tensor]
    share: float | None


def intervened(update: Matrices, part: Matrices, mode: str) -> Matrices:
    """The update without the part ("remove"), the part alone ("keep"), or the update with the part turned ("flip")."""
    if mode not in MODES:
        raise InputError("ablate --mode", got=mode, expected=f"one of {', '.join(MODES)}")
    if mode == "keep":
        return part
    times = 1 if mode == "remove" else 2
    return lambda module: update(module) - times * part(module)


def control(part: Part, modules: Sequence[str], draw: int) -> Matrices:
    """A random part of the size and the Frobenius norm of `part`, over all modules together; one per draw."""
    def drawn(module: str) -> torch.Tensor:
        seed = zlib.crc32(f"{part.kind}/{part.name}/{draw}/{module}".encode())
        return part.random(module, torch.Generator().manual_seed(seed))

    size = math.sqrt(sum(drawn(module).square().sum().item() for module in modules))
    scale = norm(part.of, modules) / size if size else 0.0
    return lambda module: scale * drawn(module)


def norm(matrices: Matrices, modules: Sequence[str]) -> float:
    """Frobenius norm over all modules."""
    return math.sqrt(sum(matrices(module).square().sum().item() for module in modules))


# ---- parts -----------------------------------------------------------------------------------------------------

def parts(kinds: Sequence[str], update: Matrices, parents: Sequence[Adapter], density: float,
          matrices: Sequence[str] = (), directions: Sequence[int] = DIRECTIONS) -> Iterator[Part]:
    """The parts of the asked kinds: each layer, each type of module, the named matrices, each sign class of the two
    parents' delta W at this density, the first singular directions of every matrix."""
    shapes = {name: (f.B.shape[0], f.A.shape[1]) for name, f in parents[0].modules.items()}
    unknown = [name for name in matrices if name not in shapes]
    if unknown:
        raise InputError("ablate --matrix", got=unknown[0], expected=f"a module of the adapters, such as "
                         f"{next(iter(shapes))}")
    if "layer" in kinds:
        for layer in dict.fromkeys(map(layer_of, shapes)):
            yield _whole("layer", layer, [name for name in shapes if layer_of(name) == layer], update, shapes)
    if "module" in kinds:
        for module in dict.fromkeys(name.rpartition(".")[2] for name in shapes):
            yield _whole("module", module, [name for name in shapes if name.rpartition(".")[2] == module], update,
                         shapes)
    if "matrix" in kinds:
        for name in matrices:
            yield _whole("matrix", name, [name], update, shapes)
    if "sign" in kinds:
        yield from _sign_classes(update, parents, density, shapes)
    if "direction" in kinds:
        for count in directions:
            yield _directions(update, count)


def layer_of(module: str) -> str:
    """The first whole number in a module's name, as text."""
    return next((word for word in module.split(".") if word.isdecimal()), OTHER)


def _whole(kind: str, name: str, chosen: Sequence[str], update: Matrices, shapes: dict[str, tuple[int, int]]) -> Part:
    """Some matrices as they are; at random: the same share of the entries of every matrix."""
    share = sum(math.prod(shapes[module]) for module in chosen) / sum(map(math.prod, shapes.values()))
    return Part(kind, name, lambda module: update(module) * (module in chosen),
                lambda module, generator: _some(update(module), round(share * math.prod(shapes[module])), generator),
                share)


def _sign_classes(update: Matrices, parents: Sequence[Adapter], density: float,
                  shapes: dict[str, tuple[int, int]]) -> Iterator[Part]:
    def states(module: str) -> torch.Tensor:
        deltas = [delta(parent.modules[module], parent.scaling) for parent in parents]
        return signs.states(*deltas, *(signs.thresholds(one, [density])[0] for one in deltas))

    counts = {module: torch.bincount(states(module).flatten(), minlength=len(TIES_STATES)) for module in shapes}
    entries = sum(map(math.prod, shapes.values()))
    for number, name in enumerate(TIES_STATES):
        yield Part("sign", name, lambda module, number=number: update(module) * (states(module) == number),
                   lambda module, generator, number=number: _some(update(module), int(counts[module][number]),
                                                                  generator),
                   sum(int(count[number]) for count in counts.values()) / entries)


def _directions(update: Matrices, count: int) -> Part:
    """The update on the first right singular directions of each matrix; at random: on as many directions drawn from
    the space that it acts on."""
    def basis(module: str) -> tuple[torch.Tensor, torch.Tensor]:
        whole = update(module)
        _, values, right = torch.linalg.svd(whole, full_matrices=False)
        acting = values > values[0] * 1e-5
        return whole, right[acting]

    def first(module: str) -> torch.Tensor:
        whole, right = basis(module)
        return whole @ right[:count].T @ right[:count]

    def drawn(module: str, generator: torch.Generator) -> torch.Tensor:
        whole, right = basis(module)
        mixed = torch.linalg.qr(torch.randn(len(right), min(count, len(right)), generator=generator)).Q.T @ right
        return whole @ mixed.T @ mixed

    return Part("direction", f"first {count}", first, drawn, None)


def _some(matrix: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` entries of the matrix, chosen at random, and 0 elsewhere."""
    mask = torch.zeros(matrix.numel(), dtype=torch.bool)
    mask[torch.rand(matrix.numel(), generator=generator).topk(count, sorted=False).indices] = True
    return matrix * mask.view_as(matrix).to(matrix.device)
