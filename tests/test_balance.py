"""Choosing on one half and reading on the other: the scores, the halves, the rule, and that nothing leaks across."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from unlearn_core import data
from unlearn_core.errors import InputError
from unlearn_core.evaluation import mia, score
from unlearn_core.store import Run
from unlearn_core.trials import balance, halves, variants, weighing
from unlearn_core.trials.balance import REFERENCE, Measured
from unlearn_core.trials.experiments import Subset
from unlearn_core.vocabulary import SUB_SCORES

KEYS = [metric.key for metric in SUB_SCORES]
UNITS, ATTACKED = 16, 60  # units of each sub-score, members (and as many non-members)


def made(rows: list[tuple[str, str, float, float]]) -> Measured:
    """Configurations (family, name, every term of the Task Aggregate on average, AUC on average)."""
    chance = np.random.default_rng(0)
    cell = np.repeat(np.arange(12), UNITS)
    unit = np.arange(12 * UNITS)
    member = np.arange(2 * ATTACKED) < ATTACKED
    values, nll = [], []
    for _, _, term, auc in rows:
        ideal = np.array([metric.ideal for metric in SUB_SCORES])[cell]
        noise = chance.uniform(-0.02, 0.02, len(cell))
        values.append(np.where(ideal == 0, 1 - term, term) + noise)
        # Losses of members against non-members: shifted so far that the AUC is about what is wanted.
        losses = np.tile(np.linspace(0, 1, ATTACKED), 2)
        losses[member] += 1 - np.sqrt(2 * auc) if auc <= 0.5 else np.sqrt(2 - 2 * auc) - 1
        nll.append(losses)
    families = [family for family, *_ in rows]
    stratum = np.concatenate([cell, np.repeat([12, 13], ATTACKED)])
    return Measured(families, [name for _, name, *_ in rows], np.array(values), cell, unit, np.array(nll), member,
                    12 * UNITS + np.arange(2 * ATTACKED), stratum)


MEASURED = made([("the merge, scaled", REFERENCE, 0.8, 0.2), ("the merge, scaled", "the merge, scaled x 0.7", 0.7, 0.5),
                 ("the merge, scaled", "the merge, scaled x 0.5", 0.9, 0.8), ("mix of both", "1 : 1", 0.75, 0.52),
                 ("model_1 scaled", "x 0.6", 0.85, 0.5), ("model_1 scaled", "x 1", 0.95, 0.1)])


# ---- scores

def test_many_task_aggregates_at_once_are_those_of_the_official_score():
    means = np.random.default_rng(1).uniform(0, 1, (5, 12))
    means[3, 7] = 0.0  # a retain score of 0, so a term of 0
    expected = [score.task_aggregate(dict(zip(KEYS, row, strict=True))) for row in means]
    assert balance.task_aggregates(means) == pytest.approx(expected)
    assert balance.task_aggregates(means)[3] == 0.0
    assert np.isnan(balance.task_aggregates(np.full((1, 12), np.nan))).all()


def test_the_means_of_the_smoke_runs_items_are_its_sub_scores(smoke_run):
    rows = smoke_run.answers("merged")
    values = [[row["rouge_l"] if row["kind"] == "sc" else row["exact_match"] for row in rows]]
    cell = [KEYS.index(score.sub_score_key(row["split"], row["kind"], row["task"])) for row in rows]
    found = balance.cell_means(np.array(values, float), np.array(cell))[0]
    assert found == pytest.approx([smoke_run.scores()["merged"][key] for key in KEYS])


def test_units_drawn_twice_count_twice():
    values, cell, weights = np.array([[1.0, 0.0, 1.0]]), np.array([0, 0, 1]), np.array([[2.0, 1.0, 0.0]])
    found = balance.cell_means(values * weights, cell, weights)[0]
    assert found[0] == pytest.approx((2 * 1.0 + 0.0) / 3)
    assert np.isnan(found[1])  # nothing of it was drawn


# ---- halves and the rule

@pytest.mark.parametrize("seed", range(5))
def test_each_stratum_is_halved_and_the_halves_are_as_large(seed):
    stratum = np.array([0] * 7 + [1] * 5 + [2] * 4)
    half = balance.halves(stratum, seed)
    for name in range(3):
        ones = half[stratum == name].sum()
        assert abs(2 * ones - (stratum == name).sum()) <= 1
    assert half.sum() == 8
    assert (half == balance.halves(stratum, seed)).all()
    assert (half != balance.halves(stratum, seed + 1)).any()


def test_a_family_is_chosen_at_the_target_and_not_where_its_aggregate_is_best():
    found = {row["family"]: row for row in balance.read(MEASURED, 0.5)["families"]}
    assert [fold["chosen"] for fold in found["the merge, scaled"]["folds"]] == ["the merge, scaled x 0.7"] * 2
    assert [fold["chosen"] for fold in found["model_1 scaled"]["folds"]] == ["x 0.6"] * 2
    assert found["model_1 scaled"]["task_aggregate"] == pytest.approx(0.85, abs=0.01)
    assert [fold["chosen"] for fold in found["balanced merge"]["folds"]] == ["1 : 1"] * 2  # .75 > .70, both matched
    assert [fold["chosen"] for fold in found["the run's merge"]["folds"]] == [REFERENCE] * 2


def test_where_no_setting_meets_the_target_the_nearest_auc_is_taken():
    found = {row["family"]: row for row in balance.read(MEASURED, 0.95)["families"]}
    assert {fold["chosen"] for fold in found["the merge, scaled"]["folds"]} == {"the merge, scaled x 0.5"}
    assert {fold["chosen"] for fold in found["model_1 scaled"]["folds"]} == {"x 0.6"}


@pytest.mark.parametrize("target", [0.0, 0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_what_cannot_be_chosen_need_not_be_asked(target, seed):
    asked = balance.eligible(replace(MEASURED, values=np.full_like(MEASURED.values, np.nan)), target, seed)
    values = np.full_like(MEASURED.values, np.nan)
    values[asked] = MEASURED.values[asked]
    assert balance.read(replace(MEASURED, values=values), target, seed) == balance.read(MEASURED, target, seed)


def test_the_settings_near_the_target_and_the_merge_as_it_is_are_asked():
    asked = [MEASURED.names[number] for number in balance.eligible(MEASURED, 0.5)]
    assert asked == [REFERENCE, "the merge, scaled x 0.7", "1 : 1", "x 0.6"]  # not those with AUC .8 and .1


def test_what_is_read_has_no_say_in_what_is_chosen():
    half = balance.halves(MEASURED.stratum, 0)
    values = MEASURED.values.copy()
    first = half[MEASURED.unit] == 0
    values[:, first] = np.random.default_rng(5).uniform(0, 1, (len(values), first.sum()))
    before = balance.read(MEASURED, 0.5)["families"]
    after = balance.read(replace(MEASURED, values=values), 0.5)["families"]
    for one, other in zip(before, after, strict=True):
        assert one["folds"][1]["chosen"] == other["folds"][1]["chosen"]  # chosen on the half that is as it was
        same_choice = one["folds"][0]["chosen"] == other["folds"][0]["chosen"]
        assert (one["folds"][0]["test"] == other["folds"][0]["test"]) == same_choice  # and what is read is as it was


def test_the_difference_from_the_merge_is_zero_for_the_merge_and_has_an_interval_for_others():
    found = {row["family"]: row for row in balance.read(MEASURED, 0.5)["families"]}
    assert found["the run's merge"]["difference"] == [0.0, 0.0, 0.0]
    value, low, high = found["model_1 scaled"]["difference"]
    assert low < value < high
    assert value == pytest.approx(0.85 - 0.8, abs=0.01)
    assert high - low < 0.02  # the items of a unit differ by at most 0.04


def test_the_auc_that_is_read_is_that_of_the_attack_on_the_test_half():
    found = balance.read(MEASURED, 0.5)["families"][0]
    half = balance.halves(MEASURED.stratum, 0)[MEASURED.attack_unit]
    for fold, test in zip(found["folds"], (1, 0), strict=True):
        losses = MEASURED.nll[MEASURED.reference]
        members, others = losses[MEASURED.member & (half == test)], losses[~MEASURED.member & (half == test)]
        assert fold["test"]["mia_auc"] == pytest.approx(mia.auc(members, others))
        assert fold["test"]["mia_auc_interval"] == pytest.approx(mia.auc_interval(members, others))


def test_too_few_documents_are_refused_by_number():
    assert balance.read(MEASURED, 0.5)["refused"] == ""
    few = replace(MEASURED, member=np.arange(2 * ATTACKED) < 30)
    assert "15 members in a half, of the 20 that a conclusion takes" in balance.read(few, 0.5)["refused"]


# ---- on a run

@pytest.fixture
def quick(monkeypatch):
    """Two settings of each knob."""
    monkeypatch.setattr(variants, "SCALES", (0.5, 1.0))
    monkeypatch.setattr(variants, "MIX", (0.3,))


def test_the_smoke_run_is_balanced_item_by_item_and_each_reading_counts(smoke_copy, quick):
    weighing.balance(smoke_copy, device="cpu")
    measured = balance.measured(smoke_copy)
    assert measured.names[measured.reference] == REFERENCE
    own = smoke_copy.answers("merged")
    assert measured.values[measured.reference].tolist() == [
        row["rouge_l"] if row["kind"] == "sc" else row["exact_match"] for row in own]
    assert measured.nll[measured.reference] == pytest.approx([row["nll"] for row in smoke_copy.documents("merged")])
    found = smoke_copy.balance()
    assert found["target"] == smoke_copy.scores()["untrained"]["mia_auc"]
    assert (found["target_from"], found["configurations"]) == ("untrained", len(measured.names))
    assert "documents or persons of a sub-score in a half" in found["refused"]  # smoke shows nothing about unlearning
    assert {"mix of both", "model_1 stopped early", variants.MATCHED} <= set(measured.families)
    before = smoke_copy.arrays("balance")[0]["values"]
    weighing.balance(smoke_copy, seed=1, device="cpu")
    after = smoke_copy.arrays("balance")[0]["values"]
    kept = ~np.isnan(before)  # whom other halves made eligible was asked in addition
    assert np.array_equal(after[kept], before[kept])
    assert [reading["seed"] for reading in smoke_copy.balance()["readings"]] == [0, 1]


def test_the_model_1_of_another_run_on_the_same_base_is_a_control(smoke_copy, quick, tmp_path):
    other = Run(shutil.copytree(smoke_copy.path, tmp_path / "second"))
    for path in other.model_dir("model_1").rglob("adapter_config.json"):  # a run calls its base by its own name
        path.write_text(path.read_text().replace(smoke_copy.id, other.id))
    weighing.balance(smoke_copy, beside=[other], subset=Subset(1), device="cpu")
    measured = balance.measured(smoke_copy)
    own, its = (measured.names.index(f"{kind} x 1") for kind in ("model_1 scaled", "model_1 of second, scaled"))
    assert np.array_equal(measured.nll[own], measured.nll[its])  # the copy has the same adapters
    assert "mean with model_1 of second, scaled" in {row["family"] for row in smoke_copy.balance()["families"]}
    weights = other.full_model_dir("base") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="balance --beside second; got a run on another base"):
        weighing.balance(smoke_copy, beside=[other], subset=Subset(1), device="cpu")


def test_items_of_a_document_and_of_a_person_are_one_unit_and_its_attack_document_too(smoke_copy, quick):
    weighing.balance(smoke_copy, subset=Subset(1), device="cpu")
    measured, rows = balance.measured(smoke_copy), smoke_copy.answers("merged")
    assert len(measured.unit) < len(rows)
    forget_units = set(measured.unit[:len(measured.unit) // 2])
    assert forget_units & set(measured.attack_unit[measured.member])
    assert not set(measured.unit) & set(measured.attack_unit[~measured.member])
    whole = halves.units(data.load_saved(smoke_copy.data_dir))
    assert measured.stratum.tolist() == whole.stratum.tolist()  # so a subset has the halves of all documents
    assert set(measured.unit) < set(whole.of.values())


def test_the_reading_of_balance_is_a_look_at_the_test_half(smoke_copy, quick):
    weighing.balance(smoke_copy, device="cpu")
    reading, = smoke_copy.readings()
    found = smoke_copy.balance()
    fold = next(row for row in found["families"] if row["family"] == "balanced merge")["folds"][0]
    assert reading["what"] == f"balance, chosen on the development half: {fold['chosen']}"
    assert reading["scores"]["mia_auc"] == fold["test"]["mia_auc"]
    assert reading["configurations"] == found["configurations"]
    whole = data.load_saved(smoke_copy.data_dir)
    test = halves.part(whole, "test")
    assert len(test.attack) == reading["n"]["members"] + reading["n"]["nonmembers"]  # 15 documents: 8 and 7
    nll = {row["document"]: row["nll"] for row in smoke_copy.documents("merged")}
    measured = balance.measured(smoke_copy)
    kept = [entry.document in {one.document for one in test.attack} for entry in whole.attack]
    own = measured.nll[measured.reference][kept]
    assert own == pytest.approx([nll[entry.document] for entry in test.attack])
    members = measured.member[kept]
    merge = next(row for row in found["families"] if row["family"] == "the run's merge")
    assert merge["folds"][0]["test"]["mia_auc"] == mia.auc(own[members], own[~members])
    weighing.balance(smoke_copy, seed=1, device="cpu")
    assert "halves of seed 1, which mix both" in smoke_copy.readings()[1]["what"]
