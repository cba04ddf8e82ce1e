"""One configuration on the test half: what is read, what it rests on, what is counted, and how that is told."""

import numpy as np
import pytest

from analysis import locked
from unlearn_core import cli, data
from unlearn_core.errors import InputError
from unlearn_core.evaluation import score
from unlearn_core.trials import balance, experiments, halves, readings
from unlearn_core.trials.experiments import Subset


def of_half(run, name, half):
    """(answers, documents) of a model as the run's evaluation has them, in one half."""
    chosen = halves.development(data.load_saved(run.data_dir))
    return [[row for row in rows if (row["document"] in chosen) == (half == "development")]
            for rows in (run.answers(name), run.documents(name))]


# ---- reading

def test_the_merge_is_read_on_the_documents_of_the_test_half_alone(smoke_copy):
    ended = smoke_copy.status()["ended"]
    reading = readings.read_test(smoke_copy, device="cpu")
    answers, losses = of_half(smoke_copy, "merged", "test")
    assert smoke_copy.readings() == [reading]
    assert (reading["what"], reading["configurations"]) == ("merged", 0)
    assert reading["scores"] == score.scores(answers, losses, [])
    assert {key: value for key, value in reading["intervals"].items() if key != "task_aggregate"} == score.intervals(
        answers, losses, [])
    members = sum(row["member"] for row in losses)
    assert reading["n"] == {"units": 1, "members": members, "nonmembers": len(losses) - members}
    assert smoke_copy.status()["ended"] == ended
    assert readings.read_test(smoke_copy, model="model_1", device="cpu")["what"] == "model_1"
    assert [row["what"] for row in smoke_copy.readings()] == ["merged", "model_1"]


def test_the_interval_of_the_task_aggregate_is_of_drawn_units():
    """Two units with all terms high, two with all low: the mean of a draw follows how many of each are in it."""
    ideal = np.array([metric.ideal for metric in balance.SUB_SCORES])
    terms = np.concatenate([np.full(12, 0.9), np.full(12, 0.9), np.full(12, 0.5), np.full(12, 0.5)])
    cell, unit = np.tile(np.arange(12), 4), np.repeat(np.arange(4), 12)
    values = np.where(ideal[cell] == 0, 1 - terms, terms)
    drawn = balance.resampled(values[None], cell, unit)[0]
    shares = np.random.default_rng(0).multinomial(4, [0.25] * 4, size=balance.RESAMPLES)[:, :2].sum(1) / 4
    assert drawn == pytest.approx(0.5 + 0.4 * shares)  # every term has the same mean, so has their harmonic mean


def test_a_merge_by_settings_is_read_as_it_was_swept(smoke_copy):
    reading = readings.read_test(smoke_copy, custom=["merge.density=0.8"], device="cpu")
    assert reading["what"] == "TIES on factors, density 0.8, weights 1 : 1"
    assert reading["scores"] == readings.read_test(smoke_copy, model="merged", device="cpu")["scores"]


def swept(run, rows, half="development"):
    """Rows of merges as a sweep writes them, with the Task Aggregates that are given."""
    run.write_merges({"documents_per_task": 0, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24, "half": half,
                      "key": experiments.adapter_keys(run, ("model_1", "model_2")), "rows": [
        {"norm_ratio": 1, "cosines": {}, "intervals": {}, "scores": {"task_aggregate": value}, **row}
        for value, row in rows]})


@pytest.mark.parametrize("row", [
    {"kind": "density", "name": "TIES, density 0.8", "density": 0.8}, {"kind": "path", "name": "merged"},
    {"kind": "custom", "name": "TIES on factors, density 0.8, weights 1 : 1", "settings": ["merge.density=0.8"]},
    {"kind": "method", "name": "TIES on factors"}], ids=lambda row: row["kind"])
def test_the_best_of_what_was_swept_is_made_again_whatever_its_kind(smoke_copy, row):
    """All of these are the run's own merge."""
    swept(smoke_copy, [(0.2, {"kind": "density", "name": "TIES, density 0.5", "density": 0.5}), (0.7, row)])
    reading = readings.read_test(smoke_copy, best=True, device="cpu")
    assert reading["what"] == f"{row['kind']}: {row['name']}, the best on development"
    assert reading["configurations"] == 2
    answers, losses = of_half(smoke_copy, "merged", "test")
    assert reading["scores"] == score.scores(answers, losses, [])


def test_a_checkpoint_may_be_the_best_and_the_base_never(smoke_copy):
    swept(smoke_copy, [(0.2, {"kind": "surface", "name": "1 : 0"})])
    step, _ = smoke_copy.checkpoints("model_2")[-1]
    smoke_copy.write_trajectory({"documents_per_task": 0, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24,
                                 "half": "development", "rows": [
        {"model": "model_2", "step": number, "epoch": 0.0, "intervals": {}, "scores": {"task_aggregate": value}}
        for number, value in ((0, 0.9), (step, 0.5), (9999, 0.8))]})  # 9999: a checkpoint that is gone
    reading = readings.read_test(smoke_copy, best=True, device="cpu")
    assert reading["what"] == f"model_2 at step {step}, the best on development"
    assert reading["configurations"] == 3
    answers, losses = of_half(smoke_copy, "model_2", "test")
    assert reading["scores"] == score.scores(answers, losses, [])


def test_nothing_to_choose_from_is_said_and_not_counted(smoke_copy, recorded_run):
    with pytest.raises(InputError, match="got no Task Aggregate of these adapters on the development half"):
        readings.read_test(smoke_copy, best=True, device="cpu")
    row = (0.7, {"kind": "density", "name": "TIES, density 0.8", "density": 0.8})
    swept(smoke_copy, [row], half="all")  # chosen on the test half, too
    with pytest.raises(InputError, match="merge-sweep RUN"):
        readings.read_test(smoke_copy, best=True, device="cpu")
    swept(smoke_copy, [row])
    smoke_copy.write_merges(smoke_copy.merges() | {"key": {"model_1": "another", "model_2": "adapter"}})
    with pytest.raises(InputError, match="of these adapters"):
        readings.read_test(smoke_copy, best=True, device="cpu")
    with pytest.raises(InputError, match="more than one configuration"):
        readings.read_test(smoke_copy, best=True, model="merged", device="cpu")
    with pytest.raises(InputError, match="read-test; got nobody; expected one of base, model_1, model_2, merged"):
        readings.read_test(smoke_copy, model="nobody", device="cpu")
    with pytest.raises(InputError, match="did you mean density"):
        readings.read_test(smoke_copy, custom=["merge.denisty=0.5"], device="cpu")
    with pytest.raises(InputError, match="got no adapter of model_1"):
        readings.read_test(recorded_run, custom=["merge.density=0.5"], device="cpu")
    assert smoke_copy.readings() == []


# ---- telling

@pytest.fixture
def read(smoke_copy):
    n = {"units": 4, "members": 12, "nonmembers": 6}
    smoke_copy.add_reading(what="balance, chosen on the development half: x 0.7", configurations=81, n=n,
                           scores={"task_aggregate": 0.7, "mia_auc": 0.5}, intervals={"mia_auc": [0.3, 0.7]})
    smoke_copy.add_reading(what="TIES, density 0.6", configurations=90, n=n, p_zero=0.25,
                           scores={"task_aggregate": 0.625, "mia_auc": 0.5625},
                           intervals={"mia_auc": [0.4, 0.7], "task_aggregate": [0.5, 0.75]})
    return smoke_copy


def test_readings_are_a_table_in_order(read):
    frame = locked.readings(read)
    assert frame["number"].tolist() == [1, 2]
    assert frame["configurations"].tolist() == [81, 90]
    assert frame["task_aggregate_low"].isna().tolist() == [True, False]
    assert frame.loc[1, ["task_aggregate_low", "task_aggregate_high", "mia_auc_low", "mia_auc_high"]].tolist() == [
        0.5, 0.75, 0.4, 0.7]
    assert frame.loc[1, ["p_zero", "units", "members", "nonmembers"]].tolist() == [0.25, 4, 12, 6]


def test_the_words_count_the_readings_and_say_what_the_last_one_found(read):
    told = locked.describe(read)
    assert told[0] == ("The test half was read 2 times; the first reading alone was of documents that no choice had "
                       "seen.")
    assert told[1] == ("The last reading, TIES, density 0.6, after 90 configurations tried: Task Aggregate 0.62 [0.50, "
                       "0.75], AUC 0.56 [0.40, 0.70] (smallest sub-score: 4 documents or persons; 12 members, 6 "
                       "non-members).")
    assert "models of the run itself were scored on all documents" in told[2]


def test_a_test_half_that_was_not_read_and_one_that_was_chosen_on(smoke_copy):
    assert locked.readings(smoke_copy).empty
    assert locked.describe(smoke_copy)[0] == (
        "The test half has not been read. 0 configurations were scored for choosing.")
    experiments.sweep(smoke_copy, densities=[0.5], subset=Subset(1, half="all"), device="cpu")
    told = locked.describe(smoke_copy)
    assert told[0].startswith("The test half was read once; already the first look was for choosing")
    assert len(told) == 2  # a sweep has no single score
    assert locked.readings(smoke_copy)[["task_aggregate", "units"]].isna().all(axis=None)
    found = smoke_copy.merges()
    del found["half"]
    smoke_copy.write_merges(found)
    assert locked.describe(smoke_copy)[-1] == (
        "Merges of this run were scored on all documents by an older version.")


@pytest.mark.parametrize("damage", [{"half": 5}, {"n": {"units": "many"}}, {"n": 3}, {"replaced": "all"},
                                    {"replaced": [1]}], ids=str)
def test_damaged_halves_and_counts_are_named(smoke_copy, damage):
    swept(smoke_copy, [(0.7, {"kind": "density", "name": "TIES, density 0.8", "density": 0.8})])
    smoke_copy.write_merges(smoke_copy.merges() | damage)
    with pytest.raises(InputError, match=r"merges\.json"):
        smoke_copy.merges()
    smoke_copy.add_reading(what="merged", configurations=0, scores={}, intervals={}, n={"units": 1})
    with pytest.raises(InputError, match=r"readings\.json"):
        smoke_copy.readings()


def test_a_choice_says_on_which_half_it_was_made():
    assert locked.chosen_on({"half": "development"}).startswith("Chosen on the development half.")
    for about in ({}, {"half": "all"}):
        assert "no half is left that had no say in it" in locked.chosen_on(about)


def test_the_command_line_chooses_on_one_half_reads_the_other_and_prints_each_reading(smoke_copy, monkeypatch, capsys):
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    path = str(smoke_copy.path)
    assert cli.main(["merge-sweep", path, "--density", "0.5,0.8", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "of the development half, at most 24 new tokens" in out
    assert cli.main(["read-test", path, "--best", "--device", "cpu"]) == 0
    assert cli.main(["read-test", path, "--set", "merge.density=0.6", "--device", "cpu"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for reading in smoke_copy.readings():
        assert reading["configurations"] == 2
        assert f"{reading['scores']['mia_auc']:.3f} [" in out
    assert "density 0.6, weights 1 : 1 2" in out
    assert cli.main(["read-test", path, "--best", "--model", "merged"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["merge-sweep", path, "--density", "0.5", "--half", "test"])
