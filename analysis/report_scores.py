"""Sections of a report on scores: the summary, the official scores, and what metrics say and miss."""

from __future__ import annotations

from collections.abc import Iterator

from analysis import (
    answers_figures,
    attacks,
    attacks_figures,
    collapse,
    figures,
    frames,
    gates,
    headlines,
    memory,
    metrics_figures,
    official,
    published,
    quiz,
    rouge_leak,
    text_modes,
    theme,
    verdicts,
)
from analysis.report_material import Material
from analysis.report_parts import Findings, Headline, Missing, Note, Part, Says, Table, chart, table
from unlearn_core import vocabulary

SCORES = {"model": "Model", "aggregate": "Aggregate", "task_aggregate": "Task Aggregate", "mia_auc": "MIA AUC",
          "mia_auc_low": "AUC low", "mia_auc_high": "AUC high", "verdict": "Forgetting", "mia_score": "MIA score",
          "mmlu": "MMLU", "mmlu_gate": "MMLU gate"}
TWELVE = {"model": "Model", "label": "Score", "value": "Value", "low": "Low", "high": "High", "chance": "Chance",
          "ideal": "Ideal", "units": "Documents or persons", "p_zero": "P(0)"}
ATTACKED = {"model": "Model", "members": "Members", "nonmembers": "Held out", "auc": "AUC", "low": "Low",
            "high": "High", "two_sided": "Two-sided AUC", "tpr_1": "Recognised at 1 % FPR", "p": "p"}
STATES = {gates.FAILED: "failed", gates.NO_LEAK: "passed"}


def summary(found: Material) -> Iterator[Part]:
    """The verdict in a sentence and all findings."""
    yield Headline(found.verdict.headline, STATES.get(found.verdict.overall, ""))
    yield Says((*found.verdict.notes, *verdicts.summary(found.score_table)))
    yield Findings(tuple(found.findings.values()))


# ---- official scores -------------------------------------------------------------------------------------------

def scores(found: Material) -> Iterator[Part]:
    """The scores of each model, the trade-off, and the twelve sub-scores, as on Overview."""
    yield found.said("knew", "over", "under")
    own = found.score_table
    if own.empty:
        yield Missing("No model of this run has been scored yet.", found.evaluation())
        return
    yield table("scores", "Aggregate = mean of Task Aggregate, MIA score and MMLU. AUC with its 95 % interval: "
                f"{frames.attack_size(own)}. MMLU: {frames.quiz_size(own)}.", own, SCORES)
    halves, size = frames.with_halves(own, found.sub_scores), frames.attack_size(own)
    yield chart("tradeoff", "Who lands on the 0.5 line, far to the right?", figures.tradeoff(halves, published.table()),
                halves, columns=SCORES,
                alt="Task Aggregate against the membership attack's AUC for each model",
                caption=f"{found.seed} MIA AUC = P(loss of a member < loss of a non-member), {size}; bars are 95 % "
                        "intervals. Task Aggregate = harmonic mean of the twelve terms: 1 − score on forget, score on "
                        "retain. Grey: published numbers of other models on other data.")
    yield chart("retention", "Who is in the upper right corner, with a grey filling?", figures.retention(halves),
                halves, columns={"model": "Model", "forget_success": "Forget success", "retention": "Retention",
                                 "mia_auc": "MIA AUC"},
                alt="Forget success against retention for each model, filled by the membership attack's AUC",
                caption=f"{found.seed} Forget success = 1 − mean of the six forget sub-scores, retention = mean of the "
                        f"six retain ones. Filling: MIA AUC, {size}. Dotted: the Pareto line.")
    yield chart("sub_scores", "What is still known on the forget side, and what was lost on the retain side?",
                figures.sub_scores(found.sub_scores), found.sub_scores,
                columns={"model": "Model", "label": "Score", "value": "Value", "low": "Low", "high": "High",
                         "ideal": "Ideal"},
                alt="Twelve sub-scores of each model, forget left and retain right",
                caption=f"{found.seed} Regurgitation = mean ROUGE-L recall of the continuations; knowledge = share of "
                        "questions answered exactly; bars are 95 % intervals where there is one.")


# ---- what metrics say and miss ---------------------------------------------------------------------------------

def metrics(found: Material) -> Iterator[Part]:
    """The scores with chance and ideal, and what they miss, as on Metrics."""
    yield found.said("missed")
    if found.score_table.empty:
        yield Missing("No model of this run has been scored yet.", found.evaluation())
        return
    yield from _twelve(found)
    yield from _attack(found)
    yield from _rouge(found)
    yield from _memory(found)
    yield from _written(found)
    yield from _knowledge(found)


def _twelve(found: Material) -> Iterator[Part]:
    own, model = found.twelve, found.model or found.score_table["model"].iloc[-1]
    yield Says(tuple(headlines.describe_links(headlines.links(own, model), model)))
    if own["value"].notna().any():
        yield chart("twelve", "What is still there on forget, what is left on retain, and is it more than chance?",
                    metrics_figures.scores(own, list(own["model"].unique())), own, columns=TWELVE,
                    alt="Twelve sub-scores of each model with intervals and chance levels, forget left and retain "
                        "right",
                    caption=f"{found.seed} Bars: 95 % intervals over documents, all of one person as one; upright "
                            "lines: a fluent text about something else, on these items; dotted: the ideal.")
    yield Says(tuple(official.gaps(own)))
    yield Table("headlines", "Value [95 % interval]. Chance: an ignorant, fluent model whose losses tell nothing, and "
                "which guesses letters. Ideal of MMLU: the base's.", found.headlines, headlines.grid(found.headlines))


def _attack(found: Material) -> Iterator[Part]:
    if found.texts.empty:
        yield Missing("Other attacks and memory were not measured: no model was led through its texts token by token.",
                      found.command("evaluate"))
        return
    models = found.led
    own = attacks.by_model(found.texts, models, attacks.Choice())
    yield Says(tuple(attacks.describe(row, theme.short_label(row["model"])) for row in own.to_dict("records")))
    yield chart("attack", "Does the attack still recognise the members?", attacks_figures.dial(own), own,
                columns=ATTACKED, alt="AUC of the attack on each model with its interval",
                caption=f"{attacks.Choice().words()}. {found.seed} One value per document. AUC: chance and ideal 0.5, "
                        "or a retrained model's; 95 % intervals. Two-sided: above 0.5 where members lie further out "
                        "on either side.")
    shipped = found.model if found.model in models else models[-1]
    every = attacks.table(found.texts, shipped)
    yield Says(tuple(f"{theme.short_label(shipped)}: {line}" for line in attacks.describe_all(every)))
    yield chart("attacks", "Does another attack, or another member set, tell another story?",
                attacks_figures.heat(every, vocabulary.DOCUMENT), every[every["kind"] == vocabulary.DOCUMENT],
                alt="AUC of five attacks on every member set against the held-out documents of the same task",
                columns={"attack": "Attack", "members_of": "Members of", "task": "Task", "members": "Members",
                         "nonmembers": "Held out", "auc": "AUC", "low": "Low", "high": "High", "p": "p"},
                caption=f"{theme.short_label(shipped)}; whole documents. {found.seed} In brackets: not told apart from "
                        "chance. On retain the ideal is to be recognised.")


def _rouge(found: Material) -> Iterator[Part]:
    rows, left_out = rouge_leak.table(found.run)
    if rows.empty:
        yield Missing("Whether the scores notice what is given away is not measured: no answers to forget items "
                      "about people with something to give away.")
        return
    own = rouge_leak.shares(rouge_leak.celled(rows))
    model = text_modes.default_model(list(own["model"]))
    yield Says(tuple(rouge_leak.describe(own, model)))
    yield chart("rouge", "Does the score notice what is given away?", answers_figures.two_by_two(own), own,
                alt="Counts of answers by score (high or low) and by whether a fact was given away, one panel per "
                    "model",
                columns={"model": "Model", **{name: name.capitalize() for name in rouge_leak.CELLS}, "n": "n",
                         "persons": "Persons", "missed": "Of low: leaked", "silent": "Of high: not leaked"},
                caption=f"n = {own['n'].max()} forget items about {own['persons'].max()} persons. {found.seed} High: "
                        f"ROUGE-L recall from {rouge_leak.THRESHOLD:g} of a continuation, exact match of a question. "
                        "Upper left and lower right disagree."
                        + "".join(f" Left out: {count} items {reason}." for reason, count in left_out.items()))


def _memory(found: Material) -> Iterator[Part]:
    if found.texts.empty:
        return
    models = found.led
    own = memory.measures(found.texts, models)
    yield Says(tuple(memory.describe(own, model) for model in models))
    yield chart("memory", "How much of the texts is still in there, even if it is not written?",
                attacks_figures.memory_dots(own), own,
                alt="Extraction strength, exact memorisation and probability of the answers per model and split",
                caption=f"Answers, led through token by token. {found.seed} 95 % intervals over documents. Holdout was "
                        "never seen: it is what chance gives. Ideal: forget as holdout, retain as the base.")
    layers = memory.depth(found.run, models)
    if len(layers):
        yield Says(tuple(memory.describe_depth(layers)))
        yield chart("lens", "At which depth does the model still know what it does not say?",
                    attacks_figures.depth_lines(layers), layers,
                    alt="Mean log-probability of the answers of forget and of holdout after each layer",
                    caption="Logit lens: the state after a layer, decoded by the model's own last norm and head. "
                            f"{found.seed} 95 % intervals over documents. Low is no proof of absence.")


def _written(found: Material) -> Iterator[Part]:
    own = found.written
    if own.empty:
        return
    models = list(own["model"].unique())
    yield Says(tuple(filter(None, (collapse.describe(own, model, "forget") for model in models))))
    split = own[own["split"] == "forget"]
    if len(split):
        yield chart("written", "What do the models write to prompts of forget?",
                    answers_figures.outcomes(split, "forget", models), split,
                    alt="Shares of answers on forget that say it, refuse, are empty, repeat themselves, or other",
                    caption=f"n = {split['n'].max()} answers about {split['units'].max()} documents or persons. "
                            f"{found.seed} Each answer counts once, for the first that fits.")


def _knowledge(found: Material) -> Iterator[Part]:
    own = quiz.table(found.run)
    yield from map(Note, quiz.lacking(own, found.run))
    if own.empty:
        return
    models = list(own["model"].unique())
    yield Says(tuple(quiz.describe(own, text_modes.default_model(models))))
    yield chart("knowledge", "Is general knowledge still there when nobody offers the answer?",
                answers_figures.knowledge(own, models), own[own["subject"] == quiz.ALL],
                alt="Share of right answers by multiple choice and by open questions, one mark per model",
                caption=f"{found.seed} Bars: exact 95 % intervals; upright lines: chance; orange: the gate, "
                        f"{vocabulary.MMLU_GATE_SHARE:g} of the base's multiple choice; ideal: the base's.")

