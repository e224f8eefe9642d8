"""Reads the tokenizer's files of a model directory. Does not use transformers' config classes, because they refuse
directories that the engine can read, and build some tokenizers differently from tokenizer.json."""

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
    """Returns whether ``directory`` has a vocabulary file. Without one, transformers makes an empty vocabulary for some
    model families."""
    return any((directory / name).is_file() for name in VOCABULARY_FILES)


def read_tokenizer(directory: Path) -> Any:
    """Returns the transformers tokenizer of ``directory``, without network access. Raises OSError if there is none, and
    ValueError if the library tokenizers cannot run it."""
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
    """Returns the ids of the tokens that end an answer: those in generation_config.json and config.json, and
    ``tokenizer_eos``, the tokenizer's own. All count, because a fine-tuned model often changes only one of the three.
    Ids beyond the model's vocabulary are left out."""
    model = _read(directory / "config.json")
    found = [tokenizer_eos]
    for value in (_read(directory / "generation_config.json").get("eos_token_id"), model.get("eos_token_id")):
        found += value if isinstance(value, list) else [value]
    size = int(model.get("vocab_size") or 0)
    return frozenset(token for token in found if token is not None and not 0 < size <= token)


def _read(path: Path) -> dict[str, Any]:
    """Returns the JSON object in the file ``path``; an empty one if there is no such file."""
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
