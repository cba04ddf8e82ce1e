"""Attacks from scores made by hand: against scikit-learn and naive forms, per document, and told in words."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from analysis import attacks, attacks_figures, thresholds
from analysis.attacks import Choice, Sides
from unlearn_core.evaluation import mia


def both(members, nonmembers):
    return Sides(pd.Series(members, [f"m{n}" for n in range(len(members))], float),
                 pd.Series(nonmembers, [f"n{n}" for n in range(len(nonmembers))], float))


def drawn(seed, members=60, nonmembers=50, shift=0.0):
    chance = np.random.default_rng(seed)
    return both(chance.normal(-shift, 1, members), chance.normal(0, 1, nonmembers))


def with_labels(found):
    losses = np.concatenate([found.members, found.nonmembers])
    return [1] * len(found.members) + [0] * len(found.nonmembers), losses


def rows(model, split, values, kind="document", task="Task1", per_document=1):
    """Texts of one model, `per_document` in each document, whose every score is the value."""
    return [{"model": model, "id": f"{split}{n}", "document": f"{split}{n // per_document}", "split": split,
             "task": task, "kind": kind, **dict.fromkeys(attacks.TEXT_COLUMNS[6:], value)}
            for n, value in enumerate(values)]


def frame(*parts):
    return pd.DataFrame([row for part in parts for row in part], columns=list(attacks.TEXT_COLUMNS))


# ---- one number

@pytest.mark.parametrize(("seed", "rate"), list(itertools.product(range(4), (0.05, 0.1, 0.5))))
def test_the_rate_at_few_false_alarms_is_the_best_point_of_sklearns_roc(seed, rate):
    found = drawn(seed, shift=1)
    fpr, tpr, _ = roc_curve(*with_labels(found)[:1], -with_labels(found)[1], drop_intermediate=False)
    assert mia.true_positive_rate(*(side.to_numpy() for side in (found.members, found.nonmembers)), rate) == \
        pytest.approx(tpr[fpr <= rate].max())


def test_a_rate_that_so_few_held_out_texts_cannot_show_is_not_measured():
    assert mia.true_positive_rate([0.1] * 9, np.arange(99) + 1, 0.01) is None
    assert mia.true_positive_rate([0.1] * 9, np.arange(100) + 1, 0.01) == 1.0
    assert mia.true_positive_rate([1.0] * 9, np.arange(100) + 1, 0.01) == 1.0  # below the second: one false alarm
    assert mia.true_positive_rate([2.0] * 9, np.arange(100) + 1, 0.01) == 0.0


@pytest.mark.parametrize("size", [2, 3, 8, 9])
def test_each_non_member_is_measured_from_the_median_of_the_others(size):
    values = np.random.default_rng(size).integers(0, 5, size).astype(float)  # with ties
    _, found = mia.two_sided([0.0], values)
    expected = [-abs(value - np.median(np.delete(values, place))) for place, value in enumerate(values)]
    assert found == pytest.approx(expected)


def test_half_over_and_half_under_forgotten_is_not_balanced():
    # Half of the members are far below all unseen texts, half far above: AUC 0.5, and yet nothing is forgotten.
    chance = np.random.default_rng(0)
    found = attacks.measure(both(np.concatenate([chance.normal(-4, 0.5, 40), chance.normal(4, 0.5, 40)]),
                                 chance.normal(0, 1, 60)))
    assert found["low"] < 0.5 < found["high"]
    assert found["two_sided_low"] > 0.9
    assert "others over-forgotten" in attacks.describe({**found, "members": 80, "nonmembers": 60}, "Merged")
    assert found["tpr_5"] + found["over_5"] > 0.9


def test_shuffled_labels_give_chance_within_the_interval_in_95_of_100_tries():
    inside = {"auc": 0, "two_sided": 0}
    for seed in range(200):
        found = attacks.measure(drawn(seed, 40, 40))
        inside["auc"] += found["low"] <= 0.5 <= found["high"]
        inside["two_sided"] += found["two_sided_low"] <= 0.5 <= found["two_sided_high"]
    # 95 % of 200 is 190; a share of 0.9 is 3.2 standard errors below that
    assert inside["auc"] >= 180
    assert inside["two_sided"] >= 180


def test_the_curve_and_its_area_are_sklearns():
    for seed in range(3):
        found = drawn(seed, shift=0.7)
        curve = thresholds.roc(found)
        fpr, tpr, _ = roc_curve(with_labels(found)[0], -with_labels(found)[1], drop_intermediate=False)
        assert curve["fpr"].to_numpy() == pytest.approx(fpr)
        assert curve["tpr"].to_numpy() == pytest.approx(tpr)
        assert attacks.measure(found)["auc"] == pytest.approx(roc_auc_score(with_labels(found)[0],
                                                                            -with_labels(found)[1]))


def test_texts_of_one_loss_are_one_step_of_the_curve():
    curve = thresholds.roc(both([1, 1, 2], [1, 3]))
    assert list(zip(curve["fpr"], curve["tpr"], strict=True)) == [(0, 0), (0.5, pytest.approx(2 / 3)), (0.5, 1), (1, 1)]


# ---- member sets

def test_the_answers_of_a_document_count_as_one():
    # members: documents {1, 3} and {5}, means 2 and 5; non-members 4 and 6: of 4 pairs 2 < 4, 2 < 6 and 5 < 6 hold
    table = frame(rows("merged", "forget", [1, 3, 5, 5], "qa", per_document=2), rows("merged", "holdout", [4, 6], "qa"))
    found = attacks.sides(table, "merged", Choice(kind="qa"))
    assert (found.members.tolist(), found.nonmembers.tolist()) == ([2, 5], [4, 6])
    assert attacks.measure(found)["auc"] == 0.75


def test_a_task_is_held_against_the_held_out_documents_of_that_task():
    table = frame(rows("merged", "forget", [1, 2], task="Task1"), rows("merged", "holdout", [3, 4], task="Task1"),
                  rows("merged", "holdout", [5], task="Task2"))
    assert len(attacks.sides(table, "merged", Choice(task="Task1")).nonmembers) == 2
    assert len(attacks.sides(table, "merged", Choice()).nonmembers) == 3


@pytest.mark.parametrize(("members", "nonmembers", "why"), [
    ([], [1, 2], "no members"), ([1, 2], [], "no held-out"), ([1], [2], "a single held-out"),
    ([np.nan, np.nan], [1, 2], "no members")])
def test_what_cannot_be_attacked_says_why_and_spoils_nothing(members, nonmembers, why):
    table = frame(rows("merged", "forget", members), rows("merged", "holdout", nonmembers),
                  rows("base", "forget", [1, 2]), rows("base", "holdout", [3, 4]))
    found = attacks.by_model(table, ["merged", "base"], Choice())
    assert why in found["why"][0]
    assert np.isnan(found["auc"][0])
    assert found["auc"][1] == 1.0
    assert "not measured" in attacks.describe(found.iloc[0], "Merged")
    assert not attacks.told_apart(attacks.table(table, "merged")).any()


def test_the_table_has_every_attack_on_every_member_set(smoke_run):
    texts = attacks.texts(smoke_run)
    table = attacks.table(texts, "merged")
    assert len(table) == 5 * 2 * 3 * 4
    row = table.iloc[0]
    assert (row["attack"], row["members_of"], row["kind"], row["task"]) == ("nll", "forget", "document", "")
    assert row["auc"] == pytest.approx(smoke_run.scores()["merged"]["mia_auc"], abs=1e-3)  # the official attack
    assert len(attacks.describe_all(table)) >= 2


def test_the_reference_attack_takes_the_untrained_models_loss_away(smoke_run):
    texts = attacks.texts(smoke_run)
    loss = {(row["split"], row["kind"], row["id"]): row["nll"] for row in smoke_run.memory("untrained")}
    own = texts[texts["model"] == "base"]
    for row in own.head(5).to_dict("records"):
        assert row["reference"] == pytest.approx(row["nll"] - loss[row["split"], row["kind"], row["id"]])
    assert texts[texts["model"] == "untrained"]["reference"].isna().all()


def test_nothing_measured_is_an_empty_table(recorded_run):
    assert attacks.texts(recorded_run).empty
    assert attacks.describe_all(attacks.table(attacks.texts(recorded_run), "merged")) == [
        "Not measured: no attack has both members and held-out documents."]


def test_many_tries_are_corrected_for():
    # One of 120 tests has p = 0.001: after Holm 0.12, no finding.
    table = pd.DataFrame({"p": [0.001, *([0.5] * 119)]})
    assert not attacks.told_apart(table).any()
    assert attacks.told_apart(pd.DataFrame({"p": [0.0001, *([0.5] * 119)]})).tolist() == [True] + [False] * 119


# ---- thresholds

def test_the_best_threshold_is_the_best_of_all_cuts():
    found = drawn(3, 30, 20, shift=0.8)
    everything = np.concatenate([found.members, found.nonmembers])
    cuts = [*everything, everything.max() + 1]
    gains = [(found.members < cut).mean() - (found.nonmembers < cut).mean() for cut in cuts]
    right = [(found.members < cut).sum() + (found.nonmembers >= cut).sum() for cut in cuts]
    attack, correct = (thresholds.chosen({"merged": found}, name)["merged"] for name in ("attack", "correct"))
    assert (found.members < attack).mean() - (found.nonmembers < attack).mean() == pytest.approx(max(gains))
    assert (found.members < correct).sum() + (found.nonmembers >= correct).sum() == max(right)


def test_an_attacker_who_knows_only_the_base_has_one_threshold():
    found = {"base": both([1, 2], [5, 6]), "merged": both([4, 6], [5, 6]), "none": both([], [])}
    assert thresholds.chosen(found, "base") == {"base": 3.5, "merged": 3.5}
    table = thresholds.counts(found, {"base": 3.5, "merged": 3.5})
    assert table.to_dict("records") == [
        {"model": "base", "threshold": 3.5, "recognised": 2, "hidden": 0, "false_alarms": 0, "told_right": 2},
        {"model": "merged", "threshold": 3.5, "recognised": 0, "hidden": 2, "false_alarms": 0, "told_right": 2}]
    assert thresholds.chosen(found, "custom", 9.0) == {"base": 9.0, "merged": 9.0}


def test_each_document_is_told_with_its_score_and_whether_it_was_called_right():
    table = thresholds.called(both([1, 4], [2]), 3.0)
    assert table.to_dict("list") == {"document": ["m0", "n0", "m1"], "member": [True, False, True],
                                     "score": [1, 2, 4], "called": ["member", "member", "unseen"],
                                     "right": [True, False, False]}


# ---- figures

def test_every_bin_of_a_side_adds_up_to_one_and_models_share_their_bins():
    table = thresholds.bins({"base": drawn(0, shift=3), "merged": drawn(1), "none": both([], [1])}, 10)
    assert table.groupby(["model", "side"])["share"].sum().tolist() == pytest.approx([1] * 4)
    assert len(table.drop_duplicates(["low", "high"])) == 10
    assert thresholds.bins({"none": both([], [1])}).empty


def test_the_figures_show_what_the_tables_say():
    found = {"base": drawn(0, shift=3), "merged": drawn(1)}
    table = frame(*(rows(model, split, side.tolist()) for model, sides in found.items()
                    for split, side in (("forget", sides.members), ("holdout", sides.nonmembers))))
    dial = attacks_figures.dial(attacks.by_model(table, list(found), Choice()))
    assert [trace.x[0] for trace in dial.data] == [attacks.measure(sides)["auc"] for sides in found.values()]
    drawn_bins = attacks_figures.densities(thresholds.bins(found), thresholds.chosen(found, "attack"), "Loss")
    assert len(drawn_bins.data) == 4
    assert len(drawn_bins.layout.shapes) == 2  # a threshold each
    curves = {model: thresholds.roc(sides) for model, sides in found.items()}
    assert [trace.name for trace in attacks_figures.roc(curves).data] == ["Base", "Merged", "chance"]
    assert attacks_figures.roc(curves, log=True).layout.xaxis.type == "log"
    heat = attacks_figures.heat(attacks.table(table, "merged"), "document")
    assert [np.shape(half.z) for half in heat.data] == [(5, 4)] * 2  # forget and retain
    assert np.isnan(np.array(heat.data[0].z, float)[0, 2])  # no people: not measured, and not 0.5
    assert (heat.data[0].text[0][2], heat.data[0].text[0][0][0]) == ("", "(")  # the other: not told apart from chance
