"""``BytePairs``: cuts texts into the tokens of a GGUF file's byte-level BPE."""

from __future__ import annotations

import re
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split

from safety.decoder.architecture import UnsupportedDecoderError
from safety.decoder.metadata import Metadata

CONTROL = 3
"""The type in ``tokenizer.ggml.token_type`` of tokens that are no text."""

EXPECTED = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"}
"""The only tokenizer that this class is: byte-level BPE (Radford et al., 2019) where each digit is a word."""

DIGIT = r"\p{N}"
WORDS = r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The expressions of llama.cpp's pre-tokenizer ``smollm``, applied one after the other."""


class BytePairs:
    """A tokenizer. The names of control tokens in a text are tokenised as text, so that the author of a text cannot end
    a turn. ``control`` has their ids by name."""

    def __init__(self, metadata: Metadata) -> None:
        """Takes the vocabulary of a file. Raises UnsupportedDecoderError for a tokenizer of another kind, and for
        merges of tokens that are not in the vocabulary."""
        for key, expected in EXPECTED.items():
            if (found := metadata.value(key, str)) != expected:
                raise UnsupportedDecoderError(f"{key} must be {expected}, not {found}")
        tokens = metadata.value("tokenizer.ggml.tokens", list)
        types = metadata.value("tokenizer.ggml.token_type", list)
        if len(types) != len(tokens):
            raise UnsupportedDecoderError(f"tokenizer.ggml.token_type has {len(types)} values for {len(tokens)} tokens")
        ids = {token: number for number, token in enumerate(tokens)}
        self.control = {token: ids[token] for token, kind in zip(tokens, types, strict=True) if kind == CONTROL}
        self._tokenizer = Tokenizer(_model(ids, metadata.value("tokenizer.ggml.merges", list)))
        self._tokenizer.pre_tokenizer = _words(ids)

    def __call__(self, text: str) -> list[int]:
        """Returns the ids of the tokens of ``text``. Bytes that have no token are left out."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _model(ids: dict[str, int], merges: list[Any]) -> BPE:
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= ids.keys():
            raise UnsupportedDecoderError(f"tokenizer.ggml.merges: {merge!r} is no pair of tokens that make up a third")
        pairs.append((left, right))
    return BPE(ids, pairs)


def _words(ids: dict[str, int]) -> PreTokenizer:
    """Returns the pre-tokenizer, which also takes the bytes without a token out."""
    steps: list[PreTokenizer] = [Split(Regex(each), behavior="isolated") for each in (DIGIT, WORDS)]
    steps.append(ByteLevel(add_prefix_space=False, use_regex=False))
    if missing := sorted(set(ByteLevel.alphabet()) - ids.keys()):
        steps.append(Split(Regex("|".join(map(re.escape, missing))), behavior="removed"))
    return Sequence(steps)
