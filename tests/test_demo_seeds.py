"""The seeds benchmark: its search for a scale, and its report on seeds made by hand."""

import pytest

from benchmarks import demo_seeds
from unlearn_core.files import write_json
from unlearn_core.vocabulary import SUB_SCORES


def test_the_scale_is_found_where_the_falling_auc_meets_its_target():
    # AUC 1 - s / 2 is 0.7 at s = 0.6
    assert demo_seeds._scale_for(lambda s: 1 - s / 2, 0.7) == pytest.approx(0.6, abs=0.005)


def seed_file(folder, seed, *, merged, model_1=(0.7, 0.2), model_2=(0.6, 0.8), base=1.0):
    """(Task Aggregate, MIA AUC) of each model; `base` is all twelve sub-scores of the base."""
    def scores(task_aggregate, auc):
        return {"task_aggregate": task_aggregate, "mia_auc": auc, "mmlu": 0.9}
    control = {**scores(0.8, merged[1]), "scale": 0.6, "norm": 9.0}
    write_json(folder / f"seed-{seed}.json", {
        "seed": seed, "cpu_seconds": 100.0, "sizes": {"members": 103, "nonmembers": 50},
        "controls": dict.fromkeys(("plain_mean", "plain_mean_matched", "model_1_scaled_matched"), control),
        "scores": {"untrained": {"mia_auc": 0.5, "mmlu": 0.25},
                   "base": {"mia_auc": 1.0, "mmlu": 1.0, **{m.key: base for m in SUB_SCORES}},
                   "model_1": scores(*model_1), "model_2": scores(*model_2), "merged": scores(*merged)}})


def test_the_report_counts_what_held_and_compares_in_pairs(tmp_path):
    seed_file(tmp_path, 100, merged=(0.75, 0.55))  # above both parents and nearest to 0.5
    seed_file(tmp_path, 101, merged=(0.65, 0.85), base=0.9)  # neither, and a base that has not memorised
    text = demo_seeds.report(tmp_path)
    assert "| base has memorised (mean sub-score and AUC >= 0.95) | 1 of 2 |" in text
    assert "| model_1 AUC < 0.5 < model_2 AUC | 2 of 2 |" in text
    assert "| merged Task Aggregate above both parents | 1 of 2 |" in text
    assert "| both of the last two | 1 of 2 |" in text
    # merged - 0.8: -0.05 and -0.15, mean -0.10
    assert "| TIES - plain mean, at matched AUC | -0.100 |" in text
    assert "| 101 | no | 0.700 / 0.200 | 0.600 / 0.800 | 0.650 / 0.850 |" in text


def test_a_report_on_nothing_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="run the benchmark first"):
        demo_seeds.report(tmp_path)
