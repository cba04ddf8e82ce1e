"""What the data consists of: items, multiple-choice questions, documents of the attack, and the dataset of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlearn_core.vocabulary import QA, SC

GENERAL = "General"  # task of the general facts, which are in no split
LETTERS = "ABCD"  # names of a question's four options


def document_and_kind(item_id: str) -> tuple[str, str] | None:
    """(document id, "sc" or "qa") by the official rule: drop the last character, look at what the rest ends with.

    None where the id is neither. A Task1 document id keeps its literal double quotes.
    """
    rest = item_id[:-1]
    return (rest[:-2], rest[-2:]) if rest[-2:] in (SC, QA) and rest[:-2] else None


@dataclass(frozen=True)
class Item:
    """One prompt with its reference answer (fields `input` and `output` of the LUME files).

    `person` (a name) and `field` (what of theirs the answer tells) are "" where the data do not say: then
    `data.persons` reads them off Task 2's texts.
    """

    id: str
    prompt: str
    answer: str
    task: str
    person: str = ""
    field: str = ""

    @classmethod
    def of(cls, row: Mapping) -> Item:
        """The item behind a row such as those of `store.Run.answers`."""
        return cls(row["id"], row["prompt"], row["answer"], row["task"], row.get("person", ""), row.get("field", ""))

    @property
    def stated(self) -> dict[str, str]:
        """`person` and `field`, as far as the data say them: what a row about the item holds beside its other keys."""
        return {key: value for key, value in (("person", self.person), ("field", self.field)) if value}

    @property
    def document(self) -> str:
        return self.id[:-3]

    @property
    def kind(self) -> str:
        return self.id[-3:-1]

    @property
    def text(self) -> str:
        """The whole document of an SC item, as the official attack reads it."""
        return f"{self.prompt} {self.answer}"


@dataclass(frozen=True)
class Question:
    """One multiple-choice question of MMLU's CSV form."""

    subject: str
    question: str
    options: tuple[str, str, str, str]
    correct: int  # index of the right option


@dataclass(frozen=True)
class AttackDocument:
    """One text of the membership-inference attack. `task` is empty for texts from member files, which name none."""

    document: str
    task: str
    text: str
    member: bool


@dataclass(frozen=True)
class Dataset:
    """All data of one run. `general` are facts that the base learns and nobody asks to forget."""

    forget: list[Item]
    retain: list[Item]
    holdout: list[Item]
    general: list[Item]
    attack: list[AttackDocument]
    mmlu_dev: list[Question]
    mmlu_test: list[Question]
