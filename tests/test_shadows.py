"""U-LiRA: its arithmetic on planted numbers against naive and scipy's, and shadows of a tiny run made for real."""

import dataclasses
import itertools
import json
import math
import shutil

import numpy as np
import pytest
from scipy.stats import norm

from unlearn_core import data, pipeline
from unlearn_core import recipe as recipes
from unlearn_core.data import AttackDocument
from unlearn_core.errors import InputError
from unlearn_core.judging import shadows
from unlearn_core.progress import Progress
from unlearn_core.store import Run, Store
from unlearn_core.trials import halves

TINY = ["base.epochs=1", "base.layers=1", "unlearn.epochs=1", "unlearn.warmup_epochs=0", "unlearn.checkpoints=0"]


def planted(gap, shadows=8, documents=400, noise=1.0, seed=0):
    """(statistic, seen, own, member): each document has a level of its own, those seen lie `gap` above it. Every
    document is seen by half of the shadows; the first half of the documents are members of the model attacked."""
    chance = np.random.default_rng(seed)
    level, member = chance.normal(0, 3, documents), np.arange(documents) < documents // 2
    seen = chance.permuted(np.repeat([[True], [False]], shadows // 2, axis=0) & np.ones(documents, bool), axis=0)
    statistic = level + gap * seen + noise * chance.normal(size=seen.shape)
    return statistic, seen, level + gap * member + noise * chance.normal(size=documents), member


def auc(scores, member):
    """P(score of a member > score of another), ties half, over all pairs."""
    pairs = list(itertools.product(scores[member], scores[~member]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


# ---- arithmetic ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pooled", [True, False])
def test_the_log_ratio_is_that_of_two_normal_densities(pooled):
    statistic, seen, own, _ = planted(1.5, documents=7)
    expected, variances = [], []
    for column, whose in zip(statistic.T, seen.T, strict=True):
        both = column[whose], column[~whose]
        variances.append(sum(((part - part.mean()) ** 2).sum() for part in both) / (len(column) - 2))
    for place, (column, whose) in enumerate(zip(statistic.T, seen.T, strict=True)):
        scale = math.sqrt(sum(variances) / 7 if pooled else variances[place])
        expected.append(norm.logpdf(own[place], column[whose].mean(), scale)
                        - norm.logpdf(own[place], column[~whose].mean(), scale))
    assert shadows.log_ratios(statistic, seen, own, pooled) == pytest.approx(expected)


def test_documents_that_are_far_apart_are_all_told_and_equal_ones_are_not():
    statistic, seen, own, member = planted(30.0)
    assert auc(shadows.log_ratios(statistic, seen, own), member) == 1
    found = []
    for seed in range(16):
        statistic, seen, own, member = planted(0.0, seed=seed)
        found.append(auc(shadows.log_ratios(statistic, seen, own), member))
    assert np.mean(found) == pytest.approx(0.5, abs=0.022)  # three standard errors: 3 * 0.029 / 4


def test_over_forgotten_documents_are_found_as_well_as_remembered_ones():
    """The plain attack takes a lower log p for an unseen text; the ratio knows which way unlearning pushes."""
    statistic, seen, own, member = planted(-4.0)
    assert auc(shadows.log_ratios(statistic, seen, own), member) > 0.99
    assert auc(own, member) < 0.25


def test_the_ratio_sees_through_levels_that_hide_a_trace_from_the_plain_attack():
    statistic, seen, own, member = planted(1.5)  # levels spread by 3, a trace of 1.5, noise of 1
    ratio = auc(shadows.log_ratios(statistic, seen, own), member)
    assert ratio > 0.75 > auc(own, member) > 0.5
    assert abs(ratio - auc(own - (statistic * ~seen).sum(0) / 4, member)) < 0.05  # as if the levels were known


def test_where_it_is_drawn_which_shadow_saw_what_nothing_is_told():
    statistic, seen, own, member = planted(1.5)
    drawn = shadows.shuffled_aucs(statistic, seen, own, member, draws=40)
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.max() < auc(shadows.log_ratios(statistic, seen, own), member)
    assert (drawn == shadows.shuffled_aucs(statistic, seen, own, member, draws=40)).all()  # by its seed
    assert len(set(drawn)) > 20


def test_shadows_that_agree_to_the_last_digit_give_no_division_by_zero():
    statistic, seen, own, _ = planted(0.0, noise=0.0)
    assert (shadows.log_ratios(statistic, seen, own) == 0).all()


# ---- rows of the probe -----------------------------------------------------------------------------------------

def entries(member):
    return [AttackDocument(f"d{number}", "Task1", f"text {number}", bool(side)) for number, side in enumerate(member)]


def by_place(rows):
    return {(row["model"], row["setting"], row["measure"]): row for row in rows}


def everywhere(statistic, seen, own):
    """The same numbers for all four models."""
    return np.repeat(statistic[:, None], 4, axis=1), seen, np.repeat(own[None], 4, axis=0)


def test_the_rows_have_the_attack_the_plain_one_and_the_control_with_their_documents():
    statistic, seen, own, member = planted(1.5)
    rows = by_place(shadows.results(*everywhere(statistic, seen, own), entries(member)))
    assert len(rows) == 4 * (3 + 3 + 1)
    row, plain = rows["merged", "u-lira", "auc"], rows["merged", "loss", "auc"]
    ratios = shadows.log_ratios(statistic, seen, own)
    assert row["value"] == pytest.approx(auc(ratios, member))
    assert plain["value"] == pytest.approx(auc(own, member))
    assert plain["low"] < plain["value"] < plain["high"]
    assert (row["n"], row["members"], row["nonmembers"]) == (400, 200, 200)
    assert [one["score"] for one in row["documents"]] == pytest.approx(ratios.tolist())
    assert [one["member"] for one in row["documents"]] == member.tolist()
    assert row["documents"][0]["seen"] == pytest.approx(statistic[seen[:, 0], 0].mean())
    assert "documents" not in plain
    threshold = np.sort(ratios[~member])[-3]  # two of 200 others lie above it: 1 %
    share = rows["merged", "u-lira", "tpr_1"]
    assert share["value"] == (ratios[member] > threshold).mean()
    assert share["low"] < share["value"] < share["high"]
    control = rows["merged", "shuffled", "auc"]
    assert control["low"] < control["value"] < control["high"]
    json.dumps(list(rows.values()))  # plain numbers


def test_a_rate_that_the_documents_do_not_allow_is_not_measured():
    statistic, seen, own, member = planted(1.5, documents=60)  # 30 non-members: one is 3.3 %
    rows = by_place(shadows.results(*everywhere(statistic, seen, own), entries(member)))
    assert rows["base", "u-lira", "tpr_1"]["value"] is None
    assert rows["base", "u-lira", "tpr_1"]["low"] is None
    assert rows["base", "u-lira", "tpr_5"]["value"] is not None


def test_a_document_without_a_number_in_some_model_is_left_out_there_alone():
    statistic, seen, own, member = planted(1.5, documents=40)
    all_statistics, _, all_own = everywhere(statistic, seen, own)
    all_statistics[3, 1, 0] = math.nan  # a shadow's model_1 diverged on one document
    all_own[3, 5:8] = math.nan
    rows = by_place(shadows.results(all_statistics, seen, all_own, entries(member)))
    assert [rows[model, "u-lira", "auc"]["n"] for model in shadows.ATTACKED] == [40, 39, 40, 37]
    assert rows["model_1", "u-lira", "auc"]["documents"][0]["document"] == "d1"
    all_own[3] = math.nan  # a model of NaNs
    rows = by_place(shadows.results(all_statistics, seen, all_own, entries(member)))
    assert (rows["merged", "u-lira", "auc"]["value"], rows["merged", "u-lira", "auc"]["n"]) == (None, 0)
    assert rows["base", "u-lira", "auc"]["value"] is not None


# ---- shadows of a run ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """A tiny run that is trained and merged, and four shadows of it."""
    run = pipeline.start(recipes.load("smoke", TINY), Store(tmp_path_factory.mktemp("runs")), device="cpu",
                         until="train")
    pipeline.merge_adapters(run, run.recipe(), "cpu", Progress(None, lambda *_: None))
    shadows.measure(run, shadows=4, device="cpu")
    return run


def test_each_document_is_seen_by_half_of_the_shadows_and_people_are_whole(trained):
    dataset = data.load_saved(trained.data_dir)
    own = [shadows.chosen(dataset, number, 0) for number in range(8)]
    pool = {item.document for item in (*dataset.forget, *dataset.holdout)}
    for first, second in zip(own[::2], own[1::2], strict=True):
        assert first | second == pool
        assert first & second == set()
        assert abs(len(first) - len(second)) <= 1
    assert len({frozenset(one) for one in own}) > 4
    arrays, about = trained.arrays("shadows")
    assert arrays["seen"].sum(axis=0).tolist() == [2] * len(about["documents"])
    assert set(about["documents"]) == pool
    twins = [item for item in dataset.forget if item.task == "Task2"]
    name = halves.unit_names(twins)[twins[0].document]
    renamed = data.Item("twinsc1", f"{name} was born", "in Oslo.", "Task2")
    whole = shadows.with_forget(dataset, pool)
    more = dataclasses.replace(whole, holdout=[renamed])
    for number in range(6):
        picked = shadows.chosen(more, number, 0)
        assert ("twin" in picked) == (twins[0].document in picked)


def test_a_shadow_with_the_runs_own_forget_set_is_the_run_to_the_bit(trained):
    dataset = data.load_saved(trained.data_dir)
    documents = data.attack_documents(dataset.forget, dataset.holdout, "forget")
    same = shadows.with_forget(dataset, {item.document for item in dataset.forget})
    assert (same.forget, same.retain, same.holdout) == (dataset.forget, dataset.retain, dataset.holdout)
    found = shadows.shadow(trained, trained.recipe(), same, documents, pipeline.make_accelerator("cpu"),
                           lambda *_: None)
    expected = shadows._statistics(trained, trained.recipe(), documents, "cpu")
    assert np.isfinite(expected).all()
    assert (found == expected).all()


def test_the_probe_says_what_was_measured_and_leaves_no_weights(trained):
    found = trained.probe("shadows")
    assert found["about"]["adapters"] == trained.adapter_keys()
    assert (found["about"]["shadows"], found["about"]["seed"], found["about"]["variance"]) == (4, 0, "pooled")
    assert found["about"]["forget"] == {"run": 9, "shadow": 7.5}
    rows = by_place(found["rows"])
    assert {model for model, *_ in rows} == set(shadows.ATTACKED)
    row = rows["merged", "u-lira", "auc"]
    assert (row["members"], row["nonmembers"]) == (9, 6)
    own = dict(zip([one["document"] for one in row["documents"]], row["documents"], strict=True))
    expected = shadows._statistics(trained, trained.recipe(), [
        entry for entry in data.load_saved(trained.data_dir).attack], "cpu")[3]
    assert [one["statistic"] for one in own.values()] == expected.tolist()
    weights = [path for path in trained.path.rglob("*") if path.name.endswith("model.safetensors")]
    assert {path.relative_to(trained.path).parts[0] for path in weights} == {"models"}
    assert trained.last_status()["state"] == "trained"
    assert [run.id for run in Store(trained.path.parent).runs()] == [trained.id]


@pytest.fixture
def copied(trained, tmp_path) -> Run:
    return Run(shutil.copytree(trained.path, tmp_path / trained.id))


def test_a_stopped_attack_keeps_its_finished_shadows_and_goes_on(copied):
    whole, about = copied.arrays("shadows")
    copied.write_arrays("shadows", {name: values[:3] for name, values in whole.items()}, about)
    began = []

    def stop(stage, done, total):
        began.append(stage)
        if "model_1" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shadows.measure(copied, shadows=4, device="cpu", report=stop)
    assert began[0].startswith("shadow 4 of 4: ")
    assert not [path for path in copied.path.iterdir() if "shadow" in path.name and path.is_dir()]
    shadows.measure(copied, shadows=4, device="cpu")
    again, _ = copied.arrays("shadows")
    assert (again["statistic"] == whole["statistic"]).all()
    assert (again["seen"] == whole["seen"]).all()
    copied.write_probe("shadows", {}, [])
    began.clear()
    shadows.measure(copied, shadows=4, device="cpu", report=lambda stage, *_: began.append(stage))
    assert began == ["shadows: the run itself"]
    assert len(copied.probe("shadows")["rows"]) == 28


# ---- refused ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [0, 2, 5])
def test_too_few_shadows_or_an_odd_number_is_refused(trained, count):
    with pytest.raises(InputError, match=f"shadows; got {count}; expected an even number of at least 4"):
        shadows.measure(trained, shadows=count, device="cpu")


def test_runs_whose_like_cannot_be_trained_are_refused(copied, recorded_run, tmp_path):
    with pytest.raises(InputError, match="got no adapter of model_1"):
        shadows.measure(recorded_run, device="cpu")
    rows = copied.data_dir / "holdout.jsonl"
    kept = rows.read_text()
    rows.write_text("")
    with pytest.raises(InputError, match="got no held-out documents"):
        shadows.measure(copied, device="cpu")
    rows.write_text(kept)
    copied.initial_adapter_dir("model_1").mkdir()
    with pytest.raises(InputError, match="began as those of another run"):
        shadows.measure(copied, device="cpu")
    copied.initial_adapter_dir("model_1").rmdir()
    copied.note(processes=2)
    with pytest.raises(InputError, match="got 1 processes; expected 2"):
        shadows.measure(copied, device="cpu")
    loaded = Store(tmp_path / "loaded").create(recipes.load("smoke", ["base.source=load", "base.model=x"]), {})
    data.save(data.load_saved(copied.data_dir), loaded.data_dir)
    loaded.write_status("finished")
    with pytest.raises(InputError, match="got a base that was not trained here"):
        shadows.measure(loaded, device="cpu")
