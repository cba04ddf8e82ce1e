"""Numbers that others published, shown as marks beside one's own runs: other models, other data, other test sets."""

from __future__ import annotations

import pandas as pd

COLUMNS = ("system", "model", "setting", "aggregate", "task_aggregate", "mia_score", "mia_auc", "mmlu", "verdict")

# Table 1 of "Unlearning via Model Merging" (arXiv 2503.21088); the online rows are the 7B leaderboard of
# SemEval-2025 Task 4, which gives the MIA score and not the AUC behind it.
_TABLE_1 = (
    ("AILS-NTUA", "", "online, 7B", 0.706, 0.827, 0.847, None, 0.443, None),
    ("YNU", "", "online, 7B", 0.470, 0.834, 0.139, None, 0.436, None),
    ("Mr.Snuffleupagus", "", "online, 7B", 0.376, 0.387, 0.256, None, 0.485, None),
    ("ZJUKLAB", "merged", "online, 7B", 0.487, 0.944, 0.048, None, 0.471, None),
    ("Paper, model 1", "model_1", "local, 7B", 0.481, 0.968, 0.045, 0.022, 0.431, "over-forgetting"),
    ("Paper, model 2", "model_2", "local, 7B", 0.504, 0.659, 0.364, 0.818, 0.491, "under-forgetting"),
    ("Paper, merged", "merged", "local, 7B", 0.806, 0.939, 0.997, 0.501, 0.480, "balanced"),
)


def table() -> pd.DataFrame:
    """One row per published system, columns as in `COLUMNS`; `verdict` is the paper's own word,
    and `model` the one of our names that it corresponds to, or "".

    A missing `mia_auc` was not published: the MIA score fits two of them, 0.5 +- (1 - score) / 2.
    """
    frame = pd.DataFrame(list(_TABLE_1), columns=list(COLUMNS))
    return frame.astype({"mia_auc": float, "verdict": object})


# Table 2 of the same paper: Aggregate of each way of merging; of the others, densities and weights are not given.
_TABLE_2 = (("Linear", 0.244), ("DARE-Linear", 0.440), ("DARE-TIES", 0.561), ("Magnitude Prune", 0.558),
            ("TIES", 0.806))


def merging_table() -> pd.DataFrame:
    """One row per way of merging, columns method and aggregate."""
    return pd.DataFrame(list(_TABLE_2), columns=["method", "aggregate"])
