"""Up to five runs side by side: which settings differ, on what code and data, and how their scores compare."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pandas as pd

from unlearn_core import recipe as recipes
from unlearn_core.store import Run

MAX_RUNS = 5
NOT_RECORDED = "not recorded"
NOTHING = "(none)"
HASH_LENGTH = 12  # shown characters of a SHA-256


def chosen(selected: str, others: Sequence[str], known: Sequence[str]) -> list[str]:
    """Ids to compare, the selected run first: each once, at most `MAX_RUNS`, none that is not `known`."""
    return [name for name in dict.fromkeys([selected, *others]) if name in known][:MAX_RUNS]


def from_rows(selected: str, rows: Sequence[str]) -> tuple[str, list[str]]:
    """(run to select, the others to compare with it) where these rows of the run table were picked.

    Exactly the picked runs are compared, the selected one first if it is among them; a single other one is compared
    with the selected one.
    """
    first = selected if selected in rows or len(rows) == 1 else rows[0]
    return first, [name for name in rows if name != first]


def latest(selected: str, known: Sequence[str]) -> list[str]:
    """Ids of the newest other runs, as many as can be compared with the selected one; `known` is newest first."""
    return [name for name in known if name != selected][: MAX_RUNS - 1]


def labels(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart in charts and tables, beside the models' own colours: a number, then the id."""
    return [f"{number} · {run.id}" for number, run in enumerate(runs, start=1)]


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table per run, in the order of the runs, as one with the column `number` (1, 2, ...) in front."""
    parts = [table.assign(number=number) for number, table in enumerate(tables, start=1)]
    frame = pd.concat(parts, ignore_index=True)
    return frame[["number", *(name for name in frame if name != "number")]]


# ---- configuration ---------------------------------------------------------------------------------------------

def config(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per setting or circumstance: `setting`, one column of text per run (`labels`), and `differs`.

    Settings are the recipe's, by dotted name. Circumstances are of `run.json`: whether all data are the first run's,
    device, number of processes, commit, package versions, and the hash of each data file or folder.
    """
    data = [_hashes(run) for run in runs]
    everything = [_flat(recipes.as_dict(run.recipe())) | {"same data as 1": _same_data(data[0], own)}
                  | _circumstances(run) | own for run, own in zip(runs, data, strict=True)]
    rows = []
    for key in dict.fromkeys(key for own in everything for key in own):
        found = [own.get(key, NOT_RECORDED) for own in everything]
        rows.append([key, *map(_text, found), any(value != found[0] for value in found)])
    return pd.DataFrame(rows, columns=["setting", *labels(runs), "differs"])


def _circumstances(run: Run) -> dict[str, object]:
    info = run.info()
    found = {key: info.get(key) for key in ("device", "processes", "commit")}
    found |= {f"version of {name}": version for name, version in _part(info, "versions").items()}
    return {key: value for key, value in found.items() if value not in (None, "")}


def _hashes(run: Run) -> dict[str, str]:
    """{"data: <name>": shortened hash} for each file at the top of the data folder, and each folder as a whole."""
    parts: dict[str, list[str]] = {}
    for path, digest in sorted(_part(run.info(), "data_hashes").items()):
        parts.setdefault(f"data: {path.partition('/')[0]}", []).append(str(digest))
    return {name: (found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest())[:HASH_LENGTH]
            for name, found in parts.items()}


def _same_data(first: dict, own: dict) -> str:
    return NOT_RECORDED if not (first and own) else "yes" if first == own else "no"


def _part(info: dict, key: str) -> dict:
    value = info.get(key)
    return value if isinstance(value, dict) else {}


def _flat(nested: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _text(value: object) -> str:
    """A setting as a person reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or NOTHING
    return str(value) or NOTHING
