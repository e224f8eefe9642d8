"""Tokens to text as they come: the texts of a stream joined are exactly the decoding of all its tokens.

Byte-level vocabularies (GPT-2, Llama 3, Qwen) and SentencePiece's with tokens of single bytes (Llama 2, Mistral,
Gemma) are decoded byte by byte: a token is a fixed string of bytes, and an incremental UTF-8 decoder holds back what is
not yet a character. Others are decoded in a window that begins at a recent token whose text is complete: their decoders
look at neighbours, but not far.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Protocol, Self

_REPLACEMENT = "\ufffd"
_MAX_WINDOW = 16
"""Tokens; one character takes at most four of them, so longer incompleteness is broken text and shown as such."""


class Detokenizer(Protocol):
    """State of one sequence."""

    @property
    def added(self) -> bytes:
        """What the token pushed last adds to the text. All of them joined are the text; a token within a character adds
        a part of it, or nothing until the character is whole."""
        ...

    def push(self, token: int) -> str:
        """Text that became certain with this token."""
        ...

    def flush(self) -> str:
        """The rest, when no more tokens will come; incomplete bytes become U+FFFD."""
        ...

    def copy(self) -> Self:
        """Another at the same place."""
        ...


class ByteDetokenizer:
    """For vocabularies of bytes: ``table`` gives each token's; a special token is absent and adds none. ``bare``: a
    space at the start of the text stands for its beginning, and is left out."""

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
    """For any other vocabulary: ``decode`` turns a list of tokens into text, special tokens left out. ``context`` are
    tokens before the first, whose text has been given out."""

    def __init__(self, decode: Callable[[list[int]], str], context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window = list(context)
        self._shown = len(self._window)  # tokens at the start of the window whose text has been given out
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
        twin._window, twin._shown, twin.added = list(self._window), self._shown, self.added
        return twin

    def _advance(self, text: str) -> str:
        """Gives out what is new; the tokens just shown stay as context for the next ones.

        Tokens without text of their own are no context: a decoder may take what follows for the start of the text.
        """
        new = text[len(self._decode(self._window[: self._shown])) :]
        if new or len(self._window) > 2 * _MAX_WINDOW:
            self._window = self._window[self._shown :]
        self._shown = len(self._window)
        return new


@cache
def byte_alphabet() -> dict[str, int]:
    """The 256 characters that byte-level vocabularies write bytes with (Radford et al. 2019): printable ones stand
    for themselves, the others for code points from 256 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
