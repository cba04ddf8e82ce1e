"""The texts behind a leak: answers about a person, with what they give away marked, and masked where it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from analysis import text_marks
from analysis.leaks import Leaks
from unlearn_core.data.persons import NAME, Person, Value, cover, hidden, occurrences


def answers_about(found: Leaks, document: str, split: str, models: Sequence[str]) -> pd.DataFrame:
    """Answers of these models to the prompts about a person, columns `TEXT_COLUMNS`."""
    shown = found.texts
    return shown[(shown["document"] == document) & (shown["split"] == split) & shown["model"].isin(models)]


def answers_to(found: Leaks, item: str, split: str, models: Sequence[str]) -> list[dict]:
    """Answers of these models to one item, keys `TEXT_COLUMNS`."""
    shown = found.texts
    own = shown[(shown["id"] == item) & (shown["split"] == split) & shown["model"].isin(models)]
    return own.to_dict("records")


def ordered(rows: pd.DataFrame, given: dict[str, dict[str, list[str]]], field: str | None) -> list[str]:
    """Items of `answers_about`, first those with the most given away by the last model of `given` ({model: `given`}),
    then by those before it; with a field, only those where some model gives it away."""
    items = list(dict.fromkeys(rows["id"]))
    if field:
        items = [item for item in items if any(field in own.get(item, ()) for own in given.values())]
    return sorted(items, key=lambda item: [-len(own.get(item, ())) for own in reversed(given.values())])


def given(found: Leaks, document: str, split: str, model: str) -> dict[str, list[str]]:
    """{item: fields of the person that the model's answer to it gives away}."""
    rows = found.fields
    own = rows[(rows["document"] == document) & (rows["split"] == split) & (rows["model"] == model)]
    items: dict[str, list[str]] = {}
    for row in own.itertuples():
        for item in row.items:
            items.setdefault(item, []).append(row.field)
    return items


def pieces(found: Leaks, row: Mapping, values: Iterable[Value], masked: bool) -> tuple[str, list[text_marks.Piece]]:
    """(prompt, generation in pieces) of a row of `Leaks.texts`, where these (document, field or name) are marked
    `GIVEN_AWAY`; masked, a mark holds what it is instead of the value, and all else that is personal goes."""
    text, cut = f"{row['prompt']} {row['generation']}", len(row["prompt"])
    given = [(*span, field) for document, field in values
             for span in occurrences(text, field, _value(found.persons[document], field))]
    spans = sorted(given)
    if masked:
        meant = {row["document"], *(document for document, _ in found.finder.found(text))}
        spans = hidden(text, [found.persons[document] for document in meant if document in found.persons])
    return "".join(piece.text for piece in _cut(text, spans, given, masked, 0, cut)), _cut(
        text, spans, given, masked, cut + 1, len(text))


def _cut(text: str, spans: Sequence[tuple[int, int, str]], given: Sequence[tuple[int, int, str]],
         masked: bool, low: int, high: int) -> list[text_marks.Piece]:
    """`text[low:high]` in pieces: the spans, covered where they are masked, and what stands between."""
    found, place = [], low
    for start, end, key in spans:
        if end > place and start < high:
            mark = text_marks.GIVEN_AWAY if any(start < b and a < end for a, b, _ in given) else text_marks.UNMARKED
            inside = cover(key) if masked else text[max(start, place):min(end, high)]
            found += [text_marks.Piece(text[place:start]), text_marks.Piece(inside, mark)]
            place = min(end, high)
    return [piece for piece in (*found, text_marks.Piece(text[place:high])) if piece.text]


def _value(person: Person, field: str) -> str:
    return person.name if field == NAME else person.values[field]
