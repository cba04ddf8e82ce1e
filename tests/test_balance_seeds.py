"""The benchmark of balance over seeds: its report on seeds made by hand, and the names of runs that differ."""

import pytest

from benchmarks import balance_seeds
from unlearn_core.files import write_json
from unlearn_core.trials.balance import AS_IT_IS, BALANCED


def seed_file(folder, seed, *, balanced, control, refused=""):
    """(Task Aggregate, AUC) of the balanced merge and of one control; the target is 0.5."""
    def family(name, task_aggregate, auc):
        return {"family": name, "task_aggregate": task_aggregate, "mia_auc": auc,
                "folds": [{"test": {"mia_auc": auc - 0.1}}, {"test": {"mia_auc": auc + 0.1}}]}
    write_json(folder / f"seed-{seed}.json", {
        "seed": seed, "cpu_seconds": 100, "scores": {"model_1": {"mia_auc": 0.3}, "model_2": {"mia_auc": 0.7}},
        "balance": {"target": 0.5, "configurations": 192, "refused": refused, "families": [
            family(AS_IT_IS, 0.5, 0.8), family(BALANCED, *balanced), family("control", *control)],
            "n": {"units": 9, "members": 56, "nonmembers": 28}}})


def test_the_report_pairs_each_family_with_the_balanced_merge(tmp_path):
    seed_file(tmp_path, 200, balanced=(0.70, 0.5), control=(0.72, 0.5))
    seed_file(tmp_path, 201, balanced=(0.60, 0.5), control=(0.66, 0.5), refused="5 members")
    text = balance_seeds.report(tmp_path)
    # differences 0.02 and 0.06: mean 0.04, standard error 0.02, t(0.975, 1) = 12.706
    assert "| control | 0.690 | 0.50 | 0.10 | +0.040 [-0.214, +0.294] | 2 of 2 |" in text
    assert f"| {BALANCED} | 0.650 | 0.50 | 0.10 |  |  |" in text
    assert "refused: 201" in text
    assert "bracket it on 2 of 2" in text


def test_a_report_on_nothing_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="run the benchmark first"):
        balance_seeds.report(tmp_path)


def test_families_of_a_second_run_have_the_same_name_on_every_seed():
    named = balance_seeds._named("mean with model_1 of demo-seed200-1, scaled", {"demo-seed200-1": "another seed"})
    assert named == 'mean with model_1 of "another seed", scaled'
