"""Incremental detokenisation: the pieces of text of a stream, joined, equal the decoding of all its tokens.

Byte-level vocabularies (GPT-2, Llama 3, Qwen) and SentencePiece vocabularies with byte tokens (Llama 2, Mistral, Gemma)
are decoded byte by byte: each token is a fixed byte string, and an incremental UTF-8 decoder holds back incomplete
characters. Other vocabularies are decoded in a window that begins at a recent token whose text is complete, because
their decoders look at a few neighbouring tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Protocol, Self

_REPLACEMENT = "\ufffd"
_MAX_WINDOW = 16
"""Most tokens of an incomplete character. A character takes at most four tokens; longer ones are invalid and shown as
U+FFFD."""


class Detokenizer(Protocol):
    """Turns the tokens of one sequence into text, as they come."""

    @property
    def added(self) -> bytes:
        """The bytes that the last token pushed adds to the text. Those of all tokens, concatenated, are the text. A
        token inside a character adds a part of it, or nothing until the character is complete."""
        ...

    def push(self, token: int) -> str:
        """Adds a token. Returns the text that became certain with it; may be empty."""
        ...

    def flush(self) -> str:
        """Returns the rest of the text, when no more tokens follow. Incomplete characters become U+FFFD."""
        ...

    def copy(self) -> Self:
        """Returns an independent copy in the same state."""
        ...


class ByteDetokenizer:
    """Detokenises vocabularies of byte strings. ``table`` has the bytes of each token; special tokens are absent and
    add no text. With ``bare``, a space at the start of the text is left out (SentencePiece)."""

    def __init__(self, table: Mapping[int, bytes], bare: bool = False) -> None:
        self._table = table
        self._bare = bare
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.added = b""

    def push(self, token: int) -> str:
        added = self._table.get(token, b"")
        if self._bare and added:
            self._bare = False
            added = added.removeprefix(b" ")
        self.added = added
        return self._decoder.decode(added)

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)

    def copy(self) -> Self:
        twin = type(self)(self._table, self._bare)
        twin._decoder.setstate(self._decoder.getstate())
        twin.added = self.added
        return twin


class WindowDetokenizer:
    """Detokenises any other vocabulary. ``decode`` turns a list of tokens into text without special tokens. ``context``
    are tokens before the first one, whose text is not returned."""

    def __init__(self, decode: Callable[[list[int]], str], context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window = list(context)
        self._shown = len(self._window)  # leading tokens of the window whose text has been returned
        self._shown_text = decode(self._window)
        self.added = b""

    def push(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        incomplete = text.endswith(_REPLACEMENT) and len(self._window) - self._shown < _MAX_WINDOW
        new = "" if incomplete else self._advance(text)
        self.added = new.encode("utf-8")
        return new

    def flush(self) -> str:
        return self._advance(self._decode(self._window))

    def copy(self) -> Self:
        twin = type(self)(self._decode)
        twin._window, twin._shown, twin._shown_text = list(self._window), self._shown, self._shown_text
        twin.added = self.added
        return twin

    def _advance(self, text: str) -> str:
        """Returns the new text at the end of ``text``, the window's. The tokens whose text is returned stay as context
        of the next ones.

        Tokens without text of their own are not used as context, because a decoder might treat the token after them as
        the start of the text.
        """
        new = text[len(self._shown_text) :]
        if new or len(self._window) > 2 * _MAX_WINDOW:
            self._window = self._window[self._shown :]
            text = self._decode(self._window)
        self._shown, self._shown_text = len(self._window), text
        return new


@cache
def byte_alphabet() -> dict[str, int]:
    """Returns the 256 characters by which byte-level vocabularies write bytes, with the byte of each (Radford et al.
    2019). Printable characters stand for themselves, the other bytes are code points from 256 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
