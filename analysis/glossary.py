"""One short definition of every score, gate, setting and word, each read from the one place where it is written.

Scores come from `vocabulary`, gates from `gates`, settings from `recipe`, words from docs/glossary.md, into which
`python -m analysis.glossary` writes the others. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import Field, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_origin

import pandas as pd

from analysis import glossary_formulas as formulas
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.judging.gates import GATES
from unlearn_core.vocabulary import HEADLINES, METRICS, SUB_SCORES, UNLEARNED, Metric

DOCUMENT = Path(__file__).parent.parent / "docs" / "glossary.md"
KINDS = {"score": "Scores", "word": "Words", "setting": "Settings", "gate": "Gates"}
COMMON = "unlearn"  # the table of a recipe that is both model_1 and model_2
PATHS = {"Overview": "", "Sign conflicts": "signs"}  # of pages in addresses; of others it is the title
WRITTEN = "## Scores"  # in the document, from where on `rest` is written
TASK = "SemEval-2025 Task 4 (arXiv 2504.02883)"


@dataclass(frozen=True)
class Entry:
    """What is to be said about one thing; `key` names it in addresses. What it has not is empty.

    `text` is Markdown of our own, `formula` LaTeX, `pages` titles of the pages on which it appears.
    """

    key: str
    name: str
    kind: str
    text: str
    formula: str = ""
    ideal: str = ""
    direction: str = ""
    chance: str = ""
    default: str = ""
    limits: str = ""
    source: str = ""
    pages: tuple[str, ...] = ()


class About(NamedTuple):
    """What the vocabulary does not say about a score."""

    chance: str
    source: str
    pages: tuple[str, ...]


SCORED = ("Overview", "Story", "Sweeps", "Loss", "Merge", "Metrics", "Report", "Method")  # pages with all scores
WIDELY = (*SCORED, "Weights", "Sign conflicts")
ABOUT = {
    "aggregate": About("mean of its three parts' chance levels", TASK, SCORED),
    "task_aggregate": About("that of a fluent text about something else, told for each run", TASK, WIDELY),
    "mia_score": About("below 1, as the AUC of few documents misses 0.5 by luck: 0.947 with 150 + 150", TASK, SCORED),
    "mia_auc": About("0.5", f"{TASK}; loss attack: arXiv 1709.01604", WIDELY),
    "mmlu": About("0.25, four options", f"{TASK}; questions: arXiv 2009.03300",
                  (*SCORED, "Robustness")),
    "regurgitation": About("that of a fluent text about something else on the same items: about 0.3 for stories and "
                           "biographies and 0.5 for people in LUME; an empty text has 0", TASK, SCORED),
    "knowledge": About("that of the answer to the same question about something else: nearly 0", TASK, SCORED),
}


# ---- look-up ---------------------------------------------------------------------------------------------------

@cache
def entries() -> dict[str, Entry]:
    """{key: entry} of everything, in the order of `KINDS`; InputError where docs/glossary.md cannot be read."""
    found = [*_scores(), *(entry for entry, _ in _words()), *_settings(), *_gates()]
    return {entry.key: entry for entry in found}


def find(key: str) -> Entry | None:
    """The entry of a key, of another name in its row (such as "retain"), or of a setting of one model."""
    return entries().get(key) or entries().get(_others().get(key, _common(key)))


def search(text: str = "", kinds: Iterable[str] = ()) -> list[Entry]:
    """Entries of these kinds (none: of all) with every word of `text` in name, key or definition."""
    words, kinds = text.lower().split(), set(kinds) or set(KINDS)
    return [entry for entry in entries().values() if entry.kind in kinds
            and all(word in f"{entry.name} {entry.key} {entry.text}".lower() for word in words)]


def metrics_in(table: pd.DataFrame) -> list[str]:
    """Keys of the scores of `vocabulary.METRICS` that a table holds, as names of columns or in its column `metric`."""
    labels = {metric.label: key for key, metric in METRICS.items()}
    said = [*table.columns, *(table["metric"].unique() if "metric" in table else ())]
    there = {labels.get(str(name), str(name)) for name in said}
    return [key for key in METRICS if key in there]


def _common(key: str) -> str:
    table, _, name = key.partition(".")
    return f"{COMMON}.{name}" if table in UNLEARNED else key


@cache
def _others() -> dict[str, str]:
    """{key of a further name in the row of a word: key of the row}"""
    return {slug(name): entry.key for entry, names in _words() for name in names[1:]}


def slug(name: str) -> str:
    """A name as it stands in addresses: "leak@k" -> "leak_k"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def path(page: str) -> str:
    """Path in addresses of the page with this title."""
    return PATHS.get(page, page.lower())


# ---- where entries come from -----------------------------------------------------------------------------------

def _scores() -> Iterator[Entry]:
    for metric in (*HEADLINES, *SUB_SCORES):
        about = ABOUT[metric.key if metric in HEADLINES else metric.key.split("_")[1]]
        yield Entry(metric.key, metric.label, "score", metric.help, _formula(metric), _ideal(metric),
                    {True: "higher is better", False: "lower is better", None: "neither end is good"}
                    [metric.higher_is_better], about.chance, source=about.source, pages=about.pages)


def _formula(metric: Metric) -> str:
    if metric in HEADLINES:
        return formulas.SCORES[metric.key]
    return formulas.REGURGITATION if "_regurgitation_" in metric.key else formulas.KNOWLEDGE


def _ideal(metric: Metric) -> str:
    return "that of the base" if metric.ideal is None else f"{metric.ideal:g}"


def _gates() -> Iterator[Entry]:
    for gate in GATES:
        yield Entry(f"gate.{gate.key}", f"{gate.label} (gate)", "gate", f"{gate.question} Its threshold: {gate.help}.",
                    default=f"{gate.threshold:g}", limits="" if gate.vetoes else "informs only, does not veto",
                    pages=("Robustness",))


def _settings() -> Iterator[Entry]:
    seen = set()
    for name, field, hint in recipes.settings():
        key = _common(name)
        if key not in seen:
            seen.add(key)
            yield Entry(key, key, "setting", field.metadata["help"], formulas.SETTINGS.get(key, ""),
                        default=_default(field, hint), limits=_limits(field), pages=("Train", "Sweeps"))


def _default(field: Field, hint: type) -> str:
    if get_origin(hint) is tuple or hint is bool:
        return recipes.toml_value(field.default)
    return str(field.default) or "empty"


def _limits(field: Field) -> str:
    if field.metadata["choices"]:
        return f"one of {', '.join(field.metadata['choices'])}"
    return recipes.bounds(field.metadata)


@cache
def _words() -> tuple[tuple[Entry, tuple[str, ...]], ...]:
    """(entry, its names) of each row of the document's table of words."""
    try:
        text = DOCUMENT.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(DOCUMENT), got=str(error), expected="the words that the pages use",
                         fix="start the dashboard in a whole checkout of the project") from None
    rows = [_cells(line) for line in text.partition(WRITTEN)[0].splitlines() if line.startswith("| ")][1:]
    return tuple(_word(*row) for row in rows)


def _word(named: str, meaning: str, pages: str) -> tuple[Entry, tuple[str, ...]]:
    names = tuple(named.split(", "))
    key = slug(names[0])
    return Entry(key, named, "word", meaning, formulas.WORDS.get(key, ""), pages=tuple(pages.split(", "))), names


def _cells(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# ---- the document ----------------------------------------------------------------------------------------------

def rest() -> str:
    """What follows the words in docs/glossary.md: tables of scores, gates and settings."""
    of = {kind: [entry for entry in entries().values() if entry.kind == kind] for kind in KINDS}
    parts = [
        (WRITTEN, ("score", "key", "meaning", "ideal", "better", "chance", "source"),
         [(e.name, e.key, e.text, e.ideal, e.direction, e.chance, e.source) for e in of["score"]]),
        ("## Gates", ("gate", "meaning", "threshold", ""), [(e.name, e.text, e.default, e.limits) for e in of["gate"]]),
        ("## Settings", ("setting", "meaning", "default", "limits"),
         [(f"`{e.key}`", e.text, e.default, e.limits) for e in of["setting"]])]
    return "\n".join(f"{title}\n\n{_table(head, rows)}" for title, head, rows in parts)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def write() -> None:
    """Bring the tables of docs/glossary.md that have their source elsewhere up to date."""
    words = DOCUMENT.read_text(encoding="utf-8").partition(WRITTEN)[0].rstrip()
    DOCUMENT.write_text(f"{words}\n\n{rest()}", encoding="utf-8")


if __name__ == "__main__":
    write()
