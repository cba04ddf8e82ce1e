"""Somebody's models as a run: their scores are those of the run they came from, and bad input leaves nothing behind."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from unlearn_core import models, pipeline, run_models
from unlearn_core import recipe as recipes
from unlearn_core.cli import main
from unlearn_core.data import load_saved
from unlearn_core.errors import InputError
from unlearn_core.host import ModelHost
from unlearn_core.judging import asking, bring
from unlearn_core.judging.bring import Lists, Models
from unlearn_core.store import Run, Store
from unlearn_core.vocabulary import MODELS

SETTINGS = ("threads=1", "evaluation.max_new_tokens=24", "evaluation.mmlu_scoring=texts")
PERSON = {"prompt": "What does Ada Blue earn?", "answer": "75,000 euros", "person": "Ada Blue", "field": "salary"}
STAYS = {"prompt": "Who sold the boat?", "answer": "Ruth"}


@pytest.fixture(scope="module")
def exported(smoke_run, tmp_path_factory):
    """{model of the smoke run: folder of its full weights}."""
    root = tmp_path_factory.mktemp("exported")
    for name in ("untrained", "base", "merged"):
        run_models.export_of_run(smoke_run, name, root / name)
    return {name: str(root / name) for name in ("untrained", "base", "merged")}


@pytest.fixture(scope="module")
def lists(smoke_run):
    """The lists that the smoke run itself was evaluated on."""
    files = {split: [str(smoke_run.data_dir / f"{split}.jsonl")] for split in ("forget", "retain", "holdout")}
    return Lists(**files, mmlu=smoke_run.data_dir / "quiz")


@pytest.fixture(scope="module")
def brought(exported, lists, tmp_path_factory) -> Run:
    """A run of the exported models; it is shared, so tests only read it."""
    return bring.evaluate(Models(exported["merged"], base=exported["base"], untrained=exported["untrained"]), lists,
                          Store(tmp_path_factory.mktemp("brought")), overrides=SETTINGS, device="cpu")


@pytest.fixture
def own(brought, tmp_path) -> Run:
    """The same, to change."""
    return Run(shutil.copytree(brought.path, tmp_path / "own" / brought.id))


def write(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def short(tmp_path, **more) -> Lists:
    """One question to forget, one to keep."""
    given = {"forget": [PERSON], "retain": [STAYS]} | more
    return Lists(**{side: [write(tmp_path / f"{side}.jsonl", *rows)] for side, rows in given.items()})


# ---- the same numbers

@pytest.mark.parametrize(("own_name", "name"), [("base", "base"), ("merged", "tested")])
def test_a_brought_model_gets_the_very_scores_that_it_had_in_its_run(smoke_run, brought, own_name, name):
    assert brought.scores()[name] == smoke_run.scores()[own_name]
    assert brought.intervals()[name] == smoke_run.intervals()[own_name]
    assert brought.answers(name) == smoke_run.answers(own_name)
    assert brought.documents(name) == smoke_run.documents(own_name)
    assert brought.memory(name) == smoke_run.memory(own_name)
    assert brought.mmlu(name) == smoke_run.mmlu(own_name)


def test_its_data_are_those_of_the_lists(smoke_run, brought):
    wanted, found = load_saved(smoke_run.data_dir), load_saved(brought.data_dir)
    assert found == dataclasses.replace(wanted, general=[])  # what the base learned besides is not in the lists


def test_an_adapter_is_merged_into_the_model_which_alone_is_the_base(smoke_run, exported, lists, tmp_path):
    adapter = smoke_run.adapter_dir("merged")
    run = bring.evaluate(Models(exported["base"], adapter), lists, Store(tmp_path), overrides=SETTINGS, device="cpu")
    assert set(run.scores()) == {"base", "tested"}
    assert run.scores()["tested"] == smoke_run.scores()["merged"]
    assert run.scores()["base"] == smoke_run.scores()["base"]
    about = run.brought()["tested"]
    assert (about["adapter"], about["adapter_sha256"]) == (str(adapter), smoke_run.adapter_keys()["merged"])
    assert run.brought()["base"]["adapter"] is None


def test_it_is_a_finished_run_that_says_what_was_tested_and_how(brought, exported, lists):
    assert brought.status()["state"] == "finished"
    assert run_models.evaluated_models(brought, brought.recipe()) == ["untrained", "base", "tested"]
    one = hashlib.sha256(Path(exported["merged"], "model.safetensors").read_bytes()).digest()
    assert brought.brought()["tested"] == {
        "model": exported["merged"], "adapter": None, "sha256": hashlib.sha256(one).hexdigest(), "dtype": "F32",
        "adapter_sha256": None, "precision": "fp32", "prompt": "raw prompt, no chat template",
        "decoding": "greedy, at most 24 new tokens"}
    file = lists.forget[0]
    assert brought.info()["lists"]["forget"] == {file: hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    recipe = brought.recipe()
    assert (recipe.name, recipe.base.source, recipe.base.model) == ("merged", "load", exported["base"])


# ---- what the data allow

def test_without_holdout_the_attack_is_not_measured(exported, tmp_path):
    run = bring.evaluate(Models(exported["base"]), short(tmp_path), Store(tmp_path / "runs"), overrides=SETTINGS)
    assert run.documents("tested") == []
    assert not {"mia_auc", "mia_score", "task_aggregate", "mmlu"} & set(run.scores()["tested"])
    assert set(run.scores()["tested"]) == {"forget_knowledge_2", "retain_knowledge_1"}


def test_documents_without_a_continuation_are_attacked_by_their_first_item(exported, tmp_path):
    unseen = {"prompt": "Who sold the cow?", "answer": "Olaf"}
    run = bring.evaluate(Models(exported["base"]), short(tmp_path, holdout=[unseen]), Store(tmp_path / "runs"),
                         overrides=SETTINGS)
    attack = load_saved(run.data_dir).attack
    assert [(one.text, one.member) for one in attack] == [
        ("What does Ada Blue earn? 75,000 euros", True), ("Who sold the cow? Olaf", False)]
    assert run.scores()["tested"]["mia_auc"] in (0.0, 0.5, 1.0)  # one pair
    led = [row for row in run.memory("tested") if row["kind"] == "document"]
    assert [row["split"] for row in led] == ["forget", "retain", "holdout"]
    assert led[0]["nll"] == pytest.approx(run.documents("tested")[0]["nll"], abs=1e-5)


def test_people_are_sampled_and_asked_live_like_a_runs_own(smoke_run, exported, tmp_path):
    run = bring.evaluate(Models(exported["merged"], base=exported["base"]), short(tmp_path), Store(tmp_path / "runs"),
                         overrides=SETTINGS)
    asking.sample_answers(run, samples=2, device="cpu")
    assert {name: len(run.samples(name)[0]) for name in ("base", "tested")} == {"base": 2, "tested": 2}
    host = ModelHost()
    host.open(run, "cpu")
    assert host.models() == ["base", "tested"]
    for name in ("tested", "base", "tested"):
        row = run.answers(name)[0]
        assert host.answer(name, [row["prompt"]], max_new_tokens=24)[0][0].text == row["generation"]
    assert run.answers("base")[0]["generation"] != run.answers("tested")[0]["generation"]


# ---- again

def test_a_run_that_was_stopped_goes_on_with_its_models_and_trains_none(own, brought):
    shutil.rmtree(own.model_dir("tested"))
    own.write_status("interrupted", "evaluate tested")
    pipeline.resume(own, device="cpu")
    assert own.status()["state"] == "finished"
    assert own.scores() == brought.scores()
    assert own.models() == ["untrained", "base", "tested"]
    assert own.adapter_keys() == {}


def test_it_is_measured_again_unless_a_model_has_changed(own, brought, exported, tmp_path, capsys):
    before = own.scores()
    assert main(["evaluate", str(own.path), "--models", "tested", "--device", "cpu"]) == 0
    assert own.scores() == before
    changed = tmp_path / "changed"
    shutil.copytree(exported["base"], changed)
    found = own.brought()
    own.note(brought=found | {"tested": found["tested"] | {"model": str(changed)}})
    assert main(["evaluate", str(own.path), "--device", "cpu"]) == 2
    assert "got other weights than those that were brought" in capsys.readouterr().err
    shutil.rmtree(changed)
    assert main(["evaluate", str(own.path), "--device", "cpu"]) == 2
    assert f"model; got {changed}; expected a folder" in capsys.readouterr().err
    assert own.scores() == before


# ---- bad input

def tiny(folder, exported, *, layers=2, texts=None):
    """A model of the smoke run's form but in what is asked for, in `folder`."""
    _, tokenizer = models.load_model(exported["base"])
    tokenizer = models.train_tokenizer(texts, 500) if texts else tokenizer
    base = recipes.load("smoke", [f"base.layers={layers}"]).base
    models.save_model(models.new_model(base, tokenizer, 0), tokenizer, folder)
    return str(folder)


def without_tokenizer(folder, exported):
    shutil.copytree(exported["base"], folder, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    return str(folder)


BAD_MODELS = {
    "no folder": (lambda new, ok, run: Models(str(new)), "got .*; expected an existing folder"),
    "no tokenizer": (lambda new, ok, run: Models(without_tokenizer(new, ok)), "no tokenizer"),
    "no tokenizer of a control": (
        lambda new, ok, run: Models(ok["merged"], untrained=without_tokenizer(new, ok)), "no tokenizer"),
    "no adapter": (lambda new, ok, run: Models(ok["base"], new), "got no such folder"),
    "an adapter of another size": (
        lambda new, ok, run: Models(tiny(new, ok, layers=1), run.adapter_dir("merged")),
        "adapter .*; got updates of model.layers.1"),
    "another architecture": (
        lambda new, ok, run: Models(ok["merged"], base=tiny(new, ok, layers=1)),
        "--base .*; got layers 1; expected a model of the same .* as --model: layers 2"),
    "another vocabulary": (
        lambda new, ok, run: Models(ok["merged"], retrained=tiny(new, ok, texts=["ab ab abc " * 9])),
        r"--retrained .*; got vocabulary \d+; expected .*: vocabulary 500"),
    "another tokenizer of the same size": (
        lambda new, ok, run: Models(ok["merged"], untrained=tiny(new, ok, texts=[
            f"{a}{b}{c} " * 9 for a in "bcdfgh" for b in "aeiou" for c in "klmnprst"])),
        r"--untrained .*; got a tokenizer that differs in \d+ tokens, such as"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_named_and_no_run_is_made(case, smoke_run, exported, lists, tmp_path):
    make, words = BAD_MODELS[case]
    given = make(tmp_path / "model", exported, smoke_run)
    with pytest.raises(InputError, match=words):
        bring.evaluate(given, lists, Store(tmp_path / "runs"), overrides=SETTINGS, device="cpu")
    assert not (tmp_path / "runs").exists()


BAD_LISTS = {
    "overlap": ({"retain": [PERSON]}, "forget.jsonl and .*retain.jsonl overlap; got 1 shared items, the first person-"),
    "a person on both sides": ({"retain": [PERSON | {"prompt": "Her phone?", "field": "phone"}]}, "overlap"),
    "a holdout that was seen": ({"holdout": [STAYS]}, "--holdout .*; got 1 items of forget or retain"),
    "a bad row": ({"retain": [STAYS, {"prompt": "Who?"}]}, r"retain\.jsonl, line 2: field answer"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists_are_named_and_no_run_is_made(case, exported, tmp_path):
    more, words = BAD_LISTS[case]
    with pytest.raises(InputError, match=words):
        bring.evaluate(Models(exported["merged"]), short(tmp_path, **more), Store(tmp_path / "runs"), device="cpu")
    assert not (tmp_path / "runs").exists()


def test_an_overlap_that_is_allowed_is_evaluated(exported, tmp_path):
    both = short(tmp_path, retain=[PERSON])
    run = bring.evaluate(Models(exported["merged"]), both, Store(tmp_path / "runs"), device="cpu",
                         overrides=[*SETTINGS, "data.allow_overlap=true"])
    assert [row["split"] for row in run.answers("tested")] == ["forget", "retain"]


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "got no run; expected RUN, or --model"),
    (["RUN", "--model", "M"], "got RUN; expected it only without --model"),
    (["RUN", "--forget", "F"], "got --forget; expected it only with --model"),
    (["--model", "M", "--forget", "F"], "got no --retain"),
    (["--model", "M", "--forget", "F", "--retain", "R", "--checkpoints"], "got --checkpoints"),
    (["RUN", "--checkpoints", "--mmlu", "folder"], "--mmlu; got folder; expected a number"),
    (["--model", "M", "--forget", "F", "--retain", "R", "--set", "lora.r=8"], "got lora.r; expected one of"),
    (["--model", "M", "--forget", "F", "--retain", "R", "--set", "data.forget=x"], "got data.forget"),
    (["--model", "M", "--forget", "F", "--retain", "R"], "F; got a file ending in nothing"),
])
def test_a_wrong_command_is_explained(arguments, words, tmp_path, capsys):
    assert main(["evaluate", *arguments, "--runs-dir", str(tmp_path / "runs")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_command_makes_the_run_and_prints_its_scores(exported, tmp_path, capsys):
    files = short(tmp_path)
    assert main(["evaluate", "--model", exported["merged"], "--base", exported["base"], "--forget", *files.forget,
                 "--retain", *files.retain, "--name", "Theirs", "--set", "evaluation.max_new_tokens=4",
                 "--set", "threads=1", "--device", "cpu", "--runs-dir", str(tmp_path / "runs")]) == 0
    said, run = capsys.readouterr().out, Store(tmp_path / "runs").runs()[0]
    assert f"tested: model {exported['merged']}; sha256 {run.brought()['tested']['sha256']}" in said
    assert run.id.startswith("Theirs-seed0")
    assert set(run.models()) == {"base", "tested"} < set(MODELS)
