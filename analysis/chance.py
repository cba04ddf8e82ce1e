"""What a model scores that has learned nothing: chance levels of the twelve sub-scores on a run's own items."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.official import CELLS
from unlearn_core.data import Item, persons
from unlearn_core.evaluation import rouge
from unlearn_core.store import Run
from unlearn_core.vocabulary import SC, sub_score_key

DRAWS = 3  # fluent unrelated texts per item
WORDS_PER_TOKEN = 200 / 256


def levels(rows: Sequence[Mapping], max_new_tokens: int = 256, seed: int = 0) -> dict[str, float]:
    """{sub-score key: score of an answer about something else}, NaN where none can be told; rows of `Run.answers`.

    A continuation: `DRAWS` fluent texts, each the answers of other documents of the same split and task in random
    order, as long as `max_new_tokens` allows (about 200 words for 256). A question: the answer that another document
    of the split and task has to the same kind of question, all of them equally likely. An empty text scores 0.
    """
    by_cell = defaultdict(list)
    for row in rows:
        by_cell[sub_score_key(row["split"], row["kind"], row["task"])].append(row)
    words, chance = max(1, round(max_new_tokens * WORDS_PER_TOKEN)), np.random.default_rng(seed)
    found = {}
    for key in CELLS:
        own = by_cell[key]
        scores = _unrelated(own, words, chance) if own and own[0]["kind"] == SC else _same_question(own)
        found[key] = float(np.mean(scores)) if scores else math.nan
    return found


def of_run(run: Run) -> dict[str, float]:
    """`levels` of the items that a run's models answered, which are the same for all."""
    rows = next((rows for model in reversed(run.models()) if (rows := run.answers(model))), [])
    return levels(rows, run.recipe().evaluation.max_new_tokens)


def _unrelated(rows: Sequence[Mapping], words: int, chance: np.random.Generator) -> list[float]:
    """ROUGE-L recall of each row's answer against `DRAWS` texts made of other documents' answers."""
    tokens = [rouge.words_of(row["answer"]) for row in rows]
    found = []
    for row, own in zip(rows, tokens, strict=True):
        for _ in range(DRAWS if own else 0):
            text: list[str] = []
            for other in chance.permutation(len(rows)):
                if rows[other]["document"] != row["document"]:
                    text += tokens[other]
                if len(text) >= words:
                    break
            if text:
                found.append(rouge.lcs_length(own, text[:words]) / len(own))
    return found


def _same_question(rows: Sequence[Mapping]) -> list[float]:
    """For each row the share of other documents' answers to the same kind of question that are equal to its own."""
    kinds = defaultdict(list)
    for row in rows:
        kinds[_question_kind(row)].append((row["document"], row["answer"].strip().lower()))
    found = []
    for pairs in kinds.values():
        equal, of_document, both = Counter(a for _, a in pairs), Counter(d for d, _ in pairs), Counter(pairs)
        for document, answer in pairs:
            others = len(pairs) - of_document[document]
            if others:
                found.append((equal[answer] - both[document, answer]) / others)
    return found


def _question_kind(row: Mapping) -> str:
    """What a question asks for: a person's field, else its first word."""
    item = Item.of(row)
    return persons.field_of(item) or (item.prompt.split() or [""])[0].lower()
