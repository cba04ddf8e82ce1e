"""What U-LiRA found, as tables, sentences and figures: with a trace, without one, with too little, out of date."""

import numpy as np
import pytest

from analysis import shadows as view
from analysis import shadows_figures
from tests import example_run
from tests.test_shadows import entries, everywhere, planted
from unlearn_core import tables
from unlearn_core.judging import shadows


def write(run, gap, base=30.0, documents=400, own=None):
    """A probe of documents that unlearning leaves `gap` above unseen ones, and the base `base`."""
    statistic, seen, found, member = planted(gap, documents=documents)
    all_statistics, _, all_own = everywhere(statistic, seen, found if own is None else own)
    known, _, in_base, _ = planted(base, documents=documents)
    all_statistics[:, 0], all_own[0] = known, in_base
    run.write_probe("shadows", {"shadows": 8, "seed": 0, "variance": "pooled", "cpu_seconds": 1.5,
                                "forget": {"run": 200, "shadow": 150.0}, "adapters": run.adapter_keys()},
                    shadows.results(all_statistics, seen, all_own, entries(member)))
    return run


@pytest.fixture
def run(tmp_path):
    return example_run.create(tmp_path)


def test_the_table_has_a_row_per_model_and_attack(run):
    frame = view.table(write(run, 1.5))
    assert list(frame.columns) == list(view.COLUMNS)
    assert frame[["model", "setting"]].values.tolist()[:4] == [
        ["base", "u-lira"], ["base", "loss"], ["base", "shuffled"], ["model_1", "u-lira"]]
    assert len(frame) == 12
    stored = {(row["model"], row["setting"], row["measure"]): row for row in run.probe("shadows")["rows"]}
    merged = frame.set_index(["model", "setting"]).loc[("merged", "u-lira")]
    for measure in ("auc", "tpr_1", "tpr_5"):
        row = stored["merged", "u-lira", measure]
        ends = merged[[measure, f"{measure}_low", f"{measure}_high"]]
        assert ends.tolist() == [row["value"], row["low"], row["high"]]
    assert frame[frame["setting"] == "shuffled"]["tpr_5"].isna().all()


def test_the_documents_are_sorted_by_their_ratio_and_say_what_it_comes_from(run):
    found = view.documents(write(run, 1.5))
    assert len(found) == 400
    assert found["score"].is_monotonic_decreasing
    assert found["member"].head(100).mean() > 0.8 > 0.2 > found["member"].tail(100).mean()
    assert found["trace"].mean() == pytest.approx(1.5, abs=0.1)
    # Equal variances: the ratio is trace (above - trace / 2) / variance.
    scale = found["trace"] * (found["above"] - found["trace"] / 2) / found["score"]
    assert np.ptp(scale) == pytest.approx(0, abs=1e-6)


def test_a_trace_is_said_with_its_controls_and_limits(run):
    told = " ".join(view.describe(write(run, 1.5)))
    assert "Merged: U-LiRA with 8 shadow models (pooled variance) tells forgotten documents from unseen ones" in told
    assert "200 forgotten documents, 200 never seen" in told
    assert "are recognised at 1% false positives" in told
    assert "it finds the documents in the base, AUC 1.00" in told
    assert "Each shadow forgets 150 documents, the run 200." in told
    assert "measure again" not in told


def test_no_trace_is_said_with_what_is_still_possible(run):
    told = view.describe(write(run, 0.0, documents=60))
    high = view.table(run).set_index(["model", "setting"]).loc[("merged", "u-lira"), "auc_high"]
    assert "no trace found under U-LiRA with 8 shadow models" in told[0]
    assert f"up to {high:.2f} is possible (30 forgotten documents, 30 never seen)" in told[0]
    assert "not measured at 1% (it takes 100 unseen documents)" in told[1]
    assert "forgotten" not in told[2]


def test_an_attack_that_fails_on_the_base_means_nothing_and_one_below_chance_neither(run):
    told = " ".join(view.describe(write(run, 0.0, base=0.0)))
    assert "it does not even find the documents in the base, so a result near 0.5 proves nothing" in told
    _, _, own, member = planted(1.5)
    mirrored = np.where(member, own - 3, own + 3)  # members look unseen, the others seen
    assert "takes forgotten documents for less seen than unseen ones" in view.describe(
        write(run, 1.5, own=mirrored))[0]


def test_what_was_not_measured_or_is_out_of_date_is_said(run, smoke_copy):
    assert view.describe(run) == [
        f"Not measured: python -m unlearn_core shadows {run.id} (each shadow takes as long as a training)."]
    assert view.table(run).empty
    assert view.documents(run).empty
    write(smoke_copy, 1.5)
    found = smoke_copy.probe("shadows")
    smoke_copy.write_probe("shadows", found["about"] | {"adapters": {"merged": "another"}}, found["rows"])
    assert view.describe(smoke_copy)[-1] == "The run's adapters have changed since: measure again."
    write(run, 1.5, own=np.full(400, np.nan))
    assert view.describe(run) == ["Not measured: forget and holdout have no documents with a number in all models."]


def test_the_command_line_prints_every_attack_and_a_dash_for_what_was_not_measured(run, capsys):
    tables.print_shadows(write(run, 1.5, documents=60))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = next(line for line in lines if line[:2] == ["merged", "u-lira"])
    value = view.table(run).set_index(["model", "setting"]).loc[("merged", "u-lira"), "auc"]
    assert row[2] == f"{value:.3f}"
    assert row[5] == "-"  # 1 % of 30
    assert row[-1] == "30+30"


# ---- figures

def test_the_aucs_have_a_panel_per_attack_and_chance_in_each(run):
    figure = shadows_figures.aucs(view.table(write(run, 1.5)))
    assert [annotation.text for annotation in figure.layout.annotations] == list(view.SETTINGS.values())
    assert len(figure.data) == 12
    assert [shape.x0 for shape in figure.layout.shapes] == [0.5] * 3
    first = figure.data[0]
    assert first.x[0] + first.error_x.array[0] == view.table(run)["auc_high"][0]


def test_the_traces_show_members_and_others_apart(run):
    found = view.documents(write(run, 1.5))
    figure = shadows_figures.traces(found)
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in dots) == 400
    assert sorted(dots[0].x) == sorted(found[found["member"]]["above"])
    shadows_figures.traces(found.head(0))  # nothing to show is no error


@pytest.mark.parametrize("draw", [shadows_figures.aucs, shadows_figures.traces])
def test_a_figure_names_the_columns_that_a_table_lacks(run, draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw(view.table(run)[["model"]])
