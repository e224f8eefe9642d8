"""Metadata of GGUF files with a small vocabulary, of the byte-level and of the SentencePiece kind."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers, trainers

from tests.engine.tokenizers import sentencepiece

WORDS = [
    "It's 12 o'clock, we'll see 345 of them!\n\n  x = y // 67890;\r\n",
    "a1 b2  c3\t\td4 — naïve café, ΩД 漢字 が 🙂🙂 ٣٤ e\u0301e\u0301",
    "WE'RE here.\n\n\n   'Tis /// $$ == (|) <> 1234567 word's ,'s",
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


@cache
def trained() -> FastTokenizer:
    """Byte-level BPE with tokens across all borders that a pre-tokenizer draws, so that each border can be seen."""
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, initial_alphabet=alphabet, max_token_length=8)
    fast.train_from_iterator(WORDS * 3, trainer)
    return fast


def byte_level(**keys: Any) -> dict[str, Any]:
    """The metadata of ``trained`` with some tokens more."""
    model = json.loads(trained().to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].__getitem__)
    more = {"<|begin|>": 3, "<|im_start|>": 3, "<|im_end|>": 3, "<think>": 4, "[PAD1]": 5, "Ġofficially": 1}
    first = len(learned)
    found = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*learned, *more],
        "tokenizer.ggml.token_type": [1] * first + list(more.values()),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": first,
        "tokenizer.ggml.eos_token_id": first + 2,
        "tokenizer.chat_template": TEMPLATE,
    }
    return without(found | {key.replace("__", "."): value for key, value in keys.items()})


def pieces(**keys: Any) -> dict[str, Any]:
    """The metadata of a SentencePiece vocabulary."""
    vocabulary = sentencepiece().get_vocab()
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__), "<think>"]
    found = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 260) + [4],
    }
    return without(found | {key.replace("__", "."): value for key, value in keys.items()})


def without(metadata: dict[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {key: value for key, value in metadata.items() if value is not None}
