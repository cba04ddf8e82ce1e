"""From the probe "shadows" (U-LiRA) to tables and sentences: what it recognises, beside plain attack and controls."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from analysis import theme
from unlearn_core.store import Run

PROBE = "shadows"
SETTINGS = {"u-lira": "U-LiRA", "loss": "Plain loss", "shuffled": "U-LiRA, shadows shuffled"}
MEASURES = ("auc", "tpr_1", "tpr_5")
COLUMNS = ("model", "setting", *(f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high")),
           "members", "nonmembers")
DOCUMENT_COLUMNS = ("document", "task", "member", "score", "statistic", "seen", "unseen", "above", "trace")
SUBJECT = "merged"
RATES = {"tpr_1": 0.01, "tpr_5": 0.05}


def table(run: Run) -> pd.DataFrame:
    """One row per model and attack, columns `COLUMNS`: AUC and the shares of members recognised at 1 % and 5 % false
    positives with their 95 % intervals (of "shuffled": mean and 95 % of the shuffles). Empty where it was not run."""
    found: dict[tuple[str, str], dict] = {}
    for row in run.probe(PROBE).get("rows", []):
        own = found.setdefault((row["model"], row["setting"]), {})
        own |= {f"{row['measure']}{end}": row[key] for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}
        own |= {key: row.get(key) for key in ("members", "nonmembers")}
    frame = pd.DataFrame([{"model": model, "setting": setting, **own} for (model, setting), own in found.items()],
                         columns=list(COLUMNS))
    return frame.astype({name: float for name in COLUMNS[2:]})


def documents(run: Run, model: str = SUBJECT) -> pd.DataFrame:
    """One row per document of a model, columns `DOCUMENT_COLUMNS`, the likeliest members first.

    score: log likelihood ratio, above 0 more like a document that was unlearned than like one never seen; statistic,
    seen, unseen: mean log p per token in this model, and its means over the shadows. above: statistic less unseen;
    trace: seen less unseen, what unlearning leaves of a document. Empty where it was not run.
    """
    rows = [one for row in run.probe(PROBE).get("rows", []) if row["model"] == model
            for one in row.get("documents", [])]
    frame = pd.DataFrame(rows, columns=list(DOCUMENT_COLUMNS[:-2]))
    frame = frame.assign(above=frame["statistic"] - frame["unseen"], trace=frame["seen"] - frame["unseen"])
    return frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)


# ---- words -----------------------------------------------------------------------------------------------------

def describe(run: Run, model: str = SUBJECT) -> list[str]:
    """Sentences: what the attack recognises in a model, what the plain one does, whether it could have found anything,
    and what it cannot show."""
    frame, about = table(run).set_index(["model", "setting"]), run.probe(PROBE).get("about", {})
    if (model, "u-lira") not in frame.index:
        return [f"Not measured: python -m unlearn_core shadows {run.id} (each shadow takes as long as a training)."]
    own = frame.loc[(model, "u-lira")]
    if math.isnan(own["auc"]):
        return ["Not measured: forget and holdout have no documents with a number in all models."]
    said = [_found(own, model, about), _recognised(own), _beside(frame, model), _power(frame, model),
            f"Each shadow forgets {about['forget']['shadow']:.0f} documents, the run {about['forget']['run']}. The "
            "attacker knows the recipe, all other data and the run's first random weights. Of "
            f"{about['shadows']} shadows half saw a document, so its two means rest on {about['shadows'] // 2} numbers "
            "each; with more shadows the attack becomes stronger, and with one run it says nothing of other seeds."]
    keys = run.adapter_keys()
    if any(about["adapters"].get(name) != key for name, key in keys.items()):
        said.append("The run's adapters have changed since: measure again.")
    return said


def _found(own: Mapping, model: str, about: Mapping) -> str:
    name, span = theme.short_label(model), _span(own, "auc")
    which = f"U-LiRA with {about['shadows']} shadow models ({about['variance']} variance)"
    n = f"{own['members']:.0f} forgotten documents, {own['nonmembers']:.0f} never seen"
    if own["auc_low"] > 0.5:
        return f"{name}: {which} tells forgotten documents from unseen ones: AUC {span} (chance 0.5; {n})."
    if own["auc_high"] < 0.5:
        return (f"{name}: {which} takes forgotten documents for less seen than unseen ones, AUC {span} ({n}): the "
                "shadows were not unlearned like this run, and nothing can be concluded.")
    return f"{name}: no trace found under {which}: AUC {span}, up to {own['auc_high']:.2f} is possible ({n})."


def _recognised(own: Mapping) -> str:
    known = [f"{own[key]:.0%} [{own[f'{key}_low']:.0%}, {own[f'{key}_high']:.0%}] of them are recognised at {rate:.0%} "
             "false positives" for key, rate in RATES.items() if not math.isnan(own[key])]
    few = [f"at {rate:.0%} (it takes {1 / rate:.0f} unseen documents)" for key, rate in RATES.items()
           if math.isnan(own[key])]
    text = "; ".join(known + ([f"not measured {' and '.join(few)}"] if few else []))
    return f"{text[:1].upper()}{text[1:]}."


def _beside(frame: pd.DataFrame, model: str) -> str:
    return f"The plain loss attack on the same documents: AUC {_span(frame.loc[(model, 'loss')], 'auc')}."


def _power(frame: pd.DataFrame, model: str) -> str:
    """Both controls: the base, which knows the documents, and shadows of which nothing is known."""
    base, shuffled = frame.loc[("base", "u-lira")], frame.loc[(model, "shuffled")]
    could = ("it finds the documents in the base" if base["auc_low"] > 0.5 else
             "it does not even find the documents in the base, so a result near 0.5 proves nothing")
    return (f"Controls: {could}, AUC {_span(base, 'auc')}; where it is drawn which shadow saw what, its mean is "
            f"{shuffled['auc']:.2f}, 95 % of the draws between {shuffled['auc_low']:.2f} and "
            f"{shuffled['auc_high']:.2f}.")


def _span(row: Mapping, key: str) -> str:
    return f"{row[key]:.2f} [{row[f'{key}_low']:.2f}, {row[f'{key}_high']:.2f}]"
