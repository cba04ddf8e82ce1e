"""What one attack does to a run's models at every threshold and at a chosen one: ROC, densities, counts, documents."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.attacks import Sides

CURVE_COLUMNS = ("model", "fpr", "tpr")
BIN_COLUMNS = ("model", "side", "low", "high", "share")
BINS = 40
STRATEGIES = {"attack": "Best on each model", "correct": "Most documents right", "base": "Best on the base",
              "custom": "Custom"}
COUNT_COLUMNS = ("model", "threshold", "recognised", "hidden", "false_alarms", "told_right")


# ---- curves ----------------------------------------------------------------------------------------------------

def roc(found: Sides) -> pd.DataFrame:
    """Share of members recognised (tpr) over the share of non-members taken for members (fpr), from 0, 0 to 1, 1."""
    losses = np.concatenate([found.members.to_numpy(), found.nonmembers.to_numpy()])
    order = np.argsort(losses, kind="stable")
    is_member = np.arange(len(losses)) < len(found.members)
    last = np.append(np.diff(losses[order]) != 0, True)  # texts of one loss are told apart by no threshold
    tpr = np.cumsum(is_member[order])[last] / len(found.members)
    fpr = np.cumsum(~is_member[order])[last] / len(found.nonmembers)
    return pd.DataFrame({"fpr": np.append(0.0, fpr), "tpr": np.append(0.0, tpr)})


def bins(found: dict[str, Sides], count: int = BINS) -> pd.DataFrame:
    """Share of the members and of the non-members of each model per bin of the score, columns `BIN_COLUMNS`; all
    models have the same bins."""
    known = {model: both for model, both in found.items() if not both.missing}
    if not known:
        return pd.DataFrame(columns=list(BIN_COLUMNS))
    edges = np.histogram_bin_edges(np.concatenate([np.append(both.members, both.nonmembers)
                                                   for both in known.values()]), count)
    return pd.DataFrame([
        {"model": model, "side": side, "low": low, "high": high, "share": share}
        for model, both in known.items() for side, values in (("members", both.members), ("holdout", both.nonmembers))
        for low, high, share in zip(edges[:-1], edges[1:], np.histogram(values, edges)[0] / len(values), strict=True)
    ], columns=list(BIN_COLUMNS))


# ---- a threshold -----------------------------------------------------------------------------------------------

def chosen(found: dict[str, Sides], strategy: str, custom: float = 0.0) -> dict[str, float]:
    """The score of each model below which a document is called a member, for models with both sides.

    "attack": the largest recognised share less false alarms; "correct": the most documents told right, whatever their
    side; "base": the attack's best on the base for all models, since one attacker may know only that; "custom".
    """
    known = {model: both for model, both in found.items() if not both.missing}
    if strategy == "custom" or (strategy == "base" and "base" not in known):
        return dict.fromkeys(known, custom)
    if strategy == "base":
        return dict.fromkeys(known, _best(known["base"], weighted=False))
    return {model: _best(both, weighted=strategy == "correct") for model, both in known.items()}


def _best(found: Sides, weighted: bool) -> float:
    """The best cut between two neighbouring scores; `weighted`: every document counts the same, not every side."""
    members, nonmembers = found.members.to_numpy(), found.nonmembers.to_numpy()
    scores = np.unique(np.concatenate([members, nonmembers]))
    cuts = np.concatenate([[scores[0]], (scores[:-1] + scores[1:]) / 2, [np.nextafter(scores[-1], np.inf)]])
    hits, alarms = np.searchsorted(np.sort(members), cuts), np.searchsorted(np.sort(nonmembers), cuts)
    gain = hits - alarms if weighted else hits / len(members) - alarms / len(nonmembers)
    return float(cuts[np.argmax(gain)])


def counts(found: dict[str, Sides], cuts: dict[str, float]) -> pd.DataFrame:
    """Members recognised and hidden, held-out documents falsely called members and told right, per model, columns
    `COUNT_COLUMNS`."""
    rows = []
    for model, cut in cuts.items():
        hit, false = int((found[model].members < cut).sum()), int((found[model].nonmembers < cut).sum())
        rows.append({"model": model, "threshold": cut, "recognised": hit, "hidden": len(found[model].members) - hit,
                     "false_alarms": false, "told_right": len(found[model].nonmembers) - false})
    return pd.DataFrame(rows, columns=list(COUNT_COLUMNS))


def called(found: Sides, threshold: float) -> pd.DataFrame:
    """Each document with its score: columns document, member, score, called ("member" or "unseen"), right; the most
    confident first."""
    frame = pd.concat([pd.DataFrame({"document": side.index, "member": member, "score": side.to_numpy()})
                       for side, member in ((found.members, True), (found.nonmembers, False))], ignore_index=True)
    frame["called"] = np.where(frame["score"] < threshold, "member", "unseen")
    frame["right"] = (frame["called"] == "member") == frame["member"]
    return frame.sort_values("score", kind="stable", ignore_index=True)
