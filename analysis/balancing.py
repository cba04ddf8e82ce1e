"""From what `balance` scored and read to tables and sentences: every family at one AUC, beside the run's merge."""

from __future__ import annotations

import numpy as np
import pandas as pd

from unlearn_core.evaluation import mia
from unlearn_core.store import Run
from unlearn_core.trials import balance

COLUMNS = ("family", "configurations", "chosen", "task_aggregate", "mia_auc", "difference", "low", "high")
FOLD_COLUMNS = ("family", "fold", "chosen", "task_aggregate", "mia_auc", "auc_low", "auc_high")
CURVE_COLUMNS = ("family", "name", "task_aggregate", "mia_auc")


def families(found: dict) -> pd.DataFrame:
    """One row per family of `Run.balance`, columns `COLUMNS`: what was chosen on each half, means over what the other
    half says, and the difference of the Task Aggregate from the run's merge with its interval."""
    rows = [{"family": row["family"], "configurations": row["configurations"],
             "chosen": "; ".join(dict.fromkeys(setting(row["family"], fold["chosen"]) for fold in row["folds"])),
             "task_aggregate": row["task_aggregate"], "mia_auc": row["mia_auc"],
             **dict(zip(("difference", "low", "high"), row["difference"] or (None,) * 3, strict=True))}
            for row in found.get("families", [])]
    numbers = [name for name in COLUMNS if name not in ("family", "chosen")]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(numbers, float))


def folds(found: dict) -> pd.DataFrame:
    """One row per family and half that was read, columns `FOLD_COLUMNS`."""
    rows = [{"family": row["family"], "fold": number, "chosen": setting(row["family"], fold["chosen"]),
             "task_aggregate": fold["test"]["task_aggregate"], "mia_auc": fold["test"]["mia_auc"],
             **dict(zip(("auc_low", "auc_high"), fold["test"]["mia_auc_interval"] or (None, None), strict=True))}
            for row in found.get("families", []) for number, fold in enumerate(row["folds"], start=1)]
    return pd.DataFrame(rows, columns=list(FOLD_COLUMNS))


def curves(run: Run) -> pd.DataFrame:
    """Every configuration on all documents, columns `CURVE_COLUMNS`, in the order of each family's knob."""
    measured = balance.measured(run)
    if measured is None:
        return pd.DataFrame(columns=list(CURVE_COLUMNS))
    known, member = ~np.isnan(measured.nll), measured.member
    aucs = [mia.auc(row[member & there], row[~member & there]) if (member & there).any() and (~member & there).any()
            else np.nan for row, there in zip(measured.nll, known, strict=True)]
    return pd.DataFrame({
        "family": measured.families, "name": measured.names, "mia_auc": aucs,
        "task_aggregate": balance.task_aggregates(balance.cell_means(measured.values, measured.cell))})


def setting(family: str, name: str) -> str:
    """A configuration's name without what its family says already."""
    return name.removeprefix(family).strip()


def describe(found: dict) -> list[str]:
    """Sentences on what was read, or on why nothing can be concluded."""
    if found.get("refused"):
        return [f"Too little to conclude anything: {found['refused']}."]
    table = families(found).set_index("family")
    own, balanced = table.loc[balance.AS_IT_IS], table.loc[balance.BALANCED]
    sentences = [f"The merge as it is: AUC {own['mia_auc']:.2f}, Task Aggregate {own['task_aggregate']:.3f}; "
                 f"target of the AUC {found['target']:.2f}.",
                 f"Balanced ({balanced['chosen']}): AUC {balanced['mia_auc']:.2f}, Task Aggregate "
                 f"{balanced['task_aggregate']:.3f}, {_against(balanced)} the merge as it is."]
    controls = table.drop(index=[balance.AS_IT_IS, balance.BALANCED]).drop(index=list(balance.MERGES), errors="ignore")
    return sentences + ([_controls(controls, balanced)] if len(controls) else [])


def _against(row: pd.Series) -> str:
    span = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    if row["low"] > 0:
        return f"better by {span} than"
    if row["high"] < 0:
        return f"worse by {span} than"
    return f"not told apart ({span}) from"


def _controls(controls: pd.DataFrame, balanced: pd.Series) -> str:
    best = controls.sort_values("task_aggregate", kind="stable").iloc[-1]
    if best["task_aggregate"] >= balanced["task_aggregate"]:
        return (f"A control without the merge does at least as well: {best.name} ({best['chosen']}) has AUC "
                f"{best['mia_auc']:.2f} and Task Aggregate {best['task_aggregate']:.3f}.")
    return (f"The best control is {best.name} ({best['chosen']}): AUC {best['mia_auc']:.2f}, Task Aggregate "
            f"{best['task_aggregate']:.3f}, {balanced['task_aggregate'] - best['task_aggregate']:.3f} lower.")
