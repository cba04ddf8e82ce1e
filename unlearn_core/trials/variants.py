"""Other updates that the adapters of a run could have become: densities, methods, mixes. Nothing here is scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise

import torch

from unlearn_core.merging.merge import merge, norm_ratio
from unlearn_core.merging.task_vectors import Adapter, concatenated, cosine, delta, norm, scaled
from unlearn_core.settings import Merge
from unlearn_core.trials.balance import MEAN, MERGED, MIXED
from unlearn_core.vocabulary import MERGE_LABELS, UNLEARNED

PATH = (0.25, 0.5, 0.75)  # shares of the way between two neighbours of model_1, merged, model_2
SURFACE = (0.0, 0.25, 0.5, 0.75, 1.0)
SCALES = tuple(round(0.1 * step, 1) for step in range(2, 17))
MIX = tuple(round(0.1 * step, 1) for step in range(11))
MATCHED = "mean of both at the merge's norm"


@dataclass(frozen=True, eq=False)
class Variant:
    """One update to score. `kind` and `name` identify it in a run; `about` is what a reader is told of it, as JSON."""

    kind: str
    name: str
    about: dict
    make: Callable[[], Adapter]


@dataclass(frozen=True, eq=False)
class Parents:
    """The two unlearned adapters and the settings that the run merges them with."""

    adapters: tuple[Adapter, Adapter]
    choice: Merge
    device: str = "cpu"

    def merged(self, choice: Merge) -> Adapter:
        return merge(self.adapters, choice, self.device)

    def mixed(self, first: float, second: float) -> Adapter:
        """w1 delta W_1 + w2 delta W_2, exactly."""
        return concatenated(self.adapters, (first, second))

    def geometry(self, update: Adapter) -> dict:
        """How large an update is beside its parents' mean, and its cosine to each (none for an update of 0)."""
        cosines = {name: cosine(update, adapter) for name, adapter in zip(UNLEARNED, self.adapters, strict=True)}
        return {"norm_ratio": norm_ratio(update, self.adapters),
                "cosines": {name: value for name, value in cosines.items() if math.isfinite(value)}}


def custom(parents: Parents, choice: Merge) -> Variant:
    """A merge with any settings; its name says those that it reads and that are not the usual ones."""
    usual = Merge(choice.method, choice.level, choice.density)
    words = [f"{_name(choice)} on {'factors' if choice.level == 'factors' else 'delta W'}",
             f"density {choice.density:g}", "weights " + " : ".join(f"{weight:g}" for weight in choice.weights)]
    words += [f"{field.name} {getattr(choice, field.name)}" for field in fields(Merge) if field.name != "weights"
              and getattr(choice, field.name) != getattr(usual, field.name)]
    return _merge("custom", ", ".join(words), parents, choice)


def densities(parents: Parents, values: Sequence[float]) -> Iterator[Variant]:
    """The run's own method at each density (Fig. 5 of the paper)."""
    for density in values:
        choice = replace(parents.choice, density=density)
        yield _merge("density", f"{_name(choice)}, density {density:g}", parents, choice)


def methods(parents: Parents) -> Iterator[Variant]:
    """Every method as it comes (Table 2 of the paper), and again scaled to the mean norm of the parents.

    Sums of factors make an update up to four times as large as its parents, so that a comparison of methods as they
    come compares sizes; at one norm it compares directions.
    """
    on_factors = [Merge(method) for method in MERGE_LABELS if method != "cat"]
    on_deltas = [Merge("ties", "delta"), Merge("negmerge", "delta"), Merge("linear", "delta", divisor="count")]
    run = parents.choice
    for method in on_factors + on_deltas:
        choice = replace(method, density=run.density, weights=run.weights, seed=run.seed)
        name = f"{_name(choice)} on {'factors' if choice.level == 'factors' else 'delta W'}"
        yield _merge("method", name, parents, choice)
        yield _merge("method at one norm", name, parents, choice, at_one_norm=True)


def path(parents: Parents) -> Iterator[Variant]:
    """From model_1 over the merge to model_2, in straight lines between the updates."""
    first, second = parents.adapters
    stations = {"model_1": first, "merged": parents.merged(parents.choice), "model_2": second}
    for place, (name, start) in enumerate(stations.items()):
        yield Variant("path", name, {"position": float(place)}, lambda start=start: start)
    for place, (name, to) in enumerate(pairwise(stations)):
        for share in PATH:
            mixed = partial(concatenated, [stations[name], stations[to]], (1 - share, share))
            yield Variant("path", f"{name} to {to}, {share:g}", {"position": place + share}, mixed)


def surface(parents: Parents, values: Sequence[float] = SURFACE) -> Iterator[Variant]:
    """w1 delta W_1 + w2 delta W_2 on a grid of weights; (0, 0) is the base."""
    for first in values:
        for second in values:
            yield Variant("surface", f"{first:g} : {second:g}", {"weights": [first, second]},
                          partial(parents.mixed, first, second))


def families(parents: Parents, checkpoints: Sequence[tuple[int, Adapter]]) -> Iterator[Variant]:
    """What `balance` compares, kind by kind, each with one knob: the run's merge at other sizes, the plain mean at
    other sizes (and at the merge's own), other mixes, and the controls that need no second model: model_1 at other
    sizes, stopped early, and the mean of its own checkpoints at other sizes. `checkpoints` are model_1's."""
    first, _ = parents.adapters
    merged, mean = parents.merged(parents.choice), parents.mixed(0.5, 0.5)
    kept = [adapter for step, adapter in checkpoints if step]
    scalable = {MERGED: merged, MEAN: mean, "model_1 scaled": first}
    if len(kept) > 1:
        scalable["mean of model_1's checkpoints, scaled"] = concatenated(kept, [1 / len(kept)] * len(kept))
    for kind, update in scalable.items():
        for scale in SCALES:
            yield Variant(kind, f"{kind} x {scale:g}", {"knob": scale}, partial(scaled, update, scale))
    size = norm(merged) / (norm(mean) or 1.0)
    yield Variant(MATCHED, f"mean of both x {size:.3g}", {"knob": size}, partial(scaled, mean, size))
    for share in MIX:
        yield Variant(MIXED, f"model_1 {share:g} : model_2 {1 - share:g}", {"knob": share},
                      partial(parents.mixed, share, 1 - share))
    for step, adapter in checkpoints:
        if step:
            yield Variant("model_1 stopped early", f"model_1 at step {step}", {"knob": step},
                          lambda adapter=adapter: adapter)


def families_beside(parents: Parents, name: str, other: Adapter, checkpoints: Sequence[tuple[int, Adapter]]
                    ) -> Iterator[Variant]:
    """Controls that take a second run `name` on the same base: its model_1 at other sizes and stopped early, and the
    plain mean of both runs' model_1. With one configuration and another seed the mean tells what a second run of the
    same kind brings; with loss weights in between, the other ones tell whether one such run would have done."""
    first, _ = parents.adapters
    mean = concatenated((first, other), (0.5, 0.5))
    for kind, update in ((f"model_1 of {name}, scaled", other), (f"mean with model_1 of {name}, scaled", mean)):
        for scale in SCALES:
            yield Variant(kind, f"{kind} x {scale:g}", {"knob": scale}, partial(scaled, update, scale))
    kind = f"model_1 of {name}, stopped early"
    for step, adapter in checkpoints:
        if step:
            yield Variant(kind, f"{kind} at step {step}", {"knob": step}, lambda adapter=adapter: adapter)


def dense(update: Adapter, device: str = "cpu") -> Callable[[str], torch.Tensor]:
    """The update as a function from the name of a module to its delta W, made on the device."""
    return lambda name: delta(update.modules[name].to(device), update.scaling)


def _merge(kind: str, name: str, parents: Parents, choice: Merge, at_one_norm: bool = False) -> Variant:
    def make() -> Adapter:
        update = parents.merged(choice)
        size = sum(norm(adapter) for adapter in parents.adapters) / len(parents.adapters)
        return scaled(update, size / (norm(update) or 1.0)) if at_one_norm else update

    return Variant(kind, name, {"method": choice.method, "level": choice.level, "density": choice.density}, make)


def _name(choice: Merge) -> str:
    return "Mean" if (choice.method, choice.divisor) == ("linear", "count") else MERGE_LABELS[choice.method]
