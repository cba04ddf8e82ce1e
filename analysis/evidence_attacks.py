"""Each attack on a run's model beside its positive control, the base, and its negative one, which never saw forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from analysis import attacks, leaks, leaks_sampled, memory, probing
from analysis.attacks import Choice
from analysis.judged import Case
from unlearn_core.vocabulary import DOCUMENT, never_saw

SIDES = ("base", "control", "tested")
Found = dict[str, dict]  # model -> value, low, high, n


def table(case: Case) -> list[dict]:
    """One row per attack and number: attack, number, n, control (the model's name or None), and for the base, the
    control and the tested model value, low and high (95 %), None where it was not measured; finds: whether the attack
    tells the base from the control by intervals, None where one of them is missing."""
    models = list(case.run.models())
    control = next(iter(never_saw(models)), None)
    named = {"base": "base", "control": control, "tested": case.model}
    return [_row(attack, number, found, named) for attack, number, found in _measured(case, models)
            if case.model in found]


def _row(attack: str, number: str, found: Found, named: dict[str, str | None]) -> dict:
    sides = {side: found.get(model or "") for side, model in named.items()}
    ends = {side: {key: (own or {}).get(key) for key in ("value", "low", "high")} for side, own in sides.items()}
    base, control = ends["base"], ends["control"]
    known = None not in (base["low"], base["high"], control["low"], control["high"])
    return {"attack": attack, "number": number, "n": found[named["tested"]]["n"], "control_model": named["control"],
            **ends, "finds": base["low"] > control["high"] or base["high"] < control["low"] if known else None}


def _measured(case: Case, models: Sequence[str]) -> Iterator[tuple[str, str, Found]]:
    yield "Official attack (loss of whole documents)", "AUC", _official(case)
    for name in attacks.ATTACKS:
        yield (f"{attacks.ATTACKS[name]} attack (whole documents)", "AUC",
               _frame(attacks.by_model(case.texts, models, Choice(name, "forget", DOCUMENT)), "auc",
                      lambda row: row["members"] + row["nonmembers"]))
    found = memory.measures(case.texts, models)
    yield "Led through forget's answers", "extraction strength", _frame(
        found[(found["split"] == "forget") & (found["measure"] == "extraction_strength")], "value",
        lambda row: row["documents"])
    if not isinstance(case.leaks, str):
        yield "Asked greedily about people", "share given away", _frame(leaks.summary(case.leaks), "share",
                                                                       lambda row: row["people"])
        yield from _sampled(case)
    for probe in probing.START:
        yield from _probed(case, probe)


def _official(case: Case) -> Found:
    spans = {model: case.intervals.get(model, {}).get("mia_auc", (None, None)) for model in case.scores}
    return {model: {"value": scores["mia_auc"], "low": spans[model][0], "high": spans[model][1],
                    "n": len(case.run.documents(model))}
            for model, scores in case.scores.items() if "mia_auc" in scores}


def _frame(rows: pd.DataFrame, value: str, n: Callable[[dict], float]) -> Found:
    return {row["model"]: {"value": row[value], "low": row["low"], "high": row["high"], "n": int(n(row))}
            for row in rows.to_dict("records") if not pd.isna(row[value])}


def _sampled(case: Case) -> Iterator[tuple[str, str, Found]]:
    if not any(case.run.samples(model)[1] for model in case.run.models()) or not case.run.data_dir.is_dir():
        return
    drawn = leaks_sampled.read(case.run)
    fresh = {model: own for model, own in drawn.items() if model not in leaks_sampled.stale(case.run, drawn)}
    curves = leaks_sampled.curves(fresh)
    if len(curves):
        last = curves[curves["k"] == curves["k"].max()]
        yield (f"Asked {last['k'].iloc[0]} times about people, at random", "expected share given away",
               _frame(last, "share", lambda row: row["people"]))


def _probed(case: Case, probe: str) -> Iterator[tuple[str, str, Found]]:
    """The last setting of a probe, of the other prompts the worst, by each measure on forget."""
    frame = probing.table(case.run, probe)
    frame = frame[frame["part"].isin(probing.ABOUT_FORGET[probe]) & (frame["on"] != "retain")
                  & (frame["setting"] != probing.START[probe])]
    if frame.empty or not case.is_current(case.run.probe(probe)["about"], case.model or ""):
        return
    for (part, measure), own in frame.groupby(["part", "measure"], sort=False):
        tested = own[own["model"] == case.model]
        if tested.empty:
            continue
        setting = tested.loc[tested["value"].idxmax() if probe == "prompts" else tested.index[-1], "setting"]
        where = f", {probing.PART_LABELS[part].lower()}" if probe == "prompts" else ""
        yield (f"{probe.capitalize()}, {probing.setting_label(setting)}{where}", probing.MEASURES[measure],
               _frame(own[own["setting"] == setting], "value", lambda row: row["n"]))
