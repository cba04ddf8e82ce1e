"""What a file of a run or a sweep must hold: with these checks the store knows a damaged one. Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from unlearn_core.errors import InputError
from unlearn_core.files import damaged

MAX_STEM = 60  # characters of a name, of the recipe's in a run's id too
STATES = ("queued", "running", "trained", "finished", "failed", "cancelled", "interrupted")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def safe(name: str, what: str) -> str:
    """The name, where it can be that of a file and leads nowhere else; else an InputError."""
    if not SAFE_NAME.fullmatch(name) or len(name) > MAX_STEM:
        raise InputError(what, got=name, expected=f"at most {MAX_STEM} letters, digits, dots, hyphens and underscores, "
                                                  "the first a letter or digit")
    return name


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def holds_all(values: object, holds: Callable[[object], bool]) -> bool:
    return isinstance(values, dict) and all(map(holds, values.values()))


def subset_rows(found: dict, path: Path) -> list:
    """Rows of what was scored on a subset of the documents, once it says which."""
    rows = found.get("rows", [])
    replaced = found.get("replaced", [])
    if found and not (isinstance(rows, list) and all(map(is_number, (found.get(key) for key in SUBSET)))
                      and isinstance(found.get("half", ""), str) and is_n(found.get("n"))
                      and isinstance(replaced, list) and all(isinstance(name, str) for name in replaced)):
        raise damaged(path, json.dumps(found)[:100])
    return rows


def is_n(value: object) -> bool:
    """Whether it is None, as before documents were halved, or counts as `halves.counts` gives them."""
    return value is None or (holds_all(value, is_count) and {"units", "members", "nonmembers"} <= set(value))


def is_count(value: object) -> bool:
    return isinstance(value, int) and is_number(value) and value >= 0


def is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def is_checkpoint(row: dict) -> bool:
    """Whether it says which checkpoint it is of (`Results.trajectory`)."""
    return isinstance(row.get("model"), str) and is_count(row.get("step")) and (
        row.get("epoch") is None or is_number(row["epoch"]))


def is_merge(row: dict) -> bool:
    """Whether it says which merge it is of (`Results.merges`)."""
    return isinstance(row.get("kind"), str) and isinstance(row.get("name"), str) and (
        is_number(row.get("norm_ratio")) and holds_all(row.get("cosines"), is_number))


def is_ablation(row: dict) -> bool:
    """Whether it says what was ablated (`Results.ablations`)."""
    return all(isinstance(row.get(key), str) for key in ("kind", "part", "mode")) and (
        is_count(row.get("draw")) and is_number(row.get("norm_share"))
        and all(row.get(key) is None or is_number(row[key]) for key in ("share", "leak")))


def is_probe(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("model"), str) and isinstance(row.get("measure"), str) and (
        isinstance(row.get("setting"), str) or is_number(row.get("setting"))) and all(
        row.get(key) is None or is_number(row[key]) for key in ("value", "low", "high", "n"))


def is_configuration(entry: object) -> bool:
    return (isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("recipe"), dict)
            and holds_all(entry.get("point"), lambda value: isinstance(value, str)))


def is_sample(row: dict) -> bool:
    return is_count(row.get("sample")) and all(
        isinstance(row.get(key), str) for key in ("id", "document", "split", "generation"))


SAMPLING = ("samples", "temperature", "top_p", "seed", "max_new_tokens", "people")
SUBSET = ("documents_per_task", "seed", "mmlu_limit", "max_new_tokens")
META_CHECKS = {
    "title": lambda value: isinstance(value, str), "archived": lambda value: isinstance(value, bool),
    "tags": lambda value: isinstance(value, list) and all(isinstance(tag, str) for tag in value),
}
JOB_CHECKS = {
    "pid": lambda value: is_count(value) and value > 0, "process_started": is_number,
    "command": lambda value: isinstance(value, list) and all(isinstance(part, str) for part in value),
    **dict.fromkeys(("device", "kind"), lambda value: isinstance(value, str)), "queued": is_time,
    **dict.fromkeys(("started", "ended"), lambda value: value is None or is_time(value)),
    "exit_code": lambda value: value is None or isinstance(value, int),
    "cancelled": lambda value: isinstance(value, bool), "before": lambda value: isinstance(value, dict),
}
STATUS_CHECKS = {
    "state": STATES.__contains__, "step": is_count, "total": is_count,
    **dict.fromkeys(("stage", "message"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("updated", "since", "ended"), lambda value: value is None or is_time(value)),
    "before": lambda value: value is None or (isinstance(value, dict) and value.get("state") in STATES),
    "since_step": lambda value: value is None or is_count(value),
    "pid": lambda value: value is None or (is_count(value) and value > 0),
    "process_started": lambda value: value is None or is_number(value),
}
