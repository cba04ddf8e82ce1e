"""What was balanced, as tables, sentences and pictures."""

import numpy as np
import pytest

from analysis import balancing, balancing_figures
from tests.test_balance import MEASURED, made
from unlearn_core.trials import balance

READ = balance.read(MEASURED, 0.5)


def store(run, measured=MEASURED, target=0.5):
    """Write what `weighing.balance` would have written."""
    run.write_arrays("balance", {name: getattr(measured, name) for name in (
        "values", "cell", "unit", "nll", "member", "attack_unit", "stratum")},
        {"names": measured.names, "families": measured.families})
    run.write_balance(balance.read(measured, target) | {
        "target_from": "chance", "readings": [{"at": "2025-01-01T00:00:00+00:00", "seed": 0}]})


def test_a_family_is_one_row_with_the_means_of_what_was_read():
    table = balancing.families(READ).set_index("family")
    row = next(row for row in READ["families"] if row["family"] == "model_1 scaled")
    assert table.loc["model_1 scaled", "chosen"] == "x 0.6"
    assert table.loc["model_1 scaled", "task_aggregate"] == pytest.approx(
        np.mean([fold["test"]["task_aggregate"] for fold in row["folds"]]))
    assert table.loc["model_1 scaled", ["difference", "low", "high"]].tolist() == row["difference"]
    assert table.loc["the run's merge", "chosen"] == "the merge, scaled x 1"
    folds = balancing.folds(READ)
    assert len(folds) == 2 * len(table)
    assert (folds["auc_low"] <= folds["mia_auc"]).all()
    assert (folds["mia_auc"] <= folds["auc_high"]).all()


def test_the_curves_are_every_configuration_on_all_documents(smoke_copy):
    store(smoke_copy)
    curves = balancing.curves(smoke_copy)
    assert curves["name"].tolist() == MEASURED.names
    assert curves["task_aggregate"].tolist() == pytest.approx([0.8, 0.7, 0.9, 0.75, 0.85, 0.95], abs=0.01)
    assert curves["mia_auc"].tolist() == pytest.approx([0.2, 0.5, 0.8, 0.52, 0.5, 0.1], abs=0.02)


def test_a_run_that_was_not_balanced_has_empty_tables(smoke_run):
    assert balancing.curves(smoke_run).empty
    assert balancing.families(smoke_run.balance()).empty


def test_the_words_name_a_control_that_does_as_well():
    words = balancing.describe(READ)
    assert words[0].startswith("The merge as it is: AUC 0.21, Task Aggregate 0.80")
    assert words[1].startswith("Balanced (1 : 1): AUC 0.5")
    assert "worse by -0.0" in words[1]
    assert words[2].startswith("A control without the merge does at least as well: model_1 scaled (x 0.6)")


def test_the_words_say_by_how_much_the_best_control_is_lower():
    weak = made([("the merge, scaled", balance.REFERENCE, 0.8, 0.5), ("model_1 scaled", "x 1", 0.6, 0.5)])
    words = balancing.describe(balance.read(weak, 0.5))
    assert "not told apart" in words[1]  # the balanced merge is the merge itself
    assert words[2].startswith("The best control is model_1 scaled (x 1)")
    assert "0.2" in words[2].rsplit(",", 1)[1]


def test_too_few_documents_leave_one_sentence():
    assert balancing.describe(READ | {"refused": "3 members in a half"}) == [
        "Too little to conclude anything: 3 members in a half."]


def test_the_trade_off_draws_a_line_per_family_and_rings_the_merge(smoke_copy):
    store(smoke_copy)
    figure = balancing_figures.tradeoff(balancing.curves(smoke_copy), 0.5)
    assert [trace.name for trace in figure.data] == ["the merge, scaled", "mix of both", "model_1 scaled",
                                                     "the run's merge"]
    assert figure.data[-1].x[0] == pytest.approx(0.2, abs=0.02)
    with pytest.raises(ValueError, match="needs the columns"):
        balancing_figures.tradeoff(balancing.curves(smoke_copy).drop(columns="mia_auc"), 0.5)


def test_the_differences_are_drawn_with_their_intervals():
    table = balancing.families(READ)
    figure = balancing_figures.differences(table)
    trace = figure.data[0]
    assert list(trace.y) == table["family"].tolist()[:0:-1]
    place = list(trace.y).index("model_1 scaled")
    row = table.set_index("family").loc["model_1 scaled"]
    assert trace.x[place] + trace.error_x.array[place] == pytest.approx(row["high"])
    assert trace.x[place] - trace.error_x.arrayminus[place] == pytest.approx(row["low"])
