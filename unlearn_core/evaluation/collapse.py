"""How much a text repeats itself: what a collapsed model writes ("666666", "the the the") does, other text does not.

Torch-free.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

N = 3  # words in a row that are compared: shorter ones come again in any text
# Just above what the 5,466 reference answers of LUME reach: 0.28, "Cha cha cha", and "APT 000001".
REPETITION, WORD_RUN, SIGN_RUN = 0.3, 4, 6

_RUN = re.compile(r"(.)\1+", re.DOTALL)
_WORDS = re.compile(r"\w+|[^\w\s]")


class Repetition(NamedTuple):
    """rep-n of a text's words, and its longest runs of one word and of one sign that is not white space."""

    share: float
    words: int
    signs: int


def repetition(text: str) -> Repetition:
    """Repetition of a text in any case; words are runs of letters and digits, and each other sign alone."""
    words = words_of(text)
    return Repetition(repeated_share(words), longest_run(words), longest_sign_run("".join(text.split())))


def words_of(text: str) -> list[str]:
    """Words of a text in lower case: runs of letters and digits, and each other sign alone."""
    return _WORDS.findall(text.lower())


def most_frequent(texts: Iterable[Sequence[str]]) -> str:
    """The word that stands most often in these lists of words, the first of several; "" where there is none."""
    counts = Counter(word for words in texts for word in words)
    return max(counts, key=counts.get, default="")


def repeated_share(words: Sequence[str], n: int = N) -> float:
    """rep-n = 1 - distinct n-grams / n-grams, in [0, 1); 0 where there is no n-gram."""
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def longest_sign_run(text: str) -> int:
    """`longest_run` of the signs of a text, many times faster."""
    return max((run.end() - run.start() for run in _RUN.finditer(text)), default=min(1, len(text)))


def longest_run(values: Iterable[str]) -> int:
    """Length of the longest row of one and the same value; 0 for none."""
    return max((sum(1 for _ in same) for _, same in groupby(values)), default=0)


def is_repetitive(own: Repetition, reference: Repetition) -> bool:
    """Whether a text repeats itself clearly more than its reference does, in one of the three ways."""
    return (own.share > reference.share + REPETITION
            or own.words >= max(WORD_RUN, reference.words + 1)
            or own.signs >= max(SIGN_RUN, reference.signs + 1))
