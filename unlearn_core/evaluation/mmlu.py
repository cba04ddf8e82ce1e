"""MMLU accuracy: the official letters A-D after solved examples, or the likelihood of the answer texts."""

from __future__ import annotations

import difflib
from collections import defaultdict

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core.data.items import LETTERS, Item, Question
from unlearn_core.encoding import encode
from unlearn_core.errors import InputError
from unlearn_core.evaluation.batches import (
    Progress,
    by_length,
    context_length,
    device_of,
    evaluating,
    left_padded,
    silent,
)
from unlearn_core.evaluation.likelihood import LOGITS_BUDGET, sequence_nll
from unlearn_core.recipe import Encoding

UNCUT = Encoding(max_length=2**31, prompt_share=1.0)
PROMPT_TOKENS = 2048  # longest prompt, special tokens not counted (open-instruct `eval/mmlu/run_eval.py`)


def answer_questions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question],
                     solved: list[Question], *, scoring: str = "letters", shots: int = 5, batch_size: int = 64,
                     progress: Progress = silent) -> list[dict]:
    """One row per question: subject, question, options, correct, predicted (indices of options).

    `scoring` "letters": the next token among " A", " B", " C", " D" after `shots` solved examples of the subject,
    taken from `solved`. "texts": the option whose text has the highest mean token log-likelihood as the answer to the
    bare question, the end token included; no examples, for models too small to bind letters.
    The official accuracy is the mean over all questions of all subjects, not over subjects.
    """
    if not questions:
        return []
    if scoring == "letters":
        predicted = _by_letter(model, tokenizer, questions, solved, shots, batch_size, progress)
    else:
        predicted = _by_text(model, tokenizer, questions, batch_size, progress)
    return [{"subject": q.subject, "question": q.question, "options": list(q.options), "correct": q.correct,
             "predicted": choice} for q, choice in zip(questions, predicted, strict=True)]


def choose(questions: list[Question], subjects: tuple[str, ...] = (), limit: int = 0) -> list[Question]:
    """The questions of these subjects (empty: all), the first `limit` of each (0: all), in their order."""
    known = sorted({q.subject for q in questions})
    if subjects and not known:
        raise InputError("evaluation.mmlu_subjects", got=", ".join(subjects), expected="no subjects, or MMLU questions",
                         fix="name the folder with MMLU's dev/ and test/ in data.mmlu")
    for subject in subjects:
        if subject not in known:
            close = difflib.get_close_matches(subject, known, n=1)
            raise InputError("evaluation.mmlu_subjects", got=subject, expected=f"one of {len(known)} subjects",
                             fix=f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}")
    taken: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        if not subjects or question.subject in subjects:
            taken[question.subject].append(question)
    return [question for rows in taken.values() for question in (rows[:limit] if limit else rows)]


def letter_prompt(question: Question, solved: list[Question]) -> str:
    """The official prompt; the two spaces before the subject are Hendrycks' own."""
    header = f"The following are multiple choice questions (with answers) about  {question.subject.replace('_', ' ')}."
    examples = "".join(f"{_asked(example)} {LETTERS[example.correct]}\n\n" for example in solved)
    return f"{header}\n\n{examples}{_asked(question)}"


def _asked(question: Question) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=True))
    return f"{question.question}{options}\nAnswer:"


def _by_letter(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question],
               solved: list[Question], shots: int, batch_size: int, progress: Progress) -> list[int]:
    letters = [tokenizer.encode(f" {letter}", add_special_tokens=False)[-1] for letter in LETTERS]
    if len(set(letters)) < len(LETTERS):
        raise InputError("evaluation.mmlu_scoring", got="letters, but the tokenizer gives several letters one token",
                         expected="a token for each of A, B, C, D", fix="set evaluation.mmlu_scoring to texts")
    examples = _examples(questions, solved, shots)
    limit = context_length(model) or PROMPT_TOKENS
    prompts = [_fitting(tokenizer, q, examples[q.subject], min(limit, PROMPT_TOKENS)) for q in questions]
    encoded = [ids[-limit:] for ids in tokenizer(prompts).input_ids]
    predicted, done = [0] * len(questions), 0
    with evaluating(model):
        for batch in by_length([len(ids) for ids in encoded], batch_size, LOGITS_BUDGET // model.config.vocab_size):
            inputs = left_padded([encoded[index] for index in batch], 0, device_of(model))
            logits = model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1, letters]
            for index, choice in zip(batch, logits.float().argmax(-1).tolist(), strict=True):
                predicted[index] = choice
            done += len(batch)
            progress(done, len(questions), "MMLU")
    return predicted


def _examples(questions: list[Question], solved: list[Question], shots: int) -> dict[str, list[Question]]:
    """The first `shots` solved questions of each subject asked."""
    by_subject: dict[str, list[Question]] = defaultdict(list)
    for question in solved:
        by_subject[question.subject].append(question)
    for subject in {q.subject for q in questions}:
        if len(by_subject[subject]) < shots:
            raise InputError(f"MMLU subject {subject}", got=f"{len(by_subject[subject])} solved examples (dev)",
                             expected=f"{shots} (evaluation.mmlu_shots)", fix="lower evaluation.mmlu_shots or add them")
    return {subject: rows[:shots] for subject, rows in by_subject.items()}


def _fitting(tokenizer: PreTrainedTokenizerBase, question: Question, solved: list[Question], limit: int) -> str:
    """The prompt with as many of the examples as fit into `limit` tokens, the last ones dropped first."""
    for count in range(len(solved), 0, -1):
        prompt = letter_prompt(question, solved[:count])
        if len(tokenizer(prompt, add_special_tokens=False).input_ids) <= limit:
            return prompt
    return letter_prompt(question, [])


def _by_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question], batch_size: int,
             progress: Progress) -> list[int]:
    items = [Item("quiz-qa0", q.question, option, q.subject) for q in questions for option in q.options]
    sequences = [(row.ids, row.prompt_tokens) for row in (encode(tokenizer, item, UNCUT) for item in items)]
    scored = sequence_nll(model, sequences, batch_size, progress, "MMLU")
    losses = [loss for loss, _ in scored]
    width = len(LETTERS)
    return [min(range(width), key=losses[start:start + width].__getitem__)
            for start in range(0, len(losses), width)]
