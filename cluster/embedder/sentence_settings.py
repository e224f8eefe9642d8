"""``SentenceSettings``: the settings, in a sentence-transformers directory, by which texts become vectors.

The files and their keys are those that the library writes (https://sbert.net, module ``sentence_transformers``).
Settings that this package does not support are refused by name, since slightly wrong vectors would go unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

POOLING_FLAG = "pooling_mode_"

MODULES = (("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize"))
"""The pipelines that are supported, by the names of their classes."""

SUPPORTED: Mapping[str, Mapping[str, Sequence[object]]] = {
    "tokenizer_config.json": {
        "tokenizer_class": ("BertTokenizer", "BertTokenizerFast", None),
        "do_lower_case": (True, None),
        "do_basic_tokenize": (True, None),
        "tokenize_chinese_chars": (True, None),
        "strip_accents": (None, True),
        "never_split": (None, []),
    },
    "config_sentence_transformers.json": {"similarity_fn_name": ("cosine", None), "default_prompt_name": (None,)},
}
"""The values that these keys may have, in files that may be missing. Keys that are absent count as None. Other keys say
nothing about vectors, or are not used without a request for them."""


class UnsupportedSentenceModelError(ValueError):
    """The files describe a model that this package does not run; the message names the setting."""


class Pooling(StrEnum):
    """The pooling of the token states into one vector."""

    MEAN = "mean_tokens"
    CLS = "cls_token"  # the state of the first token


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """The settings of a sentence model. ``max_tokens`` is the maximum number of tokens of a text, special tokens
    included. ``dimensions`` is the length of a vector."""

    pooling: Pooling
    max_tokens: int
    dimensions: int


def read_settings(directory: Path) -> SentenceSettings:
    """Reads the settings of the model in ``directory``.

    Vectors get length 1 whether or not the last module is Normalize: only cosines are compared. Raises OSError for a
    missing file, and UnsupportedSentenceModelError for a setting that is malformed or not supported.
    """
    paths = _modules(directory)
    for name, keys in SUPPORTED.items():
        _check_keys(directory / name, keys)
    config = _read(directory / "config.json", dict)
    pooling, dimensions = _pooling(directory / paths[1] / "config.json")
    if config.get("hidden_size") != dimensions:
        raise UnsupportedSentenceModelError(f"{directory}: the pooling has other dimensions than hidden_size")
    transformer = _optional(directory / "sentence_bert_config.json")
    longest = transformer.get("max_seq_length") or config.get("max_position_embeddings")
    if not isinstance(longest, int) or not 2 < longest <= config.get("max_position_embeddings", 0):
        raise UnsupportedSentenceModelError(f"{directory}: max_seq_length: {longest} is not what the encoder takes")
    return SentenceSettings(pooling, longest, dimensions)


def _modules(directory: Path) -> list[str]:
    """Returns the folders of the modules in ``modules.json``."""
    path = directory / "modules.json"
    modules = _read(path, list)
    try:
        names = tuple(str(module["type"]).rpartition(".")[2] for module in modules)
        folders = [str(module["path"]) for module in modules]
    except (KeyError, TypeError) as error:
        raise UnsupportedSentenceModelError(f"{path}: a module has no type or no path") from error
    if names not in MODULES:
        expected = " or ".join(", ".join(each) for each in MODULES)
        raise UnsupportedSentenceModelError(f"{path}: the modules must be {expected}, not {', '.join(names)}")
    if folders[0]:
        raise UnsupportedSentenceModelError(f"{path}: the Transformer must be in the directory itself")
    return folders


def _pooling(path: Path) -> tuple[Pooling, int]:
    """Returns the pooling in a ``config.json``, and the length of its vectors."""
    config = _read(path, dict)
    chosen = [key.removeprefix(POOLING_FLAG) for key, on in config.items() if key.startswith(POOLING_FLAG) and on]
    if len(chosen) != 1 or chosen[0] not in list(Pooling):
        expected = " or ".join(POOLING_FLAG + each for each in Pooling)
        found = ", ".join(POOLING_FLAG + each for each in chosen) or "none"
        raise UnsupportedSentenceModelError(f"{path}: the pooling must be {expected}, not {found}")
    dimensions = config.get("word_embedding_dimension")
    if not isinstance(dimensions, int):
        raise UnsupportedSentenceModelError(f"{path}: word_embedding_dimension must be a number")
    return Pooling(chosen[0]), dimensions


def _check_keys(path: Path, keys: Mapping[str, Sequence[object]]) -> None:
    """Raises UnsupportedSentenceModelError for a key with a value that is not supported."""
    found = _optional(path)
    for key, values in keys.items():
        if found.get(key) not in values:
            shown = ", ".join(json.dumps(each) for each in values)
            raise UnsupportedSentenceModelError(f"{path}: {key} must be {shown}, not {json.dumps(found.get(key))}")


def _optional(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; an empty one if there is no file."""
    return _read(path, dict) if path.exists() else {}


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedSentenceModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, kind):
        raise UnsupportedSentenceModelError(f"{path} must be a JSON {'object' if kind is dict else 'array'}")
    return document
