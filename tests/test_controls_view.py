"""Models beside one that never saw forget, from numbers made by hand: PrivLeak, forget quality, depth and attacks."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from analysis import attack_controls, attacks, controls, controls_figures, intervals, weights
from analysis.attack_controls import FAILS, UNKNOWN, WORKS
from analysis.attacks import Sides
from unlearn_core.store import Run


def run_with(tmp_path, aucs):
    """A run whose models have these AUCs: {model: (AUC, low, high)}, None: none."""
    run = Run(tmp_path / "run")
    for model, found in aucs.items():
        scores, spans = ({}, {}) if found is None else ({"mia_auc": found[0]}, {"mia_auc": list(found[1:])})
        run.write_evaluation(model, answers=[], documents=[], mmlu=[], scores=scores, intervals=spans)
    run.write_scores()
    return run


# ---- PrivLeak

def test_privleak_is_the_relative_difference_to_the_control_and_its_ends_are_the_corners(tmp_path):
    run = run_with(tmp_path, {"retrained": (0.6, 0.5, 0.7), "base": (1.0, 0.9, 1.0), "merged": (0.7, 0.6, 0.8)})
    found = controls.privleak(run).set_index("model")
    # ((1 - 0.7) - (1 - 0.6)) / (1 - 0.6) = -0.1 / 0.4
    assert found.loc["merged", "value"] == pytest.approx(-25)
    # lowest where the model's AUC is 0.8 and the control's 0.5: (0.2 - 0.5) / 0.5; highest at 0.6 and 0.7: 0.1 / 0.3
    assert found.loc["merged", ["low", "high"]].tolist() == pytest.approx([-60, 100 / 3])
    assert found.loc["base", "value"] == -100  # the attack recognises every member
    assert list(found.index) == ["base", "merged"]
    base, merged = map(controls.describe_privleak, found.reset_index().to_dict("records"))
    assert base == ("Base: PrivLeak -100 % [-100, -67] against the retrained model: members of forget are recognised "
                    "more than by a model that never saw them.")
    assert merged.endswith("not told apart from a model that never saw the data.")


def test_privleak_above_0_is_over_forgetting(tmp_path):
    run = run_with(tmp_path, {"untrained": (0.5, 0.45, 0.55), "merged": (0.1, 0.05, 0.15)})
    row = controls.privleak(run).iloc[0]
    assert (row["reference"], row["value"]) == ("untrained", pytest.approx(80))
    assert "harder to it than to a model that never saw them" in controls.describe_privleak(row)


def test_the_reference_is_the_mean_over_the_retrained_models_with_the_ends_of_each_alone(tmp_path):
    run = run_with(tmp_path, {"untrained": (0.1, 0, 0.2), "retrained": (0.6, 0.5, 0.7), "retrained-2": (0.4, 0.3, 0.5),
                              "retrained-10": (0.5, 0.4, 0.6), "merged": (0.5, 0.4, 0.6)})
    found = controls.privleak(run)
    row = found.set_index("model").loc["merged"]
    assert (row["seeds"], row["reference_auc"], row["value"]) == (3, pytest.approx(0.5), pytest.approx(0))
    assert (row["least"], row["most"]) == (pytest.approx(100 * -0.1 / 0.6), pytest.approx(100 * 0.1 / 0.4))
    assert list(found["model"]) == ["untrained", "merged"]
    said = controls.describe_privleak({"model": "merged", **row})
    assert "against 3 retrained models (each alone: -17 to +25)" in said


def test_privleak_says_why_it_is_not_measured(tmp_path):
    perfect = controls.privleak(run_with(tmp_path / "a", {"retrained": (1.0, 0.9, 1.0), "merged": (0.5, 0.4, 0.6)}))
    assert controls.describe_privleak(perfect.iloc[0]) == (
        "Merged: PrivLeak not measured: undefined where the control's AUC is 1.")
    assert controls.NO_CONTROL in controls.privleak(run_with(tmp_path / "b", {"merged": (0.5, 0.4, 0.6)}))["why"][0]
    none = controls.privleak(run_with(tmp_path / "c", {"untrained": (0.5, 0.4, 0.6), "merged": None}))
    assert none["why"].tolist() == ["the attack was not measured on it"]
    one = controls.privleak(run_with(tmp_path / "d", {"retrained": (0.9, 0.7, 1.0), "merged": (0.5, 0.4, 0.6)}))
    assert "[+33, +∞]" in controls.describe_privleak(one.iloc[0])  # lowest at 0.6 and 0.7: 0.4 / 0.3
    assert controls.privleak(Run(tmp_path / "nothing")).empty


# ---- forget quality

def with_ratios(tmp_path, **ratios):
    run = Run(tmp_path / "run")
    run.write_probe("truth_ratio", {}, [
        {"model": model.replace("_2", "-2"), "setting": "forget", "measure": "truth_ratio", "value": None, "low": None,
         "high": None, "n": len(own), "ratios": {f"d{n}": value for n, value in enumerate(own)}}
        for model, own in ratios.items()])
    return run


def test_forget_quality_is_the_test_against_the_first_retrained_model_corrected_for_the_models(tmp_path):
    chance = np.random.default_rng(0)
    ratios = {"retrained": chance.normal(1, 0.1, 40), "retrained_2": chance.normal(1, 0.1, 40),
              "base": chance.normal(0.2, 0.1, 40), "merged": chance.normal(1, 0.1, 40), "untrained": [1.0, 2.0]}
    found = controls.forget_quality(with_ratios(tmp_path, **{k: list(map(float, v)) for k, v in ratios.items()}))
    table = found.set_index("model")
    assert list(table.index) == ["retrained-2", "base", "merged", "untrained"]
    for model, name in (("base", "base"), ("merged", "merged"), ("retrained-2", "retrained_2")):
        expected = ks_2samp(ratios[name], ratios["retrained"])
        assert table.loc[model, ["distance", "p"]].tolist() == pytest.approx([expected.statistic, expected.pvalue])
    # two models that saw forget, so the smaller p counts twice; controls are no tests
    assert table.loc["base", "holm"] == pytest.approx(2 * table.loc["base", "p"])
    assert table.loc[["retrained-2", "untrained"], "holm"].isna().all()
    ends = [ks_2samp(ratios["merged"], ratios[name]).statistic for name in ("retrained", "retrained_2")]
    assert table.loc["merged", ["least", "most"]].tolist() == pytest.approx(sorted(ends))
    said = [controls.describe_forget_quality(row) for row in found.to_dict("records")]
    assert said[1].endswith("they differ.")
    assert said[2].endswith("not told apart, and with so few documents only a D above 0.30 would be.")
    assert "over 2 retrained models" in said[2]
    assert "Holm" not in said[0]


def test_the_distance_that_so_many_documents_would_tell_apart_is_that_of_the_test(tmp_path):
    same = [float(value) for value in range(60)]
    row = controls.forget_quality(with_ratios(tmp_path, untrained=same, merged=same)).iloc[0]
    assert (row["distance"], row["p"]) == (0, 1)
    first = math.floor(60 * row["detectable"]) + 1  # of 60 documents so many must lie apart
    for shift, told in ((first - 1, False), (first, True)):
        assert (ks_2samp(same, [value + shift - 0.5 for value in same]).pvalue < 0.05) == told


def test_forget_quality_says_why_it_is_not_measured(tmp_path):
    alone = controls.forget_quality(with_ratios(tmp_path / "a", merged=[1.0]))
    assert controls.describe_forget_quality(alone.iloc[0]) == (
        f"Merged: forget quality not measured: {controls.NO_CONTROL}.")
    empty = controls.forget_quality(with_ratios(tmp_path / "b", retrained=[], merged=[1.0]))
    assert "no document" in empty["why"][0]
    assert controls.forget_quality(Run(tmp_path / "nothing")).empty


# ---- depth

def with_depth(tmp_path, reference, d1, retain, d2, uds, why=""):
    """A run with these means per layer."""
    run = Run(tmp_path / "run")
    rows = [{"model": model, "setting": layer, "measure": measure, "value": value, "low": value - 0.1,
             "high": value + 0.1, "n": 7} for model, measure, values in (
                 (reference, "d1", d1), (reference, "d1_retain", retain), ("merged", "d2", d2))
            for layer, value in enumerate(values)]
    rows.append({"model": "merged", "setting": "UDS", "measure": "uds", "value": uds, "n": 7, "items": 20, "without": 2,
                 "why": why, **dict.fromkeys(("low", "high"), uds)})
    run.write_probe("depth", {"reference": reference}, rows)
    return run


def depth_said(run):
    return controls.describe_depth(controls.depth_scores(run), controls.depth(run))


def test_the_depth_score_is_told_with_what_the_references_states_cost_where_nothing_was_to_be_forgotten(tmp_path):
    score, trust = depth_said(with_depth(tmp_path, "retrained", [1.0, 3.0], [0.5, 0.5], [0.2, 0.4], 0.25))
    assert score == ("Merged: depth score 0.25 [0.25, 0.25] over 20 answers of 7 documents (0: as intact inside as in "
                     "the base, 1: erased as far as in the retrained model; 2 more are encoded by no layer).")
    assert trust.startswith("The retrained model's states cost the base 4.00 nats per token on forget, all layers "
                            "together, and 1.00 on retain, which it knows: 25% of the drop")


def test_a_reference_whose_states_the_base_does_not_understand_makes_the_score_void(tmp_path):
    assert "the score says nothing here" in depth_said(
        with_depth(tmp_path / "a", "retrained", [1, 3], [2, 2], [0, 0], 0.2))[-1]
    assert "no layer is shown to hold the answers" in depth_said(
        with_depth(tmp_path / "b", "retrained", [0, -1], [0, 0], [0, 0], 0.2))[-1]
    assert "A retrained model tells more" in depth_said(
        with_depth(tmp_path / "c", "untrained", [1, 3], [1, 3], [0, 0], 0.2))[-1]
    assert "was not measured" in depth_said(with_depth(tmp_path / "d", "retrained", [1, 3], [], [0, 0], 0.2))[-1]


def test_a_depth_that_was_not_measured_says_why_and_no_probe_is_no_sentence(tmp_path):
    run = with_depth(tmp_path, "retrained", [], [], [], None, "the model has another shape than the base")
    assert depth_said(run) == ["Merged: depth not measured: the model has another shape than the base."]
    assert depth_said(Run(tmp_path / "nothing")) == []


def test_depth_and_the_change_of_the_weights_share_the_axis_of_layers(tmp_path, smoke_run):
    where = weights.where(weights.read(smoke_run))
    change = weights.profile(where, "group")
    layers = controls.depth(with_depth(tmp_path, "retrained", [1.0, 3.0], [0.5, 0.5], [0.2, 0.4], 0.25))
    figure = controls_figures.depth_and_change(layers, change, weights.measure(where))
    drops = {(trace.name, trace.xaxis): list(trace.y) for trace in figure.data}
    assert drops["Retrained without forget (D1)", "x"] == [1.0, 3.0]
    assert drops["Retrained without forget (D1)", "x2"] == [0.5, 0.5]
    assert drops["Merged (D2)", "x"] == [0.2, 0.4]
    own = change[change["model"] == "merged"].set_index("group")["mean"]
    assert drops["Merged (D2)", "x3"] == [own["0"], own["1"]]
    ranges = {tuple(figure.layout[axis].range) for axis in ("xaxis", "xaxis2", "xaxis3")}
    assert ranges == {(-0.35, 1.35)}
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(shown) == sorted({"Retrained without forget (D1)", "Merged (D2)", "Model 1 (D2)", "Model 2 (D2)"})
    assert len(controls_figures.depth_and_change(layers).data) == 3  # without the weights
    with pytest.raises(ValueError, match="needs the columns"):
        controls_figures.depth_and_change(layers.drop(columns="layer"))


# ---- attacks beside their controls

def both(members, nonmembers):
    return Sides(pd.Series(members, [f"m{n}" for n in range(len(members))], float),
                 pd.Series(nonmembers, [f"n{n}" for n in range(len(nonmembers))], float))


def drawn(chance, shift=0.0, members=40, nonmembers=30):
    return both(chance.normal(-shift, 1, members), chance.normal(0, 1, nonmembers))


def with_memory(tmp_path, **models):
    """A run whose models have these losses on whole documents: {model: `Sides`}, and nothing else."""
    run = Run(tmp_path / "run")
    for model, sides in models.items():
        rows = [{"id": document, "document": document, "split": split, "task": "Task1", "kind": "document",
                 "nll": loss, "min_k": loss, "min_k_plus": loss, "zlib": loss}
                for split, side in (("forget", sides.members), ("holdout", sides.nonmembers))
                for document, loss in side.items()]
        run.write_evaluation(model.replace("_2", "-2"), answers=[], documents=[], mmlu=[], scores={}, intervals={},
                             memory=rows)
    return run


def first_row(run):
    return attack_controls.attack_controls(run).iloc[0]


def test_the_excess_is_the_difference_of_the_aucs_with_delongs_error():
    chance = np.random.default_rng(1)
    own, other = drawn(chance, 1.0), drawn(chance)
    found = attack_controls._excess(own, [other], {})
    values = []
    for sides in (own, other):
        wins = (sides.members.to_numpy()[:, None] < sides.nonmembers.to_numpy()).astype(float)
        values.append((wins.mean(), wins.mean(axis=1), wins.mean(axis=0)))
    # DeLong: S = S10 / m + S01 / n, and the variance of a difference is S_11 + S_22 - 2 S_12
    s10, s01 = (np.cov(values[0][place], values[1][place]) for place in (1, 2))
    total = s10 / len(own.members) + s01 / len(own.nonmembers)
    error = math.sqrt(total[0, 0] + total[1, 1] - 2 * total[0, 1])
    assert found["excess"] == pytest.approx(values[0][0] - values[1][0])
    assert (found["excess_high"] - found["excess_low"]) / 2 == pytest.approx(2.0452 * error, rel=1e-3)  # t, 29


def test_an_attack_that_finds_nothing_exceeds_its_control_in_5_of_100_tries():
    hits = 0
    for seed in range(300):
        chance = np.random.default_rng(seed)
        found = attack_controls._excess(drawn(chance, 0.5), [drawn(chance, 0.5)], {})
        hits += not found["excess_low"] <= 0 <= found["excess_high"]
    assert hits <= 26  # 15 expected, and 3 standard errors of 3.8


def test_an_attack_works_only_where_it_finds_the_data_in_the_base(tmp_path):
    chance = np.random.default_rng(0)
    base, merged, retrained = drawn(chance, 3), drawn(chance, 2), drawn(chance)
    row = first_row(with_memory(tmp_path / "a", base=base, merged=merged, retrained=retrained))
    assert (row["state"], row["reference"], row["model"]) == (WORKS, "retrained", "merged")
    assert row["excess"] == pytest.approx(row["auc"] - row["negative"])
    assert row["excess_low"] > 0
    assert "more than in a model that never saw the data" in attack_controls.describe(row)
    row = first_row(with_memory(tmp_path / "b", base=drawn(chance), merged=drawn(chance), retrained=drawn(chance)))
    assert row["state"] == FAILS
    assert attack_controls.describe(row).startswith("Loss on whole documents does not work here (base 0.")
    assert attack_controls.describe(row).endswith("whether it finds anything in the merged model shows nothing.")


def test_what_a_model_that_never_saw_the_data_shows_as_well_is_no_excess(tmp_path):
    # Held-out texts that are harder by nature: the attack "finds" the members in a model that never saw them.
    chance = np.random.default_rng(0)
    easy = drawn(chance, 1.5)
    row = first_row(with_memory(tmp_path, base=drawn(chance, 4), merged=easy, untrained=easy))
    assert row["auc"] > 0.8
    assert row["low"] > 0.5
    assert row["excess"] == 0
    assert row["excess_low"] < 0 < row["excess_high"]  # every document says the same: the corners of both intervals
    assert math.isnan(row["p"])
    assert "not told apart from a model that never saw the data" in attack_controls.describe(row)


def test_the_negative_control_is_the_mean_over_the_seeds_with_their_ends(tmp_path):
    chance = np.random.default_rng(0)
    seeds = {"retrained": drawn(chance), "retrained_2": drawn(chance, 0.8)}
    run = with_memory(tmp_path, base=drawn(chance, 4), merged=drawn(chance, 1), untrained=drawn(chance), **seeds)
    table = attack_controls.attack_controls(run)
    row = table.iloc[0]
    aucs = [attacks.measure(sides)["auc"] for sides in seeds.values()]
    assert (row["seeds"], row["negative"]) == (2, pytest.approx(sum(aucs) / 2))
    assert (row["least"], row["most"]) == (pytest.approx(min(aucs)), pytest.approx(max(aucs)))
    assert row["excess"] == pytest.approx(row["auc"] - row["negative"])
    assert f"on 2 retrained models, never shown the data, from {min(aucs):.2f} to {max(aucs):.2f}" in (
        attack_controls.describe(row))
    # The reference attack takes the first retrained model's loss away, so the second alone is its control.
    last = table[(table["attack"] == "reference") & (table["kind"] == "document")].iloc[0]
    assert (last["reference"], last["seeds"]) == ("retrained-2", 1)
    # All are corrected for each other.
    assert table["holm"].tolist() == pytest.approx(intervals.holm(table["p"]), nan_ok=True)


def test_a_missing_control_is_named_and_nothing_is_made_up(tmp_path):
    chance = np.random.default_rng(0)
    row = first_row(with_memory(tmp_path / "a", merged=drawn(chance), untrained=drawn(chance)))
    assert row["state"] == UNKNOWN
    assert "no base to see" in attack_controls.describe(row)
    row = first_row(with_memory(tmp_path / "b", merged=drawn(chance), base=drawn(chance, 3)))
    assert math.isnan(row["negative"])
    assert attack_controls.describe(row).endswith("; no negative control.")
    table = attack_controls.attack_controls(with_memory(tmp_path / "c", tested=both([], [1, 2]), base=drawn(chance, 3)))
    assert table["why"].ne("").all()
    assert "not measured: no members with a score" in attack_controls.describe(table.iloc[0])
    assert "were tried: 15 not measured." in attack_controls.describe_all(table)[0]
    single = first_row(with_memory(tmp_path / "d", merged=both([0.0], [1, 2]), base=both([0.0], [1, 2]),
                                   untrained=both([3.0], [1, 2])))
    assert math.isnan(single["excess"])


def test_all_attacks_are_counted_and_a_run_without_memory_has_none(tmp_path, recorded_run):
    chance = np.random.default_rng(0)
    run = with_memory(tmp_path, base=drawn(chance, 3), merged=drawn(chance, 2), retrained=drawn(chance))
    said = attack_controls.describe_all(attack_controls.attack_controls(run))
    assert said[0].startswith("15 attacks and kinds of text were tried: 5 work here, 10 not measured.")
    assert said[1].startswith("Merged: of 4 that work and have a negative control, 4 find more and 0 less")
    assert attack_controls.describe_all(attack_controls.attack_controls(recorded_run)) == [
        "Not measured: the model that would be handed out was not led through the texts."]


def test_a_real_run_is_shown_with_its_controls(smoke_run):
    table = attack_controls.attack_controls(smoke_run)
    assert len(table) == 15
    assert set(table["reference"]) == {"untrained", ""}  # its own loss is what the reference attack takes away
    figure = controls_figures.attack_dots(table)
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert shown == ["Base (positive control)", "Merged (handed out)", "Untrained (negative control)"]
    first = next(trace for trace in figure.data if trace.name == "Merged (handed out)")
    assert list(first.x) == pytest.approx(table[table["kind"] == "document"]["auc"].tolist())
    faded = next(trace for trace in controls_figures.attack_dots(table.assign(state=FAILS)).data)
    assert set(faded.marker.opacity) == {controls_figures.FADED}
    for row in table.to_dict("records"):
        assert attack_controls.describe(row).endswith(".")
