"""Says what is in a data file or folder and what is wrong with it (`python -m unlearn_core data check PATH`)."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unlearn_core.data import layout, readers
from unlearn_core.data.dataset import normalised, overlap
from unlearn_core.data.items import Item
from unlearn_core.errors import InputError
from unlearn_core.vocabulary import QA, SC, SPLITS, TASKS

CHARACTERS_PER_TOKEN = 4.5  # English prose under GPT-NeoX's tokenizer; names and digits take more tokens
ESTIMATED = f"estimated as characters / {CHARACTERS_PER_TOKEN}"


@dataclass(frozen=True)
class Group:
    """The items of one split, task and type. Lengths are (min, median, 95th percentile, max)."""

    split: str
    task: str
    kind: str
    items: int
    documents: int
    prompt_chars: tuple[int, int, int, int]
    answer_chars: tuple[int, int, int, int]
    prompt_tokens: tuple[int, int, int, int]
    answer_tokens: tuple[int, int, int, int]  # with the end token
    cut_prompts: int  # items whose prompt loses its start
    cut_answers: int  # items whose answer loses its end
    lost_answers: tuple[str, ...]  # ids of the items of whose answer nothing is left


@dataclass
class Report:
    """Counts, and every problem in one line: errors stop a run, warnings do not."""

    files: dict[str, str] = field(default_factory=dict)  # part -> path
    groups: list[Group] = field(default_factory=list)
    documents: dict[tuple[str, str], int] = field(default_factory=dict)  # (split, task) -> documents
    rows: dict[str, int] = field(default_factory=dict)  # part -> good rows
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tokens: str = ESTIMATED
    max_length: int = 0
    prompt_share: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.errors


def check(path: str | Path, *, count_tokens: Callable[[str], int] | None = None, max_length: int = 256,
          prompt_share: float = 0.8) -> Report:
    """Read everything that a run would use of `path` (a file, a folder, hf://...) and report on it.

    `count_tokens` gives a text's number of tokens; without it lengths in tokens are an estimate. A file or folder
    in which there is nothing to check is an InputError.
    """
    report = _empty(count_tokens, max_length, prompt_share)
    files = find_files(path)
    splits = {}
    for part, place in files.items():
        report.files[part] = str(place)
        if part == "mmlu":
            dev, test, errors = readers.scan_mmlu(place)
            report.rows |= {"mmlu dev": len(dev), "mmlu test": len(test)}
        elif part in ("member", "nonmember"):
            texts, errors = readers.scan_documents(place)
            report.rows[part] = len(texts)
            _warn_of_repeats(report, place, "texts", map(normalised, texts))
        else:
            splits[part], errors = readers.scan_items(place)
            _add_split(report, part, place, splits[part], count_tokens)
        report.errors += map(str, errors)
    if set(splits) == {"forget", "retain"}:
        _compare(report, splits["forget"], splits["retain"])
    return report


def describe(splits: Mapping[str, list[Item]], *, count_tokens: Callable[[str], int] | None = None,
             max_length: int = 256, prompt_share: float = 0.8) -> Report:
    """`check` for items that have been read: {split: items}."""
    report = _empty(count_tokens, max_length, prompt_share)
    for split, items in splits.items():
        _add_split(report, split, split, items, count_tokens)
    if {"forget", "retain"} <= set(splits):
        _compare(report, splits["forget"], splits["retain"])
    return report


def _empty(count_tokens: Callable[[str], int] | None, max_length: int, prompt_share: float) -> Report:
    return Report(tokens="counted" if count_tokens else ESTIMATED, max_length=max_length, prompt_share=prompt_share)


def _add_split(report: Report, split: str, place: Path | str, items: list[Item],
               count_tokens: Callable[[str], int] | None) -> None:
    report.rows[split] = len(items)
    _describe(report, split, items, count_tokens or estimate)
    _warn_of_repeats(report, place, "texts", (normalised(item.text) for item in items))


def find_files(path: str | Path) -> dict[str, Path]:
    """{part: file or folder} of what is at `path`, in the order of the report."""
    place = layout.local(path)
    if not place.is_dir():
        known = (*SPLITS, "member", "nonmember")
        return {next((part for part in known if place.name.startswith(part)), "items"): place}
    found = layout.find(place)
    parts = {"forget": found.forget, "retain": found.retain, "mmlu": found.mmlu}
    if found.mia:
        parts |= {name: found.mia / f"{name}.jsonl" for name in ("member", "nonmember")}
    parts = {part: file for part, file in parts.items() if file}
    if not parts:
        raise InputError(f"{path}", got="no data files", expected="forget.jsonl and retain.jsonl, or SemEval's "
                                                                  "forget_train-*.parquet and retain_train-*.parquet")
    if ("forget" in parts) != ("retain" in parts):
        missing = "retain" if "forget" in parts else "forget"
        raise InputError(f"{path}", got=f"no {missing} file", expected="both sides",
                         fix="to check one file, give its path")
    return parts


# ---- counts and lengths --------------------------------------------------------------------------------------

def _describe(report: Report, split: str, items: list[Item], count: Callable[[str], int]) -> None:
    """Add the groups of a split, and what the encoding would cut off its answers."""
    for task in TASKS:
        documents = {item.document for item in items if item.task == task}
        if documents:
            report.documents[split, task] = len(documents)
        for kind in (SC, QA):
            chosen = [item for item in items if (item.task, item.kind) == (task, kind)]
            if chosen:
                report.groups.append(_group(split, task, kind, chosen, count, report))
    groups = [group for group in report.groups if group.split == split]
    lost, cut = [i for g in groups for i in g.lost_answers], sum(g.cut_answers for g in groups)
    if cut:
        report.warnings.append(f"{split}: {cut} of {len(items)} answers lose their end at {report.max_length} tokens "
                               f"({report.tokens})")
    if lost:
        # A guess must not stop anybody.
        problems = report.warnings if report.tokens == ESTIMATED else report.errors
        problems.append(f"{split}: {len(lost)} of {len(items)} answers have no token left at {report.max_length} "
                        f"tokens ({report.tokens}), the first {lost[0]}; use a larger max_length or a smaller "
                        "prompt_share")


def _group(split: str, task: str, kind: str, items: list[Item], count: Callable[[str], int], report: Report) -> Group:
    prompts = [count(item.prompt) for item in items]
    answers = [count(item.answer) + 1 for item in items]
    cap = int(report.max_length * report.prompt_share)
    room = [report.max_length - min(tokens, cap) for tokens in prompts]
    return Group(
        split, task, kind, len(items), len({item.document for item in items}),
        _spread(len(item.prompt) for item in items), _spread(len(item.answer) for item in items),
        _spread(prompts), _spread(answers),
        cut_prompts=sum(tokens > cap for tokens in prompts),
        cut_answers=sum(tokens > left for tokens, left in zip(answers, room, strict=True)),
        lost_answers=tuple(item.id for item, left in zip(items, room, strict=True) if left <= 0),
    )


def estimate(text: str) -> int:
    """Tokens of a text by its length, where there is no tokenizer."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _spread(lengths: Iterable[int]) -> tuple[int, int, int, int]:
    """(min, median, 95th percentile by nearest rank, max)."""
    ordered = sorted(lengths)
    return ordered[0], round(statistics.median(ordered)), ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1]


# ---- repeats and overlap -------------------------------------------------------------------------------------

def _warn_of_repeats(report: Report, place: Path | str, what: str, texts: Iterable[str]) -> None:
    repeated = sum(count - 1 for count in Counter(texts).values())
    if repeated:
        report.warnings.append(f"{place}: {repeated} repeated {what} (up to case and white space)")


def _compare(report: Report, forget: list[Item], retain: list[Item]) -> None:
    """Overlap of the sides is an error for each item; an answer that both sides have is only counted."""
    for item, twin in overlap(forget, retain):
        what = "document" if item.document == twin.document else "text"
        report.errors.append(f"same {what} in forget and retain: {item.id} and {twin.id}; take it out of one side, or "
                             "declare it with data.allow_overlap=true")
    answers = [{normalised(item.answer) for item in side} for side in (forget, retain)]
    both = len(answers[0] & answers[1])
    if both:
        report.warnings.append(f"{both} answers occur in forget and in retain: forgetting one may cost the other")


# ---- text ----------------------------------------------------------------------------------------------------

def format_report(report: Report) -> str:
    """The report as plain text: files, a table of the groups, then warnings and errors line by line."""
    lines = [f"{part:10} {path}" for part, path in report.files.items()]
    lines += ["", "rows       " + ", ".join(f"{part} {count}" for part, count in report.rows.items())]
    for split in dict.fromkeys(split for split, _ in report.documents):
        counts = ", ".join(f"{task} {n}" for (s, task), n in report.documents.items() if s == split)
        lines.append(f"documents  {split}: {counts}")
    if report.groups:
        cap = int(report.max_length * report.prompt_share)
        lines += ["", f"Lengths: min / median / 95 % / max. Tokens are {report.tokens}. Cut: share of prompts over "
                      f"{cap} tokens, of answers over the rest of {report.max_length}.", "", *_table(report.groups)]
    lines += [""] + [f"warning: {text}" for text in report.warnings] + [f"error: {text}" for text in report.errors]
    lines.append(f"{len(report.errors)} errors, {len(report.warnings)} warnings")
    return "\n".join(lines)


def _table(groups: list[Group]) -> list[str]:
    head = ("split", "task", "type", "items", "prompt characters", "answer characters", "prompt tokens",
            "answer tokens", "cut prompts", "cut answers")
    rows = [head]
    for g in groups:
        spreads = (g.prompt_chars, g.answer_chars, g.prompt_tokens, g.answer_tokens)
        rows.append((g.split, g.task, g.kind.upper(), str(g.items), *(" / ".join(map(str, s)) for s in spreads),
                     f"{g.cut_prompts / g.items:.1%}", f"{g.cut_answers / g.items:.1%}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
