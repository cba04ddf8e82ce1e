"""Near-duplicates between forget and retain: pairs of texts that share most of their word triples.

Exact, by prefix filtering (Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", WWW 2007): texts whose
Jaccard similarity reaches a threshold must share one of their rarest triples, so only such pairs are compared.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlearn_core.data.items import Item

# Three words: a question has about ten, and one changed word must not take most of what two of them share, as it
# would with five; with single words all questions of one form would look alike.
WORDS = 3
THRESHOLD = 0.5
_ROUNDING = 1e-9  # 0.7 * 10 is a little more than 7, and must not ask for 8


@dataclass(frozen=True)
class Pair:
    """A forget item and a retain item whose texts are alike; `similarity` is shared / all of their triples."""

    forget: Item
    retain: Item
    similarity: float


def shingles(text: str) -> frozenset[str]:
    """The set of all three words in a row of a text, without case and punctuation; all its words if they are fewer."""
    words = re.findall(r"\w+", text.lower())
    starts = range(max(1, len(words) - WORDS + 1)) if words else ()
    return frozenset(" ".join(words[start: start + WORDS]) for start in starts)


def jaccard(a: frozenset, b: frozenset) -> float:
    """|a and b| / |a or b|; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def near_duplicates(forget: Sequence[Item], retain: Sequence[Item], threshold: float = THRESHOLD) -> list[Pair]:
    """All pairs with at least this similarity (above 0, at most 1) of their whole texts, prompt and answer, whatever
    their kinds; the most similar first, then in the items' order."""
    sides = [[shingles(item.text) for item in side] for side in (forget, retain)]
    counts = Counter(shingle for side in sides for found in side for shingle in found)
    holders = defaultdict(list)  # shingle -> retain items that have it among their rarest
    for number, found in enumerate(sides[1]):
        for shingle in _prefix(found, counts, threshold):
            holders[shingle].append(number)
    pairs = []
    for item, found in zip(forget, sides[0], strict=True):
        near = {number for shingle in _prefix(found, counts, threshold) for number in holders.get(shingle, ())}
        for number in sorted(near):
            similarity = jaccard(found, sides[1][number])
            if similarity >= threshold:
                pairs.append(Pair(item, retain[number], similarity))
    return sorted(pairs, key=lambda pair: -pair.similarity)


def _prefix(found: frozenset[str], counts: Counter, threshold: float) -> Iterable[str]:
    """The rarest shingles of a set, so many that a set which shares none of them is below the threshold.

    A set that reaches it shares at least threshold * n of the n shingles; it can miss n - that, so not one more.
    """
    rarest = sorted(found, key=lambda shingle: (counts[shingle], shingle))
    return rarest[: len(rarest) - math.ceil(threshold * len(rarest) - _ROUNDING) + 1]
