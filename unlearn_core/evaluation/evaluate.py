"""Everything the official protocol measures about one model, as rows and scores."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core.batches import Progress, silent
from unlearn_core.data.items import AttackDocument, Dataset, Item
from unlearn_core.evaluation import mmlu, score
from unlearn_core.evaluation.generation import generate
from unlearn_core.evaluation.likelihood import Losses, answer_nll, document_nll
from unlearn_core.settings import Evaluation
from unlearn_core.vocabulary import OFFICIAL


@dataclass(frozen=True)
class Evaluated:
    """Rows as `store.Run.answers`, `.documents` and `.mmlu` describe them, and what `score` makes of them."""

    answers: list[dict]
    documents: list[dict]
    mmlu: list[dict]
    scores: dict[str, float]
    intervals: dict[str, list[float]]


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset,
             evaluation: Evaluation, progress: Progress = silent, known: Losses | None = None) -> Evaluated:
    """Answers on forget and retain, losses of the attack's documents, MMLU, and the official scores of them all.

    Losses that are `known` of this model are not read again.

    `progress(done, total, label)` is called after each batch; labels "answers", "likelihood", "attack" and "MMLU".
    """
    answers = answer_rows(model, tokenizer, {"forget": dataset.forget, "retain": dataset.retain},
                          max_new_tokens=evaluation.max_new_tokens, batch_size=evaluation.batch_size,
                          progress=progress, known=known)
    documents = document_rows(model, tokenizer, dataset.attack, batch_size=evaluation.batch_size, progress=progress,
                              known=known)
    questions = mmlu.choose(dataset.mmlu_test, evaluation.mmlu_subjects, evaluation.mmlu_limit)
    quiz = mmlu.answer_questions(model, tokenizer, questions, dataset.mmlu_dev, scoring=evaluation.mmlu_scoring,
                                 shots=evaluation.mmlu_shots, batch_size=evaluation.batch_size, progress=progress)
    return Evaluated(answers, documents, quiz, score.scores(answers, documents, quiz),
                     score.intervals(answers, documents, quiz))


def answer_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: dict[str, list[Item]], *,
                max_new_tokens: int, batch_size: int, progress: Progress = silent,
                known: Losses | None = None) -> list[dict]:
    """One row per item of each split, columns as in `store.Run.answers`; nll is None where no answer token is left."""
    rows = [(split, item) for split, listed in items.items() for item in listed]
    written = generate(model, tokenizer, [item.prompt for _, item in rows], max_new_tokens=max_new_tokens,
                       batch_size=batch_size, progress=progress)
    losses = answer_nll(model, tokenizer, [(item.prompt, item.answer) for _, item in rows], batch_size=batch_size,
                        progress=progress, known=known)
    return [{
        "id": item.id, "document": item.document, "split": split, "task": item.task, "kind": item.kind, **item.stated,
        "prompt": item.prompt, "answer": item.answer, "generation": generation.text,
        OFFICIAL[item.kind]: score.official_value(item.kind, item.answer, generation.text),
        "nll": nll, "answer_tokens": tokens, "new_tokens": generation.new_tokens, "hit_limit": generation.hit_limit,
    } for (split, item), generation, (nll, tokens) in zip(rows, written, losses, strict=True)]


def document_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, attack: list[AttackDocument], *,
                  batch_size: int, progress: Progress = silent, known: Losses | None = None) -> list[dict]:
    """One row per document of the attack, columns as in `store.Run.documents`."""
    losses = document_nll(model, tokenizer, [entry.text for entry in attack], batch_size=batch_size, progress=progress,
                          known=known)
    return [{"document": entry.document, "task": entry.task, "member": entry.member, "nll": nll, "tokens": tokens}
            for entry, (nll, tokens) in zip(attack, losses, strict=True)]
