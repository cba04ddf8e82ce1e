"""What probes say: how much came back, against what, told with its interval, its number of tries and its limits."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from analysis import probing, probing_figures, theme
from tests import example_run
from unlearn_core.data import rephrase
from unlearn_core.evaluation import recall
from unlearn_core.judging import probes, quantise

WILSON = {(hits, n): binomtest(hits, n).proportion_ci(method="wilson") for n in (8, 40, 200) for hits in range(n + 1)}


def row(model, setting, part, hits, n=200, measure="exact_match", **more):
    """A row of a probe: `hits` of `n` with Wilson's interval."""
    low, high = WILSON[hits, n]
    return {"model": model, "setting": setting, "part": part, "measure": measure, "value": hits / n, "low": low,
            "high": high, "n": n, **more}


def probed(tmp_path, probe, rows, **about):
    run = example_run.create(tmp_path)
    run.write_probe(probe, {"adapters": run.adapter_keys(), **about}, rows)
    return run


def rounded(merged, untrained=(10, 10, 10), base=(180, 180, 180), part="forget", **more):
    """Rows of a quantisation: hits at full precision, at int8 and at int4."""
    return [row(model, setting, part, count, **more)
            for model, counts in (("merged", merged), ("base", base), ("untrained", untrained))
            for setting, count in zip(quantise.SETTINGS, counts, strict=True)]


def relearned(merged, untrained, on="forget", part="asked", steps=(0, 1, 2, 5), **more):
    return [row(model, step, part, count, on=on, **more)
            for model, counts in (("merged", merged), ("base", [180] * 4), ("untrained", untrained))
            for step, count in zip(steps, counts, strict=True)]


def said(run, probe):
    return " ".join(probing.describe(run, probe))


# ---- words of both sides

def test_the_names_are_those_of_the_engine():
    assert list(probing.MEASURES) == list(probing_figures.AXES) == list(recall.MEASURES)
    assert list(probing.START) == list(probes.SETTINGS)
    assert probing.PARTS == {"relearning": (probes.ASKED, probes.RELEARNED), "quantisation": probes.SIDES,
                             "prompts": rephrase.PARTS}
    assert (probing.START["quantisation"], probing.START["prompts"]) == (quantise.FULL, rephrase.ORIGINAL)
    assert tuple(probing_figures.QUANTISED) == quantise.SETTINGS


# ---- tables

def test_a_table_has_one_row_per_measured_number_and_leaves_out_what_was_not(tmp_path):
    rows = [*rounded((4, 4, 4)), {"model": "merged", "setting": "fp", "part": "forget", "measure": "leaking",
                                  "value": None, "low": None, "high": None, "n": 0}]
    frame = probing.table(probed(tmp_path, "quantisation", rows), "quantisation")
    assert list(frame.columns) == list(probing.COLUMNS)
    assert len(frame) == 9
    assert set(frame["on"]) == {""}
    assert probing.models(frame) == ["untrained", "base", "merged"]
    assert probing.subject(frame) == "merged"


def test_a_probe_that_was_not_run_is_not_measured_and_says_how_to(tmp_path):
    run = example_run.create(tmp_path)
    frame = probing.table(run, "prompts")
    assert (len(frame), list(frame.columns), probing.subject(frame)) == (0, list(probing.COLUMNS), None)
    assert probing.describe(run, "prompts") == [f"Not measured: python -m unlearn_core probe {run.id} prompts"]
    assert probing.recovery(frame, "prompts").empty
    assert probing.conditions(run, "prompts") == ""


def test_a_probe_that_was_stopped_at_its_start_has_measured_no_change(tmp_path):
    run = probed(tmp_path, "quantisation", [row("merged", "fp", "forget", 4)])
    words, = probing.describe(run, "quantisation")
    assert words.startswith("Not measured: no changed setting of Merged on forget.")


def test_a_probe_of_another_adapter_is_named(tmp_path):
    run = probed(tmp_path, "quantisation", rounded((4, 4, 4)), adapters={"merged": "0" * 64})
    assert probing.stale(run, "quantisation") == ["merged"]
    assert "Merged was probed with another adapter than it has now" in said(run, "quantisation")


# ---- differences

def test_a_difference_of_shares_has_newcombes_interval():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 = 0.2000 has 0.0524 to 0.3339.
    both = [(hits / n, *binomtest(hits, n).proportion_ci(method="wilson")) for hits, n in ((56, 70), (48, 80))]
    assert probing.difference(*both) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_a_difference_turned_round_has_the_interval_turned_round():
    first, second = (0.5, 0.3, 0.6), (0.2, 0.0, 0.5)
    value, low, high = probing.difference(first, second)
    assert probing.difference(second, first) == pytest.approx((-value, -high, -low))
    assert (low, high) == pytest.approx((0.3 - math.hypot(0.2, 0.3), 0.3 + math.hypot(0.1, 0.2)))


# ---- what came back

def recovered(tmp_path, rows, probe="quantisation"):
    frame = probing.table(probed(tmp_path, probe, rows), probe)
    return probing.recovery(frame, probe).set_index("setting")


def test_recovery_is_measured_from_the_models_own_start_and_from_the_control_in_the_same_setting(tmp_path):
    found = recovered(tmp_path, rounded((20, 22, 120), untrained=(10, 14, 30)))
    assert list(found.index) == ["int8", "int4"]
    assert list(found["start"]) == [0.1, 0.1]
    assert list(found["gain"]) == pytest.approx([0.01, 0.5])
    assert list(found["control_value"]) == [0.07, 0.15]  # of 200: 14 at int8, 30 at int4
    assert list(found["excess"]) == pytest.approx([0.04, 0.45])
    wanted = probing.difference((0.6, *WILSON[120, 200]), (0.15, *WILSON[30, 200]))
    assert found.loc["int4", ["excess", "excess_low", "excess_high"]].tolist() == pytest.approx(wanted)
    assert list(found["came_back"]) == [False, True]


def test_what_rises_in_the_control_as_well_has_not_come_back(tmp_path):
    found = recovered(tmp_path, relearned((20, 60, 100, 120), (10, 60, 100, 118)), "relearning")
    assert (found["gain_low"] > 0).all()
    assert not found["came_back"].any()


def test_without_a_control_the_gain_alone_decides_and_that_is_said(tmp_path):
    rows = [one for one in rounded((20, 22, 120)) if one["model"] != "untrained"]
    found = recovered(tmp_path / "a", rows)
    assert found["excess"].isna().all()
    assert list(found["came_back"]) == [False, True]
    assert "there is no control that never saw forget" in said(probed(tmp_path / "b", "quantisation", rows),
                                                               "quantisation")


def test_one_find_of_many_tries_is_corrected_for_their_number(tmp_path):
    # 8 against 0 of 40 has a gain of 0.2 from 0.073 on: a find alone, none of forty.
    alone = [row("merged", "original", "people", 0, 40), row("merged", "paraphrase 1", "people", 8, 40)]
    many = alone + [row("merged", f"paraphrase {n}", "people", 0, 40) for n in range(2, 41)]
    for name, rows, back in (("alone", alone, True), ("many", many, False)):
        found = recovered(tmp_path / name, rows, "prompts")
        assert found.loc["paraphrase 1", "gain_low"] > 0.05
        assert found.loc["paraphrase 1", "came_back"] == back


def test_a_retrained_model_is_preferred_as_control(tmp_path):
    rows = [*rounded((20, 22, 120)), *(row("retrained", setting, "forget", 119) for setting in quantise.SETTINGS)]
    found = recovered(tmp_path, rows)
    assert set(found["control"]) == {"retrained"}
    assert not found["came_back"].any()


def test_the_worst_is_what_is_furthest_above_both(tmp_path):
    rows = relearned((20, 60, 120, 100), (10, 10, 100, 10))
    frame = probing.table(probed(tmp_path, "relearning", rows), "relearning")
    # above its start 20, 50, 40 % and above the control 25, 10, 45 %
    assert probing.worst(probing.recovery(frame, "relearning"))["setting"] == 5
    assert probing.worst(probing.recovery(frame[:0], "relearning")) is None


# ---- sentences

def test_a_recovery_at_int4_is_told_with_its_numbers(tmp_path):
    rows = [*rounded((20, 22, 120)), *rounded((100, 100, 90), part="retain", measure="rouge_l")]
    words = said(probed(tmp_path, "quantisation", rows), "quantisation")
    assert "Merged: 2 settings, 2 comparisons on forget" in words
    assert "1 lies above its own start and above Untrained: something comes back" in words
    assert "The clearest recovery: share of questions answered exactly, int4: 0.600 [0.531, 0.665], +0.500 [" in words
    assert "above its start (0.100), +0.550 [" in words
    assert "from 0.500 to 0.450: a model that it breaks" in words
    assert "int4 decides" in words


def test_where_nothing_comes_back_the_possible_rise_and_the_bound_beside_zero_people_are_told(tmp_path):
    rows = [*rounded((20, 20, 20)), *rounded((0, 0, 0), untrained=(0, 0, 0), base=(8, 8, 8), measure="leaking", n=8)]
    words = said(probed(tmp_path, "quantisation", rows), "quantisation")
    highest = probing.difference((0, *WILSON[0, 8]), (0, *WILSON[0, 8]))[2]
    assert f"no recovery found, a rise of up to {highest:.2f} is possible" in words
    assert f"0 of 8, upper bound {WILSON[0, 8].high:.0%} (95 %)" in words
    assert "Nearest to a recovery" in words
    assert "forgotten" not in words


def test_people_who_come_back_are_counted_at_the_worst_setting(tmp_path):
    rows = [row("merged", step, "asked", hits, 8, "leaking", on="forget") for step, hits in ((0, 0), (1, 3), (2, 2))]
    words = said(probed(tmp_path, "relearning", rows), "relearning")
    assert "At worst 3 of 8 people are given away (after 1 step; 14% to 69%), the worst of 3 settings." in words
    assert probing.OVERSTATES in words


def test_forget_without_people_is_not_measured_on_people(tmp_path):
    assert "Whether people's data come back is not measured" in said(
        probed(tmp_path, "quantisation", rounded((1, 1, 1))), "quantisation")


def test_a_probe_that_the_base_does_not_answer_either_can_show_nothing(tmp_path):
    def asked(base):
        return [row(model, setting, "people", count) for model, counts in
                (("merged", (2, 2)), ("base", (180, base)), ("untrained", (2, 2)))
                for setting, count in zip(("original", "paraphrase 1"), counts, strict=True)]
    weak, strong = (said(probed(tmp_path / str(base), "prompts", asked(base)), "prompts") for base in (2, 90))
    assert "The base itself is not told from Untrained in any of 1 measures" in weak
    assert "is told from Untrained in 1 of 1 measures, so the probe can find what is there" in strong
    assert "Tried: 2 wordings of questions about people, the data's own among them." in strong


def test_training_on_retain_is_told_beside_and_not_counted(tmp_path):
    rows = relearned((20, 30, 40, 60), (10, 10, 10, 10)) + relearned((20, 20, 20, 24), (10, 10, 10, 10), on="retain")
    words = said(probed(tmp_path, "relearning", rows), "relearning")
    assert "Merged: 3 settings, 3 comparisons on forget" in words
    assert "After training on retain instead, which teaches nothing of forget, the nearest to a recovery is" in words


# ---- figures

def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_the_curve_stands_at_its_steps_in_the_models_look_with_its_interval(tmp_path):
    rows = relearned((20, 30, 40, 60), (10, 10, 10, 12)) + relearned((20, 80, 120, 160), (1, 2, 3, 4), part="relearned")
    frame = probing.table(probed(tmp_path, "relearning", rows), "relearning")
    figure = probing_figures.relearning(frame, "exact_match")
    asked, learned = traces(figure, "Merged")
    assert list(asked.y) == [0.1, 0.15, 0.2, 0.3]
    assert list(learned.y) == [0.1, 0.4, 0.6, 0.8]
    assert np.allclose(np.diff(asked.x), 1)
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "2", "5"]
    assert asked.y[3] + asked.error_y.array[3] == pytest.approx(WILSON[60, 200].high)
    assert asked.y[3] - asked.error_y.arrayminus[3] == pytest.approx(WILSON[60, 200].low)
    assert (asked.line.color, asked.marker.symbol) == (theme.style("merged").color, theme.style("merged").symbol)
    assert [note.text for note in figure.layout.annotations] == ["Not trained on: asked only", "Trained on"]
    assert not traces(probing_figures.relearning(frame, "exact_match", on="retain"), "Merged")


def test_dots_of_a_precision_stand_in_its_row_beside_each_other(tmp_path):
    rows = rounded((20, 22, 120)) + rounded((150, 150, 100), part="retain")
    figure = probing_figures.quantisation(probing.table(probed(tmp_path, "quantisation", rows), "quantisation"),
                                          "exact_match")
    forget, retain = traces(figure, "Merged")
    assert (list(forget.x), list(retain.x)) == ([0.1, 0.11, 0.6], [0.75, 0.75, 0.5])
    assert [round(place) for place in forget.y] == [0, 1, 2]
    assert list(figure.layout.yaxis.ticktext) == ["as it is", "int8", "int4"]
    heights = {round(trace.y[0], 3) for trace in figure.data}
    assert len(heights) == 3  # no model hides another


def test_each_wording_has_a_row_the_datas_own_first(tmp_path):
    rows = [row("merged", name, "people", 1) for name in ("original", "paraphrase 1", "polite")]
    rows += [row("merged", "continue", "completions", 1, measure="rouge_l")]
    figure = probing_figures.prompts(probing.table(probed(tmp_path, "prompts", rows), "prompts"), "exact_match",
                                     "people")
    assert list(figure.layout.yaxis.ticktext) == ["the data's own", "paraphrase 1", "polite"]
    assert len(figure.data) == 1


@pytest.mark.parametrize("draw", [
    lambda frame: probing_figures.relearning(frame, "rouge_l"), lambda frame: probing_figures.quantisation(frame, "x"),
    lambda frame: probing_figures.prompts(frame, "rouge_l", "people")])
def test_a_figure_needs_its_columns(draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw(pd.DataFrame({"other": [1.0]}))


def test_figures_of_nothing_are_empty():
    empty = pd.DataFrame(columns=list(probing.COLUMNS))
    for figure in (probing_figures.relearning(empty, "rouge_l"), probing_figures.quantisation(empty, "rouge_l"),
                   probing_figures.prompts(empty, "rouge_l", "people")):
        assert len(figure.data) == 0


# ---- a real run

def test_a_real_probe_can_be_told_and_drawn(smoke_copy):
    for name, settings in (("relearning", {"steps": 1, "documents": 2}), ("quantisation", {"documents": 1}),
                           ("prompts", {"documents": 1})):
        getattr(probes, name)(smoke_copy, device="cpu", **settings)
        assert len(probing.describe(smoke_copy, name)) >= 5
        assert probing.stale(smoke_copy, name) == []
        assert "documents per task and side, seed 0, at most 24 new tokens" in probing.conditions(smoke_copy, name)
        frame = probing.table(smoke_copy, name)
        assert set(frame["measure"]) <= set(probing.MEASURES)
        assert set(frame["part"]) <= set(probing.PARTS[name])
    assert "LoRA of rank 4, constant learning rate 0.02, 8 items a step, cross-entropy on 50% of the documents" in (
        probing.conditions(smoke_copy, "relearning"))
    assert len(probing_figures.prompts(frame, "exact_match", "people").data) == 3
