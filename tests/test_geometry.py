"""Geometry of weight changes against naive dense computation; and what of a run it is measured on."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unlearn_core import cli, jobs, run_models
from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import Adapter, Factors, delta, load_adapter
from unlearn_core.store import Run
from unlearn_core.weight_changes import geometry, weights

SIZES = {"model.layers.0.mlp.up_proj": (70, 48), "model.layers.0.mlp.down_proj": (48, 70)}


def adapter(seed: int, rank: int = 3, alpha: float = 6.0, sizes=SIZES) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    modules = {name: Factors(A=torch.randn(rank, columns, generator=generator),
                             B=torch.randn(rows, rank, generator=generator)) for name, (rows, columns) in sizes.items()}
    return Adapter(modules, {"peft_type": "LORA", "r": rank, "lora_alpha": alpha})


def dense(adapter: Adapter) -> list[torch.Tensor]:
    """The weight change of each module in float64."""
    return [delta(Factors(f.A.double(), f.B.double()), adapter.scaling) for f in adapter.modules.values()]


THREE = {"model_1": adapter(1), "model_2": adapter(2, rank=5, alpha=2.0), "merged": adapter(3, rank=8)}


@pytest.fixture(scope="module")
def found():
    return geometry.statistics(THREE, {"model.layers.0.mlp.down_proj": 2.5})


# ---- sizes, angles, spectra ------------------------------------------------------------------------------------

def test_norms_and_inner_products_are_those_of_the_dense_changes(found):
    for i, one in enumerate(THREE.values()):
        for j, two in enumerate(THREE.values()):
            expected = [(x * y).sum().item() for x, y in zip(dense(one), dense(two), strict=True)]
            np.testing.assert_allclose(found["inner"][i, j], expected, rtol=1e-6, atol=1e-3)
        np.testing.assert_allclose(found["norm"][i], [x.norm().item() for x in dense(one)], rtol=1e-6)
    assert found["inner"].dtype == np.float64


def test_a_base_norm_that_is_not_known_is_not_a_number(found):
    assert math.isnan(found["base_norm"][0])
    assert found["base_norm"][1] == 2.5


def test_singular_values_are_those_of_the_dense_changes_and_0_behind_the_rank(found):
    assert found["singular_values"].shape == (3, 2, 64)
    for i, one in enumerate(THREE.values()):
        for j, x in enumerate(dense(one)):
            values = torch.linalg.svdvals(x).numpy()
            np.testing.assert_allclose(found["singular_values"][i, j, :one.rank], values[:one.rank], rtol=1e-5)
            assert (found["singular_values"][i, j, one.rank:] == 0).all()


def test_the_squares_of_all_singular_values_add_up_to_the_squared_norm(found):
    np.testing.assert_allclose((found["singular_values"].astype(float) ** 2).sum(-1), found["norm"] ** 2, rtol=1e-5)


def test_padded_directions_and_an_adapter_without_a_change_have_singular_values_of_exactly_0():
    factors = Factors(torch.randn(3, 40), torch.randn(50, 3))
    padded = Factors(torch.cat([factors.A, torch.zeros(5, 40)]), torch.cat([factors.B, torch.zeros(50, 5)], dim=1))
    assert (geometry.singular_values(padded) > 0).sum() == 3
    assert (geometry.singular_values(Factors(factors.A, torch.zeros(50, 3))) == 0).all()


def test_of_a_matrix_of_full_rank_the_largest_64_singular_values_are_kept():
    x = torch.randn(100, 90, generator=torch.Generator().manual_seed(0))
    found = geometry.singular_values(Factors(A=x, B=torch.eye(100)))
    np.testing.assert_allclose(found, torch.linalg.svdvals(x)[:64], rtol=1e-4)


def test_of_a_very_high_rank_the_largest_singular_values_are_found_by_iteration():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 8, generator=generator) @ torch.randn(8, 560, generator=generator)
    x = 0.5 * x + torch.randn(600, 560, generator=generator)  # a few large directions over noise, which decays slowly
    found = geometry.singular_values(Factors(A=x, B=torch.eye(600)))
    exact = torch.linalg.svdvals(x)[:64].double()
    np.testing.assert_allclose(found[:8], exact[:8], rtol=1e-3)
    np.testing.assert_allclose(found, exact, rtol=0.05)
    assert (found <= exact * 1.0001).all()


# ---- entries ---------------------------------------------------------------------------------------------------

def test_histograms_count_every_entry_in_bins_that_all_adapters_share(found):
    assert found["histogram"].shape == (3, 2, 121)
    assert found["histogram_edges"].shape == (2, 122)
    for i, one in enumerate(THREE.values()):
        for j, x in enumerate(dense(one)):
            edges = found["histogram_edges"][j].copy()
            edges[0], edges[-1] = -np.inf, np.inf  # the outer bins take what lies beyond
            expected = np.histogram(x.numpy(), edges)[0]
            assert found["histogram"][i, j].sum() == x.numel()
            assert np.abs(found["histogram"][i, j] - expected).sum() <= 4  # float32 at an edge
            assert found["largest"][i, j] == pytest.approx(x.abs().max().item(), rel=1e-5)


def test_bins_reach_six_root_mean_squares_of_the_largest_change(found):
    largest = max(x.square().mean().sqrt().item() for x in (dense(one)[0] for one in THREE.values()))
    assert found["histogram_edges"][0, -1] == pytest.approx(6 * largest, rel=1e-5)
    assert found["histogram_edges"][0, 0] == -found["histogram_edges"][0, -1]


def test_a_change_of_0_lies_in_the_middle_bin():
    found = geometry.statistics({"still": Adapter({"m": Factors(torch.ones(2, 40), torch.zeros(33, 2))},
                                                  {"r": 2, "lora_alpha": 2})})
    assert found["histogram"][0, 0, 60] == 33 * 40


def test_each_block_of_the_map_is_the_root_mean_square_of_its_entries():
    one = adapter(4, sizes={"m": (64, 96)})
    found = geometry.statistics({"a": one})["map"][0, 0]
    blocks = dense(one)[0].reshape(32, 2, 32, 3).square().mean(dim=(1, 3)).sqrt()
    np.testing.assert_allclose(found, blocks, rtol=1e-4)


def test_a_matrix_with_fewer_rows_than_the_map_repeats_them():
    one = adapter(4, sizes={"m": (16, 64)})
    found = geometry.statistics({"a": one})["map"][0, 0]
    np.testing.assert_array_equal(found[0::2], found[1::2])


def test_entries_are_left_out_where_they_are_not_asked_for():
    assert set(geometry.statistics(THREE, entries=False)) == {"norm", "base_norm", "inner", "singular_values"}


# ---- changes during a training -----------------------------------------------------------------------------------

def training(steps: int = 4) -> list[Adapter]:
    """Adapters on a way from B = 0, as LoRA trains."""
    first, last = adapter(5), adapter(6)
    return [Adapter({name: Factors(f.A + t / steps * last.modules[name].A, t / steps * last.modules[name].B)
                     for name, f in first.modules.items()}, first.config) for t in range(steps + 1)]


def as_vectors(adapter: Adapter, level: str) -> list[torch.Tensor]:
    """Each module's change, or its factors, as one vector in float64."""
    return ([x.flatten() for x in dense(adapter)] if level == "delta" else
            [torch.cat([f.A.flatten(), f.B.flatten()]).double() for f in adapter.modules.values()])


@pytest.mark.parametrize("level", ["delta", "factors"])
def test_the_parts_of_a_split_are_those_of_the_dense_changes(level):
    points = training()
    found = geometry.split_products(points[0], points, points[-1])[level]
    assert found.shape == (5, 2, 3)
    start, end = as_vectors(points[0], level), as_vectors(points[-1], level)
    for s, point in enumerate(points):
        for m, at in enumerate(as_vectors(point, level)):
            u, v = at - start[m], end[m] - at
            scale = ((end[m] - start[m]) ** 2).sum().item()
            np.testing.assert_allclose(found[s, m], [u @ u, v @ v, u @ v], rtol=1e-5, atol=1e-7 * scale)


@pytest.mark.parametrize("level", ["delta", "factors"])
def test_the_whole_change_is_the_sum_of_the_parts_at_every_split(level):
    points = training()
    found = geometry.split_products(points[0], points, points[-1])[level]
    whole = found[..., 0] + found[..., 1] + 2 * found[..., 2]  # |u + v|^2 = |u|^2 + |v|^2 + 2 <u, v>
    np.testing.assert_allclose(whole, np.broadcast_to(whole[0], whole.shape), rtol=1e-6)
    assert (whole > 0).all()


@pytest.mark.parametrize("level", ["delta", "factors"])
def test_at_both_ends_a_part_is_exactly_0(level):
    points = training()
    found = geometry.split_products(points[0], points, points[-1])[level]
    assert (found[0][:, [0, 2]] == 0).all()
    assert (found[-1][:, [1, 2]] == 0).all()


def test_factors_do_not_begin_at_0_but_their_change_does_not_count_what_was_there():
    points = training()
    still = [points[0]] * 3
    assert (geometry.split_products(still[0], still, still[-1])["factors"] == 0).all()


# ---- the base ------------------------------------------------------------------------------------------------

WEIGHTS = {"model.layers.0.q.weight": torch.randn(30, 20), "model.layers.1.q.weight": torch.randn(30, 20).bfloat16(),
           "model.embed_tokens.weight": torch.randn(50, 20), "model.layers.2.q.weight": torch.ones(4, 4).to(torch.int8)}
NAMES = ["model.layers.0.q", "model.layers.1.q", "model.layers.2.q", "lm_head", "model.layers.9.q"]


def write_base(folder, tied=False, sharded=False):
    folder.mkdir()
    parts = [WEIGHTS] if not sharded else [{key: value} for key, value in WEIGHTS.items()]
    for number, part in enumerate(parts):
        save_file(part, folder / f"model-{number}.safetensors")
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    return str(folder)


@pytest.mark.parametrize("sharded", [False, True])
def test_base_norms_are_read_from_one_file_or_several(tmp_path, sharded):
    found = weights.base_norms(write_base(tmp_path / "base", sharded=sharded), NAMES)
    assert found == {name: pytest.approx(WEIGHTS[f"{name}.weight"].double().norm().item()) for name in NAMES[:2]}


def test_a_tied_output_layer_has_the_norm_of_the_embedding(tmp_path):
    found = weights.base_norms(write_base(tmp_path / "base", tied=True), NAMES)
    assert found["lm_head"] == pytest.approx(WEIGHTS["model.embed_tokens.weight"].double().norm().item())


@pytest.mark.parametrize("base", ["no-such/model", "/no/such/folder", "not a model!"])
def test_a_base_that_is_not_here_has_no_norms_and_is_not_downloaded(base):
    assert weights.base_norms(base, NAMES) == {}


def test_a_damaged_base_is_named(tmp_path):
    base = write_base(tmp_path / "base")
    (tmp_path / "base" / "model-1.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"base .*a damaged file"):
        weights.base_norms(base, NAMES)


# ---- a run -----------------------------------------------------------------------------------------------------

def test_a_finished_run_has_been_measured_on_the_adapters_that_it_has(smoke_run):
    arrays, about = smoke_run.arrays("weights")
    assert about["adapters"] == ["model_1", "model_2", "merged"]
    assert about["key"] == smoke_run.adapter_keys()
    assert about["steps"] == {name: [step for step, _ in smoke_run.checkpoints(name)]
                              for name in ("model_1", "model_2")}
    expected = [dense(load_adapter(smoke_run.adapter_dir("merged")))[i].norm().item()
                for i in range(len(about["modules"]))]
    np.testing.assert_allclose(arrays["norm"][2], expected, rtol=1e-6)
    assert (arrays["base_norm"] > 0).all()
    assert arrays["checkpoints/model_1/delta"].shape == (len(about["steps"]["model_1"]), len(about["modules"]), 3)
    assert about["shapes"][0] == [64, 128]  # the down-projection of the MLP: (out, in)


def test_it_is_measured_again_only_when_an_adapter_has_changed(smoke_copy):
    assert weights.is_current(smoke_copy)
    shutil.copytree(smoke_copy.adapter_dir("model_1"), smoke_copy.adapter_dir("merged"), dirs_exist_ok=True)
    assert not weights.is_current(smoke_copy)
    weights.measure(smoke_copy, run_models.base_path(smoke_copy, smoke_copy.recipe()))
    assert weights.is_current(smoke_copy)


def test_a_damaged_file_of_statistics_is_measured_again(smoke_copy):
    (smoke_copy.path / "weights.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="remove it and measure again"):
        smoke_copy.arrays("weights")
    assert not weights.is_current(smoke_copy)


def test_a_run_with_some_adapters_is_measured_for_these(smoke_copy):
    for name in ("model_2", "merged"):
        shutil.rmtree(smoke_copy.model_dir(name))
    weights.measure(smoke_copy, "")
    arrays, about = smoke_copy.arrays("weights")
    assert about["adapters"] == ["model_1"]
    assert set(about["steps"]) == {"model_1"}
    assert np.isnan(arrays["base_norm"]).all()


def test_checkpoints_without_their_beginning_are_left_out(smoke_copy):
    shutil.rmtree(smoke_copy.checkpoint_dir("model_1", 0))
    weights.measure(smoke_copy, "")
    arrays, about = smoke_copy.arrays("weights")
    assert set(about["steps"]) == {"model_2"}
    assert "checkpoints/model_1/delta" not in arrays


def test_the_entries_are_left_out_where_they_are_too_many_unless_asked_for(smoke_copy, monkeypatch):
    monkeypatch.setattr(weights, "MOST_ENTRIES", 1000)
    for asked, made in ((None, False), (True, True)):
        weights.measure(smoke_copy, "", entries=asked)
        arrays, about = smoke_copy.arrays("weights")
        assert about["entries"] is made
        assert ("histogram" in arrays) is made


def test_the_command_measures_a_run_and_does_not_change_how_it_ended(smoke_copy, capsys):
    (smoke_copy.path / "weights.safetensors").unlink()
    assert cli.main(["weights", str(smoke_copy.path), "--device", "cpu"]) == 0
    assert "measured 14 matrices of model_1, model_2, merged" in capsys.readouterr().out
    assert weights.is_current(smoke_copy)
    assert smoke_copy.status()["state"] == "finished"


def test_a_recorded_run_has_no_adapters_to_measure(recorded_run, capsys):
    assert cli.main(["weights", str(recorded_run.path), "--device", "cpu"]) == 2
    assert "got no adapters" in capsys.readouterr().err


def test_nothing_is_measured_where_people_may_only_look(smoke_run, monkeypatch):
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    with pytest.raises(InputError, match="expected only looking"):
        jobs.measure(Run(smoke_run.path), "weights", device="cpu")
