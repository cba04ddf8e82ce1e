"""The sections of the page Sign conflicts: six states, conflict maps, the rate over density, TIES step by step."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import signs, signs_figures, weights
from analysis.signs import SHARES, Signs
from pages import _cache, _signs_parts, _weights_ablation, _widgets
from pages._signs_parts import MATRIX, Choice
from unlearn_core.store import Run
from unlearn_core.vocabulary import TIES_STATES

SECTIONS = {"states": "Six states", "where": "Where", "density": "Over density", "steps": "TIES step by step",
            "effects": "Without a class"}
RATE = ("Conflict rate: of what both models keep, the share in which their signs are opposite; two independent random "
        "directions have 0.5")
PERCENT = st.column_config.NumberColumn(format="percent")
NAMES = {"conflict": "Conflict rate", "won_by_1": "Won by Model 1", **TIES_STATES}


def show(run: Run, found: Signs) -> None:
    section = st.segmented_control("Section", list(SECTIONS), default="states", required=True, key="signs_section",
                                   bind="query-params", format_func=SECTIONS.get, label_visibility="collapsed")
    if section == "steps":
        _steps(run, found)
        return
    if section == "effects":
        _weights_ablation.show(run, ("sign",), "signs_ablation")
        return
    chosen = _signs_parts.choice(found)
    totals = _cache.kept(run, ("over", chosen.space, chosen.counting),
                         lambda: signs.over_density(found, chosen.space, chosen.counting))
    st.markdown(signs.summary(totals[totals["density"] == chosen.density], chosen.counting))
    if section == "states":
        _states(run, found, chosen)
    elif section == "where":
        _where(run, found, chosen)
    else:
        _over_density(run, found, chosen, totals)


# ---- all matrices ----------------------------------------------------------------------------------------------

def _states(run: Run, found: Signs, chosen: Choice) -> None:
    layers, types = (_cache.kept(run, ("pooled", chosen, by), lambda by=by: signs.pooled(
        found, chosen.space, chosen.density, chosen.counting, by)) for by in ("group", "type"))
    table = pd.concat([layers.assign(by="layer"), types.assign(by="module type")], ignore_index=True)
    _widgets.chart(
        _cache.kept(run, ("state bars", chosen), lambda: signs_figures.state_bars(layers, types)), table,
        key="signs_states", title="What does TIES do to the entries, and how many are in conflict?",
        terms=("ties", "sign_conflict", "density"),
        alt="Shares of the six states of a TIES merge, stacked per layer and per module type",
        caption=f"{_signs_parts.n(run, found, chosen)}. Each entry is in exactly one state, so a bar adds up to 1. "
                "Striped: both models keep the entry with opposite signs, and the larger magnitude wins.")


def _where(run: Run, found: Signs, chosen: Choice) -> None:
    table, maps = _matrices(run, found, chosen), st.container()
    with _widgets.folded("Choose a matrix from a table", key="signs_rows") as rows:
        if rows.open:
            _rows(table)
    module = _signs_parts.matrix(found, otherwise="click a cell of a map, or choose here")
    with maps:
        _maps(run, found, chosen, table, module)
    if module is not None:
        _detail(run, found, chosen, module)


def _maps(run: Run, found: Signs, chosen: Choice, table: pd.DataFrame, opened: str | None) -> None:
    about = _signs_parts.n(run, found, chosen)
    _widgets.chart(
        _cache.kept(run, ("conflict map", chosen, opened), lambda: signs_figures.conflict_map(table, opened)), table,
        key="signs_conflict", title="Where do the two models pull in opposite directions?",
        terms=("sign_conflict",),
        alt="Conflict rate of every matrix by layer and module type", on_select=lambda: _clicked("signs_conflict"),
        caption=f"{about}. {RATE}. Click a cell to open its matrix.")
    _widgets.chart(
        _cache.kept(run, ("winner map", chosen, opened), lambda: signs_figures.winner_map(table, opened)), table,
        key="signs_winner", terms=("ties", "sign_conflict"), title="Who wins the conflicts?",
        alt="Share of the conflicts that Model 1 wins, by layer and module type",
        on_select=lambda: _clicked("signs_winner"),
        caption=f"{about}. Share of the conflicts that Model 1 wins, which is where its magnitude is larger; Model 2 "
                "wins the rest.")


def _matrices(run: Run, found: Signs, chosen: Choice) -> pd.DataFrame:
    return _cache.kept(run, ("matrices", chosen),
                       lambda: signs.matrices(found, chosen.space, chosen.density, chosen.counting))


def _clicked(key: str) -> None:
    """Open the matrix that was clicked on a map."""
    module = weights.clicked(st.session_state.get(f"{key}_chart"))
    if module:
        st.session_state[MATRIX] = module


def _rows(table: pd.DataFrame) -> None:
    """A row per matrix; selecting one opens it."""
    def opened() -> None:
        rows = st.session_state["signs_rows_table"]["selection"]["rows"]
        if rows:
            st.session_state[MATRIX] = table["module"].iloc[rows[0]]

    st.dataframe(table[["module", *SHARES]].rename(columns=NAMES), key="signs_rows_table", hide_index=True, height=280,
                 on_select=opened, selection_mode="single-row", placeholder=_widgets.NOT_MEASURED,
                 column_config={"module": "Matrix", **dict.fromkeys(NAMES.values(), PERCENT)},
                 alt="Conflict rate and states of every matrix")


def _over_density(run: Run, found: Signs, chosen: Choice, totals: pd.DataFrame) -> None:
    _widgets.chart(
        _cache.kept(run, ("over density", chosen), lambda: signs_figures.over_density(totals, chosen.density)), totals,
        key="signs_density_curve", title="Do large entries conflict less than small ones?",
        terms=("sign_conflict", "density"),
        alt="Conflict rate over density, for all matrices and per module type, with the level of random directions",
        caption=f"{_signs_parts.n(run, found, chosen)}. {RATE}, the dotted line; dashed: the current density. A line "
                "that rises with density says that the largest entries agree most.")


# ---- one matrix ------------------------------------------------------------------------------------------------

def _detail(run: Run, found: Signs, chosen: Choice, module: str) -> None:
    """One matrix: its states over density, and the numbers at the current one."""
    frame = signs.of_matrix(found, chosen.space, module, chosen.counting)
    with st.container(border=True):
        st.markdown(f"**{_widgets.plain(module)}**")
        now = frame.loc[frame["density"] == chosen.density, list(SHARES)].iloc[0]
        st.dataframe(pd.DataFrame({"Quantity": now.index.map(NAMES), "Share": now.to_numpy()}), hide_index=True,
                     placeholder=_widgets.NOT_MEASURED, column_config={"Share": PERCENT}, width=420,
                     alt=f"Conflict rate and states of {module} at density {chosen.density:g}")
        _widgets.chart(
            signs_figures.matrix_states(frame, chosen.density), frame, key="signs_detail",
            terms=("ties", "density"),
            title="How do its states change with density?",
            alt=f"Shares of the six states of {module} over density",
            caption=f"{_entries(found, chosen.space, module)}; seed {run.recipe().seed}. The dashed line is the "
                    "current density.")


def _entries(found: Signs, space: str, module: str) -> str:
    entries = found.counted(space, "count")[found.index(module), 0].sum()
    return f"{_widgets.plain(module)}: {entries:,.0f} entries of {signs.SPACE_LABELS[space]}"


# ---- TIES step by step -----------------------------------------------------------------------------------------

def _steps(run: Run, found: Signs) -> None:
    if "dW" not in found.about["spaces"]:
        st.info("The steps are shown on an excerpt of ΔW, which was left out.", icon=":material/grid_off:")
        return
    usual = signs.most_conflicting(_matrices(run, found, Choice("dW", found.about["excerpt_density"], "count")))
    with _widgets.row():
        density = _signs_parts.density(found)
        module = _signs_parts.matrix(found, otherwise=f"most in conflict: {usual}") or usual
    scales = run.recipe().merge.weights
    shown = _cache.kept(run, ("window", module, density), lambda: signs.steps(found, module, density, scales))
    row, column = found.arrays["excerpt_at"][found.index(module)]
    rows, columns = shown.states.shape
    st.markdown(
        f"A real piece of this run: rows {row} to {row + rows - 1} and columns {column} to {column + columns - 1} of "
        f"ΔW of {_widgets.plain(module)}, chosen because much happens in it. First column: the change by each model. "
        f"**1. Trim**: what is not among the largest {density:.0%} of the whole matrix becomes 0 (empty). "
        "**2. Elect**: the sign with more magnitude behind it. **3. Merge**: the mean of what has that sign; the "
        "other is dropped.")
    _widgets.chart(
        _cache.kept(run, ("steps", module, density), lambda: signs_figures.ties_steps(shown)),
        _cache.kept(run, ("steps table", module, density), lambda: signs.as_table(shown)), key="signs_steps",
        terms=("ties", "density"),
        title="What happens to each entry, step by step?",
        alt="Two small matrices, what trimming leaves of them, the elected signs and the merge",
        caption=f"n = {rows} x {columns} entries; seed {run.recipe().seed}; numbers in units of {signs.unit(shown):g}; "
                f"red +, blue −, the same limits in all panels. Merge weights {scales[0]:g} and {scales[1]:g}.")
    st.subheader("Which state is each entry in?")
    st.plotly_chart(_cache.kept(run, ("state map", module, density), lambda: signs_figures.state_map(shown)),
                    key="signs_state_map", width=620, config={"displaylogo": False},
                    alt="State of each entry of the excerpt, by colour and sign")
    _widgets.definitions("sign_conflict", "density")
