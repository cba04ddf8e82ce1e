"""The benchmark of what the official scores miss: its report on seeds made by hand, and its numbers on a real run."""

import pytest

from analysis import attacks, leaks
from benchmarks import missed_seeds

SEED = {"seed": 200, "auc": 0.55, "low": 0.45, "high": 0.65, "strongest": "min_k_plus", "strongest_auc": 0.3,
        "two_sided": 0.7, "two_sided_low": 0.6, "forget": {"value": 0.1, "low": 0.05, "high": 0.15},
        "holdout": {"value": 0.12, "low": 0.1, "high": 0.2}, "inside": 1, "mmlu": 0.9, "open": 0.4, "exact": 0.0,
        "leaking": 2, "people": 19, "base_leaking": 19}


def test_each_question_is_answered_and_counted_over_the_seeds():
    other = SEED | {"seed": 201, "strongest": "nll", "two_sided_low": 0.4, "inside": None, "leaking": 0}
    text = missed_seeds.report([SEED, other])
    assert "| the official AUC's interval holds 0.5 | 2 of 2 | 16% to 100% |" in text  # 0.025 ** (1 / 2) = 0.158
    for words in ("another attack's AUC", "members lie further out", "an inner layer holds", "somebody of forget"):
        assert next(line for line in text.splitlines() if words in line).split("|")[2].strip() == "1 of 2"
    assert "| 200 | 0.55 | 0.30 Min-K%++ | 0.70 | 0.10 / 0.12 | 1 | 0.90 | 0.40 | 0.00 | 2 of 19 (19) |" in text


@pytest.mark.parametrize(("forget", "holdout", "apart"), [
    ((0.3, 0.4), (0.1, 0.2), True), ((0.0, 0.1), (0.2, 0.3), True), ((0.1, 0.25), (0.2, 0.3), False)])
def test_memory_is_told_apart_where_the_intervals_are_disjoint_on_either_side(forget, holdout, apart):
    holds = next(holds for words, holds in missed_seeds.QUESTIONS if "extraction strength" in words)
    row = SEED | {name: dict(zip(("low", "high"), ends, strict=True))
                  for name, ends in (("forget", forget), ("holdout", holdout))}
    assert holds(row) is apart


def test_the_numbers_of_a_run_are_those_of_its_pages(smoke_run):
    row, scores = missed_seeds.measure(smoke_run), smoke_run.scores()
    assert row["auc"] == pytest.approx(scores["merged"]["mia_auc"])
    assert row["mmlu"] == pytest.approx(scores["merged"]["mmlu"] / scores["base"]["mmlu"])
    found = attacks.by_model(attacks.texts(smoke_run), ["merged"], attacks.Choice(row["strongest"])).iloc[0]
    assert row["strongest_auc"] == found["auc"]
    assert row["leaking"] == leaks.summary(leaks.read(smoke_run)).set_index("model").loc["merged", "leaking"]
    rows = smoke_run.knowledge("merged"), smoke_run.knowledge("base")
    shares = [sum(one["contained"] for one in own) / len(own) for own in rows]
    assert row["open"] == pytest.approx(shares[0] / shares[1])
