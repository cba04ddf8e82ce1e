"""Paired differences of two models against naive versions, scipy and simulation; and what is refused."""

import numpy as np
import pytest
from scipy import stats

from analysis import differences, official
from analysis.differences import Rows
from tests.test_official_view import item, whole
from unlearn_core.evaluation import mia
from unlearn_core.vocabulary import SC


def scored(rows, seed, right):
    """The rows with scores drawn at random."""
    chance = np.random.default_rng(seed)
    return [row | ({"rouge_l": float(chance.uniform(0, 1) ** (1 / right - 1))} if row["kind"] == SC else
                   {"exact_match": float(chance.random() < right)}) for row in rows]


@pytest.fixture
def pair():
    rows = whole(documents=6)
    return Rows(scored(rows, 1, 0.5)), Rows(scored(rows, 2, 0.7))


def test_above_zero_the_second_is_better_on_forget_as_on_retain(pair):
    table, refused = differences.compare(*pair)
    own = table.set_index("metric")
    first, second = own.loc["forget_regurgitation_1", ["first", "second"]]
    assert own.loc["forget_regurgitation_1", "difference"] == pytest.approx(first - second)
    first, second = own.loc["retain_knowledge_2", ["first", "second"]]
    assert own.loc["retain_knowledge_2", "difference"] == pytest.approx(second - first)
    assert [said.split(":")[0] for said in refused] == ["Documents of the attack", "MMLU questions"]


def test_the_order_of_the_items_does_not_matter(pair):
    first, second = pair
    table, _ = differences.compare(first, second)
    again, _ = differences.compare(first, Rows(second.answers[::-1]))
    assert again.equals(table)


def test_the_interval_is_that_of_drawing_documents_again_item_by_item():
    rows = [item(f"d{n}", value=v) for n, v in enumerate(np.linspace(0.1, 0.9, 30))]
    other = [row | {"rouge_l": row["rouge_l"] * 0.5} for row in rows]
    chance = np.random.default_rng(3)
    drawn = [np.mean([rows[n]["rouge_l"] - other[n]["rouge_l"] for n in chance.integers(30, size=30)])
             for _ in range(4000)]
    table, _ = differences.compare(Rows(rows), Rows(other))
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])), abs=0.008)


def test_p_is_that_of_scipys_exact_permutation_test():
    first = [item(f"d{n}", value=v) for n, v in enumerate((0.1, 0.4, 0.3, 0.6, 0.2, 0.5, 0.9))]
    second = [item(f"d{n}", value=v) for n, v in enumerate((0.3, 0.5, 0.2, 0.9, 0.4, 0.8, 0.8))]
    expected = stats.permutation_test(
        ([row["rouge_l"] for row in first], [row["rouge_l"] for row in second]), lambda a, b: np.mean(a - b),
        permutation_type="samples", n_resamples=np.inf)
    table, _ = differences.compare(Rows(first), Rows(second))
    assert table.loc[0, "p"] == pytest.approx(expected.pvalue)
    assert table.loc[0, "holm"] == pytest.approx(expected.pvalue)  # a single test


def test_five_persons_cannot_be_told_apart_however_different():
    # All of 2^5 swaps: the smallest two-sided p is 2/32.
    first, second = ([item(f"d{n}", value=value) for n in range(5)] for value in (0.9, 0.1))
    table, _ = differences.compare(Rows(first), Rows(second))
    assert table.loc[0, "p"] == pytest.approx(2 / 32)
    assert not table.loc[0, "told_apart"]


def test_five_questions_about_a_person_are_one_unit():
    ask = [f"What is the {what} of Ann Lee?" for what in ("birth date", "phone number", "home address")]
    first = [item("d1", "qa", task="Task2", value=1, prompt=prompt, number=n) for n, prompt in enumerate(ask)]
    table, _ = differences.compare(Rows(first), Rows([row | {"exact_match": 0} for row in first]))
    assert table.loc[0, "units"] == 1
    assert table.loc[0, "p"] == 1  # two swaps, both as far from 0
    assert not table.loc[0, "told_apart"]


def test_twelve_tests_are_corrected_for_their_number(pair):
    table, _ = differences.compare(*pair)
    twelve = table[table["metric"].isin(official.CELLS)]
    assert (twelve["holm"] >= twelve["p"]).all()
    assert twelve["holm"].min() == pytest.approx(min(1, 12 * twelve["p"].min()))


def test_no_difference_on_any_document_still_has_an_interval():
    rows = [item(f"d{n}", "qa", value=0) for n in range(8)]
    table, _ = differences.compare(Rows(rows), Rows(rows))
    low, high = table.loc[0, ["low", "high"]]
    assert low == -high
    assert high == pytest.approx(0.32, abs=0.02)  # Wilson's upper end of 0 of 8
    assert str(table.loc[0, "difference"]) == "0.0"


def test_a_model_against_itself_is_never_told_apart(pair):
    table, _ = differences.compare(pair[0], pair[0])
    assert not table["told_apart"].any()
    assert (table["p"].dropna() == 1).all()
    assert "better than A in 0 and worse in 0; 12 cannot" in differences.describe(table, "A", "B")[0]


# ---- AUC and MMLU

def losses(members, others):
    return [{"document": f"{side}{n}", "task": "Task1", "member": side == "m", "nll": float(loss)}
            for side, own in (("m", members), ("o", others)) for n, loss in enumerate(own)]


def test_a_drawn_auc_is_that_of_the_drawn_documents():
    members, others = np.array([1.0, 2.0, 2.5]), np.array([2.0, 3.0])
    drawn = differences._drawn_auc(members, others, np.array([[2.0, 0.0, 1.0]]), np.array([[0.0, 2.0]]))
    assert drawn[0] == pytest.approx(mia.auc([1.0, 1.0, 2.5], [3.0, 3.0]))


def test_the_difference_of_two_aucs_has_the_spread_of_delongs():
    chance = np.random.default_rng(5)
    shared_m, shared_o = chance.normal(0, 1, 80), chance.normal(0.8, 1, 80)
    a = losses(shared_m + chance.normal(0, 0.5, 80), shared_o + chance.normal(0, 0.5, 80))
    b = losses(shared_m + chance.normal(0, 0.5, 80), shared_o + chance.normal(0, 0.5, 80))
    sides = [[np.array([row["nll"] for row in rows if row["member"] == member]) for member in (True, False)]
             for rows in (a, b)]
    members = mia._share_above(*sides[1]) - mia._share_above(*sides[0])
    others = mia._share_above(*sides[1][::-1]) - mia._share_above(*sides[0][::-1])
    error = np.sqrt(members.var(ddof=1) / 80 + others.var(ddof=1) / 80)
    table, _ = differences.compare(Rows([], a), Rows([], b))
    row = table.set_index("metric").loc["mia_auc"]
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_two_complete_separations_are_bounded_by_their_own_intervals():
    table, _ = differences.compare(Rows([], losses([1] * 20, [2] * 20)), Rows([], losses([1] * 20, [3] * 20)))
    row = table.set_index("metric").loc["mia_auc"]
    proven = 0.025 ** (1 / 20)
    assert (row["low"], row["high"]) == pytest.approx((proven - 1, 1 - proven))


def test_the_quiz_is_compared_question_by_question():
    first = [{"subject": "s", "question": f"q{n}", "options": list("abcd"), "correct": 0, "predicted": n % 2}
             for n in range(40)]
    second = [row | {"predicted": 0} for row in first]
    table, _ = differences.compare(Rows([], (), first), Rows([], (), second))
    row = table.set_index("metric").loc["mmlu"]
    assert row["difference"] == 0.5
    assert row["told_apart"]


# ---- what is refused

@pytest.mark.parametrize("change", [{"prompt": "other"}, {"answer": "other"}, {"id": "xsc0", "document": "x"}])
def test_other_items_are_not_compared_and_the_reason_is_said(change):
    rows = whole()
    table, refused = differences.compare(Rows(rows), Rows([rows[0] | change, *rows[1:]]))
    assert table.empty
    assert "measured on different ones" in refused[0]


def test_nothing_recorded_is_said_and_not_compared():
    table, refused = differences.compare(Rows([]), Rows(whole()))
    assert table.empty
    assert "Forget and retain items: nothing was recorded for one of the two." in refused
    assert list(table.columns) == list(differences.COLUMNS)


def test_an_attack_without_non_members_is_said():
    rows = losses([1.0, 2.0], [])
    assert "AUC: there is no non-member with a loss." in differences.compare(Rows([], rows), Rows([], rows))[1]


def test_a_missing_score_leaves_its_cell_and_the_aggregate_out(pair):
    first, second = pair
    broken = [dict(row) for row in first.answers]
    place = next(number for number, row in enumerate(broken) if row["kind"] == SC)
    broken[place]["rouge_l"] = None
    table, _ = differences.compare(Rows(broken), second)
    assert len(table) == 11
    assert "task_aggregate" not in table["metric"].to_numpy()
