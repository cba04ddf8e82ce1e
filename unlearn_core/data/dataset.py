"""A run's dataset: assembled from items, held out by document, saved into the run and loaded again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from unlearn_core.data import layout, readers
from unlearn_core.data.items import GENERAL, AttackDocument, Dataset, Item, Question
from unlearn_core.errors import InputError
from unlearn_core.files import replacing_dir, write_rows
from unlearn_core.settings import Data
from unlearn_core.vocabulary import SC, SPLITS, TASKS

# ---- a run's dataset -----------------------------------------------------------------------------------------

def load(data: Data, *, seed: int, base_is_trained_here: bool, mia_members: str) -> Dataset:
    """The dataset of a recipe whose data are files: found, read, and given to `assemble`."""
    files = _locate(data)
    dev, test = readers.read_mmlu(files.mmlu) if files.mmlu else ([], [])
    return assemble(readers.read_items(files.forget), readers.read_items(files.retain), [], dev, test, data=data,
                    seed=seed, base_is_trained_here=base_is_trained_here, mia_members=mia_members, mia=files.mia,
                    source=f"{files.forget} and {files.retain}")


def assemble(forget: list[Item], retain: list[Item], general: list[Item], dev: list[Question], test: list[Question], *,
             data: Data, seed: int, base_is_trained_here: bool, mia_members: str,
             mia: Path | None = None, source: str = "forget and retain") -> Dataset:
    """Refuse undeclared overlap, take the subset, take the holdout out (only where the base is trained here), and
    choose the attack's documents. Items keep their order; questions are sorted by subject.
    """
    shared = overlap(forget, retain)
    if shared and not data.allow_overlap:
        raise overlap_error(shared, source)
    sides = [subset(side, data.documents_per_task, data.subset_seed) for side in (forget, retain)]
    holdout: list[Item] = []
    if base_is_trained_here:
        # A document on both sides would be held out on one and trained on the other.
        never = {item.document for pair in shared for item in pair}
        pairs = [hold_out(side, data.holdout_share, seed, never=never) for side in sides]
        sides = [kept for kept, _ in pairs]
        holdout = [item for _, held in pairs for item in held]
    return Dataset(*sides, holdout, general, attack_documents(sides[0], holdout, mia_members, mia),
                   sorted(dev, key=_subject), sorted(test, key=_subject))


def _subject(question: Question) -> str:
    return question.subject


def _locate(data: Data) -> layout.Files:
    """The files of the recipe: what it names, and what the folder `data.path` has for the rest."""
    found = layout.find(data.path) if data.path else layout.Files()
    files = layout.Files(
        forget=data.forget or found.forget,
        retain=data.retain or found.retain,
        mia=_inside(data.mia, layout.find_mia, "data.mia", "member.jsonl and nonmember.jsonl") or found.mia,
        mmlu=_inside(data.mmlu, layout.find_mmlu, "data.mmlu", "dev/*_dev.csv and test/*_test.csv") or found.mmlu,
    )
    for split in ("forget", "retain"):
        if not getattr(files, split):
            raise InputError(f"data.path {data.path}", got=f"no {split} file",
                             expected=f"{split}.jsonl or {split}_train-*.parquet", fix=f"or name it in data.{split}")
    return files


def _inside(folder: str, find: Callable[[Path], Path | None], setting: str, expected: str) -> Path | None:
    if not folder:
        return None
    found = find(layout.local(folder))
    if found is None:
        raise InputError(f"{setting} {folder}", got="no such files", expected=f"a folder with {expected}")
    return found


# ---- overlap, subset, holdout --------------------------------------------------------------------------------

def overlap(forget: list[Item], retain: list[Item]) -> list[tuple[Item, Item]]:
    """(forget item, retain item) for each forget item whose document, or whose text up to case and white space,
    stands in retain too."""
    documents = {item.document: item for item in reversed(retain)}
    texts = {normalised(item.text): item for item in reversed(retain)}
    found = ((item, documents.get(item.document) or texts.get(normalised(item.text))) for item in forget)
    return [(item, twin) for item, twin in found if twin]


def overlap_error(shared: list[tuple[Item, Item]], source: str) -> InputError:
    """What to say about items on both sides of a source; names the first."""
    first, twin = shared[0]
    return InputError(f"{source} overlap", got=f"{len(shared)} shared items, the first {first.id} = {twin.id}",
                      expected="no document on both sides",
                      fix="take them out of one side, or declare them with data.allow_overlap=true")


def normalised(text: str) -> str:
    """Text without differences of case and white space."""
    return " ".join(text.lower().split())


def subset(items: list[Item], documents_per_task: int, seed: int) -> list[Item]:
    """The items of `documents_per_task` documents of each task (0: all). A smaller subset lies inside a larger one."""
    if not documents_per_task:
        return items
    chosen = {document for documents in _ranked(items, f"subset {seed}").values()
              for document in documents[:documents_per_task]}
    return [item for item in items if item.document in chosen]


def hold_out(items: list[Item], share: float, seed: int, never: Set[str] = frozenset()
             ) -> tuple[list[Item], list[Item]]:
    """(kept, held): whole documents, round(share n) of a task's n, at least 1 where a task has two or more.

    The choice depends on the documents' ids and the seed only, not on the order of the items. Documents in `never`
    are kept.
    """
    held: set[str] = set()
    for documents in _ranked(items, f"holdout {seed}").values():
        if share and len(documents) > 1:
            count = min(max(1, int(share * len(documents) + 0.5)), len(documents) - 1)
            held.update([document for document in documents if document not in never][:count])
    return [i for i in items if i.document not in held], [i for i in items if i.document in held]


def _ranked(items: Iterable[Item], salt: str) -> dict[str, list[str]]:
    """{task: document ids in an order that looks random and depends on the ids and the salt only}."""
    documents: dict[str, set[str]] = defaultdict(set)
    for item in items:
        documents[item.task].add(item.document)
    return {task: sorted(ids, key=lambda d: (hashlib.sha256(f"{salt} {d}".encode()).digest(), d))
            for task, ids in documents.items()}


# ---- documents of the attack ---------------------------------------------------------------------------------

def attack_documents(forget: list[Item], holdout: list[Item], members: str, mia: Path | None = None
                     ) -> list[AttackDocument]:
    """Members first, then non-members, one text per document: SC prompt + " " + answer, as in the organisers' files.

    members "forget" (or "forget_task1" ...): forget documents against held-out ones (of the same task). Without a
    holdout "forget" falls back on the files. "files": member.jsonl against nonmember.jsonl in the folder `mia`.
    [] where there is neither: the attack is then not measured.
    """
    if members == "files" and mia is None:
        raise InputError("evaluation.mia_members", got="files, but there are none",
                         expected="member.jsonl and nonmember.jsonl in data.mia or data.path")
    if members == "files" or (members == "forget" and not holdout and mia):
        return [AttackDocument(f"{name}-{number}", "", text, name == "member")
                for name in ("member", "nonmember")
                for number, text in enumerate(readers.read_documents(mia / f"{name}.jsonl"), start=1)]
    task = {f"forget_{task.lower()}": task for task in TASKS}.get(members)
    both = [(item, member) for side, member in ((forget, True), (holdout, False)) for item in one_text_each(side)
            if task in (None, item.task)]
    return [AttackDocument(i.document, i.task, i.text, member) for i, member in both] if holdout else []


def one_text_each(items: Iterable[Item]) -> list[Item]:
    """The first SC item of each document."""
    first: dict[str, Item] = {}
    for item in items:
        if item.kind == SC:
            first.setdefault(item.document, item)
    return list(first.values())


# ---- the data as used, inside a run folder -------------------------------------------------------------------

def save(dataset: Dataset, folder: Path) -> None:
    """Write the dataset into `folder`, whole or not at all: <split>.jsonl, general.jsonl, attack.jsonl, quiz/."""
    with replacing_dir(folder) as temporary:
        for name in (*SPLITS, "general"):
            readers.write_items(temporary / f"{name}.jsonl", getattr(dataset, name))
        write_rows(temporary / "attack.jsonl", map(dataclasses.asdict, dataset.attack))
        readers.write_mmlu(temporary / "quiz", dataset.mmlu_dev, dataset.mmlu_test)


def load_saved(folder: Path) -> Dataset:
    """What `save` wrote, item for item; a missing or torn file is an error."""
    parts = {name: _saved(folder / f"{name}.jsonl", readers.read_items) for name in SPLITS}
    general = _saved(folder / "general.jsonl", lambda path: readers.read_items(path, (GENERAL,)))
    attack = _saved(folder / "attack.jsonl", _read_attack)
    quiz = folder / "quiz"
    no_quiz = (quiz / "test").is_dir() and not any((quiz / "test").iterdir())
    dev, test = ([], []) if no_quiz else readers.read_mmlu(quiz)
    return Dataset(**parts, general=general, attack=attack, mmlu_dev=dev, mmlu_test=test)


def _saved(path: Path, read: Callable[[Path], list]) -> list:
    """A part of the dataset, which may be empty, unlike a file of the user's."""
    return [] if path.is_file() and path.stat().st_size == 0 else read(path)


def _read_attack(path: Path) -> list[AttackDocument]:
    names = tuple(field.name for field in dataclasses.fields(AttackDocument))
    return [AttackDocument(**{name: row[name] for name in names}) for _, row in readers.read_rows(path, names)]


def hashes(folder: Path) -> dict[str, str]:
    """{path inside the folder: SHA-256 of the file}, sorted by path."""
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}
