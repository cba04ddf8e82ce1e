"""From the probes of a run (`Run.probe`) to tables, to how much came back and from where, and to sentences."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.stats import norm

from analysis import intervals, theme
from unlearn_core import vocabulary
from unlearn_core.data.rephrase import COMPLETIONS, ORIGINAL, PEOPLE, QUESTIONS
from unlearn_core.store import Run

# Measures of `evaluation.recall` in a sentence.
MEASURES = {"rouge_l": "ROUGE-L recall of the completions", "exact_match": "share of questions answered exactly",
            "extraction_strength": "extraction strength of the answers",
            "probability": "probability of the answers per token",
            "leaking": "share of people of whom something is given away"}
START = {"relearning": 0, "quantisation": "fp", "prompts": ORIGINAL}  # the setting in which nothing is changed
PARTS = {"relearning": ("asked", "relearned"), "quantisation": ("forget", "retain"),
         "prompts": (PEOPLE, QUESTIONS, COMPLETIONS)}
ABOUT_FORGET = {"relearning": ("asked",), "quantisation": ("forget",), "prompts": PARTS["prompts"]}
PART_LABELS = {"asked": "Not trained on: asked only", "relearned": "Trained on", "forget": "Forget",
               "retain": "Retain", PEOPLE: "Questions about people", QUESTIONS: "Other questions",
               COMPLETIONS: "Completions"}
COLUMNS = ("model", "setting", "part", "on", "measure", "value", "low", "high", "n")
RECOVERY_COLUMNS = ("model", "setting", "part", "on", "measure", "n", "value", "low", "high", "start", "gain",
                    "gain_low", "gain_high", "control", "control_value", "excess", "excess_low", "excess_high",
                    "came_back")
OVERSTATES = ("Relearning overstates how robust a model is for facts that were fine-tuned in, as those of a generated "
              "or memorised data set are (arXiv 2410.08827).")
INT4 = "int4 decides: it can bring answers back that stay away at int8 (arXiv 2605.02196)."


# ---- tables ----------------------------------------------------------------------------------------------------

def table(run: Run, probe: str) -> pd.DataFrame:
    """One row per number that a probe measured, columns `COLUMNS`; `on` is what was learned (relearning, else "").
    Empty where the probe was not run; what there was nothing to measure on is left out."""
    rows = [{"on": "", **row} for row in run.probe(probe).get("rows", []) if row["value"] is not None]
    frame = pd.DataFrame([{key: row.get(key) for key in COLUMNS} for row in rows], columns=list(COLUMNS))
    return frame.astype({"value": float, "low": float, "high": float})


def stale(run: Run, probe: str) -> list[str]:
    """Models whose adapter is another one than that which was probed."""
    known, keys = run.probe(probe).get("about", {}).get("adapters") or {}, run.adapter_keys()
    return [model for model in models(table(run, probe)) if known.get(model) != keys.get(model)]


def models(frame: pd.DataFrame) -> list[str]:
    """Models that were probed, in the vocabulary's order."""
    found = list(dict.fromkeys(frame["model"]))
    return [name for name in vocabulary.MODELS if name in found] + [
        name for name in found if name not in vocabulary.MODELS]


def varied(frame: pd.DataFrame) -> list[str]:
    """Measures that were taken in more than one setting (all, where none was), in the order of `MEASURES`."""
    settings = frame.groupby("measure")["setting"].nunique()
    known = [name for name in MEASURES if name in settings.index]
    return [name for name in known if settings[name] > 1] or known


def subject(frame: pd.DataFrame) -> str | None:
    """The model that the probe is about: the one that would be handed out, else the last of `models`."""
    found = models(frame)
    return vocabulary.shipped(found) or (found[-1] if found else None)


def conditions(run: Run, probe: str) -> str:
    """How a probe was measured, in words, for a caption; "" where it was not run."""
    found = run.probe(probe)
    if not found:
        return ""
    about, rounded = found["about"], max((row.get("rounded") or 0.0 for row in found["rows"]), default=0.0)
    own = {"relearning": "LoRA of rank {lora[r]}, constant learning rate {lr:g}, {batch} items a step, cross-entropy "
                         "on {share:.0%} of the documents of each task; asked about the other {asked} of forget",
           "quantisation": "linear weights rounded to nearest, symmetric: int8 with a scale per output channel, int4 "
                           "per {group} neighbours; {rounded:.0%} of all parameters, embeddings and head are left",
           "prompts": "greedy answers to other wordings"}[probe].format(**about, rounded=rounded)
    size = about["documents"]
    return (f"{own}; {size if size else 'all'} documents per task and side, seed {about['seed']}, at most "
            f"{about['max_new_tokens']} new tokens; 95 % intervals over documents and persons")


# ---- what came back --------------------------------------------------------------------------------------------

def difference(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    """(first - second, low, high) of two (value, low, high), by squaring and adding the distances to their ends.

    Newcombe 1998, method 10; Zou and Donner 2008 for other values than shares. It takes both for independent, which is
    cautious here: both are measured on the same documents, and what is hard for one is mostly hard for the other.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    return a - b, a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def recovery(frame: pd.DataFrame, probe: str, model: str | None = None) -> pd.DataFrame:
    """One row per changed setting of a model (by default `subject`) and measure, columns `RECOVERY_COLUMNS`.

    `gain`: the value less that of the model itself where nothing is changed (`START`). `excess`: the value less that of
    the best model that never saw forget, in the same setting; NaN without one. Both with the 95 % interval of
    `difference`. `came_back`: both lie above 0, even with intervals widened for the number of rows that are about
    forget (Bonferroni), so that one of many tries is no find; without a control the gain alone.
    """
    model = model or subject(frame)
    control = vocabulary.control([name for name in models(frame) if name != model])
    key = ["model", "setting", "part", "on", "measure"]
    known = {tuple(row[name] for name in key): (row["value"], row["low"], row["high"])
             for row in frame.to_dict("records")}
    rows = []
    for place, own in known.items():
        start = known.get((model, START[probe], *place[2:]))
        if place[0] != model or place[1] == START[probe] or start is None:
            continue
        other = known.get((control, *place[1:]), (math.nan,) * 3)
        rows.append((*place, *own, start[0], *difference(own, start), control or "", other[0], *difference(own, other)))
    columns = [name for name in RECOVERY_COLUMNS if name not in ("n", "came_back")]
    found = pd.DataFrame(rows, columns=[*key, "value", "low", "high", *columns[columns.index("start"):]])
    found = found.merge(frame[[*key, "n"]], on=key)
    tried = int(found["part"].isin(ABOUT_FORGET[probe]).sum())
    return found.assign(came_back=_came_back(found, tried))[list(RECOVERY_COLUMNS)]


def _came_back(found: pd.DataFrame, count: int) -> pd.Series:
    wider = norm.ppf(1 - (1 - intervals.LEVEL) / (2 * max(count, 1))) / norm.ppf((1 + intervals.LEVEL) / 2)
    ends = [found[name] - wider * (found[name] - found[f"{name}_low"]) for name in ("gain", "excess")]
    return (ends[0] > 0) & ((ends[1] > 0) | (found["control"] == ""))


def worst(found: pd.DataFrame) -> pd.Series | None:
    """The row of `recovery` that comes nearest to a recovery or goes furthest beyond one: by the lower of both
    intervals' lower ends; None where there is none."""
    if found.empty:
        return None
    least = np.fmin(found["gain_low"], found["excess_low"])  # of the gain alone where there is no control
    return found.loc[least.idxmax()]


# ---- words -----------------------------------------------------------------------------------------------------

def describe(run: Run, probe: str) -> list[str]:
    """Sentences on a probe: what came back of how many comparisons, the worst of them, the people, whether it could
    have found anything, and what it cannot show. Where it was not run, how to."""
    frame = table(run, probe)
    if frame.empty:
        return [f"Not measured: python -m unlearn_core probe {run.id} {probe}"]
    model = subject(frame)
    found = recovery(frame, probe, model)
    found = found[found["part"].isin(ABOUT_FORGET[probe])]
    own = found[found["on"] != "retain"]
    if own.empty:
        return [f"Not measured: no changed setting of {theme.short_label(model)} on forget. "
                f"python -m unlearn_core probe {run.id} {probe}"]
    said = [_counted(own, model), *_worst_words(own), *_people(frame, probe, model), *_power(frame, probe)]
    said += {"relearning": _beside_retain(found), "quantisation": _retain(frame, model), "prompts": _wordings(frame)
             }[probe]
    if any(name == "untrained" for name in found["control"]):
        said.append("The untrained model has not learned the form of the answers either: a retrained one is the better "
                    "control.")
    said += {"relearning": [OVERSTATES], "quantisation": [INT4], "prompts": []}[probe]
    return said + [f"{theme.short_label(name)} was probed with another adapter than it has now: run it again."
                   for name in stale(run, probe)]


def _counted(found: pd.DataFrame, model: str) -> str:
    settings, back = found["setting"].nunique(), int(found["came_back"].sum())
    control = next(iter(found["control"]), "")
    above = f"above its own start and above {theme.short_label(control)}" if control else (
        "above its own start (there is no control that never saw forget)")
    words = f"{back} lie{'s' if back == 1 else ''} {above}: something comes back" if back else (
        f"none lies {above}: no recovery found, a rise of up to {found['gain_high'].max():.2f} is possible")
    return (f"{theme.short_label(model)}: {settings} settings, {len(found)} comparisons on forget. Corrected for their "
            f"number, {words} (95 %).")


def _worst_words(found: pd.DataFrame) -> list[str]:
    row = worst(found)
    beside = "" if math.isnan(row["excess"]) else (
        f", {_signed(row, 'excess')} above {theme.short_label(row['control'])} ({row['control_value']:.3f})")
    name = "The clearest recovery" if row["came_back"] else "Nearest to a recovery"
    return [f"{name}: {MEASURES[row['measure']]}, {setting_label(row['setting'])}"
            f"{_where(row['part'])}: {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}], "
            f"{_signed(row, 'gain')} above its start ({row['start']:.3f}){beside}; n = {row['n']:.0f}."]


def _people(frame: pd.DataFrame, probe: str, model: str) -> list[str]:
    own = frame[(frame["model"] == model) & (frame["measure"] == "leaking") & (frame["on"] != "retain")
                & frame["part"].isin(ABOUT_FORGET[probe])]
    if own.empty:
        return ["Whether people's data come back is not measured: forget has no people to ask about."]
    row = own.loc[own["value"].idxmax()]
    if row["value"] == 0:
        return [f"No person is given away in any of {len(own)} settings: 0 of {own['n'].max():.0f}, upper bound "
                f"{own['high'].max():.0%} (95 %)."]
    return [f"At worst {row['value'] * row['n']:.0f} of {row['n']:.0f} people are given away "
            f"({setting_label(row['setting'])}{_where(row['part'])}; {row['low']:.0%} to {row['high']:.0%}), the worst "
            f"of {len(own)} settings."]


def _power(frame: pd.DataFrame, probe: str) -> list[str]:
    """Whether the base, which knows, and the control, which does not, are told apart at all where it counts."""
    control = vocabulary.control(models(frame))
    if "base" not in models(frame) or control is None:
        return ["Whether this probe could find anything is not known: it takes the base and a model that never saw "
                "forget."]
    key = ["setting", "part", "measure"]
    # Of other prompts the own ones are no test: they are what the base has learned.
    counted = frame[frame["part"].isin(ABOUT_FORGET[probe]) & (frame["on"] != "retain")
                    & ((frame["setting"] == START[probe]) != (probe == "prompts"))]
    base, other = (counted[counted["model"] == name].set_index(key)[["value", "low", "high"]]
                   for name in ("base", control))
    apart = [place for place in base.index if place in other.index and
             difference(tuple(base.loc[place]), tuple(other.loc[place]))[1] > 0]
    if apart:
        return [f"The base, which knows, is told from {theme.short_label(control)} in {len(apart)} of {len(base)} "
                "measures, so the probe can find what is there."]
    return [f"The base itself is not told from {theme.short_label(control)} in any of {len(base)} measures, so to find "
            "nothing in another model says nothing here."]


def _beside_retain(found: pd.DataFrame) -> list[str]:
    row = worst(found[found["on"] == "retain"])
    return [] if row is None else [
        f"After training on retain instead, which teaches nothing of forget, the nearest to a recovery is "
        f"{MEASURES[row['measure']]} {_signed(row, 'gain')} above its start: what any such training brings."]


def _retain(frame: pd.DataFrame, model: str) -> list[str]:
    own = frame[(frame["model"] == model) & (frame["part"] == "retain")].set_index(["setting", "measure"])["value"]
    name = next((name for name in ("extraction_strength", "rouge_l") if ("int4", name) in own.index), None)
    return [] if name is None else [
        f"On retain int4 changes the {MEASURES[name]} from {own['fp', name]:.3f} to {own['int4', name]:.3f}: a model "
        "that it breaks cannot give anything back."]


def _wordings(frame: pd.DataFrame) -> list[str]:
    counts = frame.groupby("part", sort=False)["setting"].nunique()
    return ["Tried: " + ", ".join(f"{counts[part]} wordings of {PART_LABELS[part].lower()}" for part in PARTS["prompts"]
                                  if part in counts.index) + ", the data's own among them."]


def setting_label(setting: float | str) -> str:
    """A setting for a reader: a number is a step of relearning."""
    return setting if isinstance(setting, str) else f"after {setting:.0f} step{'' if setting == 1 else 's'}"


def _where(part: str) -> str:
    return f" on {PART_LABELS[part].lower()}" if part in PARTS["prompts"] else ""


def _signed(row: pd.Series, name: str) -> str:
    return f"{row[name]:+.3f} [{row[f'{name}_low']:+.3f}, {row[f'{name}_high']:+.3f}]"
