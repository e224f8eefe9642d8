"""Tiny models with random weights, in the directories that transformers writes, and tokenizers to go with them."""

from __future__ import annotations

import random
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from tests.engine.margins import MIN_MARGIN, greedy_margins

VOCAB = 512
EOS = "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}" + EOS + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = [
    "The quick brown fox jumps over the lazy dog, again and again and again.",
    "Blocks are reference-counted; a prefix without its tail is of use, a tail without its prefix is not.",
    "naïve café 你好世界 мир שלום مرحبا 🙂👩‍👩‍👧‍👦 e\u0301",
]
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # wide, so that the likeliest token is likeliest by far more than rounding
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, Any] = {
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama-untied": LlamaConfig(**SHAPE, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
    "llama3-rope": LlamaConfig(**SHAPE, tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE),
    "llama-long": LlamaConfig(**{**SHAPE, "max_position_embeddings": 1024}, tie_word_embeddings=True),
    "llama-wide": LlamaConfig(**SHAPE | {"head_dim": 16}, tie_word_embeddings=True),  # as the compiled kernels take it
    "qwen3": Qwen3Config(**SHAPE, tie_word_embeddings=True),
}


LENGTHS = (1, 2, 15, 16, 17, 33, 50, 90)


def ragged_prompts(vocab: int) -> list[list[int]]:
    """Eight prompts of different lengths, some with a common beginning longer than a block."""
    numbers = random.Random(7)
    common = [numbers.randrange(1, vocab) for _ in range(90)]
    return [[*common[: n - 1], numbers.randrange(1, vocab)] if n > 16 else common[:n] for n in LENGTHS]


@cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """A small byte-level BPE, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[EOS, "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    hub = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)
    hub.chat_template = CHAT_TEMPLATE
    return hub


def save_model(name: str, directory: Path) -> Path:
    """Writes the model ``name`` of CONFIGS and its tokenizer."""
    return save(CONFIGS[name], directory)


def save(config: Any, directory: Path) -> Path:
    """Writes a random model of that config and its tokenizer."""
    torch.manual_seed(0)
    write(AutoModelForCausalLM.from_config(config), directory)
    return directory


def write(model: Any, directory: Path, **settings: Any) -> None:
    """Writes a model and its tokenizer; keywords are those of save_pretrained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory, **settings)
        make_tokenizer().save_pretrained(directory)


def oracle(directory: Path, prompts: list[list[int]], max_tokens: int) -> list[tuple[int, ...]]:
    """Greedy answers of transformers in float64, one prompt at a time. Raises AssertionError if rounding might turn one
    of its choices."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=torch.float64)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        margin = float(greedy_margins(torch.cat(output.logits)).min())
        assert margin >= MIN_MARGIN, f"a choice of the oracle has a margin of {margin:g}"
        answers.append(tuple(output.sequences[0, len(prompt) :].tolist()))
    return answers
