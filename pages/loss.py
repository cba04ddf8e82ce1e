"""How both unlearning runs went, step by step: loss terms, NLL against the reference, NPO's brake, learning rate."""

import streamlit as st

from analysis import figures, frames, theme
from pages import _cache, _widgets
from unlearn_core.vocabulary import LOSS_TERMS, UNLEARNED

run = _widgets.selected_run()
with _widgets.bad_input_shown():
    steps = _cache.table(frames.steps, run)
    base = _cache.table(frames.base_steps, run)
    recipe = run.recipe()

counts = steps.groupby("model").size()
settings = {model: getattr(recipe, model) for model in UNLEARNED}
length = ", ".join(f"{theme.short_label(model)}: {counts.get(model, 0)} steps" for model in UNLEARNED)
seeds = f"{length}; seed {recipe.seed}"
absent = [theme.short_label(model) for model in UNLEARNED if model not in counts]
if absent:
    st.info(f"No steps yet of {' and '.join(absent)}: this run has not come that far, or it was stopped before.",
            icon=":material/hourglass_empty:")

with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    x = st.segmented_control("Horizontal axis", frames.X_COLUMNS, default="step", required=True, key="x",
                             bind="query-params", format_func=lambda column: "time" if column == "seconds" else column)
    weighted = st.toggle("Weighted terms", value=True, key="weighted", bind="query-params",
                         help="each term times its coefficient, as it enters the total; off: the bare terms")
    log_y = st.toggle("Log scale", key="log_y", bind="query-params")

if not steps.empty:
    components = frames.loss_components(steps, weighted)
    hidden = int((components["value"] <= 0).sum()) if log_y else 0
    weights = "; ".join(
        f"{theme.short_label(model)}: " + ", ".join(f"{t.upper()} {getattr(s, f'{t}_weight'):g}" for t in LOSS_TERMS)
        for model, s in settings.items())
    _widgets.chart(
        figures.loss_components(components, x, log_y), components, key="loss_components",
        title="Which term drives the training, and does one of them run away?",
        alt="Loss terms and total of both models over training",
        caption=f"{seeds}. {'Weighted' if weighted else 'Unweighted'} terms, means over a step's micro-batches, no "
                f"smoothing; the total is always the weighted sum. Weights: {weights}."
                + (f" {hidden} values at or below 0 have no place on a log axis." if hidden else ""))
    _widgets.chart(
        figures.answer_nll(steps, x), steps[["model", *frames.X_COLUMNS, *(c for c in steps if "nll" in c)]], key="nll",
        title="Does forget rise above its reference while retain stays on it?",
        alt="NLL of forget and retain answers against the reference, for each model",
        caption=f"{seeds}. Mean NLL in nats per answer token on the items of each step; dotted: the same items under "
                "the model before unlearning.")
    betas = ", ".join(f"{theme.short_label(model)} beta {s.beta:g}, Delta by {s.npo_reduction.replace('_', ' ')}"
                      for model, s in settings.items())
    _widgets.chart(
        figures.npo_brake(steps, x), steps[["model", *frames.X_COLUMNS, "npo_brake"]], key="npo_brake",
        title="Does NPO slow down once the items are forgotten?",
        alt="Brake of NPO over training, for each model",
        caption=f"{seeds}. 2 sigmoid(-beta Delta), Delta = NLL - reference NLL on forget: NPO's gradient as a share of "
                f"plain gradient ascent's. {betas}.")
    _widgets.chart(
        figures.optimizer(steps, x, log_y), steps[["model", *frames.X_COLUMNS, "lr", "grad_norm"]], key="optimizer",
        title="Are the updates steady?",
        alt="Learning rate and gradient norm of both models over training",
        caption=f"{seeds}. Warm-up, then linear decay to 0; L2 norm of the gradient before clipping.")

with st.expander("Training of the base: has it memorised?"):
    if base.empty:
        st.caption("No steps: the base of this run was loaded, or its training has not begun.")
    else:
        _widgets.chart(
            figures.base_loss(base, x, log_y), base, key="base_loss", title="Base: does the loss reach its floor?",
            alt="Training loss of the base while it memorises",
            caption=f"n: {len(base)} steps; seed {recipe.seed}. Mean cross-entropy per optimizer step.")
