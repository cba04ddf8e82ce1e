"""Tiny random models of the architectures that people bring: adapters, one step of unlearning, merge, export, scores.

Each goes the way of a local folder: saved in Hugging Face's layout, loaded by the engine, unlearned, exported, loaded.
"""

import copy
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny_lm import END, tiny_tokenizer
from unlearn_core import models, pipeline
from unlearn_core.data import Item
from unlearn_core.data.items import Dataset
from unlearn_core.encoding import encode
from unlearn_core.errors import InputError
from unlearn_core.evaluation.generation import generate
from unlearn_core.evaluation.likelihood import answer_nll, document_nll
from unlearn_core.evaluation.memory import memory_rows
from unlearn_core.merging.task_vectors import delta, load_adapter
from unlearn_core.settings import Encoding, Lora, Unlearning
from unlearn_core.training import train

SIZES = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 128, "initializer_range": 0.3, "eos_token_id": 0,
         "pad_token_id": None, "bos_token_id": None}
LLAMAS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
# Name of the architecture: (what its config has more, its linear layers).
KINDS = {
    "olmo": ({}, LLAMAS),
    "olmo2": ({}, LLAMAS),
    "llama": ({"num_key_value_heads": 2}, LLAMAS),
    "qwen2": ({"num_key_value_heads": 2}, LLAMAS),  # biases
    "qwen3": ({"num_key_value_heads": 2, "head_dim": 16}, LLAMAS),  # heads of their own width, norms inside
    "gpt_neox": ({}, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    "gemma": ({"num_key_value_heads": 2, "head_dim": 8}, LLAMAS),
    "phi3": ({"num_key_value_heads": 2}, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
}
each_kind = pytest.mark.parametrize(("kind", "tied"), [(kind, tied) for kind in KINDS for tied in (False, True)],
                                    ids=lambda value: value if isinstance(value, str) else "tied" if value else "apart")
LORA = Lora(r=4, alpha=8.0, dropout=0.0)
TOKENS = torch.tensor([[1, 5, 9, 2, 30, 7]])
FORGET = [Item(f'"f{n}"qa0', f"what is the capital {n} of", "France and London", "Task1") for n in range(4)]
RETAIN = [Item(f'"r{n}"qa0', f"the cat {n} sat", "on the mat", "Task1") for n in range(4)]


def new(kind, tied=False, **changes):
    more, _ = KINDS.get(kind, ({}, set()))
    config = AutoConfig.for_model(kind, **{**SIZES, **more, **changes, "tie_word_embeddings": tied})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def tokenizer_with(template="$A"):
    """The tiny tokenizer; `template` says what it puts around a text, where <s> begins one."""
    tokenizer = tiny_tokenizer()
    if template != "$A":
        tokenizer.add_special_tokens({"bos_token": "<s>"})
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=template, special_tokens=[("<s>", tokenizer.bos_token_id), (END, tokenizer.eos_token_id)])
    return tokenizer


@pytest.fixture
def loaded(kind, tied, tmp_path):
    """(model, tokenizer) from a folder as somebody would bring it; its tokenizer has no padding token."""
    models.save_model(new(kind, tied), tokenizer_with(), tmp_path / "model")
    return models.load_model(str(tmp_path / "model"))


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


def head_and_embedding(model):
    return model.get_output_embeddings().weight, model.get_input_embeddings().weight


# ---- adapters, training, merging, export -------------------------------------------------------------------------

@each_kind
def test_every_linear_layer_but_the_head_gets_an_adapter(loaded, kind):
    model, _ = loaded
    linear = {name for name, module in model.named_modules()
              if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()}
    adapted = models.add_adapter(model, LORA, seed=0)
    found = {name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
             for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert found == linear
    assert {name.rpartition(".")[2] for name in found} == KINDS[kind][1]


@each_kind
def test_a_step_of_unlearning_starts_at_the_reference_and_is_exported_whole(loaded, kind, tied, tmp_path):
    """At the start NPO = (2 / beta) ln 2 and KLR = 0; the second step reads what the first one has changed."""
    model, tokenizer = loaded
    assert tokenizer.pad_token == ("<|endoftext|>" if kind == "qwen2" else END)  # transformers gives Qwen2 one
    settings = Unlearning(epochs=2, warmup_epochs=0, lr=1e-2, npo_weight=0.4, gdr_weight=0.2, klr_weight=0.4)
    adapted, log = models.add_adapter(model, LORA, seed=0), []
    train.unlearn(adapted, tokenizer, FORGET, RETAIN, settings, Encoding(), seed=0,
                  accelerator=pipeline.make_accelerator("cpu"), log=log.append)
    first, second = log
    assert first["npo"] == pytest.approx(2 / 0.1 * math.log(2), rel=1e-5)
    assert first["klr"] == pytest.approx(0, abs=1e-5)
    assert first["loss"] == pytest.approx(0.4 * 20 * math.log(2) + 0.2 * first["gdr"], rel=1e-5)
    assert second["npo"] < first["npo"]

    models.save_adapter(adapted, tmp_path / "adapter", "base")
    base, _ = models.load_model(str(tmp_path / "model"))
    before = {name: value.clone() for name, value in base.named_parameters()}
    merged = models.with_adapter(base, tmp_path / "adapter", "base")
    models.save_model(merged, tokenizer, tmp_path / "export")
    exported, _ = models.load_model(str(tmp_path / "export"))
    torch.testing.assert_close(logits(exported), logits(adapted.eval()), rtol=1e-4, atol=1e-4)
    updates = {f"{name}.weight": delta(factors, LORA.alpha / LORA.r)
               for name, factors in load_adapter(tmp_path / "adapter").modules.items()}
    for name, value in exported.named_parameters():  # head, embedding, norms and biases are what they were
        torch.testing.assert_close(value.detach(), before[name] + updates.pop(name, torch.zeros(())))
    assert not updates
    head, embedding = head_and_embedding(exported)
    assert (head is embedding) is tied


@each_kind
def test_an_update_that_is_added_and_taken_back_leaves_the_model_as_it_was(loaded, kind, tied):
    model, _ = loaded
    names = [name for name, module in model.named_modules()
             if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()]
    before = logits(model)
    with models.updated(model, names, lambda name: torch.full_like(model.get_submodule(name).weight, 0.01)):
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_a_tied_head_is_refused_since_it_would_change_the_embedding(kind, tmp_path):
    apart, tied = new(kind), new(kind, tied=True)
    head = next(name for name, module in apart.named_modules() if module is apart.get_output_embeddings())
    trained = get_peft_model(copy.deepcopy(apart), LoraConfig(r=4, target_modules=[head], init_lora_weights=False))
    trained.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    before = logits(apart)
    assert (logits(models.with_adapter(copy.deepcopy(apart), tmp_path / "adapter")) - before).abs().max() > 1e-3
    with pytest.raises(InputError, match=f"got an update of {head}, whose weights are head and embedding in one"):
        models.check_adapter(tied, tmp_path / "adapter")


def test_an_adapter_of_an_embedding_is_refused(tmp_path):
    model = get_peft_model(new("llama"), LoraConfig(r=4, target_modules=["embed_tokens"]))
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(InputError, match="expected only lora_A and lora_B matrices of linear layers"):
        models.check_adapter(new("llama"), tmp_path / "adapter")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_saved_in_another_precision_is_merged_as_its_values_say(tmp_path, dtype):
    base = new("llama")
    adapted = models.add_adapter(copy.deepcopy(base), LORA, seed=0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter).to(dtype))
    models.save_adapter(adapted, tmp_path / "fp32", "base")
    models.save_adapter(adapted.to(dtype), tmp_path / "small", "base")
    merged = [models.with_adapter(copy.deepcopy(base), tmp_path / name) for name in ("fp32", "small")]
    assert torch.equal(logits(merged[0]), logits(merged[1]))


# ---- what has no plain linear layers ----------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore:The following:RuntimeWarning")
@pytest.mark.parametrize("kind", ["mixtral", "olmoe"])
def test_stacked_experts_are_refused_before_the_training_unless_linear_layers_are_named(kind):
    few = {"num_local_experts": 2, "num_key_value_heads": 2} if kind == "mixtral" else {"num_experts": 2}
    with pytest.raises(InputError, match=r"base\.model; got a mixture of experts.*lora\.modules"):
        models.add_adapter(new(kind, num_experts_per_tok=1, **few), LORA, seed=0)
    named = Lora(r=4, alpha=8.0, modules=("q_proj", "v_proj"))
    adapted = models.add_adapter(new(kind, num_experts_per_tok=1, **few), named, seed=0)
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 2 * 2  # two layers, two modules


@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning")
def test_layers_whose_weights_lie_the_other_way_round_are_refused():
    config = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    with pytest.raises(InputError, match=r"base\.model; got Conv1D in .*expected a model of linear layers"):
        models.add_adapter(new("gpt2", **config), LORA, seed=0)


# ---- tokenizers whose tokens the model lacks --------------------------------------------------------------------

def test_a_padding_token_without_an_embedding_is_replaced_by_the_end_token(tmp_path):
    """As left by whoever added one to the tokenizer and did not resize the model: on a GPU it would crash a kernel."""
    tokenizer = tokenizer_with()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    models.save_model(new("llama", vocab_size=tokenizer.pad_token_id), tokenizer, tmp_path / "model")
    assert models.load_model(str(tmp_path / "model"))[1].pad_token == END


def test_an_end_token_without_an_embedding_is_refused(tmp_path):
    tokenizer = tokenizer_with()
    tokenizer.add_special_tokens({"eos_token": "<stop>"})
    models.save_model(new("llama", vocab_size=tokenizer.eos_token_id), tokenizer, tmp_path / "model")
    with pytest.raises(InputError, match=r"got end token <stop> = .*, which has no embedding: there are"):
        models.load_model(str(tmp_path / "model"))


# ---- tokenizers that begin a text, and those that don't ---------------------------------------------------------

@pytest.mark.parametrize("template", ["$A", "<s> $A", f"<s> $A {END}"])
def test_the_beginning_token_stands_once_before_the_prompt_and_the_end_once_after_the_answer(template):
    tokenizer = tokenizer_with(template)
    ids = encode(tokenizer, FORGET[0], Encoding()).ids
    words = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (FORGET[0].prompt, FORGET[0].answer)]
    begin = [tokenizer.bos_token_id] if "<s>" in template else []
    assert ids == [*begin, *words[0], *words[1], tokenizer.eos_token_id]


@pytest.fixture(params=["$A", "<s> $A"], ids=["without", "with beginning token"])
def brought(request, kind, tmp_path):
    models.save_model(new(kind, vocab_size=322), tokenizer_with(request.param), tmp_path / "model")
    return models.load_model(str(tmp_path / "model"))


each_plain = pytest.mark.parametrize("kind", KINDS)


@each_plain
def test_answers_are_those_of_transformers_own_generation(brought, kind):
    """Prompts are tokenised with the tokenizer's defaults, as the official script does."""
    model, tokenizer = brought
    prompts = [item.prompt for item in (FORGET[0], RETAIN[0])] + ["Paris"]
    ours = generate(model, tokenizer, prompts, max_new_tokens=6)
    for prompt, answer in zip(prompts, ours, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        theirs = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=6,
                                do_sample=False, pad_token_id=0)[0, inputs.input_ids.shape[1]:]
        assert answer.text == tokenizer.decode(theirs, skip_special_tokens=True)


@each_plain
def test_losses_of_documents_and_answers_are_those_of_transformers_own_loss(brought, kind):
    """The official attack takes model(ids, labels=ids).loss of the whole text; an answer's prompt is masked."""
    model, tokenizer = brought
    item = FORGET[1]
    whole = tokenizer(item.prompt + item.answer, return_tensors="pt").input_ids
    prompt = len(tokenizer(item.prompt).input_ids)
    masked = whole.clone()
    masked[:, :prompt] = -100
    with torch.no_grad():
        document, answer = (model(whole, labels=labels).loss.item() for labels in (whole, masked))
    [(found, count)] = document_nll(model, tokenizer, [item.prompt + item.answer])
    assert (found, count) == (pytest.approx(document, rel=1e-5), whole.shape[1] - 1)
    [(found, count)] = answer_nll(model, tokenizer, [(item.prompt, item.answer)])
    assert (found, count) == (pytest.approx(answer, rel=1e-5), whole.shape[1] - prompt)


@each_plain
def test_memory_reads_an_answer_as_in_training_and_looks_into_every_layer(brought, kind):
    model, tokenizer = brought
    dataset = Dataset(FORGET[:2], RETAIN[:1], holdout=[], general=[], attack=[], mmlu_dev=[], mmlu_test=[])
    rows = memory_rows(model, tokenizer, dataset)
    row = encode(tokenizer, FORGET[0], Encoding())
    ids = torch.tensor([row.ids[:-1]])
    labels = ids.clone()
    labels[:, :row.prompt_tokens] = -100
    with torch.no_grad():
        expected = model(ids, labels=labels).loss.item()
    found = next(found for found in rows if found["id"] == FORGET[0].id)
    assert found["nll"] == pytest.approx(expected, rel=1e-5)
    assert len(found["lens"]) == 2 + 1  # after the embedding and after each layer
    assert found["lens"][-1] == pytest.approx(-expected, rel=1e-5)
