"""Section of the data page: texts that forget and retain nearly share, side by side."""

from __future__ import annotations

import streamlit as st

from analysis import data_frames
from pages import _data_source, _widgets
from unlearn_core.data import duplicates
from unlearn_core.settings import Recipe
from unlearn_core.store import Run

SHOWN = 300
LARGE = 50_000  # items, above which the comparison waits for a click


def near_duplicates(source: data_frames.Source, run: Run | None, recipe: Recipe | None, personal: bool) -> None:
    """The pairs above a threshold, and the chosen one of them in full."""
    st.subheader("What stands in forget and, nearly, in retain?")
    if not (source.splits.get("forget") and source.splits.get("retain")):
        st.info("This needs both sides: a forget and a retain file.", icon=":material/compare:")
        return
    threshold = st.slider("Similarity from", 0.2, 1.0, duplicates.THRESHOLD, 0.05, key="data_threshold",
                          bind="query-params", width=420)
    if len(source.items) > LARGE and not st.button("Compare", icon=":material/compare:", key="data_compare",
                                                   help="may take minutes on so many items"):
        return
    found = _found(source.key, threshold, source)
    st.caption(f"{len(found)} pairs among {len(source.splits['forget'])} forget and {len(source.splits['retain'])} "
               f"retain items. Similarity = shared / all of the word triples of two whole texts (prompt and answer, "
               "without case and punctuation); all pairs are compared exactly. Training on such a retain item may keep "
               "alive what its twin is to forget.")
    if not found:
        return
    table = data_frames.pairs(found[:SHOWN], _data_source.masking(source, personal))
    chosen = st.dataframe(
        table, width="stretch", hide_index=True, key="data_pairs", on_select="rerun", selection_mode="single-row",
        column_config={"similarity": st.column_config.ProgressColumn("Similarity", format="%.2f", min_value=0,
                                                                     max_value=1, width="small"),
                       "forget_text": "Forget text", "retain_text": "Retain text"},
        column_order=("similarity", "forget_text", "retain_text"), alt="Near-duplicates, the most similar first")
    if len(found) > SHOWN:
        st.caption(f"The {SHOWN} most similar of them.")
    st.download_button("Download CSV", table.to_csv(index=False), file_name="near_duplicates.csv", mime="text/csv",
                       key="data_pairs_csv", icon=":material/download:", on_click="ignore")
    pair = table.iloc[chosen.selection.rows[0] if chosen.selection.rows else 0]
    for column, side in zip(st.columns(2), ("forget", "retain"), strict=True):
        with column:
            st.caption(f"{side.capitalize()} · {_widgets.plain(pair[side])}")
            st.code(pair[f"{side}_text"], language=None, wrap_lines=True)
    st.caption(f"Similarity {pair['similarity']:.2f}. Choose another pair in the table.")


@st.cache_data(max_entries=8, show_spinner="Comparing forget with retain")
def _found(key: str, threshold: float, _source: data_frames.Source) -> list[duplicates.Pair]:
    return duplicates.near_duplicates(_source.splits["forget"], _source.splits["retain"], threshold)
