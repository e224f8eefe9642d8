"""Text to tokens: the tokenizer of a model directory, with its chat template.

Everything here may be called from any thread: nothing is changed after loading.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from engine.api import Conversation, GenerationRequest, Prompt, RequestError
from engine.decode.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from engine.decode.grammar import GrammarCompiler
from engine.template import ChatTemplate
from engine.token_bytes import byte_table, piece_bytes, respelled, strips_first_space
from engine.tokenizer_files import eos_token_ids, read_tokenizer

MAX_BYTES_PER_TOKEN = 4  # a text with more of them for each token that fits is counted before it is encoded
PIECE_CHARACTERS = 4096  # of a text that is counted
MAX_CUT_TOKENS = 16  # tokens that a cut through a text may add to its pieces
MAX_INLINE_CHARACTERS = 1024  # of a text that is encoded with the interpreter's lock held
MAX_CONTEXT_TOKENS = 16  # tokens of a prompt that a decoder looks back on


class PromptTooLongError(Exception):
    """A text has ``tokens`` tokens or more, which is more than fit."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class Tokenizer:
    """Encodes prompts and makes detokenizers."""

    def __init__(self, hub: Any, eos_token_ids: frozenset[int]) -> None:
        """``hub`` is a tokenizer of transformers that has a tokenizer of tokenizers behind it."""
        self._hub = hub
        self._fast: FastTokenizer = hub.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        added = self._fast.get_added_tokens_decoder()
        special = [token.content for token in added.values() if token.special]
        self._special_ids = {token_id for token_id, token in added.items() if token.special}
        self._nonce = secrets.token_hex(8)
        self._private = {text: f"\ue000{self._nonce}:{place}\ue001" for place, text in enumerate(special)}
        self._literal = respelled(self._fast, self._private)  # what spells a special token is plain text to it
        self._special = _any_of(special)
        self._added = _any_of([token.content for token in added.values()])
        self._beginnings = {text[:length] for text in special for length in range(1, len(text))}
        self._longest = max(map(len, special), default=0)
        self._template = ChatTemplate(hub)
        self._bytes, self._bare = byte_table(self._fast), strips_first_space(self._fast)
        self.eos_token_ids = eos_token_ids

    @classmethod
    def from_directory(cls, directory: Path) -> Tokenizer:
        """Never touches the network. Raises OSError without a tokenizer, ValueError for one that tokenizers cannot
        run."""
        hub = read_tokenizer(directory)
        return cls(hub, eos_token_ids(directory, hub.eos_token_id))

    def grammar_compiler(self, vocab_size: int) -> GrammarCompiler:
        """Returns the compiler of grammars (structured output) for this tokenizer and a model that has logits for
        ``vocab_size`` tokens."""
        return GrammarCompiler(self._hub, vocab_size, self.eos_token_ids)

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, added ones included."""
        return dict(self._fast.get_vocab(with_added_tokens=True))

    def encode(self, prompt: Prompt, most: int | None = None) -> list[int]:
        """Token ids of a prompt. Raises RequestError for text that is no Unicode, and for a conversation that the chat
        template refuses; PromptTooLongError for a text that is far longer than ``most`` tokens, before all of it has
        been encoded."""
        if isinstance(prompt, str):
            _check_unicode(prompt, "prompt")
            _check_length(self._fast, prompt, most)
            return _ids(self._fast, prompt, add_special_tokens=True)
        if isinstance(prompt, Conversation):
            _check_unicode("".join(text for message in prompt.messages for text in message.texts), "messages")
            _check_unicode("".join(prompt.tools), "tools")
            _check_unicode("".join(map("".join, prompt.template_kwargs)), "chat_template_kwargs")
            text = self._render(prompt)
            _check_length(self._literal, text, most)
            return _ids(self._literal, text)
        return list(prompt)

    def check(self, request: GenerationRequest) -> None:
        """Raises RequestError for a request that needs text which is not to be had: none, here."""

    def spellings(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each word within another and, where that differs, at a word's start."""
        texts = [text for word in words for text in (word, f" {word.lstrip()}")]
        for text in texts:
            _check_unicode(text, "bad_words")
        encoded = (tuple(_ids(self._literal, text)) for text in texts)
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
        return piece_bytes(self._fast.id_to_token(token) or "")

    def detokenizer(self, prompt: Sequence[int] = (), verbatim: bool = False) -> Detokenizer:
        """A new incremental decoder, for one sequence that goes on after ``prompt``: the text of both together is the
        decoding of the tokens of both. So the space at a text's start is left out only where the prompt has no text;
        and not even there if ``verbatim``."""
        if self._bytes is not None:
            bare = self._bare and not verbatim and not any(map(self._bytes.get, prompt))
            return ByteDetokenizer(self._bytes, bare)
        said = (token for token in reversed(prompt) if token not in self._special_ids)
        return WindowDetokenizer(self.decode, list(islice(said, MAX_CONTEXT_TOKENS))[::-1])

    def _render(self, conversation: Conversation) -> str:
        """The conversation as text for the literal twin. Special tokens come from the template alone, and are spelled
        in private there; what a message spells out is plain text. All is tokenised in one piece, as in training."""
        literals: list[str] = []

        def mark(text: str) -> str:
            literals.append(text)
            return f"\ue000{self._nonce}.{len(literals) - 1}\ue001"

        def hide(text: str) -> str:
            text = self._special.sub(lambda found: mark(found[0]), text)
            body = text.rstrip()  # a template may trim what it joins with something else
            ends = range(max(0, len(body) - self._longest), len(body))
            end = next((at for at in ends if body[at:] in self._beginnings), None)
            return text if end is None else f"{text[:end]}{mark(body[end:])}{text[len(body) :]}"

        rendered = self._template.render(conversation, hide)
        text = ""
        # Every second piece is the number of a literal; a template may drop some or repeat them.
        for place, piece in enumerate(re.split(rf"\ue000{self._nonce}\.(\d+)\ue001", rendered)):
            text += literals[int(piece)] if place % 2 else self._added.sub(self._in_private, piece)
        return text

    def _in_private(self, found: re.Match[str]) -> str:
        return self._private.get(found[0], found[0])


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Matches the longest of several texts, as tokenizers does."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, texts), key=len, reverse=True))) or r"(?!)")


def _ids(fast: FastTokenizer, text: str, add_special_tokens: bool = False) -> list[int]:
    """Tokens of a text. tokenizers gives the interpreter's lock away for batches alone."""
    if len(text) <= MAX_INLINE_CHARACTERS:
        return list(fast.encode(text, add_special_tokens=add_special_tokens).ids)
    return list(fast.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)


def _check_length(fast: FastTokenizer, text: str, most: int | None) -> None:
    """Counts tokens piece by piece, where there may be many more than ``most``. Raises PromptTooLongError."""
    if most is None or len(text.encode("utf-8")) <= MAX_BYTES_PER_TOKEN * most:
        return
    tokens = 0
    for start in range(0, len(text), PIECE_CHARACTERS):
        piece = _ids(fast, text[start : start + PIECE_CHARACTERS])
        tokens += max(0, len(piece) - MAX_CUT_TOKENS)
        if tokens > most:
            raise PromptTooLongError(tokens)


def _check_unicode(text: str, param: str) -> None:
    """JSON can spell half of a surrogate pair, and Python's strings hold it; tokenizers do not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError("The text holds half of a surrogate pair, which is no character.", param) from error
