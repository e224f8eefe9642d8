"""The tokenizer's files in a model directory. transformers' config classes are not asked: they refuse directories that
the engine can read, and rebuild some tokenizers otherwise than tokenizer.json has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "tiktoken.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)


def has_tokenizer(directory: Path) -> bool:
    """Whether a vocabulary is there. transformers makes an empty one up for some families."""
    return any((directory / name).is_file() for name in VOCABULARY_FILES)


def read_tokenizer(directory: Path) -> Any:
    """A tokenizer of transformers. Never touches the network. Raises OSError without a tokenizer, ValueError for one
    that tokenizers cannot run."""
    if not has_tokenizer(directory):
        raise OSError(f"{directory} has no tokenizer")
    if (directory / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    config: Any = PreTrainedConfig()
    config.model_type = _read(directory / "config.json").get("model_type", "")
    hub: Any = AutoTokenizer.from_pretrained(directory, config=config, local_files_only=True)
    if not hasattr(hub, "backend_tokenizer"):
        raise ValueError(f"{directory} has no tokenizer.json")
    return hub


def eos_token_ids(directory: Path, tokenizer_eos: int | None) -> frozenset[int]:
    """Tokens that end an answer: all that generation_config.json, config.json and the tokenizer name, as far as the
    model has them. A fine-tune often changes only one of the three."""
    model = _read(directory / "config.json")
    found = [tokenizer_eos]
    for value in (_read(directory / "generation_config.json").get("eos_token_id"), model.get("eos_token_id")):
        found += value if isinstance(value, list) else [value]
    size = int(model.get("vocab_size") or 0)
    return frozenset(token for token in found if token is not None and not 0 < size <= token)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
