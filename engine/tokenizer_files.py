"""Reads the tokenizer's files of a model directory, without transformers where the result is the same: its import takes
1 s and 20 MB. Where transformers is needed, its config classes are not used, because they refuse directories that the
engine can read, and build some tokenizers differently from tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from engine.hub_tokenizer import HubTokenizer, PlainTokenizer

VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "tiktoken.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTED_TOKENS = ("extra_special_tokens", "additional_special_tokens")
_WITHOUT_EFFECT = (
    "backend",
    "clean_up_tokenization_spaces",
    "is_local",
    "local_files_only",
    "model_max_length",
    "tokenizer_class",
)
"""Keys of tokenizer_config.json that change neither token ids nor the text of a conversation."""
_PLAIN_KEYS = frozenset([*NAMED_TOKENS, *_LISTED_TOKENS, *_WITHOUT_EFFECT, "added_tokens_decoder", "chat_template"])
_OTHER_FILES = ("special_tokens_map.json", "added_tokens.json", "chat_template.json", "additional_chat_templates")
MAX_PLAIN_VOCABULARY = 100_000
"""Tokens of the largest vocabulary that is read without transformers, which mends some of the larger ones."""
_AS_ADDED = {"special": True, "normalized": False, "single_word": False, "lstrip": False, "rstrip": False}


def has_tokenizer(directory: Path) -> bool:
    """Returns whether ``directory`` has a vocabulary file. Without one, transformers makes an empty vocabulary for some
    model families."""
    return any((directory / name).is_file() for name in VOCABULARY_FILES)


def read_tokenizer(directory: Path) -> HubTokenizer:
    """Returns the tokenizer of ``directory`` as transformers makes it, without network access. Raises OSError if there
    is none, and ValueError if the library tokenizers cannot run it."""
    if not has_tokenizer(directory):
        raise OSError(f"{directory} has no tokenizer")
    return read_plain_tokenizer(directory) or _read_with_transformers(directory)


def read_plain_tokenizer(directory: Path) -> PlainTokenizer | None:
    """Loads tokenizer.json without transformers. Returns None where transformers might give another result:
    tokenizer.json is missing, or has padding or no post-processor; tokenizer_config.json has an unknown key, or a
    special or added token that tokenizer.json lacks or defines otherwise; a file of ``_OTHER_FILES`` exists; the chat
    template is not one string; or the vocabulary exceeds MAX_PLAIN_VOCABULARY."""
    if not (directory / "tokenizer.json").is_file() or any((directory / name).exists() for name in _OTHER_FILES):
        return None
    config, told = _read(directory / "tokenizer_config.json"), _read(directory / "tokenizer.json")
    named = {name: config[name] for name in NAMED_TOKENS if config.get(name) is not None}
    listed = [token for name in _LISTED_TOKENS for token in config.get(name) or ()]
    if not (config.keys() <= _PLAIN_KEYS and _holds(told, config, [*named.values(), *listed])):
        return None
    template = config.get("chat_template")
    if (directory / "chat_template.jinja").is_file():
        template = (directory / "chat_template.jinja").read_text("utf-8")
    if not isinstance(template, str | None):
        return None
    fast = FastTokenizer.from_file(str(directory / "tokenizer.json"))
    return PlainTokenizer(fast, template, named) if fast.get_vocab_size() <= MAX_PLAIN_VOCABULARY else None


def _holds(told: Mapping[str, Any], config: Mapping[str, Any], special: list[Any]) -> bool:
    """Returns whether ``told``, a tokenizer.json, has all tokens that ``config``, a tokenizer_config.json, adds, and
    adds the same tokens around a text. ``special`` are those that it names as special ones."""
    added = {token["content"]: token for token in told.get("added_tokens") or ()}
    by_id = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in added.values()}
    return (
        told.get("post_processor") is not None
        and told.get("padding") is None
        and all(isinstance(each, str) and _AS_ADDED.items() <= added.get(each, {}).items() for each in special)
        and all(by_id.get(place) == token for place, token in (config.get("added_tokens_decoder") or {}).items())
    )


def _read_with_transformers(directory: Path) -> HubTokenizer:
    """Raises as ``read_tokenizer`` does."""
    from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

    if (directory / "tokenizer.json").is_file():
        found: HubTokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
        return found
    config: Any = PreTrainedConfig()
    config.model_type = _read(directory / "config.json").get("model_type", "")
    loaded: Any = AutoTokenizer.from_pretrained(directory, config=config, local_files_only=True)
    if not hasattr(loaded, "backend_tokenizer"):
        raise ValueError(f"{directory} has no tokenizer.json")
    hub: HubTokenizer = loaded
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
