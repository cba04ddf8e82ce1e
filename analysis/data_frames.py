"""From a data set (a run's, a folder's, an upload's) to tidy tables: counts, lengths, records, tokens, problems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from unlearn_core.data import Item, load_saved, subset
from unlearn_core.data.check import Report, describe, estimate, find_files
from unlearn_core.data.duplicates import Pair
from unlearn_core.data.persons import Person, mask_items
from unlearn_core.data.readers import scan_items
from unlearn_core.data.request import Requested
from unlearn_core.encoding import encode
from unlearn_core.errors import InputError
from unlearn_core.settings import Encoding
from unlearn_core.store import Run
from unlearn_core.vocabulary import QA, SC, SPLITS, TASK_LABELS, TASKS

KIND_LABELS = {SC: "continuation", QA: "question"}
PROBLEM_COLUMNS = ("severity", "file", "row", "problem")
GROUP_COLUMNS = ("split", "task", "kind", "items", "documents", "prompt_median", "prompt_max", "answer_median",
                 "answer_max", "cut_prompts", "cut_prompt_share", "cut_answers", "cut_answer_share")
HISTOGRAM_COLUMNS = ("split", "task", "kind", "low", "high", "items")
RECORD_COLUMNS = ("id", "split", "task", "kind", "document", "prompt", "answer")
PAIR_COLUMNS = ("similarity", "forget", "retain", "forget_text", "retain_text")
TOKEN_COLUMNS = ("place", "id", "token", "part", "loss")
SUBSET_COLUMNS = ("split", "task", "documents", "items", "documents_kept", "items_kept")
REQUEST_COLUMNS = ("task", "kind", "forget", "forget_then", "retain", "retain_then")

COUNTED_UP_TO = 50_000  # items; for more, token lengths are estimated, since counting would take minutes
SHOWN = 1_000  # records or problems in a table
SEARCHED = 10_000  # records that are masked for one search
BINS = 40

# Parts of what a model sees, in the order of a row with padding on the left.
CUT_PROMPT, PADDING, PROMPT, ANSWER, END, CUT_ANSWER = PARTS = (
    "cut from the prompt", "padding", "prompt", "answer", "end", "cut from the answer")


@dataclass(frozen=True)
class Source:
    """A data set to look at. `key` changes with its content; `errors` are what is wrong in its files."""

    key: str
    name: str
    splits: dict[str, list[Item]]
    errors: list[InputError] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        return [item for items in self.splits.values() for item in items]

    @property
    def complete(self) -> bool:
        """Whether it has both sides and nothing is wrong in its files."""
        return bool(self.splits.get("forget") and self.splits.get("retain")) and not self.errors


# ---- sources -------------------------------------------------------------------------------------------------

def of_run(run: Run, key: str = "") -> Source:
    """The data that a run was carried out on: forget, retain and, where there is one, holdout."""
    dataset = load_saved(run.data_dir)
    found = {split: getattr(dataset, split) for split in SPLITS}
    return Source(key, f"run {run.id}", {split: items for split, items in found.items() if items or split != "holdout"})


def of_files(files: Mapping[str, tuple[str, Path]], name: str, key: str = "") -> Source:
    """{split: (name for messages, file)} as they are: the good rows, and an error for each bad one."""
    splits, errors = {}, []
    for split, (shown, path) in files.items():
        splits[split], found = scan_items(path, name=shown)
        errors += found
    return Source(key, name, splits, errors)


def files_at(path: str) -> dict[str, tuple[str, Path]]:
    """{split: (name, file)} of the items at a path: a folder in LUME's or SemEval's layout, or one file."""
    try:
        found = {part: place for part, place in find_files(path.strip()).items()
                 if part not in ("mmlu", "member", "nonmember")}
        missing = next((place for place in found.values() if not place.is_file()), None)
    except OSError as error:
        raise InputError(path, got=error.strerror or str(error), expected="a folder or file that can be read") from None
    if missing is not None:
        raise InputError(f"{missing}", got="no such file or folder",
                         expected="a folder with forget and retain files, or one file")
    return {part: (place.name, place) for part, place in found.items()}


# ---- problems ------------------------------------------------------------------------------------------------

def problems(errors: Iterable[InputError], report: Report | None = None) -> pd.DataFrame:
    """One row per problem, columns `PROBLEM_COLUMNS`: of the files by row, then what the check says of the whole."""
    rows = [{"severity": "error", **_placed(str(error))} for error in errors]
    if report is not None:
        rows += [{"severity": severity, "file": "", "row": None, "problem": text}
                 for severity, texts in (("error", report.errors), ("warning", report.warnings)) for text in texts]
    return pd.DataFrame(rows, columns=list(PROBLEM_COLUMNS)).astype({"row": "Int64"})


def _placed(message: str) -> dict:
    """File, row and the rest of a reader's message; the row is missing where it is about the whole file."""
    found = re.match(r"(.+?), (?:line|row) (\d+)(?:[:;] (.*))?$", message)
    if found:
        return {"file": found[1], "row": int(found[2]), "problem": found[3] or message}
    return {"file": re.split("[:;]", message)[0], "row": None, "problem": message}


# ---- counts and lengths --------------------------------------------------------------------------------------

def check(source: Source, count_tokens: Callable[[str], int] | None, encoding: Encoding) -> tuple[Report, pd.DataFrame]:
    """(report, histogram of lengths with the columns `HISTOGRAM_COLUMNS`).

    `items` of the histogram have between `low` (inclusive) and `high` tokens: prompt, answer and end, uncut.
    """
    counter = _remembering(count_tokens if count_tokens and len(source.items) <= COUNTED_UP_TO else None)
    report = describe(source.splits, count_tokens=counter if counter is not estimate else None,
                      max_length=encoding.max_length, prompt_share=encoding.prompt_share)
    return report, _histogram(source.splits, counter, encoding.max_length)


def _remembering(count: Callable[[str], int] | None) -> Callable[[str], int]:
    if count is None:
        return estimate
    known: dict[str, int] = {}

    def counted(text: str) -> int:
        if text not in known:
            known[text] = count(text)
        return known[text]
    return counted


def _histogram(splits: Mapping[str, Sequence[Item]], count: Callable[[str], int], max_length: int) -> pd.DataFrame:
    lengths = {(split, task, kind): np.array([count(item.prompt) + count(item.answer) + 1 for item in items
                                              if (item.task, item.kind) == (task, kind)])
               for split, items in splits.items() for task in TASKS for kind in (SC, QA)}
    rows = []
    for kind in (SC, QA):
        longest = max([max_length, *(found.max() for (_, _, k), found in lengths.items() if k == kind and len(found))])
        width = max(1, -(-int(longest) // BINS))
        edges = np.arange(0, longest + width + 1, width)
        for (split, task, own), found in lengths.items():
            if own == kind and len(found):
                counts, _ = np.histogram(found, edges)
                rows += [{"split": split, "task": task, "kind": kind, "low": low, "high": low + width, "items": items}
                         for low, items in zip(edges[:-1], counts, strict=True) if items]
    return pd.DataFrame(rows, columns=list(HISTOGRAM_COLUMNS))


def groups(report: Report) -> pd.DataFrame:
    """One row per split, task and kind of a report, columns `GROUP_COLUMNS`; lengths in tokens, the answer's with
    the end; `cut_prompts` lose their start and `cut_answers` their end, as counts and as shares of the items."""
    return pd.DataFrame([{
        "split": g.split, "task": g.task, "kind": g.kind, "items": g.items, "documents": g.documents,
        "prompt_median": g.prompt_tokens[1], "prompt_max": g.prompt_tokens[3],
        "answer_median": g.answer_tokens[1], "answer_max": g.answer_tokens[3],
        "cut_prompts": g.cut_prompts, "cut_prompt_share": g.cut_prompts / g.items,
        "cut_answers": g.cut_answers, "cut_answer_share": g.cut_answers / g.items,
    } for g in report.groups], columns=list(GROUP_COLUMNS))


def cuts(report: Report) -> str:
    """What the encoding takes off the items of a report, in words."""
    items = sum(g.items for g in report.groups)
    prompts, answers = (sum(getattr(g, name) for g in report.groups) for name in ("cut_prompts", "cut_answers"))
    return (f"An item keeps the last {int(report.max_length * report.prompt_share)} tokens of its prompt and is cut at "
            f"{report.max_length} in all: {prompts} of {items} prompts lose their start, {answers} answers "
            f"({answers / max(items, 1):.1%}) lose their end")


def group_name(task: str, kind: str) -> str:
    """Label of a group of items, e.g. ("Task2", "qa") -> "people with PII, question"."""
    return f"{TASK_LABELS.get(task, task)}, {KIND_LABELS.get(kind, kind)}"


# ---- records -------------------------------------------------------------------------------------------------

def records(splits: Mapping[str, Sequence[Item]], people: Mapping[str, Person] | None, *, split: str | None = None,
            task: str | None = None, kind: str | None = None, search: str = "") -> tuple[pd.DataFrame, int, int]:
    """(first `SHOWN` records of a choice, how many there are, how many were not looked at).

    `people` are masked; None shows texts as they are. The search looks, without regard to case, at what is shown:
    ids and texts. Masked texts are looked through up to the first `SEARCHED` that could match. Columns
    `RECORD_COLUMNS`.
    """
    wanted = search.strip().lower()
    chosen = [(name, item) for name, items in splits.items() if split in (None, name) for item in items
              if task in (None, item.task) and kind in (None, item.kind)]
    skipped = 0
    if people is None:
        rows = [_record(name, item, item.prompt, item.answer) for name, item in chosen
                if wanted in f"{item.id} {item.text}".lower()]
    elif not wanted:
        rows = _masked(chosen[:SHOWN], people)
        return _frame(rows, RECORD_COLUMNS), len(chosen), 0
    else:
        skipped = max(0, len(chosen) - SEARCHED)
        rows = [row for row in _masked(chosen[:SEARCHED], people)
                if wanted in f"{row['id']} {row['prompt']} {row['answer']}".lower()]
    return _frame(rows[:SHOWN], RECORD_COLUMNS), len(rows), skipped


def _masked(chosen: Sequence[tuple[str, Item]], people: Mapping[str, Person]) -> list[dict]:
    texts = mask_items([item for _, item in chosen], people)
    return [_record(name, item, *text) for (name, item), text in zip(chosen, texts, strict=True)]


def _record(split: str, item: Item, prompt: str, answer: str) -> dict:
    return {"id": item.id, "split": split, "task": item.task, "kind": item.kind, "document": item.document,
            "prompt": prompt, "answer": answer}


def _frame(rows: Sequence[dict], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))


def person_label(person: Person, masked: bool) -> str:
    """A person by name and document, or by document alone where names are masked or not known."""
    return person.document if masked or not person.name else f"{person.name} · {person.document}"


def pairs(found: Sequence[Pair], people: Mapping[str, Person] | None) -> pd.DataFrame:
    """Near-duplicates side by side, columns `PAIR_COLUMNS`: ids and whole texts, masked where people are given."""
    sides = []
    for items in ([pair.forget for pair in found], [pair.retain for pair in found]):
        texts = [(i.prompt, i.answer) for i in items] if people is None else mask_items(items, people)
        sides.append([" ".join(text) for text in texts])
    return _frame([{"similarity": pair.similarity, "forget": pair.forget.id, "retain": pair.retain.id,
                    "forget_text": left, "retain_text": right}
                   for pair, left, right in zip(found, *sides, strict=True)], PAIR_COLUMNS)


# ---- what the model sees -------------------------------------------------------------------------------------

def tokens(tokenizer, item: Item, encoding: Encoding, width: int = 0) -> pd.DataFrame:
    """One row per token of an item as the engine encodes it, columns `TOKEN_COLUMNS`.

    Cut tokens stand where they were; padding fills a row of `width` tokens on the side of `encoding`. `place` counts
    what the model reads, from 0, and is missing for the rest; `loss` says whether the losses read the token.
    """
    seen = encode(tokenizer, item, encoding)
    uncut = encode(tokenizer, item, Encoding(max_length=10**9, prompt_share=1.0))
    lost = uncut.prompt_tokens - seen.prompt_tokens
    ends = len(uncut.ids) - lost == len(seen.ids)
    parts = [PROMPT] * seen.prompt_tokens + [ANSWER] * (len(seen.ids) - seen.prompt_tokens)
    if ends:
        parts[-1] = END
    padding = [(None, PADDING)] * max(0, width - len(seen.ids))
    row = [(token, CUT_PROMPT) for token in uncut.ids[:lost]]
    row += padding if encoding.padding_side == "left" else []
    row += zip(seen.ids, parts, strict=True)
    row += [(token, CUT_ANSWER) for token in uncut.ids[lost + len(seen.ids):]]
    row += padding if encoding.padding_side == "right" else []
    frame = pd.DataFrame({
        "id": [token for token, _ in row],
        "token": ["" if token is None else tokenizer.text(token) for token, _ in row],
        "part": [part for _, part in row]})
    frame["loss"] = frame["part"].isin([ANSWER, END])
    read = ~frame["part"].isin([CUT_PROMPT, CUT_ANSWER])
    frame["place"] = (read.cumsum() - 1).where(read)
    return frame.astype({"id": "Int64", "place": "Int64"})[list(TOKEN_COLUMNS)]


def row_width(tokenizer, items: Sequence[Item], number: int, batch_size: int, encoding: Encoding, padded: bool) -> int:
    """Tokens in a row of the micro-batch of item `number`, as if micro-batches followed the order of the file.

    `padded`: all rows have `max_length` tokens (KLR over all positions).
    """
    if padded:
        return encoding.max_length
    first = number - number % batch_size
    return max(len(encode(tokenizer, item, encoding).ids) for item in items[first: first + batch_size])


# ---- subset --------------------------------------------------------------------------------------------------

def subset_counts(splits: Mapping[str, Sequence[Item]], documents_per_task: int, seed: int) -> pd.DataFrame:
    """Documents and items per split and task, before and in the subset, columns `SUBSET_COLUMNS`."""
    rows = []
    for split, items in splits.items():
        kept = subset(list(items), documents_per_task, seed)
        for task in TASKS:
            counts = {}
            for suffix, side in (("", items), ("_kept", kept)):
                own = [item for item in side if item.task == task]
                counts |= {f"documents{suffix}": len({item.document for item in own}), f"items{suffix}": len(own)}
            if counts["items"]:
                rows.append({"split": split, "task": task, **counts})
    return _frame(rows, SUBSET_COLUMNS)


def request_counts(splits: Mapping[str, Sequence[Item]], outcome: Requested) -> pd.DataFrame:
    """Items per task and type on both sides before and after a forget request, columns `REQUEST_COLUMNS`."""
    sides = (splits["forget"], outcome.forget, splits["retain"], outcome.retain)
    counts = [Counter((item.task, item.kind) for item in side) for side in sides]
    return _frame([{"task": task, "kind": kind, **dict(zip(REQUEST_COLUMNS[2:], numbers, strict=True))}
                   for task in TASKS for kind in (SC, QA) if any(numbers := [c[task, kind] for c in counts])],
                  REQUEST_COLUMNS)
