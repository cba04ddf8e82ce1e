"""Section of a report on whose personal data the answers give away."""

from __future__ import annotations

from collections.abc import Iterator

from analysis import leaks, leaks_figures, leaks_sampled, texts, theme, weights
from analysis.leaks import Leaks
from analysis.report_material import Material
from analysis.report_parts import Missing, Note, Part, Says, chart
from unlearn_core.data import persons
from unlearn_core.vocabulary import shipped

CAUTION = ("No leak found holds for these prompts and this way to ask, and does not mean that nothing is left. The "
           "upper bound says how many people could leak all the same.")
SHARES = {"model": "Model", "people": "People", "leaking": "Leaking", "share": "Share", "low": "Low", "high": "High",
          "luck": "By luck", "fields": "Fields", "fields_leaked": "Fields leaked", "prompts": "Prompts"}


def show(found: Material) -> Iterator[Part]:
    """Of how many people something is given away, by model and field, greedily and in samples, as on Leaks."""
    yield found.said("forgotten")
    own = found.leaks
    if isinstance(own, str):
        yield Missing(own, found.evaluation() if own == texts.NO_ANSWERS else "")
        return
    for split in ("forget", "retain"):
        yield from _shares(found, own, split)
    yield from _fields(found, own)
    yield from _samples(found, own)
    yield Note(CAUTION)


def _about(found: Material, own: Leaks, split: str) -> str:
    row = leaks.summary(own, split).iloc[-1]
    return f"n = {row['people']} people of {split}, {row['prompts']} prompts, greedy answers. {found.seed}"


def _shares(found: Material, own: Leaks, split: str) -> Iterator[Part]:
    frame = leaks.summary(own, split)
    if frame.empty:
        return
    yield Says(tuple(leaks.describe(own, own.after, split)))
    control = leaks.control_share(own, split)
    never = f"dotted: {theme.short_label(own.control)}, which never saw them" if control is not None else "no control"
    yield chart(f"people_{split}", f"Of how many people of {split} is something given away?",
                leaks_figures.shares(frame, control), frame, columns=SHARES,
                alt="Share of people with something given away, per model, with intervals and the level of luck",
                caption=f"{_about(found, own, split)} Counted are fields that do not follow from the name. Bars: exact "
                        f"95 % intervals; thin line: swapped people; {never}. Ideal: "
                        f"{'0' if split == 'forget' else 'as before unlearning'}.")


def _fields(found: Material, own: Leaks) -> Iterator[Part]:
    frame = leaks.by_field(own)
    if frame.empty:
        return
    yield chart("fields", "Which field is given away most?", leaks_figures.field_shares(frame),
                frame.assign(field=frame["field"].map(persons.label)),
                columns={"model": "Model", "field": "Field", "people": "People", "leaking": "Given away",
                         "share": "Share", "low": "Low", "high": "High", "guessed": "Follows from the name"},
                alt="Share of people of whom each field is given away, per model, with intervals",
                caption=f"{_about(found, own, 'forget')} Bars: exact 95 % intervals. Here an e-mail address counts "
                        "although it follows from the name.")


def _samples(found: Material, own: Leaks) -> Iterator[Part]:
    drawn = leaks_sampled.read(found.run)
    frame = leaks_sampled.curves(drawn)
    if frame.empty:
        models = [name for name in (own.control, "base", shipped(own.models)) if name in own.models] or own.models[:1]
        yield Missing("What leaks when one asks again and again has not been measured.",
                      found.command("samples", "--models", *models, "--samples", "8", "--temperature", "0.7"))
        return
    stale = leaks_sampled.stale(found.run, drawn)
    if stale:
        yield Missing(f"The samples were drawn before the adapter of {weights.named(stale)} was made or changed.",
                      found.command("samples"))
    yield Says(tuple(leaks_sampled.describe(frame, model) for model in drawn))
    yield chart("samples", "Does asking again bring it out?", leaks_figures.curves(frame, leaks.summary(own)), frame,
                alt="leak@k over k per model, beside the greedy answers",
                caption=f"n = {frame['people'].max()} people of forget; {leaks_sampled.conditions(drawn)}. leak@k: "
                        "expected share of people of whom at least one of k answers to each prompt gives something "
                        "away. Ideal: 0.")
