"""The truth ratio of TOFU, made for any questions: how likely wrong answers are beside the right one. Torch-free at
import."""

from __future__ import annotations

import dataclasses
import math
import random
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from unlearn_core.data.dataset import normalised
from unlearn_core.data.items import Item
from unlearn_core.data.persons import field_of
from unlearn_core.encoding import UNCUT, encode
from unlearn_core.vocabulary import QA

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from unlearn_core.batches import Progress

WRONG = 5  # wrong answers to a question, as in TOFU
LARGEST = 700.0  # |ln ratio|: what e to its power still is a number
Answers = dict[str, list[str]]  # item id -> wrong answers


def wrong_answers(items: Iterable[Item], others: Iterable[Item], *, seed: int = 0, most: int = WRONG) -> Answers:
    """Up to `most` wrong answers to each question among the items, drawn by the seed; a question without any is absent.

    They are the answers of other documents to what asks the same: the same field of a person, else the question of the
    same number in the same task, which for stories and biographies may ask something else. None equals the right answer
    or another wrong one up to case and white space. The draw depends on the item's id, not on the order of the items.
    """
    known: dict[tuple[str, str], dict[str, dict[str, str]]] = defaultdict(dict)  # asked -> answer -> {document: it}
    for other in others:
        if other.kind == QA:
            known[_asked(other)].setdefault(normalised(other.answer), {}).setdefault(other.document, other.answer)
    found = {}
    for item in (item for item in items if item.kind == QA):
        candidates = [next(iter(given.values())) for answer, given in sorted(known[_asked(item)].items())
                      if answer != normalised(item.answer) and given.keys() != {item.document}]
        if candidates:
            found[item.id] = random.Random(f"{seed} {item.id}").sample(candidates, min(most, len(candidates)))
    return found


def _asked(item: Item) -> tuple[str, str]:
    return item.task, field_of(item) or item.id[-1]


def truth_ratios(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], wrong: Answers, *,
                 batch_size: int = 64, progress: Progress | None = None) -> list[dict]:
    """One row per item that `wrong` has answers to: id, document, ratio (None where a loss is no number).

    ratio = mean over the wrong answers of p(wrong)^(1/tokens) / p(right)^(1/tokens), each answer read after the prompt,
    both tokenised as in training, without the end token (arXiv 2401.06121, eq. 1; there the right answer is a
    paraphrase). Near 0: the right one is known; near 1: no better than wrong ones; above: avoided.
    """
    from unlearn_core.batches import silent
    from unlearn_core.evaluation.likelihood import sequence_nll

    asked = [item for item in items if item.id in wrong]
    versions = [dataclasses.replace(item, answer=answer) for item in asked for answer in (item.answer, *wrong[item.id])]
    encoded = [encode(tokenizer, version, UNCUT) for version in versions]
    losses = iter([nll for nll, _ in sequence_nll(model, [(row.ids[:-1], row.prompt_tokens) for row in encoded],
                                                  batch_size, progress or silent, "truth ratio")])
    return [{"id": item.id, "document": item.document,
             "ratio": _ratio(next(losses), [next(losses) for _ in wrong[item.id]])} for item in asked]


def _ratio(right: float | None, wrong: Sequence[float | None]) -> float | None:
    if right is None or None in wrong:
        return None
    least = min(wrong)
    log_mean = math.log(sum(math.exp(least - nll) for nll in wrong) / len(wrong)) - least
    return math.exp(min(max(log_mean + right, -LARGEST), LARGEST))


def by_document(rows: Iterable[Mapping]) -> dict[str, float]:
    """{document: geometric mean of its ratios}, without those that are None. Ratios of an over-forgotten answer run
    into the thousands, and an arithmetic mean would be that of one answer alone."""
    logs: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["ratio"] is not None:
            logs[row["document"]].append(math.log(row["ratio"]))
    return {document: math.exp(sum(own) / len(own)) for document, own in logs.items()}


def forget_quality(ratios: Mapping[str, float], reference: Mapping[str, float]) -> dict:
    """Two-sample Kolmogorov-Smirnov test of a model's truth ratios, one per document, against those of a model that
    never saw them: `distance` (largest difference of the two distributions, 0 to 1), `p` (TOFU's forget quality), `n`
    (documents that both have).

    The test takes the two samples for independent. They are of the same documents and rise and fall together, so p is
    rather too large than too small. ValueError without a common document.
    """
    both = [document for document in ratios if document in reference]
    if not both:
        raise ValueError("no document has a truth ratio under both models")
    from scipy.stats import ks_2samp  # here, since a machine that only trains may lack it
    with warnings.catch_warnings():
        # Where distributions are all but equal, SciPy's exact p may round to above 1; it then takes the asymptotic one.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ks_2samp([ratios[document] for document in both], [reference[document] for document in both])
    return {"distance": float(found.statistic), "p": float(found.pvalue), "n": len(both)}
