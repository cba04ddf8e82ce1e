"""Findings on what a run's model still answers of forget, and on what the official scores do not show. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from analysis import attacks, collapse, memory, quiz, rouge_leak
from analysis.attacks import ATTACKS
from analysis.findings_parts import CELLS, Facts, Finding, commands, label, missing, said, spans
from analysis.judged import FAILED
from unlearn_core.evaluation import score
from unlearn_core.vocabulary import DOCUMENT

KINDS = {kind: [key for key in CELLS["forget"] if key.split("_")[1] == kind] for kind in ("regurgitation", "knowledge")}
STILL = {"regurgitation": "continues forget with ROUGE-L", "knowledge": "answers its questions with"}
ENDS = {"refuses": (collapse.REFUSES, "decline"), "silent": (collapse.EMPTY, "are empty")}  # else they are broken


# ---- what is still given ---------------------------------------------------------------------------------------

def given(facts: Facts) -> Finding:
    """Regurgitation, knowledge and people given away, with bounds, beside the base."""
    if facts.model is None:
        return missing("forgotten", "no model that would be handed out was scored", facts.evaluation())
    parts, numbers = [], {}
    for kind, words in STILL.items():
        own, base = (facts.mean(model, KINDS[kind]) for model in (facts.model, "base"))
        if own is not None:
            parts.append(f"{words} {own}" + ("" if base is None else f" (base {base.value:.2f})"))
            numbers |= spans({kind: own, f"base_{kind}": base})
    people, more = _people(facts)
    todo = commands([*([facts.evaluation()] if len(parts) < len(STILL) else []), facts.verdict.gate("leak").todo])
    if not numbers | more:
        return missing("forgotten", "neither its answers on forget nor answers about people are scored", todo)
    first = f"{label(facts.model)} {' and '.join(parts)}." if parts else "Its answers on forget are not all scored."
    return said("forgotten", f"{first} {people}", numbers | more, todo)


def _people(facts: Facts) -> tuple[str, dict[str, float]]:
    """Whom the gate on leaks counts, in answers of every kind that was recorded."""
    people = facts.verdict.gate("leak")
    if people.value is None:
        return "Whether it gives people away is not measured.", {}
    numbers = {"given_away": people.value, "people": people.n, "share_high": people.high}
    if not people.value:
        return (f"No leak found for {people.n} people; up to {people.high:.0%} could be given away all the same "
                "(95 %).", numbers)
    return (f"{people.value:.0f} of {people.n} people {'is' if people.value == 1 else 'are'} given away "
            f"({people.low:.0%} to {people.high:.0%}, 95 %).", numbers | {"share_low": people.low})


# ---- what the official scores miss -----------------------------------------------------------------------------

class Look(NamedTuple):
    """One further look: what it looks at, what it finds ("" for nothing) with its numbers; None: not measured."""

    name: str
    words: str | None
    numbers: dict[str, float]


def missed(facts: Facts) -> Finding:
    """What further attacks, memory, depth, open questions, broken answers and single facts show beside the scores."""
    if facts.model is None:
        return missing("missed", "no model that would be handed out was scored", facts.evaluation())
    looks = list(_looks(facts))
    known, found = ([look for look in looks if look.words is not None], [look for look in looks if look.words])
    lacking = [look.name for look in looks if look.words is None]
    if not known:
        return missing("missed", f"none of {', '.join(lacking)}", facts.evaluation())
    numbers = {"looks": len(known), "found": len(found)}
    for look in found:
        numbers |= look.numbers
    text = (f"The official scores miss {len(found)} of {len(known)} things looked at: "
            f"{'; '.join(look.words for look in found)}." if found else
            f"Nothing was found that the official scores miss, in {len(known)} looks: "
            f"{', '.join(look.name for look in known)}.")
    return said("missed", text + (f" Not measured: {', '.join(lacking)}." if lacking else ""), numbers,
                facts.evaluation() if lacking else "")


def _looks(facts: Facts) -> Iterator[Look]:
    yield other_attacks(facts)
    yield _memory(facts)
    yield depth(facts)
    yield _open(facts)
    yield _broken(facts)
    yield _single_facts(facts)


def other_attacks(facts: Facts) -> Look:
    """The strongest of the other scores on whole documents, where the official one alone tells nothing."""
    name, table = "other attacks", attacks.table(facts.texts, facts.model)
    own = whole_documents(table)
    if own.empty:
        return Look(name, None, {})
    official = own[own["attack"] == "nll"]
    others = own[(own["attack"] != "nll") & attacks.told_apart(table)[own.index]]
    best = attacks.best_attack(others)
    if official.empty or attacks.direction(official.iloc[0]) != "not told apart from chance" or best is None:
        return Look(name, "", {})
    first = official.iloc[0]["auc"]
    return Look(name, f"{ATTACKS[best['attack']]} has AUC {best['auc']:.2f}, the official attack {first:.2f}",
                {"attack_auc": best["auc"], "official_auc": first})


def whole_documents(table: pd.DataFrame) -> pd.DataFrame:
    """The attacks on forget's whole documents, all tasks together, that were measured. `table`: `attacks.table`."""
    return table[(table["kind"] == DOCUMENT) & (table["task"] == "") & (table["members_of"] == "forget")
                 & (table["why"] == "")]


def _memory(facts: Facts) -> Look:
    """Extraction strength by the gate on memory, where neither the AUC nor a forget score tells that much is left."""
    name, found = "memory", facts.verdict.gate("memory")
    if found.value is None:
        return Look(name, None, {})
    auc = facts.score(facts.model, "mia_auc")
    told = (auc is not None and auc.low > 0.5) or facts.apart(facts.model, facts.control or "", CELLS["forget"])
    hidden = found.state == FAILED and not told
    return Look(name, f"extraction strength {found.value:.2f} above that on unseen text" if hidden else "",
                {"strength": found.value})


def depth(facts: Facts) -> Look:
    """An inner layer that holds forget's answers."""
    name, found = "depth", memory.depth(facts.run, [facts.model])
    if found.empty:
        return Look(name, None, {})
    layer, last = memory.inside(found, facts.model), int(found["layer"].max())
    words = "" if layer is None else f"layer {layer} of {last} still holds the answers"
    return Look(name, words, {} if layer is None else {"layer": layer, "layers": last})


def _open(facts: Facts) -> Look:
    """Open questions that would fail the gate which multiple choice passes."""
    name, table = "open questions", quiz.table(facts.run)
    rows = table[table["subject"] == quiz.ALL].set_index(["model", "measure"])
    wanted = [(model, measure) for model in (facts.model, "base") for measure in (quiz.CHOICE, quiz.CONTAINED)]
    if not all(place in rows.index for place in wanted):
        return Look(name, None, {})
    choice, opened, base_choice, base_opened = (rows.loc[place] for place in wanted)
    hidden = (score.passes_gate(choice["share"], base_choice["share"]) and opened["high"] < base_opened["low"]
              and not score.passes_gate(opened["share"], base_opened["share"]))
    words = f"open questions {opened['share']:.2f}, multiple choice {choice['share']:.2f}" if hidden else ""
    return Look(name, words, {"open": opened["share"], "choice": choice["share"]})


def _broken(facts: Facts) -> Look:
    """Answers on forget that are damage or silence, which the forget scores reward."""
    name, state = "broken answers", collapse.verdict(facts.written, facts.model, "forget")
    if state is None:
        return Look(name, None, {})
    if state in ("sound", "undecided"):
        return Look(name, "", {})
    outcome, words = ENDS.get(state, (collapse.BROKEN, "are broken"))
    rows = facts.written[(facts.written["model"] == facts.model) & (facts.written["split"] == "forget")]
    share = rows.set_index("outcome").loc[outcome, "share"]
    return Look(name, f"{share:.0%} of its answers on forget {words}", {"broken": share})


def _single_facts(facts: Facts) -> Look:
    """Answers about people that score low and give a fact away all the same."""
    name, (found, _) = "facts in low-scored answers", rouge_leak.table(facts.run)
    if not (found["model"] == facts.model).any():
        return Look(name, None, {})
    row = rouge_leak.shares(rouge_leak.celled(found)).set_index("model").loc[facts.model]
    count, low = row[rouge_leak.MISSED], row[rouge_leak.MISSED] + row[rouge_leak.NEITHER]
    return Look(name, f"{count} of {low} low-scored answers give a fact away" if count else "",
                {"told": count, "low_scored": low})
