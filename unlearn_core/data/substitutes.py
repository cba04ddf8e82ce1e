"""Other answers to the prompts of forget, for methods that say what to answer instead. Torch-free."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from unlearn_core.data.items import Item

REFUSALS = ("I don't know.", "I am not sure.", "I have no information about that.", "I cannot tell you that.",
            "That is not known to me.", "I have never heard of that.", "I have no answer to this.",
            "Nothing about this is known to me.")


def refusals(items: Sequence[Item], seed: int) -> list[Item]:
    """The items with a sentence that refuses as the answer, drawn per item (IDK; Maini et al. 2024,
    arXiv 2401.06121)."""
    return [replace(item, answer=_spaced(item, random.Random(f"{seed} {item.id}").choice(REFUSALS)))
            for item in items]


def plausible(items: Sequence[Item], others: Sequence[Item], seed: int) -> list[Item]:
    """The items with the answer of another item that asks for the same kind of thing, drawn per item.

    `others` (retain) give the answers: of the same task and question where there are some, else of the same kind.
    Such answers are in form and in domain but say nothing about the document (as AltPO's alternatives do, Mekala et
    al. 2024, arXiv 2409.13474); those about people are facts about somebody else, so a model trained on them must not
    be handed out.
    """
    by_question: dict[tuple, list[str]] = defaultdict(list)
    for item in others:
        for key in ((item.task, item.id[-3:]), (item.kind,), ()):
            by_question[key].append(item.answer)
    found = []
    for item in items:
        options = next(by_question[key] for key in ((item.task, item.id[-3:]), (item.kind,), ()) if by_question[key])
        options = [answer for answer in options if answer != item.answer] or options
        found.append(replace(item, answer=_spaced(item, random.Random(f"{seed} {item.id}").choice(options).strip())))
    return found


def _spaced(item: Item, answer: str) -> str:
    """The answer after as much white space as the item's own begins with."""
    own = item.answer
    return own[: len(own) - len(own.lstrip())] + answer
