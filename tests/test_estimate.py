"""The estimate: items and steps against what a run really did, sizes against real models, memory against its peak."""

import json
import shutil

import pytest

from analysis import plan
from tests import example_run
from unlearn_core import cli, estimate, models
from unlearn_core import recipe as recipes
from unlearn_core.encoding import encode_all
from unlearn_core.errors import InputError
from unlearn_core.estimate import Estimate, Part, Time, Workload
from unlearn_core.evaluation import likelihood
from unlearn_core.jobs import Device
from unlearn_core.settings import Base
from unlearn_core.store import Store
from unlearn_core.tokens import SavedTokenizer
from unlearn_core.vocabulary import UNLEARNED

CPU = Device("cpu", "CPU", 16000.0, 4000.0)


def whole(recipe, tokenizer=None, **how):
    """(workload, estimate) of a recipe."""
    work = estimate.workload(recipe, estimate.dataset(recipe), tokenizer)
    return work, estimate.estimate(recipe, work, estimate.base_model(recipe.base), **how)


# ---- items and steps -------------------------------------------------------------------------------------------

def test_steps_are_exactly_what_a_run_really_did(smoke_run):
    _, expected = whole(smoke_run.recipe())
    assert expected.steps == {model: len(smoke_run.steps(model)) for model in ("base", *UNLEARNED)}


def test_the_data_are_exactly_those_that_the_run_used(smoke_run):
    """The demo's data of the page, and those of the pipeline, are the same item for item."""
    assert estimate.dataset(smoke_run.recipe()) == estimate.dataset(smoke_run.recipe(), source=smoke_run)


def test_counted_tokens_are_those_that_the_run_memorised(smoke_run):
    """The base reads each item once an epoch, so its tokens in all are epochs x (prompts + answers + ends)."""
    recipe, folder = smoke_run.recipe(), estimate.tokenizer_folder(smoke_run.recipe(), smoke_run)
    work, _ = whole(recipe, SavedTokenizer(folder))
    assert work.counted
    assert recipe.base.epochs * sum(work.memorised) == smoke_run.steps("base")[-1]["tokens"]


def test_estimated_tokens_are_near_the_counted_ones(smoke_run):
    guess, _ = whole(smoke_run.recipe())
    count, _ = whole(smoke_run.recipe(), SavedTokenizer(smoke_run.full_model_dir("base")))
    assert not guess.counted
    assert sum(guess.memorised) == pytest.approx(sum(count.memorised), rel=0.3)


def test_a_run_with_the_weights_of_another_does_not_train_the_base(smoke_run):
    _, expected = whole(smoke_run.recipe(), base_is_there=True)
    assert list(expected.steps) == list(expected.operations) == list(UNLEARNED)
    assert {part.stage for part in expected.parts} == {*UNLEARNED, "evaluation"}


def test_files_are_counted_as_the_run_will_read_them(smoke_run, tmp_path):
    """30 forget and 30 retain items, none held out where the base is loaded; 5 epochs of 4 items a step."""
    for name in ("forget.jsonl", "retain.jsonl"):
        rows = [json.loads(line) for line in (smoke_run.data_dir / name).read_text().splitlines()]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = str(smoke_run.full_model_dir("base"))
    recipe = recipes.parse({"data": {"source": "files", "path": str(tmp_path)},
                            "base": {"source": "load", "model": base}})
    work, expected = whole(recipe)
    assert (len(work.forget), len(work.retain), len(work.general), work.attack) == (30, 30, 0, 0)
    assert expected.steps == {model: 5 * 30 // 4 for model in UNLEARNED}
    assert estimate.tokenizer_folder(recipe) == smoke_run.full_model_dir("base")


def test_files_that_are_missing_are_an_error_and_those_on_the_hub_are_not_fetched():
    missing = recipes.parse({"data": {"source": "files", "path": "/no/where"}})
    with pytest.raises(InputError, match="/no/where; got no such folder"):
        estimate.dataset(missing)
    assert estimate.dataset(recipes.parse({"data": {"source": "files", "path": "hf://datasets/a/b"}})) is None


def test_answers_that_lose_their_end_are_counted_like_the_encoding_cuts_them(smoke_run):
    recipe = recipes.load("smoke", ["encoding.max_length=40"])
    tokenizer = SavedTokenizer(smoke_run.full_model_dir("base"))
    found = estimate.dataset(recipe)
    work = estimate.workload(recipe, found, tokenizer)
    rows = encode_all(tokenizer, found.forget + found.retain, recipe.encoding)
    assert work.lost_ends == sum(row.truncated for row in rows) > 0
    assert work.forget + work.retain == tuple(len(row.ids) for row in rows)


# ---- the base --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes", [[], ["base.hidden_size=48", "base.layers=3", "base.heads=3", "base.mlp_size=100"]])
def test_the_size_of_a_model_from_scratch_is_that_of_the_real_one(smoke_run, changes):
    recipe = recipes.load("smoke", changes)
    _, tokenizer = models.load_model(str(smoke_run.full_model_dir("base")))
    real = models.new_model(recipe.base, tokenizer, seed=0)
    size = estimate.base_model(recipe.base)
    assert size.vocabulary == len(tokenizer)
    assert size.parameters == sum(p.numel() for p in real.parameters())
    adapted = models.add_adapter(real, recipe.lora, seed=0)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert recipe.lora.r * size.linear == trained


def test_the_size_of_a_model_folder_is_read_from_its_config_and_headers(smoke_run):
    folder = str(smoke_run.full_model_dir("base"))
    assert estimate.base_model(Base(source="load", model=folder)) == estimate.base_model(smoke_run.recipe().base)


@pytest.mark.parametrize("config", [
    {"hidden_size": 8}, {"n_embd": 8, "n_layer": 2}, {"vocab_size": "x", "hidden_size": 8, "num_hidden_layers": 1,
                                                      "intermediate_size": 8, "num_attention_heads": 2}])
def test_a_config_of_another_kind_of_model_gives_no_size(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert estimate.base_model(Base(source="load", model=str(tmp_path))) is None


def test_grouped_queries_and_tied_embeddings_are_counted(tmp_path):
    """Width 8, 4 heads of 2, 2 key-value heads: q, o 8 x 8, k, v 8 x 4, MLP 3 x 8 x 16; one embedding of 10 x 8."""
    (tmp_path / "config.json").write_text(json.dumps({
        "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 3, "intermediate_size": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}))
    size = estimate.base_model(Base(source="load", model=str(tmp_path)))
    assert size.parameters == 10 * 8 + 3 * (2 * 64 + 2 * 32 + 3 * 128)
    assert size.linear == 3 * (2 * 16 + 2 * 12 + 3 * 24)


def test_a_folder_without_a_config_and_a_name_that_is_none_are_errors(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        estimate.base_model(Base(source="load", model=str(tmp_path)))
    for name in ("/no/where", "./here", "a/b/c", "two words"):
        with pytest.raises(InputError, match="existing folder or a hub id"):
            estimate.base_model(Base(source="load", model=name))


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}x"[:9]])
def test_weights_with_a_damaged_header_are_named(smoke_run, tmp_path, content):
    shutil.copy(smoke_run.full_model_dir("base") / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors; got no readable header"):
        estimate.base_model(Base(source="load", model=str(tmp_path)))


def test_a_hub_model_that_is_not_here_has_no_size_and_is_not_asked_for(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asked the hub"))
    recipe = recipes.load("smoke", ["base.source=load", "base.model=nobody/has-this-one"])
    assert estimate.base_model(recipe.base) is None
    _, expected = whole(recipe)
    assert expected.steps["model_1"] > 0
    assert (expected.memory_mb, expected.peak, expected.operations) == (None, None, {})


# ---- memory and operations -------------------------------------------------------------------------------------

def test_memory_is_about_the_peak_that_was_measured(smoke_run):
    _, expected = whole(smoke_run.recipe())
    for model in ("base", *UNLEARNED):
        peak = max(row["memory_mb"] for row in smoke_run.steps(model))
        assert peak / 3 < expected.stage_mb(model) < peak * 3  # a test process may hold more than a run's


def test_the_peak_is_the_largest_stage_and_each_stage_the_sum_of_its_parts():
    expected = Estimate({}, 1, 1, (Part("base", "a", 1.0), Part("base", "b", 2.0), Part("model_1", "a", 2.5)), {})
    assert (expected.peak, expected.memory_mb, expected.stage_mb("model_1")) == ("base", 3.0, 2.5)


def part(expected, stage, start):
    return next(p.mb for p in expected.parts if p.stage == stage and p.name.startswith(start)) * 2**20


def test_the_parts_that_have_a_formula_follow_it():
    """16 bytes a trained parameter: fp32 weight, gradient and two moments; 4 or 2 bytes a frozen one."""
    for precision, size in (("fp32", 4), ("bf16", 2)):
        _, expected = whole(recipes.load("smoke", [f"precision={precision}"]))
        assert part(expected, "base", "weights") == pytest.approx(16 * expected.parameters)
        assert part(expected, "model_1", "weights") == pytest.approx(size * expected.parameters)
        assert part(expected, "model_1", "adapter's") == pytest.approx(16 * expected.adapter_parameters)


def test_the_references_log_probs_are_kept_only_where_they_fit_and_are_needed():
    """Padded to 256 positions, 30 retain items of 500 tokens of vocabulary take 30 x 256 x 500 x 4 bytes."""
    _, padded = whole(recipes.load("smoke", ["unlearn.klr_positions=padded"]))
    assert part(padded, "model_1", "kept") == 30 * 256 * 500 * 4
    _, states = whole(recipes.load("smoke", ["unlearn.klr_positions=padded", "encoding.max_length=100000"]))
    assert part(states, "model_1", "kept") == 30 * 100_000 * 64 * 4  # log-probs take 6 GB: states before the head
    for changes in (["klr_positions=padded", "klr_reference=forward"], ["klr_weight=0"],
                    ["klr_reference=fp32", "klr_reference_place=disk"]):
        _, none = whole(recipes.load("smoke", [f"unlearn.{change}" for change in changes]))
        assert part(none, "model_1", "kept") == 0


def test_the_rows_of_a_step_are_those_of_every_loss_term():
    """4 items a step; the widest padded to 256: forget and retain, then 3 of retain, then a refusal and a positive."""
    work, _ = whole(recipes.load("smoke"))
    for changes, rows in ((["unlearn.batch_size=1"], 2), (["unlearn.retain_per_forget=3"], 4),
                          (["unlearn.refusal_weight=1", "unlearn.positive_weight=1"], 4)):
        recipe = recipes.load("smoke", ["unlearn.klr_positions=padded", *changes])
        assert estimate._largest_forward(recipe.model_1, work, recipe.encoding)[0] == 4 * rows * 256


def test_on_a_gpu_cudas_context_stands_in_place_of_the_libraries():
    recipe = recipes.load("smoke")
    work = estimate.workload(recipe, estimate.dataset(recipe))
    size = estimate.base_model(recipe.base)
    cpu, gpu = (estimate.estimate(recipe, work, size, device=name) for name in ("cpu", "cuda:0"))
    for stage in ("base", *UNLEARNED, "evaluation"):
        assert gpu.stage_mb(stage) - cpu.stage_mb(stage) == pytest.approx(estimate.CONTEXT_MB - estimate.RUNTIME_MB)


@pytest.mark.parametrize(("recipe", "least", "most"), [("paper", 14.0, 28.0), ("paper-1b", 4.0, 12.0)])
def test_the_papers_models_have_an_estimate_before_anything_is_downloaded(smoke_run, recipe, least, most):
    """In GiB: the weights in bf16 are 12.8 and 2.4, and each recipe must fit its 80 and 16 GB."""
    chosen = recipes.load(recipe, [f"data.path={smoke_run.data_dir}", "evaluation.mia_members=forget", "data.mmlu="])
    size, expected = estimate.of_recipe(chosen, "cuda:0")
    assert size.published
    assert least < expected.memory_mb / 1024 < most


def test_a_beginning_token_counts_where_the_tokenizer_adds_one(smoke_run):
    """The engine's own encoding is the oracle: with a token before each prompt, every item is one longer."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = SavedTokenizer(smoke_run.full_model_dir("base"))
    recipe, found = smoke_run.recipe(), estimate.dataset(smoke_run.recipe())
    before = estimate.workload(recipe, found, tokenizer)
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.eos_token} $A", special_tokens=[(tokenizer.eos_token, tokenizer.eos_token_id)])
    after = estimate.workload(recipe, found, tokenizer)
    assert after.forget == tuple(length + 1 for length in before.forget)
    assert after.forget == tuple(len(row.ids) for row in encode_all(tokenizer, found.forget, recipe.encoding))


def test_the_limits_are_those_of_the_engine():
    assert estimate.LOGITS_BUDGET == likelihood.LOGITS_BUDGET


def test_checkpointing_and_separate_micro_batches_take_less_memory_and_larger_batches_more():
    sizes = [whole(recipes.load("smoke", changes))[1].stage_mb("model_2") for changes in (
        ["unlearn.gradient_checkpointing=true", "unlearn.joined=false"], ["unlearn.joined=false"], [],
        ["unlearn.batch_size=16"])]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4


def test_operations_are_six_a_parameter_and_token_for_the_base_and_four_for_an_adapter():
    recipe = recipes.load("smoke", ["unlearn.klr_positions=padded"])
    work, expected = whole(recipe)
    size = estimate.base_model(recipe.base)
    multiplied = size.parameters - 500 * 64
    assert expected.operations["base"] == pytest.approx(6 * multiplied * 16 * sum(work.memorised))
    read = 22 * 4 * 2 * 256  # steps x items x forget and retain x positions
    reference = sum(work.forget) + sum(work.retain)
    assert expected.operations["model_1"] == pytest.approx(multiplied * (4 * read + 2 * reference))


@pytest.mark.parametrize("setting", ["base.hidden_size", "encoding.max_length", "lora.r", "evaluation.batch_size"])
def test_a_number_with_too_many_digits_is_an_error_not_a_crash(setting):
    recipe = recipes.load("smoke", [f"{setting}={10**400 // 4 * 4}"])
    with pytest.raises(InputError, match="beyond all numbers"):
        whole(recipe)


# ---- time ------------------------------------------------------------------------------------------------------

def expected_of(recipe):
    return whole(recipe)[1]


def test_time_is_what_the_same_shapes_took_scaled_by_the_steps(smoke_run):
    """Twice the epochs of model_1 take twice its seconds."""
    seconds = {model: smoke_run.steps(model)[-1]["seconds"] for model in ("base", *UNLEARNED)}
    longer = recipes.load("smoke", ["model_1.epochs=6", "merge.density=0.5", "model_2.lr=1e-3"])
    found = estimate.training_time(longer, expected_of(longer), [smoke_run], "cpu")
    assert found.same
    assert found.run == smoke_run.id
    assert found.seconds == pytest.approx(seconds | {"model_1": seconds["model_1"] * 45 / 22})
    assert found.total == pytest.approx(sum(found.seconds.values()))


def test_other_shapes_are_scaled_by_operations_and_say_so(smoke_run):
    """Three times the layers: as many times the operations, at the pace that was measured."""
    deeper = recipes.load("smoke", ["base.layers=6"])
    expected, measured = expected_of(deeper), expected_of(smoke_run.recipe())
    found = estimate.training_time(deeper, expected, [smoke_run], "cpu")
    assert not found.same
    for model in ("base", *UNLEARNED):
        ratio = expected.operations[model] / measured.operations[model]
        assert found.seconds[model] == pytest.approx(smoke_run.steps(model)[-1]["seconds"] * ratio, rel=1e-6)


@pytest.mark.parametrize("setting", ["model_1.retain_per_forget=3", "model_1.packed=true", "model_2.refusal_weight=0.5",
                                     "model_2.klr_reference=forward", "lora.layers=[0]", "base.compiled=true"])
def test_a_step_that_reads_or_runs_otherwise_is_not_the_same(smoke_run, setting):
    recipe = recipes.load("smoke", [setting])
    assert not estimate.training_time(recipe, expected_of(recipe), [smoke_run], "cpu").same


def test_the_same_shapes_are_preferred_to_a_newer_run_of_others(smoke_run, smoke_copy):
    other = json.loads((smoke_copy.path / "recipe.json").read_text())
    other["base"]["layers"] = 4
    (smoke_copy.path / "recipe.json").write_text(json.dumps(other))
    recipe = recipes.load("smoke")
    assert estimate.training_time(recipe, expected_of(recipe), [smoke_copy, smoke_run], "cpu").same


def test_no_run_on_the_device_and_no_run_with_steps_tell_nothing(smoke_run, tmp_path):
    recipe = recipes.load("smoke")
    runs = [example_run.create(tmp_path), example_run.unfinished(tmp_path), example_run.damaged(tmp_path)]
    assert estimate.training_time(recipe, expected_of(recipe), [smoke_run], "cuda:0") is None
    assert estimate.training_time(recipe, expected_of(recipe), runs[:2], "cpu") is None
    assert estimate.training_time(recipe, expected_of(recipe), [], "cpu") is None


def test_a_run_with_a_damaged_log_is_passed_over(smoke_run, smoke_copy):
    (smoke_copy.model_dir("model_1") / "steps.jsonl").write_text("{\n")
    recipe = recipes.load("smoke")
    assert estimate.training_time(recipe, expected_of(recipe), [smoke_copy], "cpu") is None
    assert estimate.training_time(recipe, expected_of(recipe), [smoke_copy, smoke_run], "cpu").run == smoke_run.id


# ---- on the command line ---------------------------------------------------------------------------------------

def test_the_command_prints_steps_and_the_memory_of_each_stage(capsys):
    assert cli.main(["estimate", "smoke", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    _, expected = whole(recipes.load("smoke"))
    for model, steps in expected.steps.items():
        assert f"{model:<12}{steps:>10,} optimizer steps" in out
    assert f"base: {expected.parameters:,} parameters" in out
    assert [stage for stage in ("base", *UNLEARNED, "evaluation") if f"{stage:<11} together" not in out] == []
    assert f"peak {expected.memory_mb:,.0f} MiB in {expected.peak}" in out
    assert err == ""


def test_the_command_warns_of_what_does_not_fit_and_names_settings_that_need_less(capsys):
    huge = ["base.hidden_size=8192", "base.layers=64", "base.heads=64", "base.mlp_size=32768"]
    sets = [word for change in huge for word in ("--set", change)]
    assert cli.main(["estimate", "smoke", "--device", "cpu", *sets]) == 0
    assert ("warning: that is more than cpu has free; less is needed by --set base.gradient_checkpointing=true, or "
            "--set base.batch_size=4") in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    (["smoke", "--device", "cuda:99"], "--device; got cuda:99; expected one of"),
    (["smoke", "--set", "data.source=files", "--set", "data.path=hf://datasets/a/b"], "data that the run downloads"),
    (["smokee"], "did you mean smoke?")])
def test_what_cannot_be_estimated_is_one_line(capsys, arguments, words):
    assert cli.main(["estimate", *arguments]) == cli.BAD_INPUT
    assert words in capsys.readouterr().err


def test_a_base_of_unknown_size_has_steps_and_no_memory(capsys):
    assert cli.main(["estimate", "smoke", "--set", "base.source=load", "--set", "base.model=nobody/has-this-one"]) == 0
    out = capsys.readouterr().out
    assert "model_1" in out
    assert "memory: not known before the base is downloaded" in out


# ---- words and warnings ----------------------------------------------------------------------------------------

def work(**changes):
    return Workload(**{"forget": (9, 9), "retain": (9,), "general": (), "lost_ends": 0, "attack": 4, "counted": True}
                    | changes)


def needing(mb):
    return Estimate({"model_1": 3}, 1000, 10, (Part("model_1", "weights", mb),), {"model_1": 1e9})


@pytest.mark.parametrize(("changes", "mb", "words"), [
    ({}, 11_999.0, []), ({}, 12_001.0, ["About 11.7 GiB are needed while training Model 1, and cpu has 11.7 GiB free"]),
    ({"lost_ends": 2}, 1.0, ["2 of 3 answers lose their end at max length 256 (counted with the base's tokenizer)"]),
    ({"lost_ends": 2, "counted": False}, 1.0, ["(estimated from their number of characters)"]),
    ({"attack": 0}, 1.0, ["attack will not be measured"])])
def test_each_warning_has_its_reason(changes, mb, words):
    found = plan.warnings(recipes.load("smoke"), work(**changes), needing(mb), CPU)
    assert len(found) == len(words)
    assert [word for word, text in zip(words, found, strict=True) if word not in text] == []


def test_the_bundled_small_recipes_give_no_warning():
    for name in ("demo", "smoke"):
        recipe = recipes.load(name)
        assert plan.warnings(recipe, *whole(recipe), CPU) == []


@pytest.mark.parametrize(("mb", "words"), [(12.34, "12 MiB"), (999.4, "999 MiB"), (2048.0, "2 GiB"),
                                           (80_000.0, "78.1 GiB"), (None, "not known")])
def test_a_size_in_words(mb, words):
    assert plan.size(mb) == words


def test_numbers_of_parameters_and_times_in_words():
    assert [plan.parameters(n) for n in (997_376, 1_234_567, 6_900_000_000, 12)] == [
        "997 thousand", "1.23 million", "6.9 billion", "12"]
    assert plan.time_in_words(None) == "not known"
    assert plan.time_in_words(Time({"base": 61.0, "model_1": 60.0}, "r", True)) == "2 min 1 s"
    assert plan.time_in_words(Time({"base": 61.0}, "r", False)) == "~1 min"


def test_the_tables_list_every_model_and_each_stage_with_its_sum(smoke_run):
    expected = expected_of(smoke_run.recipe())
    steps = plan.steps_table(expected, Time({"base": 1.0}, "r", True))
    assert steps["model"].tolist() == ["Base", "Model 1", "Model 2"]
    assert steps["seconds"].isna().tolist() == [False, True, True]
    memory = plan.memory_table(expected)
    for stage in ("Base", "Model 1", "Model 2", "scoring"):
        rows = memory[memory["stage"] == stage]
        assert rows["MiB"].iloc[-1] == pytest.approx(rows["MiB"].iloc[:-1].sum(), abs=0.5)


def test_where_the_numbers_come_from_is_said():
    told = plan.basis(needing(1.0), work(), None)
    assert told == ("Steps are exact; lengths of the items are counted with the base's tokenizer. Base 1 thousand "
                    "parameters, each adapter 10. Time: no earlier run on this device tells.")
    assert "as measured by the run abc" in plan.basis(needing(1.0), work(), Time({}, "abc", True))
    assert "rough, scaled from the run abc" in plan.basis(needing(1.0), work(), Time({}, "abc", False))


def test_public_releases_that_are_not_there_are_named_with_their_commands(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert plan.fetch_commands(recipes.load("paper")) == [["data", "fetch", "semeval"], ["data", "fetch", "mmlu"]]
    (tmp_path / "data" / "semeval").mkdir(parents=True)
    assert plan.fetch_commands(recipes.load("paper")) == [["data", "fetch", "mmlu"]]
    assert plan.fetch_commands(recipes.load("demo")) == []


def test_a_changed_file_has_another_stamp_and_a_world_has_none(tmp_path, smoke_run):
    (tmp_path / "forget.jsonl").write_text("a")
    recipe = recipes.parse({"data": {"source": "files", "path": str(tmp_path)}})
    before = plan.data_stamps(recipe, None)
    (tmp_path / "forget.jsonl").write_text("ab")
    assert plan.data_stamps(recipe, None) != before
    assert plan.data_stamps(recipes.load("demo"), None) == ()
    assert len(plan.data_stamps(recipes.load("demo"), smoke_run)) >= 4


def test_sizes_of_a_store_without_runs_are_not_needed(tmp_path):
    assert estimate.training_time(recipes.load("smoke"), needing(1.0), Store(tmp_path).runs(), "cpu") is None
