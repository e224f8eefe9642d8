"""Reads and checks the tokens in a GGUF file's metadata: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.gguf.control_tokens import CONTROL_TOKENS
from engine.gguf.errors import GGUFError

PREFIX = "tokenizer.ggml."
TOKENS, MERGES, SCORES, TYPES = f"{PREFIX}tokens", f"{PREFIX}merges", f"{PREFIX}scores", f"{PREFIX}token_type"
MAX_TOKEN_CHARACTERS = 1024
"""Those of published vocabularies have at most some hundred. A SentencePiece token is cut at each of its characters, so
the time for it grows with the square of its length."""


class TokenType(IntEnum):
    """The type of a token in ``tokenizer.ggml.token_type``."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_SPELLED = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED)
_SPECIAL = (TokenType.UNKNOWN, TokenType.CONTROL)
_DISPENSABLE = ("padding", "unknown")
"""Special tokens that no text and no end of an answer needs. Converters write -1 for a padding token that is none."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens in the order of their ids, and the type of each."""

    tokens: Sequence[str]
    types: Sequence[int]

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        """Reads the vocabulary in ``metadata``. Raises GGUFError if there are no tokens, for a token that occurs twice
        or is too long, and if there is not one type per token."""
        tokens = strings(metadata, TOKENS)
        if not tokens:
            raise GGUFError(f"{TOKENS} is empty")
        longest = max(map(len, tokens))
        if longest > MAX_TOKEN_CHARACTERS:
            raise GGUFError(f"{TOKENS} has a token of {longest} characters; at most {MAX_TOKEN_CHARACTERS} are read")
        tokens = [token or f"[EMPTY_{place}]" for place, token in enumerate(tokens)]  # as llama.cpp names them
        if len(set(tokens)) != len(tokens):
            twice, _ = Counter(tokens).most_common(1)[0]
            raise GGUFError(f"{TOKENS} has {_shown(twice)} twice")
        types = _types(metadata, len(tokens))
        control = (token in CONTROL_TOKENS for token in tokens)
        return cls(tokens, [TokenType.CONTROL if is_one else kind for is_one, kind in zip(control, types, strict=True)])

    @property
    def ids(self) -> dict[str, int]:
        """The id of each token."""
        return {token: place for place, token in enumerate(self.tokens)}

    @property
    def spelled(self) -> list[int]:
        """The ids of tokens that are recognised by their names anywhere in a text, before pre-tokenisation."""
        return [place for place, kind in enumerate(self.types) if kind in _SPELLED]

    def is_special(self, token_id: int) -> bool:
        """Returns whether a token is special: it adds no text."""
        return self.types[token_id] in _SPECIAL


def _types(metadata: Mapping[str, Any], size: int) -> list[int]:
    """The type of each token; without the key all are normal."""
    if TYPES not in metadata:
        return [TokenType.NORMAL] * size
    types = numbers(metadata, TYPES, size)
    unknown = ~np.isin(types, list(TokenType))
    if unknown.any():
        place = int(unknown.argmax())
        raise GGUFError(f"{TYPES} of token {place} is {types[place]:g}, which does not exist")
    return list(types.astype(int).tolist())


def special_id(metadata: Mapping[str, Any], name: str, size: int, default: int | None = None) -> int | None:
    """Returns the token id in the key ``tokenizer.ggml.NAME_token_id``, or ``default`` without this key (None if the
    vocabulary is smaller). Raises GGUFError for an id that is not in a vocabulary of ``size`` tokens, unless no answer
    needs it: then the key is as if it were not there, as in llama.cpp."""
    key = f"{PREFIX}{name}_token_id"
    found = metadata.get(key)
    if found is not None and (not isinstance(found, int) or isinstance(found, bool)):
        raise GGUFError(f"{key} is {_shown(found)}, no token of the {size}")
    if found is not None and 0 <= found < size:
        return found
    if found is not None and name not in _DISPENSABLE:
        raise GGUFError(f"{key} is {found}, no token of the {size}")
    return default if default is None or default < size else None


def flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    """Returns the boolean in ``key``, or ``default`` without this key. Raises GGUFError for a value of another type."""
    found = metadata.get(key, default)
    if not isinstance(found, bool):
        raise GGUFError(f"{key} is {_shown(found)}, neither true nor false")
    return found


def string(metadata: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Returns the string in ``key``, or ``default`` without this key. Raises GGUFError for a value of another type, and
    for a missing key without ``default``."""
    found = metadata.get(key, default)
    if found is None:
        raise GGUFError(f"{key} is missing")
    if not isinstance(found, str):
        raise GGUFError(f"{key} is {_shown(found)}, no string")
    return found


def strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    """Returns the list of strings in ``key``. Raises GGUFError for a missing key or a value of another type."""
    found = _listed(metadata, key)
    if not isinstance(found, list) or not {*map(type, found)} <= {str}:
        raise GGUFError(f"{key} holds something else than strings")
    return found


def numbers(metadata: Mapping[str, Any], key: str, count: int) -> NDArray[np.float64]:
    """Returns the first ``count`` numbers of the array or list in ``key``. Raises GGUFError for a missing key, fewer
    numbers or a value of another type."""
    listed = _listed(metadata, key)
    # NumPy gives each string of a list as much room as the longest one takes.
    if isinstance(listed, list) and not {*map(type, listed)} <= {int, float}:
        raise GGUFError(f"{key} holds something else than numbers")
    found = np.asarray(listed)[:count]
    if found.dtype.kind not in "iuf" or np.isnan(found).any():
        raise GGUFError(f"{key} holds something else than numbers")
    if len(found) < count:
        raise GGUFError(f"{key} has {len(found)} numbers for {count} tokens")
    return found.astype(np.float64)


def merges(metadata: Mapping[str, Any], known: Mapping[str, int]) -> list[tuple[str, str]]:
    """Returns the pairs of tokens that BPE merges into one, highest priority first. Raises GGUFError for a merge that
    is no pair of tokens in ``known``, or whose result is not in ``known``."""
    pairs: list[tuple[str, str]] = []
    for place, merge in enumerate(strings(metadata, MERGES)):
        cut = merge.find(" ", 1)  # a token may start with a space, and hold none besides
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 0 or left not in known or right not in known or left + right not in known:
            raise GGUFError(f"{MERGES}: merge {place}, {merge[:80]!r}, is no pair of tokens that make up a third")
        pairs.append((left, right))
    return list(dict.fromkeys(pairs))  # of two that are the same, the first counts


def _listed(metadata: Mapping[str, Any], key: str) -> Sequence[Any] | NDArray[Any]:
    if key not in metadata:
        raise GGUFError(f"{key} is missing")
    found = metadata[key]
    if not isinstance(found, list | np.ndarray):
        raise GGUFError(f"{key} is {_shown(found)}, no list")
    return found


def _shown(value: Any) -> str:
    return repr(value)[:80]
