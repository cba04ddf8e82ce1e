"""Section of the merge page: what a merge would be like while its settings are dragged, and how to make it."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from analysis import merge_export, merge_preview, merging_figures, theme
from analysis import weights as measured_weights
from analysis.merge_preview import Pooled
from analysis.signs import Signs
from pages import _cache, _frame, _merging_parts, _signs_parts, _widgets
from unlearn_core import launching
from unlearn_core.errors import InputError
from unlearn_core.settings import Merge
from unlearn_core.store import Run
from unlearn_core.vocabulary import MERGE_LABELS, UNLEARNED

LEVELS = {"factors": "factors A and B", "delta": "ΔW"}
LEVEL, METHOD, DENSITY, LAYERS = "merge_level", "merge_method", "merge_density", "merge_layers"
WEIGHTS = ("merge_w1", "merge_w2")
LOWEST, HIGHEST = -1.0, 2.0  # weights that can be dragged to
ONE, TWO = map(theme.short_label, UNLEARNED)
NUMBERS = {"norm_ratio": ("Norm ratio", "{:.3f}"), "cosine_1": (f"Cosine to {ONE}", "{:.3f}"),
           "cosine_2": (f"Cosine to {TWO}", "{:.3f}"), "conflict": ("Conflicts where both keep", "{:.1%}"),
           "used_1": (f"Kept of {ONE}", "{:.1%}"), "used_2": (f"Kept of {TWO}", "{:.1%}")}
HELP = {"norm_ratio": "||ΔW of the merge|| / mean ||ΔW of a parent||: 1 keeps the size",
        "conflict": "opposite signs, of the entries that both keep; two random directions: 50 %",
        "used_1": "share of its entries that survive trimming and the election of signs",
        "used_2": "share of its entries that survive trimming and the election of signs"}
PROGRAMS = {"lethe": "Lethe", "peft": "PEFT", "mergekit": "mergekit"}


def show(run: Run) -> None:
    """The preview where the signs were compared, and the downloads."""
    found = _signs_parts.measured(run)
    if found is not None:
        _frame.part(_preview, run, found)
    _download(run)


# ---- settings --------------------------------------------------------------------------------------------------

def preset(method: str, level: str, weights: tuple[float, float], density: float | None = None) -> None:
    """Turn the sliders to a merge and go to the preview; a button's callback."""
    st.session_state.update({METHOD: method, LEVEL: level, _merging_parts.SECTION: "preview",
                             **dict(zip(WEIGHTS, map(float, weights), strict=True))})
    if density is not None:
        st.session_state[DENSITY] = density


def weights_here() -> tuple[float, float] | None:
    """The weights of the preview, where it was used in this session."""
    found = tuple(st.session_state.get(key) for key in WEIGHTS)
    return None if None in found else found


def _choice(run: Run, found: Signs) -> tuple[Merge, tuple[int, int] | None]:
    """The merge that the sliders say, and the layers to look at (None: all matrices)."""
    own = run.recipe().merge
    with _widgets.row():
        level = st.segmented_control("Level", list(LEVELS), default=own.level, required=True, key=LEVEL,
                                     format_func=LEVELS.get, **_merging_parts.BOUND)
        methods = list(merge_preview.TAKES)
        method = st.selectbox("Method", methods, format_func=MERGE_LABELS.get, key=METHOD, width=230,
                              index=methods.index(own.method) if own.method in methods else 0, **_merging_parts.BOUND)
        trims = method in merge_preview.TRIMMING
        density = st.select_slider("Density", found.densities, value=found.about["excerpt_density"], key=DENSITY,
                                   width=260, disabled=not trims, **_merging_parts.BOUND,
                                   help="share of each model's entries that trimming keeps, per matrix"
                                        + ("" if trims else "; this method does not trim"))
        weights = [st.slider(f"Weight of {theme.short_label(model)}", min(LOWEST, weight), max(HIGHEST, weight), weight,
                             0.05, key=key, width=180, **_merging_parts.BOUND)
                   for key, model, weight in zip(WEIGHTS, UNLEARNED, own.weights, strict=True)]
        ends = merge_preview.layer_range(found)
        layers = ends and st.slider("Layers", *ends, ends, key=LAYERS, width=180, **_merging_parts.BOUND,
                                    help="the merge of these layers alone; all of them: all matrices")
        st.button("As the run", icon=":material/undo:", key="merge_reset", on_click=preset,
                  args=(own.method, own.level, own.weights, found.about["excerpt_density"]),
                  disabled=own.method not in methods)
    return Merge(method, level, density, tuple(weights)), None if layers == ends else layers


# ---- preview ---------------------------------------------------------------------------------------------------

def _preview(run: Run, found: Signs) -> None:
    choice, layers = _choice(run, found)
    if not any(choice.weights):
        st.info("Both weights are 0: that is the base.", icon=":material/exposure_zero:")
        return
    pooled, own = _cache.kept(run, ("pooled", layers), lambda: _pooled(run, found, layers)), run.recipe().merge
    here, there = (merge_preview.over_density(pooled, merge) for merge in (choice, own))
    row, run_row = merge_preview.at(here, choice.density), merge_preview.at(there, own.density)
    _numbers(row, run_row)
    for merge, where in ((choice, "here"), (own, "of the run")):
        if reason := merge_preview.unknown(pooled, merge):
            st.caption(f"Size and directions {where} are not known: {reason}.")
    _charts(run, found, choice, layers, (here, there), (row, run_row))
    _commands(run, choice)
    _merging_parts.score(run, choice)


def _pooled(run: Run, found: Signs, layers: tuple[int, int] | None) -> Pooled:
    try:
        sizes = None if "dW" in found.about["spaces"] else measured_weights.read(run)
    except InputError:  # the page Weights says so
        sizes = None
    return merge_preview.pooled(found, layers, sizes)


def _numbers(row: pd.Series, run_row: pd.Series) -> None:
    with st.container(horizontal=True, gap="medium"):
        for name, (label, form) in NUMBERS.items():
            here, own = ("–" if math.isnan(found[name]) else form.format(found[name]) for found in (row, run_row))
            st.metric(label, here, f"run: {own}", delta_color="off", delta_arrow="off", help=HELP.get(name),
                      width="content")


def _charts(run: Run, found: Signs, choice: Merge, layers: tuple[int, int] | None,
            frames: tuple[pd.DataFrame, pd.DataFrame], rows: tuple[pd.Series, pd.Series]) -> None:
    own, names = run.recipe().merge, ("Here", "Run")
    bars = pd.DataFrame(rows).assign(merge=names).dropna(subset=["trimmed"])
    matrices = len(found.modules) if layers is None else int(found.modules["layer"].between(*layers).sum())
    about = (f"n = {matrices} matrices{'' if layers is None else ' of layers {} to {}'.format(*layers)}; seed "
             f"{run.recipe().seed}. Here: {_says(choice)}; run: {_says(own)}.")
    if len(bars):
        _widgets.chart(
            merging_figures.states(bars), bars, key="merge_states", title="What becomes of each entry?",
            terms=("ties", "sign_conflict", "density", "norm_ratio", "cosine"),
            alt="Share of entries in each of the six states of a merge, here and in the run",
            caption=f"{about} Entries of {'A and B together' if choice.level == 'factors' else 'ΔW'}, each counting 1; "
                    "a conflict is won by the larger magnitude.")
    if not any(frame["norm_ratio"].notna().any() for frame in frames):
        return
    with _widgets.folded("Size and direction at all densities", key="merge_all_densities") as opened:
        if opened.open:
            both = pd.concat([frame.assign(merge=name) for frame, name in zip(frames, names, strict=True)])
            _widgets.chart(
                merging_figures.over_density(*frames, choice.density, own.density), both, key="merge_over_density",
                terms=("norm_ratio", "cosine", "density"),
                title="How large does the merge become, and which parent does it follow?",
                alt="Norm ratio of the merge and its cosine to each parent over density, here and in the run",
                caption=f"{about} Solid: here; dotted: the run's own settings; large marks: the densities in use. "
                        "Exact, from the stored statistics; nothing is scored.")


def _says(choice: Merge) -> str:
    density = f", density {choice.density:g}" if choice.method in merge_preview.TRIMMING else ""
    return (f"{MERGE_LABELS[choice.method]} on {LEVELS[choice.level]}{density}, weights "
            + " : ".join(f"{weight:g}" for weight in choice.weights))


# ---- merge with these settings -----------------------------------------------------------------------------------

def _commands(run: Run, choice: Merge) -> None:
    st.subheader("Merge with these settings")
    folders = [run.adapter_dir(model) for model in UNLEARNED]
    if not all(model in run.adapter_weights() for model in UNLEARNED):
        st.caption("A recording comes without adapters." if run.recorded() else
                   "The adapters of this run are not here any more.")
        return
    base, out = _base(run), f"{run.id}-merged"
    program = st.segmented_control("Program", list(PROGRAMS), default="lethe", required=True, key="merge_program",
                                   format_func=PROGRAMS.get, label_visibility="collapsed", **_merging_parts.BOUND)
    if program == "lethe":
        full = st.toggle("Also a full model", key="merge_full", **_merging_parts.BOUND,
                         help="base and merge in one, which any program can load without PEFT")
        words = merge_export.command(choice, [str(folder) for folder in folders], out, base, f"{out}-full" if full
                                     else "")
        _widgets.command(launching.command_line(words))
        return
    absolute = [str(folder.resolve()) for folder in folders]
    said = (merge_export.peft_code(choice, base, absolute, out) if program == "peft"
            else merge_export.mergekit_yaml(choice, base, absolute))
    if said.text:
        st.code(said.text, language=None, wrap_lines=True)
    if said.note:
        st.caption(said.note if said.text else f"Not possible there: {said.note}")
    if program == "mergekit" and said.text:
        st.caption("Saved as merge.yml:")
        _widgets.command(f"mergekit-yaml merge.yml {out}")


def _base(run: Run) -> str:
    """Folder or hub id of the base."""
    base = run.recipe().base
    return base.model if base.source == "load" else str(run.full_model_dir("base").resolve())


def _download(run: Run) -> None:
    """The run's own merge to take away: its adapter, and base and merge in one."""
    folder = run.adapter_dir("merged")
    if "merged" not in run.adapter_weights():
        return
    sizes = {"merged adapter": sum(path.stat().st_size for path in merge_export.adapter_files(folder)),
             "full model": merge_export.full_model_bytes(run)}
    make = {"merged adapter": lambda: merge_export.adapter_zip(folder),
            "full model": lambda: merge_export.full_model_zip(run)}
    offered = [what for what, size in sizes.items() if 0 < size <= merge_export.MOST_BYTES]
    with _widgets.row():
        for what in offered:
            name = what.replace(" ", "-")
            st.download_button(f"Download the run's {what} ({sizes[what] / 2**20:.1f} MiB)", make[what],
                               file_name=f"{run.id}-{name}.zip", mime="application/zip", key=f"merge_download_{name}",
                               icon=":material/download:", on_click="ignore")
    if "merged adapter" not in offered:
        st.caption(f"The run's own merged adapter ({sizes['merged adapter'] / 2**20:,.0f} MiB) is too large for a "
                   f"download: {_widgets.plain(folder)}")
    if "full model" not in offered:
        st.caption("The full model is too large for a download, or its base is not in the run. It is written by:")
        _widgets.command(launching.command_line(["export", run.id, "--out", f"{run.id}-full"]))
