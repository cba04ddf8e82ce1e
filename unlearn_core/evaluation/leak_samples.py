"""What leaks in k of several answers drawn at random to each prompt about a person (leak@k). Torch-free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, prod

from unlearn_core.data import load_saved
from unlearn_core.data.persons import Person, Value, ordered, persons
from unlearn_core.evaluation.leaks import Answer, Reader, by_person, guessable
from unlearn_core.store import Run


@dataclass(frozen=True)
class Sampled:
    """How many of the samples of each prompt give away a field of a person, or, with field "", any that counts."""

    split: str
    document: str
    field: str
    guessable: bool
    counts: tuple[tuple[int, int], ...]  # (samples, how many give it away) of each prompt that does not hold it

    @property
    def samples(self) -> int:
        """Samples of each prompt: of the prompt with the fewest, where a file was cut off."""
        return min((n for n, _ in self.counts), default=0)

    @property
    def leaking(self) -> int:
        """Samples of all prompts that give it away."""
        return sum(leaking for _, leaking in self.counts)

    def leak_at(self, k: int) -> float:
        """Expected share of draws of k samples of each prompt that give it away at least once."""
        return 1 - prod(1 - leak_at(n, leaking, k) for n, leaking in self.counts)


def leak_at(n: int, leaking: int, k: int) -> float:
    """Probability that of k samples, drawn without replacement from n of which `leaking` leak, at least one does:
    1 - C(n - leaking, k) / C(n, k), in whole numbers until the last division; unbiased for k fresh samples."""
    if not 0 <= leaking <= n or not 1 <= k <= n:
        raise ValueError(f"{leaking} of {n} samples leak, {k} are drawn")
    return (comb(n, k) - comb(n - leaking, k)) / comb(n, k)


def sampled(answers: Sequence[Answer], people: Mapping[str, Person], known: set[Value] | None = None) -> list[Sampled]:
    """Per person one row for each field and one for any that counts (field ""); an answer per item and sample.

    A field that every prompt holds has no counts. A value that is `guessable` does not count for any.
    """
    known = guessable(people) if known is None else known
    found = []
    for (split, document), own in by_person(answers, people).items():
        prompts: dict[str, list[Answer]] = defaultdict(list)
        for answer in own:
            prompts[answer.id].append(answer)
        values = [(document, key) for key in ordered(people[document].values)]
        counted = frozenset(values) - known
        for value in values:
            counts = [(len(drawn), sum(value in answer.gives for answer in drawn)) for drawn in prompts.values()
                      if value not in drawn[0].held]
            found.append(Sampled(split, document, value[1], value in known, tuple(counts)))
        counts = [(len(drawn), sum(not counted.isdisjoint(answer.gives) for answer in drawn))
                  for drawn in prompts.values() if not counted <= drawn[0].held]
        found.append(Sampled(split, document, "", False, tuple(counts)))
    return found


def curve(rows: Iterable[Sampled]) -> dict[int, list[float]]:
    """{k: leak@k of each person} of the rows for any field, for every k that all of them have samples for."""
    asked = [row for row in rows if not row.field and row.counts]
    most = min((row.samples for row in asked), default=0)
    return {k: [row.leak_at(k) for row in asked] for k in range(1, most + 1)}


def of_run(run: Run) -> dict[str, tuple[list[Sampled], dict]]:
    """{model: (`sampled`, what `Run.samples` says about them)} of the models whose answers were drawn.

    The prompts are those of the run's data.
    """
    drawn = {model: (rows, about) for model in run.models() for rows, about in [run.samples(model)] if about}
    if not drawn:
        return {}
    dataset = load_saved(run.data_dir)
    prompts = {("forget", item.id): item.prompt for item in dataset.forget}
    everybody = persons([*dataset.forget, *dataset.retain])
    reader, known = Reader(everybody), guessable(everybody)
    found = {}
    for model, (rows, about) in drawn.items():
        asked = [row | {"prompt": prompts[row["split"], row["id"]]} for row in rows
                 if (row["split"], row["id"]) in prompts]
        found[model] = sampled(reader.read(asked), everybody, known), about
    return found
