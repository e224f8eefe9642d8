"""Models with random weights in the shapes that engines are compared on, in the layout of the Hub."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

CONTEXT = 16_384  # holds a prompt of 8,192 tokens and its answer

SHAPES: dict[str, PretrainedConfig] = {
    "llama-15m": LlamaConfig(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    ),
    "qwen3-0.6b": Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    ),
}


def is_saved(name: str, directory: Path) -> bool:
    """Whether ``directory`` has the model called ``name`` with the context that it has now."""
    config = directory / "config.json"
    if not (config.exists() and (directory / "tokenizer.json").exists()):
        return False
    return bool(json.loads(config.read_text("utf-8"))["max_position_embeddings"] == CONTEXT)


def save_shape(name: str, directory: Path) -> Path:
    """Writes the model called ``name``, bfloat16, and a tokenizer that knows no words: prompts are token ids."""
    torch.manual_seed(0)
    hub = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<|end|>": 0, "<unk>": 1}, unk_token="<unk>")),
        eos_token="<|end|>",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        AutoModelForCausalLM.from_config(SHAPES[name], dtype=torch.bfloat16).save_pretrained(directory)
        hub.save_pretrained(directory)
    return directory
