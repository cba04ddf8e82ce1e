"""Texts cut into marked pieces: overlap with a reference, differences, certainty of each token."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from unlearn_core.evaluation import rouge

TOKEN_COLUMNS = ("place", "token", "probability", "log_prob", "certainty")
# Characters of a text that are compared, since that takes more than linear time: for the overlap and for the diff.
# LUME's answers have at most 492, 256 new tokens about 1,200.
LONGEST_MARKED, LONGEST_DIFFED = 8_000, 1_500
OVERLAP, INSERTED, DELETED, GIVEN_AWAY = "overlap", "inserted", "deleted", "given away"
UNMARKED = ""
_PARTS = re.compile(r"\s+|\w+|[^\w\s]")
_ROUGE_TOKENS = re.compile(r"[a-z0-9]+")


class Piece(NamedTuple):
    """A part of a text and its mark; the pieces of a text joined are the text."""

    text: str
    mark: str = UNMARKED


def overlap(reference: str, generation: str) -> list[Piece]:
    """The generation, with the words `OVERLAP` that lie on a longest common subsequence with the reference.

    Words are ROUGE-L's own: stemmed and of a-z and 0-9 only, so that their number over the reference's words is the
    score. Words that stand next to each other there are one piece.
    """
    marked, rest = generation[:LONGEST_MARKED], generation[LONGEST_MARKED:]
    spans = _token_spans(marked)
    common = set(common_places(rouge.words_of(reference), rouge.words_of(marked)))
    pieces, place = [], 0
    for start, end in _joined(marked, [span for number, span in enumerate(spans) if number in common]):
        pieces += [Piece(marked[place:start]), Piece(marked[start:end], OVERLAP)]
        place = end
    return [piece for piece in (*pieces, Piece(marked[place:] + rest)) if piece.text]


def common_places(first: Sequence, second: Sequence) -> list[int]:
    """Places in `second` of one longest common subsequence with `first`, ascending.

    The bit rows of `rouge.lcs_length`, walked back: a zero bit says that the length grows with that element of
    `first`; where the row before had it as well, the element of `second` was not needed.
    """
    places: dict = {}
    for index, element in enumerate(first):
        places[element] = places.get(element, 0) | 1 << index
    full = (1 << len(first)) - 1
    rows = [full]
    for element in second:
        matches = rows[-1] & places.get(element, 0)
        rows.append((rows[-1] + matches | rows[-1] - matches) & full)
    found, i, j = [], len(first), len(second)
    while i and j:
        grows, grew = (not row >> (i - 1) & 1 for row in (rows[j], rows[j - 1]))
        if not grows:
            i -= 1
        elif grew:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append(j)
    return found[::-1]


def _token_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each of ROUGE-L's tokens; a letter's lower case may have several characters."""
    lowered = [letter.lower() for letter in text]
    origin = [place for place, letters in enumerate(lowered) for _ in letters]
    return [(origin[match.start()], origin[match.end() - 1] + 1)
            for match in _ROUGE_TOKENS.finditer("".join(lowered))]


def _joined(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans with nothing but blanks between them as one."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and not text[joined[-1][1]:start].strip(" "):
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def word_diff(old: str, new: str) -> list[Piece]:
    """From one text to another by words: unmarked and `DELETED` pieces joined are `old`, unmarked and `INSERTED` ones
    are `new`. What follows `LONGEST_DIFFED` characters counts as changed."""
    before, after = (_PARTS.findall(text[:LONGEST_DIFFED]) for text in (old, new))
    pieces = []
    for _, a, b, c, d in difflib.SequenceMatcher(str.isspace, before, after, autojunk=False).get_opcodes():
        gone, come = "".join(before[a:b]), "".join(after[c:d])
        pieces += [Piece(come)] if gone == come else [Piece(gone, DELETED), Piece(come, INSERTED)]
    pieces += [Piece(old[LONGEST_DIFFED:], DELETED), Piece(new[LONGEST_DIFFED:], INSERTED)]
    return [piece for piece in pieces if piece.text]


# Least probability of each bin, and its name.
CERTAINTY = ((0.9, "nearly certain"), (0.5, "likely"), (0.1, "possible"), (0.01, "unlikely"), (0.0, "very unlikely"))


def certainty(log_prob: float) -> str:
    """Name of the bin of a token's probability."""
    return next(name for least, name in CERTAINTY if math.exp(log_prob) >= least)


def token_pieces(tokens: Iterable) -> list[Piece]:
    """One piece per token (with `text` and `log_prob`, in nats), marked with its `certainty`."""
    return [Piece(token.text, certainty(token.log_prob)) for token in tokens]


def token_table(tokens: Iterable) -> pd.DataFrame:
    """One row per token, columns `TOKEN_COLUMNS`."""
    rows = [(place, token.text, math.exp(token.log_prob), token.log_prob, certainty(token.log_prob))
            for place, token in enumerate(tokens)]
    return pd.DataFrame(rows, columns=list(TOKEN_COLUMNS))
