"""Sections of a report on whether it holds: the verdict's gates, controls and probes, and the evidence in short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis import (
    attack_controls,
    controls,
    controls_figures,
    evidence_html,
    gates,
    judging,
    locked,
    probing,
    probing_figures,
    shadows,
    shadows_figures,
    weights,
)
from analysis.report_material import Material
from analysis.report_parts import Command, Heading, Headline, Missing, Part, Says, Table, chart

STATES = {gates.FAILED: "failed", gates.NO_LEAK: "passed"}
PROBES = {"relearning": "Relearning was", "quantisation": "Quantisation was", "prompts": "Other wordings were"}
TITLES = {"relearning": "Does a little training on a part bring the rest back?",
          "quantisation": "Does rounding the weights bring it back?",
          "prompts": "Does another wording bring it out?"}
FIRST = {"relearning": ("extraction_strength",), "quantisation": ("extraction_strength",),
         "prompts": ("leaking", "exact_match", "rouge_l")}  # measures to draw, the first that varies
PROBED = {"model": "Model", "setting": "Setting", "part": "Part", "measure": "Measure", "value": "Value", "low": "Low",
          "high": "High", "n": "n"}
EVIDENCE = (evidence_html.scope, evidence_html.threats, evidence_html.people, evidence_html.attacks,
            evidence_html.copies)


# ---- robustness ------------------------------------------------------------------------------------------------

def robustness(found: Material) -> Iterator[Part]:
    """Every gate with its reason, attacks beside controls, what may bring it back, as on Robustness."""
    yield from (Headline(found.verdict.headline, STATES.get(found.verdict.overall, "")), found.said("robust"))
    gate_table = judging.table(found.verdict)
    yield Table("gates", "Every gate that vetoes must pass; what was not measured is no pass.", gate_table,
                gate_table.drop(columns=["Question"]))
    todo = [line for line in judging.todo(found.verdict) if " probe " not in line]  # each probe says so itself
    if todo:
        yield Missing("Some gates have not been measured. This measures them:", "\n".join(todo))
    yield Says(tuple(locked.describe(found.run)))
    yield from _controls(found)
    for probe in TITLES:
        yield from _probe(found, probe)
    yield from _depth(found)
    yield from _shadows(found)


def _controls(found: Material) -> Iterator[Part]:
    frame = attack_controls.attack_controls(found.run)
    if frame["auc"].isna().all():
        yield Missing("Attacks have not been compared with controls: it takes members of forget and held-out documents "
                      "on the model that would be handed out.", found.evaluation())
        return
    yield Says(tuple(attack_controls.describe_all(frame)))
    yield chart("controls", "What does an attack find here, and what in a model that never saw the data?",
                controls_figures.attack_dots(frame), frame,
                columns={"attack": "Attack", "kind": "Texts", "auc": "AUC", "low": "Low", "high": "High",
                         "positive": "Base", "negative": "Never saw it", "excess": "Excess", "holm": "p by Holm",
                         "state": "The attack"},
                alt="AUC of every attack on the handed-out model, the base and a control, with intervals",
                caption=f"n = {frame['members'].max():.0f} members of forget and {frame['nonmembers'].max():.0f} held "
                        f"out at most. {found.seed} 95 % intervals over documents. Faded: not even the base is "
                        "recognised, so the attack says nothing here.")


def _probe(found: Material, probe: str) -> Iterator[Part]:
    frame = probing.table(found.run, probe)
    if frame.empty:
        yield Missing(f"{PROBES[probe]} not tried on this run.", found.command("probe", probe))
        return
    yield Says(tuple(probing.describe(found.run, probe)))
    figure = _picture(frame, probe)
    yield chart(probe, TITLES[probe], figure, frame, columns=PROBED, alt=f"{probe.capitalize()}, per model, with "
                "intervals",
                caption=f"n = {frame['n'].max():.0f} documents or people at most; "
                        f"{probing.conditions(found.run, probe)}. {found.seed} Ideal on forget: as the control.")


def _picture(frame: pd.DataFrame, probe: str) -> object:
    part = next((part for part in probing.PARTS[probe] if (frame["part"] == part).any()), "")
    own = frame[frame["part"] == part] if probe == "prompts" else frame
    measure = _first(probing.varied(own), FIRST[probe])
    if probe == "relearning":
        on = next((on for on in ("forget", "retain") if (frame["on"] == on).any()), "forget")
        return probing_figures.relearning(frame, measure, on)
    return (probing_figures.quantisation(frame, measure) if probe == "quantisation" else
            probing_figures.prompts(frame, measure, part))


def _first(known: Sequence[str], wanted: Sequence[str]) -> str:
    return next((name for name in wanted if name in known), known[0])


def _depth(found: Material) -> Iterator[Part]:
    layers = controls.depth(found.run)
    if layers.empty:
        yield Missing("The depth of forgetting was not measured.", found.command("probe", "depth"))
        return
    yield Says(tuple(controls.describe_depth(controls.depth_scores(found.run), layers)))
    measured = weights.read(found.run)
    where = None if measured is None else weights.where(measured)
    change = () if where is None else (weights.profile(where, "group"), weights.measure(where))
    yield chart("depth", "In which layers does the fact still sit, and which were changed?",
                controls_figures.depth_and_change(layers, *change), layers,
                alt="Drop of the base's log p when a layer's states are replaced, on forget and retain, and the "
                    "relative change of the weights, by layer and model",
                caption=f"n = {layers['n'].max():.0f} documents at most. {found.seed} 95 % intervals over documents. "
                        "Ideal on forget: D2 as high as D1; on retain: both at 0.")


def _shadows(found: Material) -> Iterator[Part]:
    frame = shadows.table(found.run)
    if frame.empty:
        yield Missing("No shadow models were trained for this run" + (", since they take a run that trained its models "
                      "here." if found.brought else "."), "" if found.brought else found.command(
                          "shadows", "--shadows", "8"))
        return
    yield Says(tuple(shadows.describe(found.run)))
    yield chart("shadows", "Does a document's loss betray that it was once learned?", shadows_figures.aucs(frame),
                frame, columns={"model": "Model", "setting": "Attack", "auc": "AUC", "auc_low": "Low",
                                "auc_high": "High", "members": "Members", "nonmembers": "Never seen"},
                alt="AUC of the likelihood-ratio attack with shadow models beside the plain attack and controls",
                caption=f"{found.seed} 95 % intervals over documents. Ideal: 0.5.")


# ---- evidence --------------------------------------------------------------------------------------------------

def evidence(found: Material) -> Iterator[Part]:
    """What the evidence file says of scope, threats, people, attacks and copies."""
    yield found.said("verdict")
    if not found.run.recorded():
        yield Command("This is a summary. The whole file for an auditor, also as JSON, is written by:",
                      f"python -m analysis.evidence {found.run.id} --out evidence")
    for section in (*(show(found.evidence) for show in EVIDENCE), evidence_html.tuning(found.evidence["tuning"])):
        yield from (Heading(section.title), *section.parts)
