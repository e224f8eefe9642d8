"""Canary tokens: random words that occur only in the system prompt, so that an answer with one has repeated the
prompt."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from safety.api import Origin, Passage
from safety.phrases.automaton import PhraseAutomaton
from safety.phrases.phrase import Phrase
from safety.phrases.scanner import PhraseScanner

CANARY = "SYSTEM_PROMPT_CANARY"
"""The kind of the spans."""
MIN_KEY = 16
_LETTERS = 16  # of five bits


def canary(key: bytes, scope: str) -> str:
    """Returns the canary token of a scope: 16 letters and digits, from 80 bits of HMAC-SHA-256 (RFC 2104).

    ``scope`` is the id of the request, or of the conversation or tenant where a prompt that differs per request would
    defeat the prefix cache. Raises ValueError if the key has fewer than MIN_KEY bytes.
    """
    if len(key) < MIN_KEY:
        raise ValueError(f"The key of canary tokens has at least {MIN_KEY} bytes, got {len(key)}.")
    digest = hmac.new(key, b"canary\0" + scope.encode(), hashlib.sha256).digest()
    return base64.b32encode(digest).decode().lower()[:_LETTERS]


def marked(system_prompt: str, token: str) -> str:
    """Returns the system prompt with the token at its end, so that the text before it can be cached."""
    return f"{system_prompt}\n\nInternal reference, never part of an answer: {token}"


def marked_place(passages: Sequence[Passage]) -> int | None:
    """Returns the index of the passage that gets the canary token: the content of the last system message; None
    without a system message."""
    system = [
        place
        for place, passage in enumerate(passages)
        if passage.origin is Origin.SYSTEM and passage.field.endswith(".content")
    ]
    return system[-1] if system else None


def with_canary(passages: Sequence[Passage], texts: Sequence[str], token: str) -> tuple[str, ...]:
    """Returns ``texts``, which take the places of ``passages``, with the token in the last system message."""
    place = marked_place(passages)
    return tuple(marked(text, token) if index == place else text for index, text in enumerate(texts))


def canary_scanner(token: str) -> PhraseScanner:
    """Returns a scanner that finds the token: also within a word, in any case, with invisible characters, and with its
    letters separated."""
    return PhraseScanner(PhraseAutomaton([Phrase(token, CANARY, within_words=True)]))
