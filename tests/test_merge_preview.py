"""The preview of a merge against real merges, and what is said to PEFT, mergekit and the command line against them."""

import dataclasses
import io
import time
import zipfile

import numpy as np
import pytest
import torch
import yaml

from analysis import merge_export, merge_preview, signs, weights
from analysis.signs import Signs
from unlearn_core import cli, models, run_models
from unlearn_core.errors import InputError
from unlearn_core.merging import task_vectors
from unlearn_core.merging.merge import merge, norm_ratio
from unlearn_core.merging.task_vectors import cosine, delta, load_adapter
from unlearn_core.settings import Merge, merge_preset
from unlearn_core.vocabulary import TIES_STATES, UNLEARNED

WEIGHTS = [(1.0, 1.0), (1.0, 0.3), (0.0, 1.0), (1.5, -0.5), (-0.7, 1.2)]
DENSITIES = (0.2, 0.55, 0.8, 1.0)
MERGES = [Merge("ties", "factors"), Merge("ties", "delta"), Merge("ties", "delta", divisor="weights"),
          Merge("ties", "delta", divisor="none"), Merge("linear", "delta"), Merge("linear", "delta", divisor="count"),
          Merge("magnitude_prune", "delta"), Merge("magnitude_prune", "delta", divisor="weights"),
          Merge("negmerge", "delta"), Merge("negmerge", "delta", divisor="none")]


def says(choice):
    return f"{choice.method} {choice.level} {choice.divisor}"


@pytest.fixture(scope="module")
def parents(smoke_run):
    return [load_adapter(smoke_run.adapter_dir(name)) for name in UNLEARNED]


@pytest.fixture(scope="module")
def measured(smoke_run):
    return signs.read(smoke_run)


def part(adapter, names):
    return dataclasses.replace(adapter, modules={name: adapter.modules[name] for name in names})


# ---- against real merges

@pytest.mark.parametrize("choice", MERGES, ids=says)
def test_size_and_directions_are_those_of_the_real_merge(measured, parents, choice):
    found = merge_preview.pooled(measured)
    for pair in WEIGHTS:
        for density in DENSITIES:
            asked = dataclasses.replace(choice, weights=pair, density=density)
            row, merged = merge_preview.at(merge_preview.over_density(found, asked), density), merge(parents, asked)
            assert row["norm_ratio"] == pytest.approx(norm_ratio(merged, parents), rel=1e-4)
            for number, parent in enumerate(parents, start=1):
                assert row[f"cosine_{number}"] == pytest.approx(cosine(merged, parent), abs=1e-4)


def test_a_range_of_layers_is_the_merge_of_these_layers_alone(measured, parents):
    names = [name for name in parents[0].modules if ".layers.1." in name]
    assert 0 < len(names) < len(parents[0].modules)
    own = [part(parent, names) for parent in parents]
    found = merge_preview.pooled(measured, layers=(1, 1))
    for level in ("factors", "delta"):
        choice = Merge(level=level, density=0.55)
        row, merged = merge_preview.at(merge_preview.over_density(found, choice), 0.55), merge(own, choice)
        assert row["norm_ratio"] == pytest.approx(norm_ratio(merged, own), rel=1e-4)
        assert row["cosine_1"] == pytest.approx(cosine(merged, own[0]), abs=1e-4)
    assert merge_preview.layer_range(measured) == (0, 1)


@pytest.mark.parametrize("method", ["ties", "magnitude_prune", "negmerge", "linear"])
def test_shares_of_entries_are_counted_on_the_real_matrices(measured, parents, method):
    choice = Merge(method, "delta", density=0.55)
    row = merge_preview.at(merge_preview.over_density(merge_preview.pooled(measured), choice), 0.55)
    flat = [torch.cat([delta(factors, parent.scaling).flatten() for factors in parent.modules.values()])
            for parent in parents]
    alone = [merge(parents, dataclasses.replace(choice, weights=pair)) for pair in ((1.0, 0.0), (0.0, 1.0))]
    for number, update in enumerate(alone, start=1):
        left = torch.cat([delta(factors).flatten() for factors in update.modules.values()])
        share = (left.abs() > 1e-12).float().mean().item()
        assert row[f"used_{number}"] == pytest.approx(share, abs=2e-3)
    assert row["kept_1"] == pytest.approx(0.55 if method in merge_preview.TRIMMING else 1.0, abs=2e-3)
    assert sum(row[state] for state in TIES_STATES) == pytest.approx(1)
    if method in ("negmerge", "linear"):
        assert row["conflict"] == pytest.approx((flat[0] * flat[1] < 0).float().mean().item(), abs=2e-3)
        assert row["used_1"] == pytest.approx(1 - row["conflict"] if method == "negmerge" else 1.0, abs=2e-3)


def test_entries_of_both_factors_are_counted_together(measured):
    row = merge_preview.at(merge_preview.over_density(merge_preview.pooled(measured), Merge(density=0.55)), 0.55)
    at = measured.densities.index(0.55)
    counts = sum(measured.arrays[space][:, at, :, 0].sum(axis=0) for space in "AB")
    assert row["agree"] == counts[3] / counts.sum()
    assert row["used_1"] == pytest.approx(counts[[1, 3, 4]].sum() / counts.sum())


# ---- what cannot be told

@pytest.mark.parametrize(("choice", "words"), [
    (Merge("dare_ties", "delta"), "drawn at random"), (Merge("cat"), "linear on delta W"),
    (Merge("linear"), "only the products that TIES needs"), (Merge(divisor="weights"), "only the products"),
    (Merge(level="delta", trim_scope="global"), "trimming each matrix by itself"),
    (Merge(level="delta", rescale="l1"), "without rescaling"),
    (Merge(level="delta", elect="after", weights=(1.0, 0.5)), "before weighting"),
    (Merge(level="delta", rank=2), "compressed")])
def test_a_merge_that_the_statistics_do_not_tell_has_a_reason_and_no_numbers(measured, choice, words):
    found = merge_preview.pooled(measured)
    assert words in merge_preview.unknown(found, choice)
    assert merge_preview.over_density(found, choice)[list(merge_preview.SIZES)].isna().all().all()


def without_deltas(measured):
    arrays = {name: array for name, array in measured.arrays.items() if name in ("A", "B", "gram", "against")}
    return Signs(arrays, measured.about | {"spaces": ["A", "B"], "left_out": {"dW": "many"}})


def test_without_delta_w_the_parents_sizes_come_from_the_statistics_of_the_weights(smoke_run, measured):
    left = without_deltas(measured)
    assert merge_preview.unknown(merge_preview.pooled(left), Merge())
    assert merge_preview.nearest_mix(merge_preview.pooled(left), 1.0, (0.5, 0.5)) is None
    found = merge_preview.pooled(left, measured=weights.read(smoke_run))
    whole = merge_preview.pooled(measured)
    np.testing.assert_allclose(found.parents, whole.parents, rtol=1e-5)
    for layers in (None, (1, 1)):
        pair = [merge_preview.over_density(merge_preview.pooled(own, layers, weights.read(smoke_run)), Merge())
                for own in (left, measured)]
        np.testing.assert_allclose(*pair, rtol=1e-5)
    assert "left out" in merge_preview.unknown(found, Merge(level="delta"))
    assert merge_preview.over_density(found, Merge(level="delta"))["agree"].isna().all()


def test_statistics_of_the_weights_of_other_adapters_are_not_used(smoke_run, measured):
    other = weights.read(smoke_run)
    other = dataclasses.replace(other, about=other.about | {"key": {"model_1": "x", "model_2": "y"}})
    assert merge_preview.pooled(without_deltas(measured), measured=other).parents is None


# ---- places

def test_the_nearest_mix_of_a_mix_is_the_mix_itself(measured, parents):
    found = merge_preview.pooled(measured)
    for pair in ((1.0, 0.0), (0.5, 0.5), (0.3, -1.2)):
        mix = task_vectors.concatenated(parents, pair)
        place = merge_preview.nearest_mix(found, norm_ratio(mix, parents), [cosine(mix, p) for p in parents])
        assert place == pytest.approx(pair, abs=1e-4)
    alone = dataclasses.replace(found, parents=np.ones((2, 2)))
    assert merge_preview.nearest_mix(alone, 1.0, (1.0, 1.0)) is None


# ---- speed

def test_the_preview_of_a_7b_model_takes_far_less_than_a_frame():
    """32 layers x 7 modules and 21 densities: pooled and previewed in under 50 ms."""
    names = [f"model.layers.{layer}.mlp.{kind}_proj" for layer in range(32) for kind in "abcdefg"]
    chance, densities = np.random.default_rng(0), [round(0.05 * step, 2) for step in range(1, 21)]
    arrays = {space: chance.random((224, 20, 6, 6)) for space in ("A", "B", "dW")}
    arrays |= {"gram": chance.random((224, 20, 4, 4)), "against": chance.random((224, 20, 4, 2))}
    found = Signs(arrays, {"modules": names, "densities": densities, "spaces": ["A", "B", "dW"], "scalings": [2, 2],
                           "shapes": [[1, 1]] * 224, "models": list(UNLEARNED)})
    _ = found.modules  # kept with the statistics
    times = []
    for _ in range(5):
        start = time.perf_counter()
        merge_preview.over_density(merge_preview.pooled(found, (3, 20)), Merge(weights=(1.0, 0.4)))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


# ---- the command line

@pytest.mark.parametrize("choice", [
    Merge(), Merge("linear", "delta", 1.0, (1.0, -0.5)), Merge("dare_ties", "delta", 0.35, (0.1, 1e-5), rank=8, seed=3),
    Merge("ties", "delta", trim_scope="global", elect="after", divisor="weights", rescale="l1")])
def test_the_command_is_read_back_as_the_same_merge(choice):
    words = merge_export.command(choice, ["runs/a b", "runs/'c'"], "out", "base", "full")
    options = cli.parser().parse_args(words)
    assert cli._merge_choice(options, 2) == choice
    assert [str(path) for path in options.adapters] == ["runs/a b", "runs/'c'"]
    assert (str(options.out), options.base, str(options.full_model)) == ("out", "base", "full")
    assert cli.parser().parse_args(merge_export.command(choice, ["a", "b"], "out")).full_model is None


# ---- PEFT

def spoken(choice):
    return f"{choice.method} {choice.level} {choice.rank} {choice.divisor}"


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")  # PEFT's, about a hub that it asks
@pytest.mark.parametrize("choice", [
    Merge(), Merge("linear"), Merge("magnitude_prune", density=0.5, weights=(1.0, 0.4)), Merge("linear", "delta"),
    Merge("linear", "delta", divisor="count"), Merge("cat", weights=(1.0, -0.5)), Merge("ties", "delta", rank=3),
    Merge("linear", "delta", rank=2, divisor="weights")], ids=spoken)
def test_the_peft_code_makes_the_same_adapter(smoke_run, parents, tmp_path, choice):
    folders = [str(smoke_run.adapter_dir(name)) for name in UNLEARNED]
    said = merge_export.peft_code(choice, str(smoke_run.full_model_dir("base")), folders, str(tmp_path / "out"))
    exec(said.text, {})
    theirs, ours = load_adapter(tmp_path / "out" / "merged"), merge(parents, choice)
    for name, factors in ours.modules.items():
        torch.testing.assert_close(delta(theirs.modules[name], theirs.scaling), delta(factors, ours.scaling),
                                   rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("choice", "words"), [
    (Merge("negmerge"), "no NegMerge"), (Merge(trim_scope="global"), "each matrix by itself"),
    (Merge(level="delta"), "lower rank"), (Merge(elect="after", weights=(1.0, 0.5)), "before weighting"),
    (Merge(divisor="weights"), "divides TIES"), (Merge(rescale="l1"), "does not rescale"),
    (Merge("dare_ties", rescale="none"), "does not rescale"), (Merge("linear", divisor="count"), "the others by")])
def test_what_peft_cannot_do_is_said(choice, words):
    said = merge_export.peft_code(choice, "base", ["a", "b"], "out")
    assert said.text == ""
    assert words in said.note


def test_what_has_no_effect_keeps_no_one_from_peft():
    for choice in (Merge(elect="after"), Merge(trim_scope="global", density=1.0), Merge("linear", rescale="l1")):
        assert merge_export.peft_code(choice, "base", ["a", "b"], "out").text
    assert "other random entries" in merge_export.peft_code(Merge("dare_ties"), "base", ["a", "b"], "out").note


def test_odd_names_are_quoted_in_python_and_yaml():
    base, folder = 'b"a\\s\n: #\U0001f600\x85\x7f', "it's: {a} - 'b'"
    code = merge_export.peft_code(Merge(), base, [folder, folder], folder).text
    assert repr(base) in code
    compile(code, "merge.py", "exec")
    read = yaml.safe_load(merge_export.mergekit_yaml(Merge("linear", "delta"), base, [folder, folder]).text)
    assert (read["base_model"], read["models"][0]["model"]) == (base, f"{base}+{folder}")


# ---- mergekit

def test_the_mergekit_preset_is_said_in_its_own_words():
    read = yaml.safe_load(merge_export.mergekit_yaml(
        dataclasses.replace(merge_preset("mergekit"), weights=(1.0, 0.5)), "/base", ["/a", "/b"]).text)
    assert read == {"merge_method": "ties", "base_model": "/base", "dtype": "float32",
                    "models": [{"model": "/base+/a", "parameters": {"weight": 1.0, "density": 0.8}},
                               {"model": "/base+/b", "parameters": {"weight": 0.5, "density": 0.8}}],
                    "parameters": {"normalize": True, "rescale": False}}


@pytest.mark.parametrize(("choice", "method", "parameters", "weight"), [
    (Merge("linear", "delta", weights=(2.0, 1.0)), "task_arithmetic", {"normalize": False}, 2.0),
    (Merge("linear", "delta", weights=(3.0, 1.0), divisor="weights"), "task_arithmetic", {"normalize": False}, 0.75),
    (Merge("cat", divisor="count"), "task_arithmetic", {"normalize": False}, 0.5),
    (Merge(level="delta"), "ties", {"normalize": True, "rescale": False}, 1.0),
    (merge_preset("mergekit", "dare_ties"), "dare_ties", {"normalize": False, "rescale": True}, 1.0),
    (merge_preset("mergekit", "dare_linear"), "dare_linear", {"normalize": False, "rescale": True}, 1.0)])
def test_mergekit_gets_the_method_and_the_settings_that_mean_the_same(choice, method, parameters, weight):
    read = yaml.safe_load(merge_export.mergekit_yaml(choice, "/base", ["/a", "/b"]).text)
    assert (read["merge_method"], read["parameters"]) == (method, parameters)
    assert read["models"][0]["parameters"]["weight"] == weight


@pytest.mark.parametrize(("choice", "words"), [
    (Merge(), "not the factors"), (Merge("linear", "delta", rank=2), "compress"),
    (Merge("negmerge", "delta"), "NegMerge"), (Merge("magnitude_prune", "delta"), "elects signs"),
    (Merge(level="delta", trim_scope="global"), "as a whole"), (Merge("dare_linear", "delta"), "by the density"),
    (Merge(level="delta", weights=(1.0, 0.5)), "after weighting"),
    (Merge(level="delta", weights=(2.0, 2.0)), "sum of the weights")])
def test_what_mergekit_cannot_do_is_said(choice, words):
    said = merge_export.mergekit_yaml(choice, "/base", ["/a", "/b"])
    assert said.text == ""
    assert words in said.note


def test_mergekit_takes_no_path_with_a_plus():
    assert "rename" in merge_export.mergekit_yaml(Merge("linear", "delta"), "/c++", ["/a", "/b"]).note


# ---- files

def test_the_archive_holds_the_adapter_as_peft_loads_it(smoke_run, tmp_path):
    folder = smoke_run.adapter_dir("merged")
    with zipfile.ZipFile(io.BytesIO(merge_export.adapter_zip(folder))) as archive:
        assert archive.namelist() == ["merged/adapter_config.json", "merged/adapter_model.safetensors"]
        archive.extractall(tmp_path)
    there, back = load_adapter(folder), load_adapter(tmp_path / "merged")
    assert all(torch.equal(factors.A, back.modules[name].A) for name, factors in there.modules.items())
    assert merge_export.adapter_files(tmp_path / "gone") == []


def test_the_full_model_is_made_by_the_engine_and_loads_as_it_is(smoke_run, tmp_path):
    with zipfile.ZipFile(io.BytesIO(merge_export.full_model_zip(smoke_run))) as archive:
        assert {"merged/config.json", "merged/model.safetensors", "merged/tokenizer.json"} <= set(archive.namelist())
        assert abs(archive.getinfo("merged/model.safetensors").file_size
                   / merge_export.full_model_bytes(smoke_run) - 1) < 0.01
        archive.extractall(tmp_path)
    full, _ = models.load_model(str(tmp_path / "merged"))
    of_run, _ = run_models.load(smoke_run, smoke_run.recipe(), "merged", "cpu")
    for name, tensor in of_run.state_dict().items():
        assert torch.equal(full.state_dict()[name], tensor)


def test_a_full_model_that_cannot_be_made_says_why(recorded_run):
    assert merge_export.full_model_bytes(recorded_run) == 0
    with pytest.raises(InputError, match="full model of merged; got error: "):
        merge_export.full_model_zip(recorded_run)
