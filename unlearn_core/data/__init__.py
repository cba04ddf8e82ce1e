"""Items and datasets: read from files, checked, and split by document."""

from unlearn_core.data.dataset import (
    assemble,
    attack_documents,
    hashes,
    hold_out,
    load,
    load_saved,
    overlap,
    save,
    subset,
)
from unlearn_core.data.items import AttackDocument, Dataset, Item, Question, document_and_kind

__all__ = ["AttackDocument", "Dataset", "Item", "Question", "assemble", "attack_documents", "document_and_kind",
           "hashes", "hold_out", "load", "load_saved", "overlap", "save", "subset"]
