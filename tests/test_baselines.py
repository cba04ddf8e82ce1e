"""The comparison of baselines: which try is taken, which settings are valid, and what the table says."""

import pytest

from benchmarks import baselines
from unlearn_core import recipe
from unlearn_core.files import write_json


def row(method, number, seed, aggregate, auc=0.4, scale=0.5):
    scores = {"task_aggregate": aggregate + 0.1, "mia_auc": auc, "mmlu": 0.9, "aggregate": aggregate}
    return {"method": method, "try": number, "seed": seed, "scores": scores, "scale": scale,
            "matched": {**scores, "task_aggregate": 0.7}}


@pytest.mark.parametrize("name", baselines.METHODS)
def test_every_try_of_a_method_is_a_valid_recipe_that_differs_from_the_others(name):
    method = baselines.METHODS[name]
    recipes = [recipe.load("demo", [*method.settings, one]) for one in method.tries]
    assert len(set(map(repr, recipes))) == len(recipes) == 3
    assert any(recipes[0].model_1.weights.values())


def test_the_try_with_the_best_mean_aggregate_is_taken_once_all_seeds_are_there():
    rows = [row("GA", 0, 0, 0.5), row("GA", 0, 1, 0.1), row("GA", 1, 0, 0.4), row("GA", 1, 1, 0.4),
            row("GA", 2, 0, 0.9)]  # the third lacks a seed
    assert baselines.best_tries(rows, [0, 1]) == {"GA": 1}  # .3 and .4


def test_the_table_has_means_over_the_fresh_seeds_with_an_interval_and_names_every_try(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "CHOSEN", {"GA": 1})
    for number, found in enumerate([row("GA", 1, 300, 0.4), row("GA", 1, 301, 0.6), row("GA", 0, 300, 0.1),
                                    row("GA", 1, 0, 0.3)]):
        write_json(tmp_path / f"seed-{found['seed']}" / f"ga-{number}.json", found)
    text = baselines.report(tmp_path, [0], [300, 301])
    [line] = [line for line in text.splitlines() if line.startswith("| GA | 2 |")]
    assert "| 0.500 [-0.771, 1.771] |" in line  # mean of .4 and .6, t(1) = 12.7 times .1
    assert line.endswith("| 0.700 [0.700, 0.700] | 0.50 [0.50, 0.50] |")
    assert "| GA | model_1.lr=1e-4 | 0.300 | yes |" in text
    assert "| GA | model_1.lr=3e-5 | - |  |" in text
