"""The bytes of each token, read from a tokenizer of the library tokenizers. Also makes a copy of a tokenizer to which
the names of special tokens are plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from engine.decode.detokenizer import byte_alphabet


def byte_table(fast: FastTokenizer) -> dict[int, bytes] | None:
    """Bytes of every token but special ones; None if tokens are no bytes, or nothing says which."""
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
    """Whether a space at the start of a text is left out: SentencePiece puts one before every text."""
    return any(step["type"] == "Strip" and step["content"] == " " and step["start"] > 0 for step in _steps(fast))


def piece_bytes(text: str) -> bytes:
    """Bytes of a token of SentencePiece's."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", text):
        return bytes.fromhex(byte[1])
    return text.replace("\u2581", " ").encode("utf-8")


def respelled(fast: FastTokenizer, spellings: Mapping[str, str]) -> FastTokenizer:
    """A twin of ``fast`` with the same ids, for which special tokens are spelled differently: the keys of ``spellings``
    are plain text to it, and their values are the tokens. They keep their place in a text, and with it all rules that
    look at what is beside a special token."""
    told = json.loads(fast.to_str())
    for token in told["added_tokens"]:
        token["content"] = spellings.get(token["content"], token["content"])
    model = told["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {spellings.get(text, text): token_id for text, token_id in model["vocab"].items()}
    else:  # of Unigram: pairs of a token and its score
        model["vocab"] = [[spellings.get(text, text), score] for text, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = spellings.get(model["unk_token"], model["unk_token"])
    if "merges" in model:  # some vocabularies have pieces that make up a special token's name
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [[a, b] for a, b in pairs if spellings.keys().isdisjoint((a, b, a + b))]
    told["post_processor"] = None  # names special tokens, and adds them around a whole text
    return FastTokenizer.from_str(json.dumps(told))


def _steps(fast: FastTokenizer) -> list[dict[str, Any]]:
    """What its decoder does, one after another."""
    if fast.decoder is None:
        return []
    decoder = json.loads(fast.decoder.__getstate__())
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _alphabet_bytes(text: str) -> bytes:
    """Of a token of a byte-level vocabulary. One with characters outside the alphabet stands for its own text."""
    alphabet = byte_alphabet()
    known = all(character in alphabet for character in text)
    return bytes(alphabet[character] for character in text) if known else text.encode("utf-8")
