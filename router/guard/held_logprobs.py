"""``HeldTokens``: holds the log probabilities of a choice until the text of their tokens is sent."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.api import TokenLogprobs


@dataclass(frozen=True, slots=True)
class _Token:
    """A token that makes the characters ``[start, end)``. ``text`` is what its bytes complete: empty for a part of a
    character, which counts as the whole character."""

    logprobs: TokenLogprobs
    start: int
    end: int
    text: str


class HeldTokens:
    """The log probabilities of one choice that are not sent yet.

    A token is sent once all of its characters were sent as they are, and dropped if one of them was replaced. Its
    characters are found by counting the bytes of all tokens, which make the text. Where the tokens and the text differ,
    because the answer is parsed for reasoning or tool calls, the tokens are sent at the end of the choice, and only if
    no part of the choice was replaced: a token could come before the text that it belongs to was checked. ``offset`` is
    the length of the text before the first token. Offsets count all characters of the choice: reasoning, text and tool
    calls.
    """

    def __init__(self, offset: int) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokens: deque[_Token] = deque()
        self._decoded = offset  # the offset at which the next token begins
        self._text = ""  # the text of the choice from the offset _start on
        self._start = offset
        self._replaced: list[tuple[int, int]] = []
        self._aligned = True

    def push(self, text: str, tokens: Iterable[TokenLogprobs]) -> None:
        """Takes the next text of the choice, and the tokens that arrived with it, which may belong to other text."""
        self._text += text
        for logprobs in tokens:
            added = logprobs.text_bytes
            characters = self._decoder.decode(added)
            length = max(len(characters), 1 if added else 0)
            self._tokens.append(_Token(logprobs, self._decoded, self._decoded + length, characters))
            self._decoded += len(characters)

    def release(self, end: int, replaced: Sequence[tuple[int, int]] = ()) -> tuple[TokenLogprobs, ...] | None:
        """Returns the log probabilities of the tokens whose text lies before the offset ``end``, up to which the
        text was sent; None if there are none. ``replaced`` are the ranges ``[start, end)`` of characters that were
        replaced."""
        self._replaced += replaced
        released: list[TokenLogprobs] = []
        while self._aligned and self._tokens and self._tokens[0].end <= end:
            token = self._tokens[0]
            at = token.start - self._start
            self._aligned = self._text[at : at + len(token.text)] == token.text
            if not self._aligned:
                break
            self._tokens.popleft()
            if not any(start < token.end and token.start < stop for start, stop in self._replaced):
                released.append(token.logprobs)
        self._forget(min(end, self._tokens[0].start if self._tokens else self._decoded))
        return tuple(released) or None

    def finish(self, end: int) -> tuple[TokenLogprobs, ...] | None:
        """Returns the log probabilities that are sent at the end of a complete choice, whose text ends at the offset
        ``end``; None if there are none. Tokens after the text, such as those of a stop string, are dropped."""
        rest = self.release(end)
        if self._aligned or self._replaced:
            return rest
        return (*(rest or ()), *(token.logprobs for token in self._tokens)) or None

    def _forget(self, offset: int) -> None:
        if offset > self._start:
            self._text, self._start = self._text[offset - self._start :], offset
