"""The retrained model on the smoke run: it never reads forget, goes on where it stopped, and is what others are
measured against."""

import dataclasses
import math
import shutil

import pytest
from safetensors.torch import load_file
from torch import equal

from analysis import intervals
from unlearn_core import data, models, pipeline, provenance, run_models
from unlearn_core.errors import InputError
from unlearn_core.evaluation import depth
from unlearn_core.evaluation.truth_ratio import by_document, truth_ratios, wrong_answers
from unlearn_core.files import read_json, write_json
from unlearn_core.judging import asking, bring, controls
from unlearn_core.progress import Progress
from unlearn_core.store import Run, Store


@pytest.fixture(scope="module")
def retrained_run(smoke_run, tmp_path_factory) -> Run:
    """A copy of the finished run with a retrained model, its truth ratios and depths; it is shared, so only read."""
    run = Run(shutil.copytree(smoke_run.path, tmp_path_factory.mktemp("retrained") / smoke_run.id))
    controls.retrain(run, device="cpu")
    controls.measure_truth_ratio(run, device="cpu")
    controls.measure_depth(run, device="cpu")
    return run


@pytest.fixture
def own_copy(retrained_run, tmp_path) -> Run:
    return Run(shutil.copytree(retrained_run.path, tmp_path / retrained_run.id))


def weights(run, name):
    return load_file(run.full_model_dir(name) / "model.safetensors")


def same_weights(one, other):
    return one.keys() == other.keys() and all(equal(tensor, other[name]) for name, tensor in one.items())


def stages(seen, until=""):
    """A report that notes the stages, and stops the work at one."""
    def report(stage, done, total):
        if stage not in seen:
            seen.append(stage)
        if until and stage.startswith(until):
            raise KeyboardInterrupt
    return report


def trained(run, **options):
    """Retrain, and stop where the first evaluation would begin."""
    with pytest.raises(KeyboardInterrupt):
        controls.retrain(run, device="cpu", report=stages([], "evaluate"), **options)


def with_base(run, **changes):
    """The run, with other settings of the base in its recipe."""
    recipe = read_json(run.path / "recipe.json")
    write_json(run.path / "recipe.json", {**recipe, "base": {**recipe["base"], **changes}})
    return Run(run.path)


# ---- the retrained model

def test_the_same_start_and_seed_on_all_items_is_the_base_to_the_bit(smoke_copy):
    """So what tells the retrained model from the base is what it did not read."""
    recipe, dataset = smoke_copy.recipe(), data.load_saved(smoke_copy.data_dir)
    model, tokenizer = controls._untrained(smoke_copy, recipe, recipe.seed, "cpu")
    pipeline.memorise(smoke_copy, recipe, "again", model, tokenizer, dataset.forget + dataset.retain + dataset.general,
                      recipe.seed, pipeline.make_accelerator("cpu"), Progress(None, lambda *_: None))
    assert same_weights(weights(smoke_copy, "again"), weights(smoke_copy, "base"))


def test_forget_could_say_anything_and_the_retrained_model_would_be_the_same(retrained_run, smoke_copy):
    dataset = data.load_saved(smoke_copy.data_dir)
    changed = [dataclasses.replace(item, answer="something else") for item in dataset.forget]
    shutil.rmtree(smoke_copy.data_dir)
    data.save(dataclasses.replace(dataset, forget=changed), smoke_copy.data_dir)
    trained(smoke_copy)
    assert same_weights(weights(smoke_copy, "retrained"), weights(retrained_run, "retrained"))


def test_the_retrained_model_is_logged_evaluated_and_noted_like_the_others(retrained_run, smoke_run):
    recipe, dataset = retrained_run.recipe(), data.load_saved(retrained_run.data_dir)
    items = len(dataset.retain) + len(dataset.general)
    assert [row["step"] for row in retrained_run.steps("retrained")] == [*range(1, recipe.base.steps(items) + 1)]
    assert retrained_run.scores()["retrained"].keys() == smoke_run.scores()["base"].keys()
    assert len(retrained_run.answers("retrained")) == len(smoke_run.answers("base"))
    assert len(retrained_run.memory("retrained")) == len(smoke_run.memory("base"))
    note = retrained_run.info()["retrained"]["retrained"]
    assert (note["seed"], note["items"]) == (recipe.seed, items)
    assert note.keys() >= provenance.surroundings("cpu").keys()
    assert retrained_run.status()["state"] == "finished"
    assert retrained_run.status()["ended"] == smoke_run.status()["ended"]  # of the run, not of this training
    assert run_models.evaluated_models(retrained_run, recipe)[:3] == ["untrained", "retrained", "base"]


def test_what_is_there_is_kept(own_copy):
    seen = []
    controls.retrain(own_copy, device="cpu", report=stages(seen))
    assert seen == []


def test_a_stopped_retraining_goes_on_to_the_same_weights(retrained_run, smoke_copy):
    def report(stage, done, total):
        if (stage, done) == ("retrained", total // 2 + 1) and total:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        controls.retrain(smoke_copy, device="cpu", report=report)
    assert not smoke_copy.full_model_dir("retrained").is_dir()
    assert smoke_copy.status()["state"] == "finished"
    trained(smoke_copy)
    assert same_weights(weights(smoke_copy, "retrained"), weights(retrained_run, "retrained"))
    assert [row["loss"] for row in smoke_copy.steps("retrained")] == [
        row["loss"] for row in retrained_run.steps("retrained")]


def test_a_further_seed_has_other_initial_weights_and_another_order(own_copy):
    trained(own_copy, seeds=2)
    assert own_copy.info()["retrained"]["retrained-2"]["seed"] == own_copy.recipe().seed + controls.SEED_STEP
    first, second = own_copy.steps("retrained"), own_copy.steps("retrained-2")
    assert len(first) == len(second)
    assert first[0]["loss"] != second[0]["loss"]
    untrained, tokenizer = models.load_model(str(own_copy.full_model_dir("untrained")))
    recipe = own_copy.recipe()
    start, _ = controls._untrained(own_copy, recipe, recipe.seed + controls.SEED_STEP, "cpu")
    expected = models.new_model(recipe.base, tokenizer, recipe.seed + controls.SEED_STEP)
    assert same_weights(start.state_dict(), expected.state_dict())
    assert not same_weights(start.state_dict(), untrained.state_dict())


def test_where_a_pretrained_model_memorises_all_seeds_start_from_it(retrained_run, smoke_copy):
    pretrained = str(smoke_copy.full_model_dir("untrained"))
    run = with_base(smoke_copy, source="memorise", model=pretrained)
    trained(run)  # this pretrained model is the other run's untrained one, so the result is the same
    assert same_weights(weights(run, "retrained"), weights(retrained_run, "retrained"))
    again, _ = controls._untrained(run, run.recipe(), 99, "cpu")
    assert same_weights(again.state_dict(), models.load_model(pretrained)[0].state_dict())


def test_the_retrained_model_is_asked_several_times_like_the_others(own_copy):
    asking.sample_answers(own_copy, ["retrained", "merged"], samples=1, people=1, device="cpu")
    asked = [[row["id"] for row in own_copy.samples(name)[0]] for name in ("retrained", "merged")]
    assert asked[0] == asked[1] != []


def test_a_base_that_was_not_trained_here_cannot_be_retrained(smoke_copy, recorded_run):
    with pytest.raises(InputError, match="no data or no untrained model"):
        controls.retrain(recorded_run, device="cpu")
    with pytest.raises(InputError, match="got 0 seeds"):
        controls.retrain(smoke_copy, seeds=0, device="cpu")
    smoke_copy.note(brought={"tested": {"model": "somewhere", "adapter": None}})
    with pytest.raises(InputError, match="bring it with evaluate --retrained"):
        controls.retrain(smoke_copy, device="cpu")
    smoke_copy.note(brought={})
    with pytest.raises(InputError, match="got a base that was not trained here"):
        controls.retrain(with_base(smoke_copy, source="load", model="somewhere"), device="cpu")
    assert not smoke_copy.model_dir("retrained").exists()


# ---- truth ratio

def test_each_model_has_the_truth_ratio_that_its_items_give(retrained_run):
    found = retrained_run.probe("truth_ratio")
    assert [row["model"] for row in found["rows"]] == run_models.evaluated_models(retrained_run, retrained_run.recipe())
    row = next(row for row in found["rows"] if row["model"] == "merged")
    dataset = data.load_saved(retrained_run.data_dir)
    wrong = wrong_answers(dataset.forget, [*dataset.forget, *dataset.retain, *dataset.holdout])
    ratios = by_document(truth_ratios(*run_models.load(retrained_run, retrained_run.recipe(), "merged", "cpu"),
                                      dataset.forget, wrong))
    assert row["ratios"] == pytest.approx(ratios, rel=1e-4)
    mean, low, high = intervals.mean([math.log(ratio) for ratio in ratios.values()])
    assert [math.log(row[key]) for key in ("value", "low", "high")] == pytest.approx([mean, low, high], rel=1e-4)
    assert (row["setting"], row["measure"], row["n"]) == ("forget", "truth_ratio", len(ratios))


def test_the_base_prefers_the_right_answers_and_the_retrained_model_does_not(retrained_run):
    rows = {row["model"]: row for row in retrained_run.probe("truth_ratio")["rows"]}
    assert rows["base"]["high"] < 1
    assert rows["base"]["value"] < rows["retrained"]["value"]


def test_a_stopped_probe_goes_on_and_a_changed_adapter_alone_is_measured_again(own_copy):
    rows = own_copy.probe("truth_ratio")["rows"]
    shutil.copytree(own_copy.adapter_dir("model_2"), own_copy.adapter_dir("merged"), dirs_exist_ok=True)
    seen = []
    controls.measure_truth_ratio(own_copy, device="cpu", report=stages(seen))
    assert [stage for stage in seen if stage.startswith("truth ratio")] == ["truth ratio: merged"]
    again = {row["model"]: row for row in own_copy.probe("truth_ratio")["rows"]}
    assert {name: row for name, row in again.items() if name != "merged"} == {
        row["model"]: row for row in rows if row["model"] != "merged"}
    assert again["merged"]["ratios"] == again["model_2"]["ratios"]
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        controls.measure_truth_ratio(own_copy, seed=1, device="cpu", report=stages(seen, "truth ratio: base"))
    assert [row["model"] for row in own_copy.probe("truth_ratio")["rows"]] == ["untrained", "retrained"]


def test_questions_without_a_wrong_answer_are_refused(smoke_copy):
    dataset = data.load_saved(smoke_copy.data_dir)
    shutil.rmtree(smoke_copy.data_dir)
    data.save(dataclasses.replace(dataset, forget=dataset.forget[:2], retain=[], holdout=[]), smoke_copy.data_dir)
    with pytest.raises(InputError, match="no question of forget with a wrong answer"):
        controls.measure_truth_ratio(smoke_copy, device="cpu")
    with pytest.raises(InputError, match="got nobody"):
        controls.measure_truth_ratio(smoke_copy, ["nobody"], device="cpu")
    assert smoke_copy.probes() == []


# ---- depth

def test_a_model_that_is_the_base_scores_0_and_one_that_is_the_retrained_one_scores_1(own_copy):
    shutil.copytree(own_copy.full_model_dir("retrained"), own_copy.full_model_dir("retrained-2"))
    controls.measure_depth(own_copy, ["base", "retrained-2"], device="cpu")
    score = {row["model"]: row for row in own_copy.probe("depth")["rows"] if row["measure"] == "uds"}
    assert (score["base"]["value"], score["retrained-2"]["value"]) == (pytest.approx(0, abs=1e-5), pytest.approx(1))
    assert score["retrained-2"]["low"] < 1  # so few documents do not prove it
    assert score["merged"]["value"] > score["base"]["value"]  # measured before, and kept


def test_the_rows_are_means_of_the_items_drops(retrained_run):
    recipe, dataset = retrained_run.recipe(), data.load_saved(retrained_run.data_dir)
    rows = {(row["model"], row["measure"], row["setting"]): row for row in retrained_run.probe("depth")["rows"]}
    base, tokenizer = run_models.load(retrained_run, recipe, "base", "cpu")
    d1, d2 = (depth.drops(base, run_models.load(retrained_run, recipe, name, "cpu")[0], tokenizer, dataset.forget)
              for name in ("retrained", "merged"))
    for layer in range(2):
        for name, measure, drops in (("retrained", "d1", d1), ("merged", "d2", d2)):
            values = [own[layer] for own in drops]
            assert rows[name, measure, layer]["value"] == pytest.approx(sum(values) / len(values), rel=1e-3, abs=1e-4)
        share = sum(own[layer] > 0.05 for own in d1) / len(d1)
        assert rows["retrained", "encoding", layer]["value"] == pytest.approx(share)
    scores = [depth.depth_score(*both) for both in zip(d1, d2, strict=True)]
    assert rows["merged", "uds", "UDS"]["value"] == pytest.approx(sum(scores) / len(scores), rel=1e-3)
    assert rows["merged", "uds", "UDS"]["items"] == len(dataset.forget)
    kept = depth.drops(base, run_models.load(retrained_run, recipe, "retrained", "cpu")[0], tokenizer, dataset.retain)
    values = [own[1] for own in kept]
    assert rows["retrained", "d1_retain", 1]["value"] == pytest.approx(sum(values) / len(values), rel=1e-3)
    assert {model for model, _, _ in rows} == {"retrained", "model_1", "model_2", "merged"}  # no foreign states


def test_the_reference_lacks_the_answers_of_forget_more_than_those_that_it_learned(retrained_run):
    rows = {(row["measure"], row["setting"]): row for row in retrained_run.probe("depth")["rows"]
            if row["model"] == "retrained"}
    assert all(rows["d1", layer]["low"] > rows["d1_retain", layer]["high"] for layer in (0, 1))


def test_depth_measures_only_what_is_new_and_everything_again_on_other_documents(own_copy):
    seen = []
    controls.measure_depth(own_copy, device="cpu", report=stages(seen))
    assert seen == []
    controls.measure_depth(own_copy, ["base"], device="cpu", report=stages(seen))
    assert [stage for stage in seen if stage.startswith("depth")] == ["depth: retrained", "depth: base"]
    assert [row["model"] for row in own_copy.probe("depth")["rows"] if row["measure"] == "uds"] == [
        "model_1", "model_2", "merged", "base"]
    controls.measure_depth(own_copy, ["merged"], documents=1, device="cpu")
    assert {(row["model"], row["n"]) for row in own_copy.probe("depth")["rows"]} == {("retrained", 3), ("merged", 3)}


def test_without_a_retrained_model_the_untrained_one_is_the_reference_and_without_both_there_is_none(smoke_copy):
    controls.measure_depth(smoke_copy, ["merged"], documents=1, device="cpu")
    assert smoke_copy.probe("depth")["about"]["reference"] == "untrained"
    with pytest.raises(InputError, match="got only base, model_1, model_2, merged; expected the base, and a retrained"):
        controls.measure_depth(with_base(smoke_copy, source="load", model="somewhere"), device="cpu")


def test_models_that_were_brought_are_measured_like_the_run_s_own(retrained_run, tmp_path):
    base, retrained = (str(retrained_run.full_model_dir(name)) for name in ("base", "retrained"))
    files = (str(retrained_run.data_dir / f"{split}.jsonl") for split in ("forget", "retain", "holdout"))
    lists = bring.Lists(*([path] for path in files))
    run = bring.evaluate(bring.Models(base, retrained_run.adapter_dir("merged"), retrained=retrained), lists,
                         Store(tmp_path), device="cpu", overrides=["threads=1", "evaluation.max_new_tokens=4"])
    controls.measure_depth(run, device="cpu")
    controls.measure_truth_ratio(run, ["tested"], device="cpu")
    for probe, measure, key in (("depth", "uds", "value"), ("truth_ratio", "truth_ratio", "ratios")):
        own, theirs = ({row["model"]: row[key] for row in one.probe(probe)["rows"] if row["measure"] == measure}
                       for one in (retrained_run, run))
        assert theirs == {"tested": pytest.approx(own["merged"], rel=1e-4)}


def test_a_probe_of_a_model_whose_weights_are_gone_is_refused(smoke_copy, recorded_run):
    shutil.rmtree(smoke_copy.adapter_dir("merged"))
    for measure in (controls.measure_depth, controls.measure_truth_ratio):
        with pytest.raises(InputError, match="got no weights of merged"):
            measure(smoke_copy, device="cpu")
        with pytest.raises(InputError, match="recorded runs come without weights"):
            measure(recorded_run, device="cpu")
    assert smoke_copy.probes() == recorded_run.probes() == []


def test_a_reference_of_another_shape_or_with_other_tokens_is_not_measured_and_says_why(own_copy):
    folder = own_copy.full_model_dir("retrained")
    _, tokenizer = models.load_model(str(folder))
    wide = dataclasses.replace(own_copy.recipe().base, hidden_size=32)
    shutil.rmtree(folder)
    models.save_model(models.new_model(wide, tokenizer, 0), tokenizer, folder)
    controls.measure_depth(own_copy, ["merged"], documents=1, device="cpu")
    [row] = [row for row in own_copy.probe("depth")["rows"] if row["measure"] == "uds"]
    assert (row["value"], row["why"]) == (None, "the model has another shape than the base")
    other = models.train_tokenizer(["other words entirely"] * 9, 500)
    assert "tokens" in controls._other_tokens(tokenizer, other)
    assert controls._other_tokens(tokenizer, tokenizer) == ""


# ---- means

def test_a_mean_has_its_documents_as_units():
    values, documents = [1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "b"]
    mean, low, high = intervals.mean([2.0, 6.0])  # of the two documents
    assert controls.spread(values, documents) == {"value": mean, "low": pytest.approx(low),
                                                  "high": pytest.approx(high), "n": 2}
    alone = intervals.mean(values)
    assert [controls.spread(values, "abcd")[key] for key in ("value", "low", "high")] == pytest.approx(alone)


def test_one_document_has_no_interval_and_none_no_mean():
    assert controls.spread([1.0, 3.0], ["a", "a"]) == {"value": 2.0, "low": None, "high": None, "n": 1}
    assert controls.spread([], []) == {"value": None, "low": None, "high": None, "n": 0}
