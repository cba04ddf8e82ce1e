"""What the sections of the metrics page share: the texts that models were led through, and one document in words."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import attacks, documents
from pages import _cache, _widgets
from unlearn_core import launching
from unlearn_core.store import Run


def texts(run: Run) -> pd.DataFrame | None:
    """`attacks.texts`; None, after saying how to measure it, where no model was led through its texts."""
    frame = _cache.table(attacks.texts, run)
    if len(frame):
        return frame
    st.info("Not measured: no model of this run was led through its texts token by token. This measures it:",
            icon=":material/hourglass_empty:")
    _widgets.command(launching.command_line(["evaluate", run.id]))
    return None


def text_of(run: Run, document: str) -> str:
    """A document of the run with its personal data masked."""
    return _cache.kept(run, "masked documents", lambda: documents.masked(run)).get(document, _widgets.NOT_MEASURED)
