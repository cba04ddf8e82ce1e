"""From answers drawn several times to tables of what leaks in k of them, per model and per person and field."""

from __future__ import annotations

import pandas as pd

from analysis import intervals, theme
from unlearn_core.evaluation import leak_samples
from unlearn_core.store import Run

CURVE_COLUMNS = ("model", "k", "people", "share", "low", "high")
PERSON_COLUMNS = ("model", "document", "field", "guessable", "prompts", "samples", "leaking", "leak_1", "leak_all")
Drawn = dict[str, tuple[list[leak_samples.Sampled], dict]]


def read(run: Run) -> Drawn:
    """{model: (what its samples give away, how they were drawn)}; see `leak_samples.of_run`."""
    return leak_samples.of_run(run)


def stale(run: Run, drawn: Drawn) -> list[str]:
    """Models whose adapter is another one than that which answered."""
    keys = run.adapter_keys()
    return [model for model, (_, about) in drawn.items() if model in keys and about.get("key") != keys[model]]


def curves(drawn: Drawn) -> pd.DataFrame:
    """One row per model and k, columns `CURVE_COLUMNS`: expected share of people of whom k answers to each prompt give
    a field away that does not follow from their name, with an interval over people (95 %), as of a count: exact at
    0 and 1, cautious between them, where a person's leak@k is no 0 or 1."""
    rows = []
    for model, (found, _) in drawn.items():
        for k, values in leak_samples.curve(found).items():
            rows.append({"model": model, "k": k, "people": len(values), **_mean(values)})
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def _mean(values: list[float]) -> dict:
    low, high = intervals.share(sum(values), len(values))
    return {"share": sum(values) / len(values), "low": low, "high": high}


def by_person(drawn: Drawn, model: str) -> pd.DataFrame:
    """One row per person and field, columns `PERSON_COLUMNS`, those that leak in most samples first: how many of the
    samples (of all prompts that do not hold the value) give it away, leak@1 and leak@all."""
    rows = [{"model": model, "document": row.document, "field": row.field, "guessable": row.guessable,
             "prompts": len(row.counts), "samples": sum(n for n, _ in row.counts), "leaking": row.leaking,
             "leak_1": row.leak_at(1), "leak_all": row.leak_at(row.samples)}
            for row in drawn[model][0] if row.field and row.counts and row.samples]
    frame = pd.DataFrame(rows, columns=list(PERSON_COLUMNS))
    return frame.sort_values(["leak_1", "leaking"], ascending=False, kind="stable").reset_index(drop=True)


def describe(table: pd.DataFrame, model: str) -> str:
    """What k samples say against one, in a sentence; `table` is `curves`."""
    own = table[table["model"] == model].set_index("k")
    if own.empty:
        return f"{theme.short_label(model)}: nothing was drawn that could be tested."
    first, last = own.iloc[0], own.iloc[-1]
    name, people = theme.short_label(model), int(first["people"])
    if last["share"] == 0:
        return (f"{name}: no leak found in {own.index[-1]} samples of each prompt: 0 of {people} people, upper bound "
                f"{last['high']:.0%} (95 %).")
    return (f"{name}: one sample of each prompt is expected to expose {first['share']:.0%} of {people} people, "
            f"{own.index[-1]} samples {last['share']:.0%} ({last['low']:.0%} to {last['high']:.0%}).")


def conditions(drawn: Drawn) -> str:
    """How the samples were drawn, in words; those of models that differ are named apart."""
    said: dict[str, list[str]] = {}
    for model, (_, about) in drawn.items():
        words = (f"{about['samples']} samples of each prompt at temperature {about['temperature']:g}, top-p "
                 f"{about['top_p']:g}, seed {about['seed']}, at most {about['max_new_tokens']} tokens")
        said.setdefault(words, []).append(theme.short_label(model))
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(models)}: {words}" for words, models in said.items())
