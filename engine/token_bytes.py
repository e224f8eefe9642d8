"""The bytes of each token, read from a tokenizer of the library tokenizers. Also makes a copy of a tokenizer to which
the names of special tokens are plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from engine.decode.detokenizer import byte_alphabet


def byte_table(fast: FastTokenizer) -> dict[int, bytes] | None:
    """Returns the bytes of each token, by id, without special tokens. Returns None if the decoder is neither byte-level
    nor SentencePiece's with byte fallback, because the bytes are not known then."""
    kinds = [step["type"] for step in _steps(fast)]
    if kinds == ["ByteLevel"]:
        spelt = _alphabet_bytes
    elif kinds in (["Replace", "ByteFallback", "Fuse"], ["Replace", "ByteFallback", "Fuse", "Strip"]):
        spelt = piece_bytes
    else:
        return None
    special = {token_id for token_id, token in fast.get_added_tokens_decoder().items() if token.special}
    vocab = fast.get_vocab(with_added_tokens=True)
    return {token_id: spelt(text) for text, token_id in vocab.items() if token_id not in special}


def strips_first_space(fast: FastTokenizer) -> bool:
    """Returns whether the decoder drops a space at the start of a text. SentencePiece adds one when it encodes."""
    return any(step["type"] == "Strip" and step["content"] == " " and step["start"] > 0 for step in _steps(fast))


def piece_bytes(text: str) -> bytes:
    """Returns the bytes of a SentencePiece token: one byte for ``<0xHH>``, else UTF-8 with spaces for U+2581."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", text):
        return bytes.fromhex(byte[1])
    return text.replace("\u2581", " ").encode("utf-8")


def respelled(fast: FastTokenizer, spellings: Mapping[str, str]) -> FastTokenizer:
    """Returns a copy of ``fast`` with the same ids and other names for special tokens. ``spellings`` maps each old name
    to the new one. The copy reads an old name as plain text. The rules for white space around special tokens apply to
    the new names. It adds no special tokens around a text."""
    told = json.loads(fast.to_str())
    for token in told["added_tokens"]:
        token["content"] = spellings.get(token["content"], token["content"])
    model, names = told["model"], spellings.keys()
    if isinstance(model["vocab"], dict):
        model["vocab"] = {spellings.get(text, text): token_id for text, token_id in model["vocab"].items()}
    else:  # of Unigram: pairs of a token and its score
        model["vocab"] = [[spellings.get(text, text), score] for text, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = spellings.get(model["unk_token"], model["unk_token"])
    if "merges" in model:  # some vocabularies have pieces that make up a special token's name
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [
            pair for pair in pairs if not (pair[0] + pair[1] in names or pair[0] in names or pair[1] in names)
        ]
    told["post_processor"] = None  # names special tokens, and adds them around a whole text
    return FastTokenizer.from_str(json.dumps(told))


def _steps(fast: FastTokenizer) -> list[dict[str, Any]]:
    """Returns the steps of the tokenizer's decoder as JSON objects, in order; none if it has no decoder."""
    if fast.decoder is None:
        return []
    decoder = json.loads(fast.decoder.__getstate__())
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _alphabet_bytes(text: str) -> bytes:
    """Returns the bytes of a token of a byte-level vocabulary. A token with characters outside the byte alphabet has
    the bytes of its UTF-8."""
    try:
        return text.translate(_latin_1()).encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


@cache
def _latin_1() -> dict[int, int]:
    """Returns a table for ``str.translate``, from characters of the byte alphabet to the Latin-1 character of the same
    byte. Other characters of Latin-1 are mapped outside it; those beyond it are outside already."""
    alphabet = byte_alphabet()
    others = (code for code in range(256) if chr(code) not in alphabet)
    return {ord(character): byte for character, byte in alphabet.items()} | dict.fromkeys(others, 0xFFFD)
