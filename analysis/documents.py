"""The documents of a run as a person may read them, with personal data masked."""

from __future__ import annotations

from unlearn_core.data import load_saved
from unlearn_core.data.dataset import one_text_each
from unlearn_core.data.lists import whole_texts
from unlearn_core.data.persons import mask_items, persons
from unlearn_core.store import Run


def masked(run: Run) -> dict[str, str]:
    """{document: its text, masked} of forget, retain and holdout, as the attack reads it."""
    dataset = load_saved(run.data_dir)
    items = [*dataset.forget, *dataset.retain, *dataset.holdout]
    texts = whole_texts(items) if run.brought() else one_text_each(items)
    parts = mask_items(texts, persons(items))
    return {item.document: f"{prompt} {answer}" for item, (prompt, answer) in zip(texts, parts, strict=True)}
