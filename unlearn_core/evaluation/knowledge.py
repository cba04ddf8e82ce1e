"""General knowledge asked openly: the questions of MMLU without their options, of which a guess hits none by chance."""

from __future__ import annotations

import re

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core.batches import Progress, silent
from unlearn_core.data.items import Question
from unlearn_core.evaluation.generation import generate
from unlearn_core.evaluation.score import exact_match

NEW_TOKENS = 32  # an answer is a name or a few words
_NEEDS_OPTIONS = re.compile(r"\b(?:following|these|above|below|which of|most likely|best (?:describes|explains)|except"
                            r"|not)\b|_{2,}", re.IGNORECASE)


def open_questions(questions: list[Question], per_subject: int) -> list[Question]:
    """The first `per_subject` questions of each subject that make sense without their options."""
    taken: dict[str, list[Question]] = {}
    for question in questions:
        rows = taken.setdefault(question.subject, [])
        if len(rows) < per_subject and not _NEEDS_OPTIONS.search(question.question):
            rows.append(question)
    return [question for rows in taken.values() for question in rows]


def knowledge_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question], *,
                   batch_size: int = 64, progress: Progress = silent) -> list[dict]:
    """One row per question, columns as in `store.Run.knowledge`; greedy answers of at most `NEW_TOKENS` tokens."""
    written = generate(model, tokenizer, [q.question for q in questions], max_new_tokens=NEW_TOKENS,
                       batch_size=batch_size, progress=lambda done, total, _: progress(done, total, "knowledge"))
    rows = []
    for question, generation in zip(questions, written, strict=True):
        answer = question.options[question.correct]
        rows.append({"subject": question.subject, "question": question.question, "answer": answer,
                     "generation": generation.text, "exact": exact_match(answer, generation.text),
                     "contained": int(contains(generation.text, answer))})
    return rows


def contains(text: str, answer: str) -> bool:
    """Whether the words and numbers of the answer stand in the text in their order, with nothing between them."""
    words, wanted = (re.findall(r"\w+", part.lower()) for part in (text, answer))
    return bool(wanted) and any(words[start:start + len(wanted)] == wanted for start in range(len(words)))
