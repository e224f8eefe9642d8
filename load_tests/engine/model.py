"""A llama with random weights, made on the fly: only its sizes matter."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

VOCAB = 4096


def save_random_llama(directory: Path, context: int) -> Path:
    """Writes a small model that reads ``context`` tokens. Few, narrow heads: at 32,000 tokens of context, attention
    should not outweigh the rest by so much that one token of a prompt costs more than a step."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=2048,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    hub = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<|end|>": 0, "<unk>": 1}, unk_token="<unk>")),
        eos_token="<|end|>",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        hub.save_pretrained(directory)
    return directory
