"""The official script's files and keys, its numbers computed naively with pandas, rouge_score and scikit-learn."""

import csv
import io
import json
import random
import statistics

import numpy as np
import pandas as pd
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from unlearn_core.errors import InputError
from unlearn_core.evaluation.official import _MISSING, official_scores, warning

COLUMNS = ["id", "task", "input", "expected_output", "model_output", "nll"]
WORDS = ["the", "cat", "sat", "running", "1996", "nan", "Paris", "900514344", "first_last@me.com"]


def write(path, rows, columns=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def random_rows(rng, documents=4):
    """Rows of all three tasks with their real id forms, quotes, line breaks and the texts that pandas reads as NaN."""
    rows = []
    for task, name in (("Task1", '"8f24-{}"'), ("Task2", "8f24-{}"), ("Task3", "1234{}")):
        for number in range(documents):
            for suffix in ("sc1", "qa0", "qa1") if task == "Task2" else ("sc1", "qa0"):
                expected = " ".join(rng.choices(WORDS, k=1 if "qa" in suffix else 8))
                written = rng.choice([expected, expected.upper() + " ", 'a "quoted", text\nand the cat', "", "None",
                                      "NA", " ".join(rng.choices(WORDS, k=12))])
                rows.append([name.format(number) + suffix, task, "prompt", expected, written, 1.5])
    return rows


@pytest.fixture
def folder(tmp_path):
    rng = random.Random(5)
    for split in ("forget", "retain"):
        for process in range(2):
            write(tmp_path / f"{split}_{process}.csv", random_rows(rng))
    for side in ("member", "nonmember"):
        for process in range(2):
            write(tmp_path / "mia_results" / f"{side}_{process}.csv", [[i, rng.gauss(2, 1)] for i in range(20)],
                  ["id", "nll"])
    (tmp_path / "metrics.json").write_text(json.dumps({"average_acc": 0.495, "subcat_acc": {}}))
    return tmp_path


def naive_set(folder, split):
    """The official numbers of one split, item by item, on what pandas reads."""
    frame = pd.concat([pd.read_csv(folder / f"{split}_{process}.csv") for process in range(2)], ignore_index=True)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    texts = frame[["expected_output", "model_output"]].map(str)
    frame["regurgitation-score"] = [
        scorer.score(gold, text)["rougeL"].recall if i[:-1].endswith("sc") else np.nan
        for i, gold, text in zip(frame["id"], *texts.T.values, strict=True)]
    frame["knowledge-score"] = [
        float(gold.strip().lower() == text.strip().lower()) if i[:-1].endswith("qa") else np.nan
        for i, gold, text in zip(frame["id"], *texts.T.values, strict=True)]
    names = ["regurgitation-score", "knowledge-score"]
    return {**{f"overall-{name}": frame[name].mean() for name in names},
            **frame.groupby("task")[names].mean().to_dict(orient="index")}


def test_a_folder_of_answers_scores_as_the_naive_official_computation(folder):
    result = official_scores(folder)
    terms = []
    for split in ("forget", "retain"):
        expected = naive_set(folder, split)
        assert list(result[f"{split}-set"]) == list(expected)
        for key, value in expected.items():
            assert result[f"{split}-set"][key] == pytest.approx(value, rel=1e-12)
        for task in ("Task1", "Task2", "Task3"):
            for value in expected[task].values():
                terms.append(1 - value if split == "forget" else value)
    losses = {side: pd.concat([pd.read_csv(folder / "mia_results" / f"{side}_{p}.csv") for p in (0, 1)])["nll"].tolist()
              for side in ("member", "nonmember")}
    auc = roc_auc_score([1] * 40 + [0] * 40, [-loss for loss in losses["member"] + losses["nonmember"]])
    harmonic = statistics.harmonic_mean(terms)
    assert 0 < harmonic < 1
    assert result["aggregated-terms"] == pytest.approx(terms, rel=1e-12)
    assert result["harmonic-mean-task-aggregate"] == pytest.approx(harmonic, rel=1e-12)
    assert result["mia_loss_acc"] == pytest.approx(auc, rel=1e-12)
    assert result["mia_final_score"] == pytest.approx(1 - abs(auc - 0.5) * 2, rel=1e-12)
    assert result["aggregate-score"] == pytest.approx((harmonic + 0.495 + result["mia_final_score"]) / 3, rel=1e-12)
    json.dumps(result, allow_nan=False)


def test_the_keys_are_the_official_ones(folder):
    assert official_scores(folder).keys() == {
        "forget-set", "retain-set", "mia_loss_acc", "mmlu_average", "aggregated-terms", "harmonic-mean-task-aggregate",
        "mia_final_score", "aggregate-score"}


def test_without_mmlu_or_attack_the_aggregate_is_minus_one(folder):
    (folder / "metrics.json").unlink()
    result = official_scores(folder)
    assert result["aggregate-score"] == -1
    assert result.keys().isdisjoint({"mmlu_average", "mia_final_score"})
    for path in (folder / "mia_results").iterdir():
        path.unlink()
    (folder / "mia_results").rmdir()
    assert "mia_loss_acc" not in official_scores(folder)


def test_an_empty_answer_is_the_word_nan_as_in_the_official_script(folder):
    rows = [["1sc1", "Task1", "", "nan", "", 1], ["1qa0", "Task1", "", "None", "", 1]]
    for path in folder.glob("*.csv"):
        path.unlink()
    write(folder / "forget_0.csv", rows)
    write(folder / "retain_0.csv", rows)
    assert official_scores(folder)["retain-set"]["Task1"] == {"regurgitation-score": 1.0, "knowledge-score": 1.0}


def test_the_texts_taken_for_missing_are_those_of_pandas():
    texts = [*sorted(_MISSING), "none", "N.A.", "0", "Nan"]
    frame = pd.read_csv(io.StringIO("".join(f'"{text}",x\n' for text in texts)), names=["text", "other"])
    assert frame["text"].isna().tolist() == [True] * len(_MISSING) + [False] * 4


def test_mmlu_below_the_threshold_is_a_warning(folder):
    assert warning(official_scores(folder)) == ""
    (folder / "metrics.json").write_text('{"average_acc": 0.37}')
    assert "below 0.371" in warning(official_scores(folder))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda d: (d / "forget_0.csv").unlink() or (d / "forget_1.csv").unlink(), "no forget_"),
    (lambda d: write(d / "retain_0.csv", []), "retain_0.csv; got no rows"),
    (lambda d: (d / "retain_0.csv").write_text(""), "retain_0.csv; got an empty file"),
    (lambda d: write(d / "retain_0.csv", [["a", "b"]], ["id", "task"]),
     "missing field expected_output, model_output; got columns id, task"),
    (lambda d: write(d / "retain_0.csv", [["1sc1", "Task1"]]), "line 2; got 2 cells; expected 6 as in"),
    (lambda d: write(d / "retain_0.csv", [["1sc1", "Task1", "", "a", "b", 1, "more"]]), "line 2; got 7 cells"),
    (lambda d: write(d / "retain_0.csv", [["1sc1", "T", "", "two\nlines", "b", 1], ["1xx1", "T", "", "c\nd", "", 1]]),
     "retain_0.csv, line 4: id; got 1xx1"),
    (lambda d: write(d / "retain_0.csv", [["1xx1", "Task1", "", "a", "b", 1]]), "retain_0.csv, line 2: id; got 1xx1"),
    (lambda d: write(d / "retain_0.csv", [["1sc1", "", "", "a", "b", 1]]), "retain_0.csv, line 2: task; got nothing"),
    (lambda d: write(d / "retain_0.csv", [["1sc1", "Task9", "", "a", "b", 1]]), "Task9; got no qa item"),
    (lambda d: (d / "retain_0.csv").write_bytes(b"id\xff"), "retain_0.csv, line 1; got byte 0xff"),
    (lambda d: (d / "retain_0.csv").write_text((d / "retain_0.csv").read_text() + '1sc1,Task1,"torn'), "end of data"),
    (lambda d: write(d / "mia_results/member_0.csv", [["1", "low"]], ["id", "nll"]), "0.csv, line 2: nll; got low"),
    (lambda d: write(d / "mia_results/member_0.csv", [["1", "nan"]], ["id", "nll"]), "expected a finite number"),
    (lambda d: write(d / "mia_results/member_0.csv", [], ["id", "nll"]), "member_0.csv; got no rows"),
    (lambda d: [p.unlink() for p in (d / "mia_results").glob("nonmember*")], "no nonmember_"),
    (lambda d: (d / "metrics.json").write_text("{"), "expected a JSON object with average_acc"),
    (lambda d: (d / "metrics.json").write_text("{}"), "got no average_acc"),
    (lambda d: (d / "metrics.json").write_text('{"average_acc": 49.5}'), "between 0 and 1"),
    (lambda d: (d / "metrics.json").write_text('{"average_acc": NaN}'), "expected a finite number"),
])
def test_damaged_files_are_one_line_errors_that_name_the_place(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError) as caught:
        official_scores(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        official_scores(tmp_path / "nowhere")
