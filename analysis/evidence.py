"""The file for an auditor: what was asked, what was tested and how, the verdict with its reasons, and its limits.

    python -m analysis.evidence RUN --out DIR [--runs-dir DIR] [--personal]

writes DIR/evidence.json and DIR/evidence.html, which say the same; DIR must not exist. Names and values of people are
masked, and people numbered in the order of the run's data, unless --personal names them; their other data never stand
in it. What was not measured is said to be so.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from analysis import evidence_attacks, evidence_copies, evidence_html, gates, gates_leak, theme
from analysis.command import exit_code
from analysis.gates import Verdict
from analysis.judged import Case, Judged
from unlearn_core import recipe as recipes
from unlearn_core.data import load_saved, persons, request
from unlearn_core.data.persons import Finder
from unlearn_core.errors import InputError
from unlearn_core.files import replacing_dir, write_json
from unlearn_core.judging.gates import GATES, thresholds
from unlearn_core.settings import Recipe
from unlearn_core.store import DEFAULT_RUNS_DIR, Run, Store, now
from unlearn_core.trials import halves
from unlearn_core.vocabulary import SPLITS

SCHEMA_VERSION = 1
METHOD = ("encoding.", "lora.", "model_1.", "model_2.", "merge.", "evaluation.")  # what the paper's recipe fixes
LIMITS = (
    "The most that this file can say is that no leak was found under what was tried, with the bound that so many "
    "people and documents allow. Another question, another attack or more training may find one.",
    "An interval speaks of documents and people like these, asked like these. They are its units, since several "
    "questions about one person are not independent.",
    "Relearning overstates how robust a model is for facts that were fine-tuned in.",
    "Attacks on losses tell whether a text was among the training data; that one fails does not say that nothing of "
    "the text is left.",
    "An adapter is not erasure: to switch it off restores the model behind it. The verdict is about full weights.",
    "The run folder itself, its parents and copies still hold what was to go: see the residual copies.",
    "The engine that trained also tested. `verify` computes scores and merge again from the recorded answers and "
    "adapters; it does not ask the model again.")


def evidence(run: Run, *, personal: bool = False) -> dict:
    """Everything that is known of a run, as JSON; see the module. Keys are stable within `schema_version`."""
    case = Case(run, personal)
    return of_case(case, gates.of_case(case))


def of_case(case: Case, verdict: Verdict) -> dict:
    """`evidence` of what was read of a run and its verdict; people are named where the case is personal."""
    run, personal = case.run, case.personal
    found = {"schema_version": SCHEMA_VERSION, "made": now(), "masked": not personal, "run": _run(run),
             "verdict": _verdict(case, verdict), "scope": _scope(case), "artefacts": _artefacts(case),
             "threats": list(_threats(case, verdict)), "people": _people(case),
             "attacks": evidence_attacks.table(case) if case.model else [], "tuning": _tuning(run),
             "deviations": _deviations(run), "residual_copies": evidence_copies.table(run), "limits": list(LIMITS)}
    return _plain(found, None if personal else Cover(case))


def as_html(found: Mapping) -> str:
    """`evidence` as one page that needs nothing else."""
    return evidence_html.page(found)


def write(run: Run, out: Path, *, personal: bool = False) -> None:
    """Both files into a new folder, whole or not at all; an InputError where it exists."""
    if out.exists():
        raise InputError(f"--out {out}", got="something that exists", expected="a new folder")
    found = evidence(run, personal=personal)
    with replacing_dir(out) as folder:
        write_json(folder / "evidence.json", found)
        (folder / "evidence.html").write_text(as_html(found), encoding="utf-8")


# ---- what was tested -------------------------------------------------------------------------------------------

def _run(run: Run) -> dict:
    info, recipe = run.info(), run.recipe()
    return {"id": run.id, "title": run.meta()["title"], "created": info["created"], "state": run.status()["state"],
            "recipe": recipe.name, "description": recipe.description, "seed": recipe.seed,
            **{key: info.get(key) for key in ("command", "device", "commit", "versions")},
            "resumed": len(info.get("resumed", [])), "started_from": info.get("started_from")}


def _scope(case: Case) -> dict:
    """What was to be forgotten: documents, people and fields, and the request where one is recorded."""
    run = case.run
    if not run.data_dir.is_dir():
        return {"splits": None, "people": len(case.people) or None, "fields": None, "request": None}
    dataset = load_saved(run.data_dir)
    forget = persons.persons(dataset.forget)
    fields = persons.ordered(key for person in forget.values() for key in person.values)
    splits = {split: {"documents": len({item.document for item in getattr(dataset, split)}),
                      "items": len(getattr(dataset, split))} for split in SPLITS}
    return {"splits": splits, "people": len(forget), "fields": {
        persons.label(key): sum(key in person.values for person in forget.values()) for key in fields},
        "request": _request(run, case.personal)}


def _request(run: Run, personal: bool) -> dict | None:
    """Who asked for what, where the data set keeps that; without names only how many documents and people."""
    path = Path(run.recipe().data.path)
    asked = request.origin(path) if run.recipe().data.path and path.is_dir() else {}
    if not asked:
        return None
    return asked if personal else {key: len(value) if key in ("documents", "persons") else value
                                   for key, value in asked.items() if key != "asked_by"}


def _artefacts(case: Case) -> dict:
    run, recipe = case.run, case.run.recipe()
    return {"tested": case.model, "precision": recipe.precision,
            "decoding": f"greedy, at most {recipe.evaluation.max_new_tokens} new tokens",
            "adapters": case.keys, "base": {"source": recipe.base.source, "model": recipe.base.model,
                                            "sha256": run.base_key()},
            "brought": run.brought(), "data": run.info().get("data_hashes", {}), "lists": run.info().get("lists")}


# ---- how it was tested -----------------------------------------------------------------------------------------

def _threats(case: Case, verdict: Verdict) -> Iterator[dict]:
    """Who may try what, what was tried of it, and with how many queries (None: not counted in queries)."""
    asked = {} if case.model is None or isinstance(case.leaks, str) else gates_leak.exposed(case).queries
    greedy = len(case.run.answers(case.model)) if case.model else 0
    about = case.run.samples(case.model)[1] if case.model else {}
    drawn = (f"{about['samples']} answers to each prompt, temperature {about['temperature']:g}, top-p "
             f"{about['top_p']:g}" if about else "answers drawn at random")
    led = len(case.run.memory(case.model)) if case.model else 0
    for who, what, queries, tried in (
            ("Anybody who may ask", "the data's own prompts, answered greedily", greedy, greedy > 0),
            ("Somebody patient", drawn, asked.get(gates.DRAWN, 0), asked.get(gates.DRAWN, 0) > 0),
            ("Somebody who asks otherwise", "paraphrases and prefixes", asked.get(gates.VARIANTS, 0),
             asked.get(gates.VARIANTS, 0) > 0),
            ("Somebody who sees probabilities", "membership attacks and teacher forcing, in texts read", led, led > 0)):
        yield {"who": who, "what": what, "queries": queries, "tried": tried}
    states = {one.gate.key: one.state for one in verdict.gates}
    for key, what in (("int4", "stores the weights at 8 and 4 bits"), ("depth", "reads the layers inside"),
                      ("relearning", "trains them on a part of forget"), ("artefact", "switches an adapter off")):
        yield {"who": "Somebody who has the weights", "what": what, "queries": None,
               "tried": states[key] != gates.NOT_MEASURED}
    yield {"who": "Somebody who has the run folder, the data or the base", "what": "reads the residual copies",
           "queries": None, "tried": False}


def _people(case: Case) -> list[dict]:
    """Each person of forget: fields that can be tested and those given away, answers, and the bound of their share."""
    if case.model is None or isinstance(case.leaks, str):
        return []
    return [{"person": case.label(row["document"]), **({"document": row["document"]} if case.personal else {}),
             "testable": list(map(persons.label, row["testable"])), "leaked": list(map(persons.label, row["leaked"])),
             **{key: row[key] for key in ("answers", "giving", "upper")}} for row in gates_leak.people(case)]


# ---- the verdict and how it came about -------------------------------------------------------------------------

def _verdict(case: Case, verdict: Verdict) -> dict:
    return {"model": verdict.model, "label": theme.short_label(verdict.model or ""), "overall": verdict.overall,
            "headline": verdict.headline, "queries": verdict.queries, "attacks": list(verdict.attacks),
            "notes": list(verdict.notes), "gates": [_gate(case, one) for one in verdict.gates]}


def _gate(case: Case, one: Judged) -> dict:
    people = [case.label(document) for document in one.documents]
    return {"key": one.gate.key, "label": one.gate.label, "question": one.gate.question, "vetoes": one.gate.vetoes,
            "state": one.state, "threshold": one.threshold, "threshold_is": one.gate.help, "reason": one.reason,
            "people": people, **{key: getattr(one, key) for key in ("value", "low", "high", "n", "unit", "todo")}}


def _tuning(run: Run) -> dict:
    stored, limits, balance = run.gates(), thresholds(run), run.balance()
    return {"configurations": halves.tried(run), "merges": len(run.merges().get("rows", [])),
            "checkpoints": len(run.trajectory().get("rows", [])),
            "balance": balance.get("configurations", 0), "balance_readings": len(balance.get("readings", [])),
            "test_readings": [{key: row[key] for key in ("at", "what", "configurations")} for row in run.readings()],
            "thresholds": [{"gate": gate.label, "default": gate.threshold, "now": limits[gate.key]} for gate in GATES],
            "thresholds_locked": stored.get("locked"), "threshold_changes": stored.get("changes", [])}


def _deviations(run: Run) -> dict:
    """Settings that are not the defaults, and of the method those that are not the paper's; what else was unusual."""
    own, info = run.recipe(), run.info()
    paper = [row for row in recipes.differing(own, recipes.load("paper")) if row[0].startswith(METHOD)]
    return {"from_defaults": [_setting(row) for row in recipes.differing(own, Recipe())
                              if row[0] not in ("name", "description")],
            "from_paper": [] if run.brought() else [_setting(row) for row in paper],
            "truncated_answers": info.get("truncated_answers"), "resumed": info.get("resumed", [])}


def _setting(row: tuple) -> dict:
    return dict(zip(("setting", "here", "there"), row, strict=True))


# ---- masking ---------------------------------------------------------------------------------------------------

class Cover:
    """Masks names and values of the run's people in a text; what has the shape of a number or a mail address, too."""

    def __init__(self, case: Case):
        known = {} if isinstance(case.leaks, str) else dict(case.leaks.persons)
        if case.run.data_dir.is_dir():
            dataset = load_saved(case.run.data_dir)
            known |= persons.persons([*dataset.forget, *dataset.retain, *dataset.holdout])
        self.people, self.finder = known, Finder(known)

    def __call__(self, text: str) -> str:
        meant = {document for document, _ in self.finder.found(text)}
        return persons.mask(text, {document: self.people[document] for document in meant})


def _plain(value: object, cover: Cover | None) -> object:
    """JSON: no NaN and no numpy, and every text covered."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one, cover) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, cover) for one in value]
    if isinstance(value, str):
        return cover(value) if cover else value
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- command ---------------------------------------------------------------------------------------------------

def main(arguments: list[str] | None = None) -> int:
    """Write the evidence of a run; 0 done, 1 failed, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m analysis.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="id or folder of the run")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--personal", action="store_true", help="name people; by default they are numbered")
    parser.add_argument("--runs-dir", default=os.environ.get("LETHE_RUNS", DEFAULT_RUNS_DIR), metavar="DIR",
                        help="folder of the runs (default: $LETHE_RUNS or runs)")
    options = parser.parse_args(arguments)

    def carry_out() -> None:
        write(Store(options.runs_dir).open(options.run), options.out, personal=options.personal)
        print(f"evidence: {options.out / 'evidence.html'}")

    return exit_code(carry_out)


if __name__ == "__main__":
    sys.exit(main())
