"""The method page's numbers and pictures: NPO as in the engine's losses, TIES as in its merge, scores as it scores."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from analysis import method_figures, method_loss, method_scores, method_ties, official, training, weights
from tests import example_run
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.evaluation import rouge
from unlearn_core.merging import merge
from unlearn_core.settings import Merge
from unlearn_core.training import losses

REDUCTIONS = ("sequence_sum", "batch_mean", "token")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("runs"))


# ---- NPO

def of_one_token(term, delta, beta, reduction):
    """A loss term of the engine on one answer of one token whose NLL has risen by `delta`."""
    nll = torch.tensor([[delta + 1.5]], dtype=torch.float64)
    return term(nll, torch.full_like(nll, 1.5), torch.ones(1, 1, dtype=torch.bool), beta, reduction).item()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("delta", [-30.0, -1.0, 0.0, 2.0, 40.0])
def test_npo_and_its_brake_are_those_of_the_engines_losses(beta, delta, reduction):
    for mine, theirs in ((method_loss.npo, losses.npo), (method_loss.brake, losses.npo_brake)):
        assert float(mine(delta, beta)) == pytest.approx(of_one_token(theirs, delta, beta, reduction))


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
@pytest.mark.parametrize("delta", [-4.0, 0.0, 7.0])
def test_the_brake_is_minus_the_slope_of_npo(beta, delta):
    step = 1e-5
    slope = (method_loss.npo(delta + step, beta) - method_loss.npo(delta - step, beta)) / (2 * step)
    assert float(method_loss.brake(delta, beta)) == pytest.approx(-slope, rel=1e-6)


def test_ascent_touches_npo_at_the_reference_and_has_the_slope_of_gradient_ascent():
    nll, mask = torch.tensor([[3.0]]), torch.ones(1, 1, dtype=torch.bool)
    steeper = losses.gradient_ascent(nll + 1, mask) - losses.gradient_ascent(nll, mask)  # for one nat more
    assert float(method_loss.ascent(1, 0.1) - method_loss.ascent(0, 0.1)) == pytest.approx(steeper.item())
    assert float(method_loss.ascent(0, 0.1)) == pytest.approx(float(method_loss.npo(0, 0.1))) == pytest.approx(
        20 * math.log(2))


def test_nothing_overflows_far_from_the_reference():
    assert method_loss.npo([-1e6, 1e6], 5.0).tolist() == [2e6, 0.0]
    assert method_loss.brake([-1e6, 1e6], 5.0).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("delta", [-3.0, 0.0, 0.5, 25.0])
def test_delta_is_read_off_a_brake(delta):
    assert method_loss.delta_of(float(method_loss.brake(delta, 0.1)), 0.1) == pytest.approx(delta, abs=1e-9)
    assert all(math.isnan(method_loss.delta_of(brake, 0.1)) for brake in (0.0, 2.0, -1.0, 3.0, math.nan))


def test_the_curves_reach_from_end_to_end():
    curves = method_loss.curves(0.1, -5, 40)
    assert tuple(curves) == method_loss.CURVE_COLUMNS
    assert curves["delta"].iloc[[0, -1]].tolist() == [-5, 40]
    assert (np.diff(curves["npo"]) < 0).all()
    assert (curves["npo"] >= curves["ascent"] - 1e-12).all()  # a tangent of a convex curve lies below it


# ---- a run's own numbers

def test_the_table_of_symbols_has_both_models_values_and_the_recipes_words():
    table = method_loss.symbols(recipes.load("paper")).set_index("Setting")
    assert table.loc[["npo_weight", "gdr_weight", "klr_weight"], ["Model 1", "Model 2"]].to_numpy().tolist() == [
        ["0.4", "0.3"], ["0.2", "0.4"], ["0.4", "0.3"]]
    assert table.loc["beta", "Symbol"] == "β"
    assert table.loc["lr", "Meaning"] == "peak learning rate"
    assert "ga_weight" not in table.index


def test_a_further_term_is_among_the_symbols_where_it_has_weight():
    table = method_loss.symbols(recipes.load("demo", ["model_2.ga_weight=0.5"])).set_index("Setting")
    assert table.loc["ga_weight", ["Model 1", "Model 2"]].tolist() == ["0.0", "0.5"]


def test_the_first_and_the_last_step_are_the_logged_ones(run):
    steps = training.steps(run)
    table = method_loss.first_and_last(steps)
    assert list(table) == ["Model 1, step 1", "Model 1, step 120", "Model 2, step 1", "Model 2, step 60"]
    last = run.steps("model_2")[-1]
    assert table.loc[["NPO", "Total, weighted", "Brake"], "Model 2, step 60"].tolist() == [
        last["npo"], last["loss"], last["npo_brake"]]


def test_without_steps_there_is_neither_a_table_nor_a_point(tmp_path):
    run = example_run.create(tmp_path)
    assert method_loss.first_and_last(training.steps(run)).empty
    points = method_loss.points(training.steps(run), run.recipe())
    assert points.empty
    assert tuple(points) == method_loss.POINT_COLUMNS


def test_a_models_points_have_the_delta_that_gives_its_logged_brake(run):
    points = method_loss.points(training.steps(run), run.recipe())
    assert points[["model", "when", "step"]].to_numpy().tolist() == [
        ["model_1", "first step", 1], ["model_1", "last step", 120], ["model_2", "first step", 1],
        ["model_2", "last step", 60]]
    brakes = [run.steps(model)[at]["npo_brake"] for model in ("model_1", "model_2") for at in (0, -1)]
    assert method_loss.brake(points["delta"], 0.1).tolist() == pytest.approx(brakes)


def test_where_npo_starts_is_said_with_its_arithmetic():
    recipe = recipes.load("demo", ["unlearn.npo_weight=0.4", "unlearn.beta=0.1"])
    assert "Model 1: 0.4 × (2 / 0.1) ln 2 = 5.545" in method_loss.starts(recipe)  # 0.4 * 13.863


def test_the_norm_of_a_change_is_that_of_all_its_matrices_together():
    norms = np.array([[3.0, 4.0], [6.0, 8.0], [0.0, 9.0]])  # (models, matrices)
    measured = weights.Measured({"norm": norms}, {"adapters": ["model_1", "model_2", "merged"]})
    found = method_loss.sizes(measured)
    assert found == {"model_1": 5, "model_2": 10, "merged": 9}
    assert method_loss.sizes_in_words(found) == (
        "Norms of the changes: Model 1 5, Model 2 10, Merged 9. Norm ratio: 1.200.")  # 9 / ((5 + 10) / 2)


def test_what_was_not_measured_is_named_and_gives_no_ratio():
    assert method_loss.sizes(None) == {}
    assert method_loss.sizes_in_words({}) == "Norms of the changes: not measured."
    assert method_loss.sizes_in_words({"model_1": 2.0}) == (
        "Norms of the changes: Model 1 2, Model 2 not measured, Merged not measured.")
    assert "ratio" not in method_loss.sizes_in_words({"model_1": 0.0, "model_2": 0.0, "merged": 0.0})


def test_a_merge_is_told_in_words():
    assert method_loss.merge_in_words(Merge(level="delta", weights=(1.0, 0.5))) == (
        "TIES on the changes ΔW, density 0.8, weights 1 and 0.5")


# ---- TIES

@pytest.mark.parametrize("density", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 2.0), (1.0, 0.0), (-1.0, 0.25)])
def test_ties_on_four_numbers_is_the_engines_ties(density, scales):
    chance = np.random.default_rng(0)
    for _ in range(50):
        one, two = chance.normal(size=(2, 4)).astype(np.float32)
        found = method_ties.steps(one, two, density, scales)
        expected = merge.ties([torch.tensor(one), torch.tensor(two)], scales, density)
        assert found.merged == pytest.approx(expected.numpy(), rel=1e-6, abs=1e-7)
        for trimmed, own in zip(found.trimmed, (one, two), strict=True):
            assert trimmed == pytest.approx(merge.trim(torch.tensor(own), density).numpy())


def test_the_example_shows_a_conflict_an_agreement_and_an_entry_that_each_keeps_alone():
    found = method_ties.steps(method_ties.FIRST, method_ties.SECOND, method_ties.DENSITY)
    assert not method_ties.has_a_tie(method_ties.FIRST, method_ties.SECOND, method_ties.DENSITY)
    # + wins 0.8 against -0.4; both -: (-0.5 - 0.7) / 2; 0.1 is trimmed in the third and the fourth entry
    assert found.merged.tolist() == pytest.approx([0.8, -0.6, 0.3, 0.6])
    assert method_ties.mean(found).tolist() == pytest.approx([0.2, -0.6, 0.2, 0.35])
    table = method_ties.table(found).set_index("Step")
    assert table.loc["What happened"].tolist() == [
        "Conflict, won by Model 1", "Both kept, same sign", "Only Model 1 kept", "Only Model 2 kept"]
    assert table.loc["Trimmed, Model 1"].tolist() == ["0.8", "−0.5", "0.3", ""]
    assert table.loc["Elected sign"].tolist() == ["+1", "−1", "+1", "+1"]
    assert method_ties.describe(found)[0] == (
        "Entry 1 is a conflict: +0.8 against −0.4. TIES keeps the larger one (+0.8 in the merge), the mean lets them "
        "cancel (+0.2).")


def test_without_a_conflict_the_sentence_says_so():
    found = method_ties.steps((1, 2), (3, 4), 1.0)
    assert method_ties.describe(found)[0].startswith("No entry is a conflict")


def test_a_zero_is_never_kept():
    found = method_ties.steps((0, 0, 0, 1), (0, 2, 0, -3), 1.0)
    assert found.merged.tolist() == [0, 2, 0, -3]
    assert method_ties.table(found).set_index("Step").loc["What happened"].tolist() == [
        "Both trimmed", "Only Model 2 kept", "Both trimmed", "Conflict, won by Model 2"]


@pytest.mark.parametrize(("first", "density", "tied"), [
    ((1, -1, 3, 0), 0.5, True), ((1, -1, 3, 0), 0.75, False), ((1, 1, 1, 1), 1.0, False), ((0, 0, 0, 1), 0.5, False)])
def test_equal_magnitudes_at_the_limit_are_noticed(first, density, tied):
    assert method_ties.has_a_tie(first, (4, 3, 2, 1), density) is tied
    kept = [merge.trim(torch.tensor(first, dtype=torch.float32), density).count_nonzero().item(),
            np.count_nonzero(method_ties.steps(first, (4, 3, 2, 1), density).trimmed[0])]
    assert kept[0] == kept[1]  # as many are kept, whichever


@pytest.mark.parametrize(("first", "second", "scales"), [
    ((1, 2), (1, math.nan), (1, 1)), ((1, 2), (1, math.inf), (1, 1)), ((1, 2), (1, 2, 3), (1, 1)),
    ((1, 2), (1, 2), (0, 0)), ((1, 2), (1, 2), (1, math.nan))])
def test_what_cannot_be_merged_is_refused(first, second, scales):
    with pytest.raises(InputError, match="expected"):
        method_ties.steps(first, second, 0.5, scales)


# ---- scores

def test_the_words_in_common_over_the_words_wanted_are_rouge_l_recall():
    common, wanted = method_scores.words_in_common(method_scores.REFERENCE, method_scores.GENERATION)
    assert (common, wanted) == (8, 16)
    assert rouge.rouge_l_recall(method_scores.REFERENCE, method_scores.GENERATION) == common / wanted
    assert method_scores.words_in_common("", "a") == (0, 0)


def test_only_blanks_around_an_answer_are_forgiven():
    table = method_scores.exact_matches(method_scores.RIGHT, method_scores.ANSWERS)
    assert table["Exact match"].tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(("members", "nonmembers"), [
    (method_scores.MEMBERS, method_scores.NONMEMBERS), ((1, 1, 1), (1, 1, 1)), ((3, 2, 5), (1, 2, 2)), ((1,), (2, 0))])
def test_the_share_of_pairs_is_the_auc(members, nonmembers):
    table = method_scores.pairs(members, nonmembers)
    labels = [1] * len(members) + [0] * len(nonmembers)
    assert table["counts"].mean() == pytest.approx(roc_auc_score(labels, [-loss for loss in (*members, *nonmembers)]))
    said = method_scores.describe_attack(members, nonmembers, 2.2)
    assert f"in {table['counts'].sum():g} of {len(table)} pairs" in said[0]


def test_a_threshold_counts_members_and_false_alarms_below_it():
    said = method_scores.describe_attack((1.0, 1.6, 2.4), (2.0, 2.8, 3.2), 2.2)[1]
    assert "2 of 3 members are recognised, 1 of 3 non-members are false alarms" in said
    assert "0 of 3 members" in method_scores.describe_attack((1.0, 1.6, 2.4), (2.0, 2.8, 3.2), 1.0)[1]  # not below 1


@pytest.mark.parametrize(("members", "nonmembers"), [((), (1.0,)), ((1.0,), (math.nan,)), ((math.inf,), (1.0,))])
def test_losses_that_are_no_numbers_are_refused(members, nonmembers):
    with pytest.raises(InputError, match=r"losses of (non-)?members"):
        method_scores.check_losses(members, nonmembers)


def test_the_harmonic_mean_is_that_of_the_twelve_terms():
    own = [1 - value if key.startswith("forget") else value for key, value in method_scores.SCORES.items()]
    harmonic, plain = method_scores.means(method_scores.SCORES)
    assert harmonic == pytest.approx(statistics.harmonic_mean(own))
    assert plain == pytest.approx(statistics.mean(own))
    assert harmonic < plain
    table = method_scores.terms(method_scores.SCORES)
    assert table["metric"].iloc[0] == "retain_knowledge_2"  # 0.40, the lowest
    assert table["pull"].sum() == pytest.approx(1)


def test_one_term_of_zero_makes_the_task_aggregate_zero():
    harmonic, plain = method_scores.means(method_scores.SCORES | {"forget_knowledge_1": 1.0})
    assert harmonic == 0
    assert plain > 0.7


def test_the_scores_are_the_runs_where_all_twelve_were_measured(run):
    model, scores = method_scores.own_scores(run.scores())
    assert model == "merged"
    assert scores == {key: run.scores()["merged"][key] for key in official.CELLS}
    half = {"merged": {key: 0.5 for key in official.CELLS[:6]}}
    assert method_scores.own_scores(half) == method_scores.own_scores({}) == ("", method_scores.SCORES)


@pytest.mark.parametrize(("base", "model", "word"), [(0.8, 0.601, "not below it: the gate is **passed**"),
                                                     (0.8, 0.599, "below it: the gate is **not passed**")])
def test_the_gate_is_three_quarters_of_the_base(base, model, word):
    assert f"0.75 × 0.800 = 0.600, and {model:.3f} is {word}" in method_scores.describe_gate(base, model)


# ---- figures

def test_the_brake_is_drawn_with_the_run_on_the_curve(run):
    points = method_loss.points(training.steps(run), run.recipe())
    figure = method_figures.brake(method_loss.curves(0.2, -5, 40), points, 0.2, 3.0)
    last = [trace for trace in figure.data if trace.name == "Model 1, last step"]
    delta = points["delta"].iloc[1]
    assert [list(trace.x) for trace in last] == [[delta], [delta]]
    assert [trace.y[0] for trace in last] == pytest.approx([float(method_loss.npo(delta, 0.2)),
                                                            float(method_loss.brake(delta, 0.2))])
    here = [trace.y[0] for trace in figure.data if trace.name == "At the slider"]
    assert here == pytest.approx([10 * math.log(1 + math.exp(-0.6)), 2 / (1 + math.exp(0.6))])


def test_trimmed_entries_are_bars_of_their_own_and_the_merge_stands_beside():
    figure = method_figures.ties(method_ties.steps(method_ties.FIRST, method_ties.SECOND, 0.75))
    bars = {trace.name: list(trace.y) for trace in figure.data if trace.type == "bar"}
    assert bars == {"Model 1": [0.8, -0.5, 0.3], "Model 1, trimmed": [0.1], "Model 2": [-0.4, -0.7, 0.6],
                    "Model 2, trimmed": [0.1]}
    merged = next(trace for trace in figure.data if trace.name == "TIES")
    assert list(merged.y) == pytest.approx([0.8, -0.6, 0.3, 0.6])


@pytest.mark.parametrize(("threshold", "side"), [(0.0, "left"), (2.2, "right")])
def test_the_words_beside_the_threshold_stay_inside(threshold, side):
    figure = method_figures.losses((1, 1.6, 2.4), (2, 2.8, 3.2), threshold)
    assert figure.layout.annotations[0].xanchor == side
    assert [list(trace.x) for trace in figure.data] == [[1, 1.6, 2.4], [2, 2.8, 3.2]]


def test_the_terms_are_bars_with_the_weakest_on_top():
    table = method_scores.terms(method_scores.SCORES)
    figure = method_figures.terms(table, 0.5, 0.6)
    assert figure.data[0].y[-1] == "Retain: people with PII, knowledge"
    assert list(figure.data[0].x) == sorted(table["term"], reverse=True)


@pytest.mark.parametrize("draw", [
    lambda: method_figures.brake(pd.DataFrame(), pd.DataFrame(), 0.1, 0.0),
    lambda: method_figures.terms(pd.DataFrame(), 0.1, 0.2)])
def test_a_table_without_its_columns_is_refused(draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw()
