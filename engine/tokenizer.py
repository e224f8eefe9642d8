"""Text to tokens: the tokenizer of a model directory, with its chat template.

Everything here may be called from any thread: nothing is changed after loading.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from transformers import AutoTokenizer

from engine.api import Conversation, Prompt, RequestError
from engine.decode.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer, byte_alphabet
from engine.decode.grammar import GrammarCompiler
from engine.template import ChatTemplate


class Tokenizer:
    """Encodes prompts and makes detokenizers."""

    def __init__(self, hub: Any, eos_token_ids: frozenset[int]) -> None:
        """``hub`` is a tokenizer of transformers that has a tokenizer of tokenizers behind it."""
        self._hub = hub
        self._fast: FastTokenizer = hub.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        self._literal: FastTokenizer = copy.deepcopy(self._fast)
        self._literal.encode_special_tokens = True
        added = self._fast.get_added_tokens_decoder()
        special = [token.content for token in added.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        self._template = ChatTemplate(hub)
        self._bytes, self._bare = _byte_table(self._fast), _strips(self._fast)
        self.eos_token_ids = eos_token_ids

    @classmethod
    def from_directory(cls, directory: Path) -> Tokenizer:
        """Never touches the network. Raises OSError without a tokenizer, ValueError for one without tokenizer.json."""
        hub = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        if not hasattr(hub, "backend_tokenizer"):
            raise ValueError(f"{directory} has no tokenizer.json")
        return cls(hub, _eos_token_ids(directory, hub.eos_token_id))

    def grammars(self, vocab_size: int) -> GrammarCompiler:
        """What compiles grammars for a model of this vocabulary."""
        return GrammarCompiler(self._hub, vocab_size, self.eos_token_ids)

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, added ones included."""
        return dict(self._fast.get_vocab(with_added_tokens=True))

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt. Raises RequestError for text that is no Unicode, and for a conversation that the chat
        template refuses."""
        if isinstance(prompt, str):
            _check_unicode(prompt, "prompt")
            return list(self._fast.encode(prompt, add_special_tokens=True).ids)
        if isinstance(prompt, Conversation):
            _check_unicode("".join(text for message in prompt.messages for text in message.texts), "messages")
            _check_unicode("".join(prompt.tools), "tools")
            _check_unicode("".join(map("".join, prompt.template_kwargs)), "chat_template_kwargs")
            return self._encode_conversation(prompt)
        return list(prompt)

    def spellings(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each word within another and, where that differs, at a word's start."""
        texts = [text for word in words for text in (word, f" {word.lstrip()}")]
        for text in texts:
            _check_unicode(text, "bad_words")
        encoded = (tuple(self._literal.encode(text, add_special_tokens=False).ids) for text in texts)
        return list(dict.fromkeys(tokens for tokens in encoded if tokens))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of all tokens, special ones left out. Where tokens are bytes, each byte that belongs to no character is
        one U+FFFD or a part of one, and spoils no other."""
        if self._bytes is None:
            return self._fast.decode(list(tokens), skip_special_tokens=True)
        detokenizer = self.detokenizer()
        return "".join(map(detokenizer.push, tokens)) + detokenizer.flush()

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for within a text; a special one its name."""
        if self._bytes is not None and token in self._bytes:
            return self._bytes[token]
        return _piece_bytes(self._fast.id_to_token(token) or "")

    def detokenizer(self) -> Detokenizer:
        """A new incremental decoder, for one sequence."""
        return WindowDetokenizer(self.decode) if self._bytes is None else ByteDetokenizer(self._bytes, self._bare)

    def _encode_conversation(self, conversation: Conversation) -> list[int]:
        """Special tokens come from the template alone. Where a message spells one out, the spelling is replaced by a
        mark before the template is applied and encoded apart, as plain text; all other messages are tokenised in one
        piece with the template, exactly as in training."""
        nonce = secrets.token_hex(8)
        literals: list[str] = []

        def mark(found: re.Match[str]) -> str:
            literals.append(found[0])
            return f"\ue000{nonce}.{len(literals) - 1}\ue001"

        rendered = self._template.render(conversation, lambda text: self._special.sub(mark, text))
        tokens: list[int] = []
        # Every second piece is the number of a literal; a template may drop some or repeat them.
        for place, piece in enumerate(re.split(rf"\ue000{nonce}\.(\d+)\ue001", rendered)):
            literal = place % 2 == 1
            text, tokenizer = (literals[int(piece)], self._literal) if literal else (piece, self._fast)
            tokens += tokenizer.encode(text, add_special_tokens=False).ids
        return tokens


def _check_unicode(text: str, param: str) -> None:
    """JSON can spell half of a surrogate pair, and Python's strings hold it; tokenizers do not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError("The text holds half of a surrogate pair, which is no character.", param) from error


def _steps(fast: FastTokenizer) -> list[dict[str, Any]]:
    """What its decoder does, one after another."""
    if fast.decoder is None:
        return []
    decoder = json.loads(fast.decoder.__getstate__())
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _strips(fast: FastTokenizer) -> bool:
    """Whether a space at the start of a text is left out."""
    return any(step["type"] == "Strip" and step["content"] == " " and step["start"] > 0 for step in _steps(fast))


def _byte_table(fast: FastTokenizer) -> dict[int, bytes] | None:
    """Bytes of every token but special ones; None if tokens are no bytes, or nobody knows which."""
    kinds = [step["type"] for step in _steps(fast)]
    if kinds == ["ByteLevel"]:
        spelt = _alphabet_bytes
    elif kinds in (["Replace", "ByteFallback", "Fuse"], ["Replace", "ByteFallback", "Fuse", "Strip"]):
        spelt = _piece_bytes
    else:
        return None
    special = {token_id for token_id, token in fast.get_added_tokens_decoder().items() if token.special}
    vocab = fast.get_vocab(with_added_tokens=True)
    return {token_id: spelt(text) for text, token_id in vocab.items() if token_id not in special}


def _alphabet_bytes(text: str) -> bytes:
    """Of a token of a byte-level vocabulary. One with characters outside the alphabet stands for its own text."""
    alphabet = byte_alphabet()
    known = all(character in alphabet for character in text)
    return bytes(alphabet[character] for character in text) if known else text.encode("utf-8")


def _piece_bytes(text: str) -> bytes:
    """Of a token of SentencePiece's."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", text):
        return bytes.fromhex(byte[1])
    return text.replace("\u2581", " ").encode("utf-8")


def _eos_token_ids(directory: Path, tokenizer_eos: int | None) -> frozenset[int]:
    """From generation_config.json, else config.json, else the tokenizer: in the order in which transformers looks."""
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        value = json.loads(path.read_text("utf-8")).get("eos_token_id") if path.exists() else None
        if value is not None:
            return frozenset(value if isinstance(value, list) else [value])
    return frozenset() if tokenizer_eos is None else frozenset({tokenizer_eos})
