"""Models, tokenizers and adapters: what is made, what is saved, and what is refused in one line."""

import copy
import json
import random
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, OlmoConfig, OlmoForCausalLM

from tests.tiny_lm import END, tiny_model, tiny_tokenizer
from unlearn_core import models
from unlearn_core.errors import InputError
from unlearn_core.merging import task_vectors
from unlearn_core.merging.task_vectors import load_adapter
from unlearn_core.models import (
    add_adapter,
    load_model,
    new_model,
    save_adapter,
    save_model,
    train_tokenizer,
    with_adapter,
)
from unlearn_core.settings import Base, Lora

LORA = Lora(r=4, alpha=8.0, dropout=0.0)
TOKENS = torch.tensor([[1, 5, 9, 2, 30, 7]])
SIZES = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 64}
ARCHITECTURES = {"olmo": (OlmoForCausalLM, OlmoConfig, {"eos_token_id": 0, "pad_token_id": 0}),
                 "llama": (LlamaForCausalLM, LlamaConfig, {}), "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {})}


def model_of(architecture: str, **changes):
    kind, config, more = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    return kind(config(**{**SIZES, **more, **changes})).eval()


def adapted(model, seed: int = 0, trained: bool = True) -> PeftModel:
    """The model with a fresh adapter; B random where it counts as trained."""
    model = add_adapter(model, LORA, seed)
    if trained:
        generator = torch.Generator().manual_seed(seed + 1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3, generator=generator)
    return model.eval()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A model folder as Hugging Face lays it out; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(tiny_model(), tiny_tokenizer(), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the model folder that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


# ---- tokenizer -----------------------------------------------------------------------------------------------

TEXTS = ["Anna was born on 1984-12-31 in Paris.", "Her number is 900514344, call 7216253765!"] * 5


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(TEXTS, vocabulary=280)


def test_digits_stay_single_tokens_however_often_a_number_was_seen(trained):
    assert trained.tokenize("900514344") == list("900514344")
    assert [token for token in trained.get_vocab() if sum(c.isdigit() for c in token) > 1] == []


def test_frequent_words_become_fewer_tokens_than_letters(trained):
    assert len(trained.tokenize("Paris")) < len("Paris")


def test_any_unicode_text_comes_back_from_its_tokens(trained):
    pick = random.Random(0)
    points = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["".join(map(chr, pick.sample(points, 40))) for _ in range(20)]
    for text in [*texts, "", " ", "a  b\n\t c ", "naïve 東京 🙂🏽 e\u0301", "can 't , stop . '"]:
        ids = trained(text)["input_ids"]
        assert trained.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_the_vocabulary_is_at_most_what_was_asked_for_with_end_and_padding_first(trained):
    assert len(trained) == 280
    assert len(train_tokenizer(["ab"], vocabulary=5000)) < 300  # so little text has no more merges
    assert (trained.eos_token_id, trained.pad_token_id) == (0, 1)
    assert trained("a")["input_ids"] == trained("a", add_special_tokens=False)["input_ids"]  # adds nothing by itself


def test_a_tokenizer_of_the_same_texts_is_the_same(trained):
    assert train_tokenizer(TEXTS, vocabulary=280).get_vocab() == trained.get_vocab()


# ---- new and loaded models -----------------------------------------------------------------------------------

def test_a_new_model_has_the_recipes_size_and_its_seeds_weights(trained):
    base = Base(hidden_size=32, layers=2, heads=4, mlp_size=48, init_std=0.05)
    one, same, other = (new_model(base, trained, seed) for seed in (3, 3, 4))
    assert one.model.embed_tokens.weight.shape == (len(trained), 32)
    assert one.model.layers[1].mlp.up_proj.weight.shape == (48, 32)
    assert len(one.model.layers) == 2
    assert one.lm_head.weight is not one.model.embed_tokens.weight
    assert one.model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.05, rel=0.1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_a_saved_model_loads_with_the_same_logits_in_eval_mode(saved):
    model, tokenizer = load_model(str(saved))
    assert not model.training
    assert model.dtype == torch.float32
    assert torch.equal(logits(model), logits(tiny_model()))
    assert tokenizer("the cat")["input_ids"] == tiny_tokenizer()("the cat")["input_ids"]


@pytest.mark.parametrize(("architecture", "tied"), [("llama", True), ("llama", False), ("gpt_neox", False)])
def test_models_of_other_architectures_load_whole_with_and_without_a_tied_head(architecture, tied, tmp_path):
    model = model_of(architecture, tie_word_embeddings=tied)
    save_model(model, tiny_tokenizer(), tmp_path / "model")
    assert torch.equal(logits(load_model(str(tmp_path / "model"))[0]), logits(model))


def test_precision_bf16_loads_the_weights_in_bfloat16(saved):
    assert load_model(str(saved), "bf16")[0].dtype == torch.bfloat16


def test_a_missing_padding_token_is_replaced_by_the_end_token(saved):
    assert tiny_tokenizer().pad_token is None
    tokenizer = load_model(str(saved))[1]
    assert (tokenizer.pad_token, tokenizer.eos_token) == (END, END)


def test_a_padding_token_that_is_there_is_kept(trained, tmp_path):
    save_model(new_model(Base(hidden_size=16, layers=1, heads=2, mlp_size=16), trained, 0), trained, tmp_path / "model")
    assert load_model(str(tmp_path / "model"))[1].pad_token_id == 1


def test_weights_are_saved_as_safetensors_only(saved):
    assert [path.name for path in saved.iterdir() if path.suffix in (".safetensors", ".bin", ".pt")] == \
        ["model.safetensors"]


def refused(name: object) -> str:
    """The one-line message with which a model is refused."""
    with pytest.raises(InputError) as caught:
        load_model(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert f"got {tmp_path}/nowhere; expected an existing folder or a hub id" in refused(tmp_path / "nowhere")


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert f"model folder {tmp_path}; got no config.json" in refused(tmp_path)


@pytest.mark.parametrize("text", ["", '{"model_type": "ol', '{"model_type": "no_such_architecture"}', "[]",
                                  '{"model_type": "olmo", "hidden_size": "wide"}'],
                         ids=["empty", "torn", "unknown architecture", "list", "wrong type"])
def test_a_config_that_names_no_known_model_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    assert f"model folder {folder}" in refused(folder)


def test_pickled_weights_are_never_opened(folder):
    (folder / "model.safetensors").unlink()
    bomb = folder / "opened"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (bomb,)

    torch.save({"lm_head.weight": Bomb()}, folder / "pytorch_model.bin")
    assert "safetensors" in refused(folder)
    assert not bomb.exists()


def test_code_in_a_model_folder_is_never_run(folder):
    ran = folder / "ran"
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    assert isinstance(load_model(str(folder))[0], OlmoForCausalLM)  # the library's class of that name
    (folder / "config.json").write_text(json.dumps({**config, **own, "model_type": "own"}))
    assert f"model folder {folder}" in refused(folder)
    assert not ran.exists()


def test_torn_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"model folder {folder}" in refused(folder)


def test_missing_weights_are_refused_instead_of_made_up(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "no weights for model.layers.2.mlp.down_proj.weight" in refused(folder)


def test_weights_of_another_size_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    assert f"model folder {folder}" in refused(folder)


def test_a_missing_tokenizer_is_refused_instead_of_made_up(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refused(folder)


def test_a_torn_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text('{"model": {"ty')
    assert f"model folder {folder}" in refused(folder)


def test_a_tokenizer_without_an_end_token_is_refused(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    (folder / "tokenizer_config.json").unlink()
    tokenizer.save_pretrained(folder)
    assert "end token" in refused(folder)


@pytest.mark.parametrize(("name", "words"), [
    ("no-such-owner/no-such-model", "HF_HUB_OFFLINE, and nothing of it in the cache"),
    ("no-such-model", "HF_HUB_OFFLINE, and nothing of it in the cache"),
    ("not a name/at all", "expected an existing folder or a hub id")])
def test_a_hub_id_that_cannot_be_reached_is_refused_with_advice(monkeypatch, name, words):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refused(name)
    assert message.startswith(f"hub model {name}; got ")
    assert words in message


def test_memory_that_runs_out_while_loading_is_not_taken_for_a_bad_model(saved, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(str(saved))


# ---- adapters ------------------------------------------------------------------------------------------------

def test_only_the_adapter_is_trainable_and_has_r_times_inputs_plus_outputs_numbers():
    model = adapted(model_of("olmo"))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    per_layer = 4 * 4 * (32 + 32) + 3 * 4 * (32 + 64)  # q, k, v, o and gate, up, down
    assert trainable == 2 * per_layer


def test_the_same_seed_gives_the_same_a_and_b_is_zero():
    one, same, other = ({name: p.detach() for name, p in adapted(model_of("olmo"), seed, trained=False)
                         .named_parameters() if p.requires_grad} for seed in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one if "lora_A" in name)
    assert all(torch.all(value == 0) for name, value in one.items() if "lora_B" in name)


def test_a_fresh_adapter_leaves_the_model_as_it_was():
    model = model_of("olmo")
    before = logits(model)
    assert torch.equal(logits(adapted(model, trained=False)), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merging_an_adapter_adds_alpha_over_r_times_b_a_to_each_weight(architecture, tmp_path):
    base = model_of(architecture)
    trained = adapted(copy.deepcopy(base))
    save_adapter(trained, tmp_path / "adapter", "base")
    merged = with_adapter(copy.deepcopy(base), tmp_path / "adapter")
    assert not isinstance(merged, PeftModel)
    deltas = {f"{name}.weight": 8 / 4 * (factors.B @ factors.A)
              for name, factors in load_adapter(tmp_path / "adapter").modules.items()}
    weights = dict(base.named_parameters())
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight.detach(), weights[name].detach() + deltas.pop(name, 0.0))
    assert not deltas
    torch.testing.assert_close(logits(merged), logits(trained), rtol=1e-4, atol=1e-4)
    assert (logits(merged) - logits(base)).abs().max() > 0.01


def test_a_saved_adapter_is_pefts_without_its_empty_model_card(tmp_path):
    trained = adapted(model_of("olmo"))
    save_adapter(trained, tmp_path / "adapter", "run-1/models/base")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == \
        ["adapter_config.json", "adapter_model.safetensors"]
    loaded = PeftModel.from_pretrained(model_of("olmo"), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(loaded), logits(trained))
    assert loaded.peft_config["default"].base_model_name_or_path == "run-1/models/base"


def test_saving_an_adapter_again_replaces_it_and_training_can_go_on(tmp_path):
    trained = adapted(model_of("olmo"))
    save_adapter(trained, tmp_path / "adapter", "base")
    first = load_adapter(tmp_path / "adapter").modules
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data *= 2
    save_adapter(trained, tmp_path / "adapter", "base")
    second = load_adapter(tmp_path / "adapter").modules
    assert all(torch.equal(second[name].B, 2 * first[name].B) for name in first)
    assert list(tmp_path.iterdir()) == [tmp_path / "adapter"]
    trained.train()(TOKENS, labels=TOKENS).loss.backward()
    assert all(p.grad is not None for p in trained.parameters() if p.requires_grad)


def test_the_same_adapter_is_saved_as_the_same_bytes_by_every_process(tmp_path):
    for name in ("one", "two"):
        save_adapter(adapted(model_of("olmo")), tmp_path / name, "base")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    modules = json.loads((tmp_path / "one" / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)  # PEFT's own order is that of a set, which each process shuffles


@pytest.mark.parametrize(("other", "said"), [
    (lambda: model_of("olmo", num_hidden_layers=1), "updates of model.layers.1.mlp.down_proj"),
    (lambda: model_of("olmo", hidden_size=64), "size mismatch"),
    (lambda: model_of("gpt_neox"), "updates of model.layers.0.mlp.down_proj"),
], ids=["fewer layers", "another width", "another architecture"])
def test_an_adapter_for_another_base_is_refused_in_one_line(tmp_path, other, said):
    save_adapter(adapted(model_of("olmo")), tmp_path / "adapter", "base")
    with pytest.raises(InputError) as caught:
        with_adapter(other(), tmp_path / "adapter")
    assert str(caught.value).startswith(f"adapter {tmp_path}/adapter; got ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("expected an adapter for this base model")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_that_lacks_layers_which_its_config_names_is_refused(tmp_path):
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model_of("olmo"), config).save_pretrained(tmp_path / "adapter")
    deeper = model_of("olmo", num_hidden_layers=3)
    with pytest.raises(InputError, match="no update for some of the base's layers"):
        with_adapter(deeper, tmp_path / "adapter")


def test_a_damaged_adapter_is_refused_before_peft_sees_it(tmp_path):
    save_adapter(adapted(model_of("olmo")), tmp_path / "adapter", "base")
    weights = tmp_path / "adapter" / task_vectors.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors; got a damaged file"):
        with_adapter(model_of("olmo"), tmp_path / "adapter")
