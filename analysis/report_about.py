"""Sections of a report about itself: what each number means, what it cannot tell, and how the run came about."""

from __future__ import annotations

from collections.abc import Iterator

from analysis import attacks, evidence, evidence_html, frames, glossary, memory
from analysis.report_material import Material
from analysis.report_parts import Code, Heading, Part, Says, rows
from unlearn_core import recipe as recipes
from unlearn_core.vocabulary import METRICS

DIRECTIONS = {True: "higher is better", False: "lower is better", None: "neither end is good"}
WORDS = ("brake", "norm_ratio", "density", "sign_conflict", "balance", "attack", "two_sided_auc",
         "tpr_at_1_fpr", "extraction_strength", "logit_lens", "leak", "leak_k", "collapse", "p_zero", "verdict", "gate",
         "positive_control", "excess", "relearning", "round_to_nearest", "depth_score", "u_lira", "development_half")
SCALE = "All numbers are of this model and these documents; how large an effect is elsewhere they do not say."


def definitions(found: Material) -> Iterator[Part]:
    """What each number is, in which direction it is good, and what is ideal."""
    yield rows("scores", "The official scores.", ("Score", "What it is", "Direction", "Ideal"), (
        (metric.label, metric.help, DIRECTIONS[metric.higher_is_better],
         "the base's" if metric.ideal is None else f"{metric.ideal:g}") for metric in METRICS.values()))
    yield rows("attacks", "Attacks: an AUC of 0.5 is chance, above it members are recognised.", (
        "Attack", "By what members are told from unseen texts"), (
        (attacks.ATTACKS[key], words) for key, words in attacks.HELP.items()))
    yield rows("memory", "Memory: on forget the ideal is what texts that were never seen have.", (
        "Measure", "What it is"), ((memory.MEASURES[key], words) for key, words in memory.HELP.items()))
    entries = glossary.entries()
    yield rows("words", "Words.", ("Word", "Meaning"), ((entries[key].name, entries[key].text) for key in WORDS))


def limits(found: Material) -> Iterator[Part]:
    """What the report cannot tell."""
    yield Says(evidence.LIMITS)
    own = found.score_table
    yield Says((f"The official attack compared {frames.attack_size(own)}; MMLU: {frames.quiz_size(own)}.", SCALE))


def manifest(found: Material) -> Iterator[Part]:
    """Recipe, seed, versions, device, hashes, and what was not usual."""
    run, info = found.run, found.run.info()
    facts = {"run": run.id, "created": evidence_html.time(info["created"]), "state": run.status()["state"],
             "description": run.recipe().description, "processes": info.get("processes", 1)}
    source = (info.get("started_from") or {}).get("run")
    yield rows("run", "The run.", ("What", "Value"), (facts | ({"started from": source} if source else {})).items())
    for show in (evidence_html.artefacts, evidence_html.deviations):
        section = show(found.evidence)
        yield from (Heading(section.title), *section.parts)
    yield Code("The recipe, every setting", recipes.as_toml(run.recipe()))
