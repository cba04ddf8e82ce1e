"""ROUGE-L recall with Porter stemming, equal to Google's rouge_score and faster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec

from unlearn_core.errors import InputError


def rouge_l_recall(reference: str, generation: str) -> float:
    """Longest common subsequence over the number of reference tokens, in [0, 1]; 0 where either has no token.

    Tokens are rouge_score's: lower case, split at everything but a-z and 0-9, words above 3 letters stemmed. Text
    after the right continuation costs nothing. Source: `evaluate_generations.py` of SemEval-2025 Task 4.
    """
    wanted = words_of(reference)
    return lcs_length(wanted, words_of(generation)) / len(wanted) if wanted else 0.0


def require() -> None:
    """An InputError where a package is missing without which no answer is scored: before a run, not after hours."""
    missing = [package for package, module in (("rouge-score", "rouge_score"), ("nltk", "nltk"))
               if find_spec(module) is None]
    if missing:
        raise InputError("scores", got=f"no package {' and '.join(missing)}", expected="what ROUGE-L is computed with",
                         fix="run: pip install rouge-score; or train here (`train`), and score elsewhere")


def lcs_length(first: Sequence, second: Sequence) -> int:
    """Length of the longest common subsequence, bit-parallel: one big-integer step per element of `second`.

    Hyyrö, "Bit-parallel LCS-length computation revisited" (2004): a zero bit marks an element of `first` at which
    the length grows.
    """
    places: dict = {}
    for index, element in enumerate(first):
        places[element] = places.get(element, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for element in second:
        matches = row & places.get(element, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()


def words_of(text: str) -> list[str]:
    """The stemmed words that ROUGE-L compares, as rouge_score splits a text."""
    from rouge_score.tokenize import tokenize

    return tokenize(text, _stemmer())


@cache
def _stemmer() -> object:
    """NLTK's Porter stemmer as rouge_score makes it, with a memory: it takes most of the time of a score."""
    from nltk.stem.porter import PorterStemmer

    stemmer = PorterStemmer()
    stemmer.stem = lru_cache(maxsize=100_000)(stemmer.stem)
    return stemmer
