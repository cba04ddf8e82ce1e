"""Models and tokenizers: made from scratch, loaded from a folder or the hub, and given LoRA adapters."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from transformers import AutoModelForCausalLM, AutoTokenizer, OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerFast

from unlearn_core import hub
from unlearn_core.advice import is_out_of_memory
from unlearn_core.errors import InputError
from unlearn_core.files import replacing_dir
from unlearn_core.merging import task_vectors
from unlearn_core.merging.task_vectors import load_adapter, shortened
from unlearn_core.pretrained import refuse_missing
from unlearn_core.settings import Base, Lora

END, PAD = "<|endoftext|>", "<|padding|>"
NO_TOKENIZER = ("put the tokenizer of the model that it was made from into its folder, such as: hf download "
                "allenai/OLMo-7B-0724-Instruct-hf --include 'tokenizer*' --local-dir FOLDER")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocabulary` tokens; digits stay single, so that numbers are learnable."""
    tokenizer = Tokenizer(token_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END, PAD], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def new_model(base: Base, tokenizer, seed: int, max_positions: int = 1024) -> OlmoForCausalLM:
    """A randomly initialised OLMo of the recipe's size, fp32."""
    torch.manual_seed(seed)
    return OlmoForCausalLM(OlmoConfig(
        vocab_size=len(tokenizer), hidden_size=base.hidden_size, intermediate_size=base.mlp_size,
        num_hidden_layers=base.layers, num_attention_heads=base.heads, num_key_value_heads=base.heads,
        max_position_embeddings=max_positions, tie_word_embeddings=False, initializer_range=base.init_std,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None))


def load_model(name_or_path: str, precision: str = "fp32", device: str | torch.device = "cpu"):
    """(model in eval mode on `device`, tokenizer) from a local folder or a hub id; safetensors only, no remote code."""
    refuse_missing(name_or_path)
    place, _ = hub.where(name_or_path), hub.config(name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(hub.TOKENIZERS.get(name_or_path, name_or_path),
                                                  trust_remote_code=False)
        model, report = AutoModelForCausalLM.from_pretrained(
            name_or_path, dtype=DTYPES[precision], trust_remote_code=False, use_safetensors=True,
            output_loading_info=True)
    except Exception as error:  # configs, weights, tokenizers and the hub each have their own kinds
        if is_out_of_memory(error):
            raise
        raise hub.refusal(name_or_path, error) from None
    if report["missing_keys"]:  # transformers would fill them with random numbers
        raise InputError(place, got=f"no weights for {shortened(sorted(report['missing_keys']))}",
                         expected="all weights of the architecture in config.json")
    _complete(tokenizer, model.get_input_embeddings().weight.shape[0], place)
    return model.to(device).eval(), tokenizer


def _complete(tokenizer, embeddings: int, place: str) -> None:
    """The end token pads where the tokenizer has no padding token of its own, or one without an embedding; an
    InputError for a tokenizer that cannot be used."""
    # Without tokenizer files transformers makes up a tokenizer that knows special tokens only.
    if tokenizer.eos_token_id is None or set(tokenizer("a")["input_ids"]) <= set(tokenizer.all_special_ids):
        raise InputError(place, got="no tokenizer, or one without an end token",
                         expected="tokenizer.json and tokenizer_config.json with an eos_token", fix=NO_TOKENIZER)
    if tokenizer.eos_token_id >= embeddings:
        raise InputError(place, got=f"end token {tokenizer.eos_token} = {tokenizer.eos_token_id}, which has no "
                         f"embedding: there are {embeddings}", expected="the tokenizer of this model", fix=NO_TOKENIZER)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= embeddings:
        tokenizer.pad_token = tokenizer.eos_token


def save_model(model, tokenizer, folder: Path) -> None:
    """Full weights (safetensors) and tokenizer in Hugging Face's layout, whole or not at all."""
    with replacing_dir(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)


def add_adapter(model, lora: Lora, seed: int) -> PeftModel:
    """A fresh LoRA adapter on the chosen linear layers, never the head; the same seed gives the same initial A (B is
    0).

    Of kind "full" it is the weight change itself: one factor is a fixed identity, the other one is trained from 0, so
    that training is that of the weights.
    """
    torch.manual_seed(seed)
    full = lora.kind == "full"
    rank = model.config.hidden_size if full else lora.r
    adapted = get_peft_model(model, LoraConfig(
        r=rank, lora_alpha=rank if full else lora.alpha, lora_dropout=0.0 if full else lora.dropout,
        target_modules=_chosen_layers(model, lora), task_type="CAUSAL_LM", bias="none"))
    if full:
        for name, module in adapted.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                _fix_one_factor(name, module, rank)
    _refuse_other_layers(adapted)
    return adapted


def _refuse_other_layers(adapted: PeftModel) -> None:
    """PEFT also adapts stacked experts and Conv1D, whose update is not B A added to a weight (out, in)."""
    if adapted.peft_config["default"].target_parameters:
        raise InputError("base.model", got="a mixture of experts, whose weights are stacked",
                         expected="a model of linear layers", fix='name its linear layers in lora.modules, such as '
                         '["q_proj", "k_proj", "v_proj", "o_proj"]')
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A") and not isinstance(module.get_base_layer(), torch.nn.Linear):
            raise InputError("base.model", got=f"{type(module.get_base_layer()).__name__} in {name}",
                             expected="a model of linear layers, such as OLMo, Llama, Qwen or GPT-NeoX")


def _chosen_layers(model, lora: Lora) -> str | list[str]:
    """PEFT's "all-linear", or the names of the linear layers that the recipe restricts the adapter to."""
    if not lora.layers and not lora.modules:
        return "all-linear"
    count = model.config.num_hidden_layers
    for layer in lora.layers:
        if not -count <= layer < count:
            raise InputError("lora.layers", got=layer,
                             expected=f"layers of this model, 0 to {count - 1} or -1 to {-count}")
    layers = {layer % count for layer in lora.layers}
    linear = [name for name, module in model.named_modules()
              if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()]
    kinds = sorted({name.rpartition(".")[2] for name in linear})
    for module in lora.modules:
        if module not in kinds:
            raise InputError("lora.modules", got=module, expected=f"linear layers of this model: {', '.join(kinds)}")
    return [name for name in linear
            if (not layers or _layer_of(name) in layers)
            and (not lora.modules or name.rpartition(".")[2] in lora.modules)]


def _layer_of(name: str) -> int | None:
    """Number of the decoder layer in the name of a module."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _fix_one_factor(name: str, module, rank: int) -> None:
    """B A = the weight change, with A or B a fixed identity."""
    first, second = module.lora_A["default"].weight, module.lora_B["default"].weight
    if first.shape == (rank, rank):
        fixed, free = first, second
    elif second.shape == (rank, rank):
        fixed, free = second, first
    else:
        raise InputError("lora.kind", got=f"full for {name} of shape {(len(second), first.shape[1])}",
                         expected=f"layers with {rank} inputs or outputs", fix='use lora.kind = "lora"')
    with torch.no_grad():
        fixed.copy_(torch.eye(rank))
        free.zero_()
    fixed.requires_grad_(False)


def save_adapter(model: PeftModel, folder: Path, base_name: str, scale: float = 1.0) -> None:
    """The model's adapter in PEFT's layout, its update multiplied by `scale`, whole or not at all; `base_name` names
    the base that it belongs to."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base_name
    config.target_modules = sorted(config.target_modules)  # the order of a set differs from process to process
    with replacing_dir(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        if scale != 1:
            task_vectors.save_adapter(task_vectors.scaled(load_adapter(temporary), scale), temporary)


def set_adapter(model: PeftModel, folder: Path) -> None:
    """Give the model's adapter the factors of the adapter in `folder`, which must have the same shapes."""
    wanted = load_adapter(folder).modules
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, factors in wanted.items():
            for letter, values in (("A", factors.A), ("B", factors.B)):
                place = parameters.get(f"base_model.model.{name}.lora_{letter}.default.weight")
                if place is None or place.shape != values.shape:
                    raise InputError(f"adapter {folder}", got=f"{letter} of {name} with shape {tuple(values.shape)}",
                                     expected="an adapter with the same rank and layers as lora in the recipe")
                place.copy_(values)


def check_adapter(model, folder: Path, base_name: str = "") -> None:
    """An InputError where the adapter in `folder` is damaged, names another base, or does not fit the plain `model`.

    `base_name` is what `save_adapter` was told: an adapter that names another base is refused, even if its shapes fit.
    """
    adapter = load_adapter(folder)  # says what is wrong with a damaged adapter before PEFT sees it
    where, expected = f"adapter {folder}", "an adapter for this base model"
    named = adapter.config.get("base_model_name_or_path") or ""
    if base_name and named and named != base_name:
        raise InputError(where, got=f"an adapter trained on {named}", expected=f"one for {base_name}",
                         fix="use the adapter of this base, or the base of this adapter")
    unknown = sorted(adapter.modules.keys() - dict(model.named_modules()).keys())
    if unknown:  # PEFT would leave them out without a word
        raise InputError(where, got=f"updates of {shortened(unknown)}, which the base has not", expected=expected)
    tied = sorted(adapter.modules.keys() & _tied_to_the_head(model))
    if tied:  # merged into one, it would change the other
        raise InputError(where, got=f"an update of {shortened(tied)}, whose weights are head and embedding in one",
                         expected="updates of layers whose weights are their own",
                         fix="train it without the head and the embedding")


def _tied_to_the_head(model) -> set[str]:
    """Names of the modules that share one weight as head and embedding; empty where each has its own."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or embedding is None or head.weight is not embedding.weight:
        return set()
    return {name for name, module in model.named_modules() if getattr(module, "weight", None) is head.weight}


def with_adapter(model, folder: Path, base_name: str = ""):
    """The model with the adapter of `folder` merged into its weights: the artefact that would be shipped.

    The given model is changed and must not be used afterwards. `base_name`: see `check_adapter`.
    """
    check_adapter(model, folder, base_name)
    model = attach_adapters(model, {"default": folder})
    return model.merge_and_unload()


def attach_adapters(model, folders: dict[str, Path]) -> PeftModel:
    """The model with each adapter attached under its name, none merged; `set_adapter` of the result switches.

    The given model is changed: its linear layers carry the adapters from now on.
    """
    expected = "an adapter for this base model"
    for name, folder in folders.items():
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(folder, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f"adapter {folder}", got=str(error), expected=expected) from None
        count = sum(f"lora_A.{name}." in key for key, _ in model.named_parameters())
        if count != len(load_adapter(folder).modules):
            raise InputError(f"adapter {folder}", got="no update for some of the base's layers that its config names",
                             expected=expected)
    return model.eval()


Update = Callable[[str], torch.Tensor]  # name of a module -> what is added to its weight, (out, in)


@contextmanager
def updated(model, modules: Iterable[str], update: Update) -> Iterator[None]:
    """The model with an update added to its weights, as `with_adapter` would merge it; afterwards it is as before.

    The changed weights are kept meanwhile, so this takes the memory of as many weights more.
    """
    before: dict[str, torch.Tensor] = {}
    try:
        with torch.no_grad():
            for name in modules:
                weight = model.get_submodule(name).weight
                before[name] = weight.detach().clone()
                weight += update(name).to(weight)
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                model.get_submodule(name).weight.copy_(weight)


def peak_memory_mb(device: torch.device | str) -> float:
    """Peak memory so far in MiB: of the GPU where there is one, else of this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes in one ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def set_threads(threads: int) -> None:
    """CPU threads of torch; 0 keeps all."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
