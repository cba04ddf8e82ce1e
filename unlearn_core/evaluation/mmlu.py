"""MMLU accuracy: the official letters A-D after solved examples, or the likelihood of the answer texts."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import takewhile

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core.batches import (
    Progress,
    context_length,
    device_of,
    evaluating,
    in_batches,
    left_padded,
    silent,
)
from unlearn_core.data.items import LETTERS, Item, Question
from unlearn_core.encoding import UNCUT, encode
from unlearn_core.errors import InputError
from unlearn_core.evaluation.cache import shared_cache
from unlearn_core.evaluation.likelihood import LOGITS_BUDGET, endings_nll

PROMPT_TOKENS = 2048  # longest prompt, special tokens not counted (open-instruct `eval/mmlu/run_eval.py`)
UNKNOWN = -1  # the choice of a model whose logits are no numbers
KEYS_BUDGET = 2**28  # numbers in the keys and values of one layer for one batch: 1 GiB in fp32
SHORTEST = 0.8  # of the longest prompt's tokens in a batch; below that, padding costs more than one forward more


def answer_questions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question],
                     solved: list[Question], *, scoring: str = "letters", shots: int = 5, batch_size: int = 64,
                     progress: Progress = silent) -> list[dict]:
    """One row per question: subject, question, options, correct, predicted (indices of options; `UNKNOWN` where the
    model's logits are no numbers).

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
    by_subject: dict[str, list[int]] = defaultdict(list)
    for index, question in enumerate(questions):
        by_subject[question.subject].append(index)
    groups = (group for subject, asked in by_subject.items()
              for group in _prompts(tokenizer, questions, asked, examples[subject], limit))
    predicted, done = [0] * len(questions), 0
    with evaluating(model):
        for indices, prompts in groups:
            logits = _letter_logits(model, prompts, letters, batch_size,
                                    lambda read, done=done: progress(done + read, len(questions), "MMLU"))
            choices = torch.where(logits.isfinite().all(-1), logits.argmax(-1), UNKNOWN)
            for index, choice in zip(indices, choices.tolist(), strict=True):
                predicted[index] = choice
            done += len(indices)
    return predicted


def _letter_logits(model: PreTrainedModel, prompts: list[list[int]], letters: list[int], batch_size: int,
                   told: Callable[[int], None] = lambda done: None) -> torch.Tensor:
    """Logits (prompts, letters) of the token that follows each prompt, in fp32.

    The tokens that all prompts begin with are read once, and what the model keeps of them serves every batch. In fp32
    the logits are those of each prompt alone, up to rounding.
    """
    shared = _shared(prompts) if len(prompts) > 1 else 0
    cache = shared_cache(model, prompts[0][:shared]) if shared else None
    if cache is None:
        shared = 0
    else:
        keys = cache.layers[0].keys  # (1, heads, shared, head size)
        a_token = 2 * keys.shape[1] * keys.shape[3]
        batch_size = max(1, min(batch_size, KEYS_BUDGET // (a_token * max(map(len, prompts)))))
    rows = [ids[shared:] for ids in prompts]
    budget = LOGITS_BUDGET // model.config.vocab_size

    def work(batch: list[int]) -> torch.Tensor:
        inputs = left_padded([rows[index] for index in batch], 0, device_of(model))
        mask = inputs["attention_mask"]
        inputs["attention_mask"] = torch.cat([mask.new_ones(len(batch), shared), mask], 1)
        inputs["position_ids"] += shared
        logits = model(**inputs, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1).logits
        return logits[:, -1, letters].float()

    return torch.stack(in_batches(work, [len(row) for row in rows], batch_size, budget, SHORTEST, told=told))


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


def _shared(prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with; the last token of a prompt is not counted, since it must be read."""
    columns = zip(*(ids[:-1] for ids in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _prompts(tokenizer: PreTrainedTokenizerBase, questions: list[Question], indices: list[int], solved: list[Question],
             limit: int) -> Iterator[tuple[list[int], list[list[int]]]]:
    """(indices of questions, token ids of their prompts), together those that have the same examples before them.

    A prompt has as many of the examples as fit into `limit` and PROMPT_TOKENS, the last ones dropped first. Without
    examples it keeps its last `limit` tokens. It is tokenised whole: the cut between examples and question is the
    tokenizer's, and tokens shared with other prompts are found by comparing them.
    """
    special, left = tokenizer.num_special_tokens_to_add(), indices
    for count in range(len(solved), -1, -1):
        if not left:
            return
        encoded = tokenizer([letter_prompt(questions[index], solved[:count]) for index in left]).input_ids
        rows = dict(zip(left, encoded, strict=True))
        left = [index for index in left if count and len(rows[index]) - special > min(limit, PROMPT_TOKENS)]
        fitting = [index for index in rows if index not in left]
        whole = [index for index in fitting if len(rows[index]) <= limit]
        cut = [index for index in fitting if len(rows[index]) > limit]  # these begin anywhere
        yield from ((group, [rows[index][-limit:] for index in group]) for group in (whole, cut) if group)


def _by_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question], batch_size: int,
             progress: Progress) -> list[int]:
    prompts, endings = [], []
    for question in questions:
        rows = [encode(tokenizer, Item("quiz-qa0", question.question, option, question.subject), UNCUT)
                for option in question.options]
        prompts.append(rows[0].ids[:rows[0].prompt_tokens])
        endings.append([row.ids[row.prompt_tokens:] for row in rows])
    quads = endings_nll(model, prompts, endings, batch_size, progress, "MMLU")
    return [UNKNOWN if None in quad else min(range(len(LETTERS)), key=quad.__getitem__) for quad in quads]
