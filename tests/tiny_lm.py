"""A tokenizer and random causal LMs of the OLMo architecture, small enough to run in milliseconds."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerFast

END = "<|end|>"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 320 tokens; <|end|> is token 0; " A" to " D" are tokens."""
    words = ["the cat sat on the mat", "what is the capital of France", "Paris and London", " A", " B", " C", " D"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(words * 3, trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def tiny_model(seed: int = 0, end: int = 0, positions: int = 512) -> OlmoForCausalLM:
    """Random weights, large enough that the arg max is far from a tie."""
    torch.manual_seed(seed)
    return OlmoForCausalLM(OlmoConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=positions, initializer_range=0.3, eos_token_id=end, pad_token_id=end,
        bos_token_id=None, tie_word_embeddings=False)).eval()
