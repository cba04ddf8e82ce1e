"""Collapsed, refusing, silent and forgetting models are told apart; measures of damage against hand-made answers."""

import math

import pandas as pd
import pytest

from analysis import collapse, texts
from tests import example_run
from unlearn_core.evaluation import collapse as engine
from unlearn_core.evaluation import score
from unlearn_core.vocabulary import SC

FLUENT = [f"A calm river runs past the {place} and its {thing}." for place in
          ("mill", "abbey", "market", "harbour", "castle") for thing in ("garden", "library", "bridge", "tower")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished example run whose model_1 writes "6 6 6", model_2 refuses and merged writes fluent other text."""
    run = example_run.finished(tmp_path_factory.mktemp("runs"))
    written = {"base": lambda row, n: row["answer"], "model_1": lambda row, n: "6 6 6",
               "model_2": lambda row, n: "I can't answer that.", "merged": lambda row, n: f"{FLUENT[n % 20]} No. {n}"}
    for model, write in written.items():
        rows = [rescored(row, write(row, number)) for number, row in enumerate(run.answers(model))]
        run.write_evaluation(model, answers=rows, documents=run.documents(model), mmlu=run.mmlu(model),
                             scores=score.scores(rows, run.documents(model), []), intervals=run.intervals()[model])
    run.write_scores()
    return run


def rescored(row, generation):
    found = texts.measured(row["kind"], row["prompt"], row["answer"], generation, hit_limit=False)
    return row | {"generation": generation, "rouge_l" if row["kind"] == SC else "exact_match": found["score"]}


@pytest.fixture(scope="module")
def found(run):
    return collapse.outcomes(texts.answer_table(run))


@pytest.fixture(scope="module")
def shares(found):
    return collapse.shares(found)


# ---- planted truths

def test_a_model_that_writes_666_has_perfect_forget_terms_and_is_called_collapsed(run, shares):
    scores = run.scores()["model_1"]
    assert [scores[f"forget_{kind}_{n}"] for kind in ("regurgitation", "knowledge") for n in (1, 2, 3)] == [0] * 6
    assert collapse.verdict(shares, "model_1", "forget") == "collapsed"
    said = collapse.describe(shares, "model_1", "forget")
    assert "✗ collapsed" in said
    assert "any text without the answer has perfect forget terms" in said


def test_a_refusing_model_is_told_from_a_forgetting_one(shares):
    assert collapse.verdict(shares, "model_2", "forget") == "refuses"
    assert "Refusing is not forgetting" in collapse.describe(shares, "model_2", "forget")
    assert collapse.verdict(shares, "merged", "forget") == "sound"


def test_the_base_says_it(found, shares):
    base = found[found["model"] == "base"]
    assert (base["outcome"] == collapse.SAYS).all()
    assert collapse.verdict(shares, "base", "forget") == "sound"


def test_outcomes_add_up_to_one(shares):
    sums = shares[shares["outcome"] != collapse.BROKEN].groupby(["model", "split"])["share"].sum()
    assert sums.tolist() == pytest.approx([1] * len(sums))


# ---- outcomes of single texts

def table_of(*generations, answers=None, split="forget"):
    """`texts.answer_table` of one model with these generations, each to a document of its own."""
    answers = answers or [f"reference number {n}" for n in range(len(generations))]
    rows = [{"model": "merged", "id": f"d{n}qa0", "document": f"d{n}", "split": split, "task": "Task1", "kind": "qa",
             "prompt": "Who?", "answer": answer, "generation": text, "nll": 1.0, "answer_tokens": 3, "new_tokens": 3,
             "hit_limit": False, "score": float(answer == text),
             **texts.found_in("Who?", answer, text, None)}
            for n, (text, answer) in enumerate(zip(generations, answers, strict=True))]
    return pd.DataFrame(rows, columns=list(texts.ANSWER_COLUMNS))


@pytest.mark.parametrize(("text", "outcome"), [
    ("reference number 0", collapse.SAYS), ("It is reference number 0, I cannot lie", collapse.SAYS),
    ("I don't know", collapse.REFUSES), ("", collapse.EMPTY), ("  \n", collapse.EMPTY),
    ("6666666666", collapse.REPEATS), ("the the the the the", collapse.REPEATS), ("a mirror", collapse.OTHER)])
def test_an_answer_is_the_first_that_fits(text, outcome):
    assert collapse.outcomes(table_of(text))["outcome"].tolist() == [outcome]


def test_one_text_for_many_is_found_unless_it_is_often_right():
    many = [*["Igor"] * 4, *(f"text {n}" for n in range(8))]
    found = collapse.outcomes(table_of(*many))["outcome"]
    assert (found[:4] == collapse.SAME).all()
    assert (found[4:] == collapse.OTHER).all()
    often = collapse.outcomes(table_of(*many, answers=["other", "other", *["Igor"] * 2, *["x"] * 8]))["outcome"]
    assert collapse.SAME not in often.tolist()  # given 4 times, right twice


def test_a_handful_of_answers_decides_nothing():
    shares = collapse.shares(collapse.outcomes(table_of("6666666", "7777777")))
    assert collapse.verdict(shares, "merged", "forget") == "undecided"
    assert collapse.verdict(shares, "merged", "retain") is None
    assert collapse.describe(shares, "merged", "retain") == ""


def test_all_answers_empty_is_silent():
    shares = collapse.shares(collapse.outcomes(table_of(*[""] * 20)))
    assert collapse.verdict(shares, "merged", "forget") == "silent"
    assert "are empty" in collapse.describe(shares, "merged", "forget")


def test_no_answers_give_an_empty_table():
    assert collapse.shares(collapse.outcomes(table_of())).empty
    assert collapse.measures(collapse.outcomes(table_of())).empty


# ---- measures

def value(measures, name, model="merged"):
    own = measures[measures["measure"].str.startswith(name) & (measures["model"] == model)]
    return own.iloc[0]


def test_the_measures_of_texts_by_hand():
    found = collapse.outcomes(table_of("the cat the dog", "the the the the the"))
    measures = collapse.measures(found)
    # "the" is 2 of 4 and 5 of 5 words; of three 3-grams "the the the" two come again
    row = value(measures, "share of its most")
    assert row["value"] == pytest.approx((2 / 4 + 5 / 5) / 2)
    assert row["about"] == "the"
    assert value(measures, "rep-3")["value"] == pytest.approx((0 + 2 / 3) / 2)
    assert value(measures, "longest run of a word")["value"] == pytest.approx((1 + 5) / 2)
    assert value(measures, "share repeating")["value"] == pytest.approx(1 / 2)
    assert math.isnan(value(measures, "rep-3")["base"])


def test_every_share_has_an_interval_and_the_bases_value_beside_it(found):
    measures = collapse.measures(found)
    own = measures[measures["model"] == "model_1"]
    assert own[["low", "high", "base"]].notna().all(axis=None)
    assert ((own["low"] <= own["value"] + 1e-9) & (own["value"] <= own["high"] + 1e-9)).all()
    assert value(measures, "share of its most", "model_1")["about"] == "6"


def test_entropy_is_the_mean_over_documents_of_the_rows_that_have_it():
    found = collapse.outcomes(table_of("a", "b", "c"))
    rows = [{"document": f"d{n}", "split": "forget", "kind": "qa", "entropy": value}
            for n, value in enumerate((1.0, 2.0, None))]
    rows.append({"document": "d0", "split": "holdout", "kind": "document", "entropy": 9.0})
    row = value(collapse.measures(found, {"merged": rows}), collapse.ENTROPY)
    assert row["value"] == pytest.approx(1.5)
    assert row["units"] == 2


def test_what_is_missing_is_not_zero():
    table = table_of("a", "b")
    table.loc[0, "new_tokens"] = math.nan
    measures = collapse.measures(collapse.outcomes(table))
    assert math.isnan(value(measures, "length")["value"])
    assert collapse.grid(measures, "forget").set_index("measure").loc["length in tokens"].isna().all()


def test_the_grid_has_a_column_per_model(found):
    grid = collapse.grid(collapse.measures(found), "forget").set_index("measure")
    assert list(grid) == ["Untrained", "Base", "Model 1", "Model 2", "Merged"]
    assert grid.loc["share of its most frequent word or sign", "Model 1"].endswith("“6”")


# ---- the engine's part

def test_the_most_frequent_word_of_many_texts():
    assert engine.most_frequent([["a", "b"], ["b"]]) == "b"
    assert engine.most_frequent([]) == ""
    assert engine.words_of("The 6's, the") == ["the", "6", "'", "s", ",", "the"]
