"""The JSON of log probabilities, which differs between chat and text completions."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from engine.api import Logprob, TokenLogprobs
from router.openai.json_parts import json_list, with_members

FLOOR = -9999.0
"""The log probability that stands for minus infinity, which JSON cannot express. OpenAI uses the same number."""


def chat_logprobs(tokens: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """Returns the object ``choices[].logprobs`` of chat completions."""
    return {"content": [_scored(token) for token in tokens], "refusal": None}


def chat_logprobs_json(tokens: Sequence[TokenLogprobs]) -> str:
    """Returns ``chat_logprobs`` as JSON, written token by token."""
    return with_members({"refusal": None}, {"content": json_list(_scored(token) for token in tokens)})


class TextOffset:
    """The running ``text_offset`` of one choice: the characters that its tokens have added to the text up to now.

    A character whose bytes span several tokens begins at the first of them. A token that adds no text has the offset
    of the next token.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def next(self, added: bytes) -> int:
        """Advances past the next token, which adds the bytes ``added``. Returns the token's offset in characters."""
        offset = self._characters
        self._characters += len(self._decoder.decode(added))
        return offset


def text_logprobs(tokens: Sequence[TokenLogprobs], offset: TextOffset) -> dict[str, Any]:
    """Advances ``offset`` past ``tokens`` and returns their object ``choices[].logprobs`` of text completions.

    ``offset`` must be at the first of ``tokens``. The first token of a prompt has no log probability (null), because
    nothing precedes it.
    """
    likeliest = [_by_text(token) if token.rank else None for token in tokens]
    return {**_text_fields(tokens, offset), "top_logprobs": likeliest}


def text_logprobs_json(tokens: Sequence[TokenLogprobs], offset: TextOffset) -> str:
    """Does as ``text_logprobs``, and returns its result as JSON, written token by token."""
    likeliest = json_list(_by_text(token) if token.rank else None for token in tokens)
    return with_members(_text_fields(tokens, offset), {"top_logprobs": likeliest})


def prompt_logprobs_json(tokens: Sequence[TokenLogprobs]) -> str:
    """Returns vLLM's ``prompt_logprobs`` as JSON: an object for each token of the prompt, null for the first.

    An object maps token ids to log probability, rank and text, for the token itself and for the likeliest ones.
    """
    return json_list(_ranked(token) if token.rank else None for token in tokens)


def text_of(tokens: Sequence[TokenLogprobs]) -> str:
    """Returns the text of ``tokens``. Special tokens add none."""
    return b"".join(token.text_bytes for token in tokens).decode("utf-8", "replace")


def _scored(token: TokenLogprobs) -> dict[str, Any]:
    """Returns a token and the likeliest ones in its place as chat completions have them."""
    return {**_fields(token.chosen), "top_logprobs": [_fields(one) for one in token.top]}


def _text_fields(tokens: Sequence[TokenLogprobs], offset: TextOffset) -> dict[str, Any]:
    """Returns the lists of text completions that have a plain value for each token."""
    return {
        "tokens": [token.chosen.text for token in tokens],
        "token_logprobs": [_finite(token.chosen.logprob) if token.rank else None for token in tokens],
        "text_offset": [offset.next(token.text_bytes) for token in tokens],
    }


def _ranked(token: TokenLogprobs) -> dict[str, Any]:
    """Returns the token and the likeliest ones in its place, by token id, each with its rank (1: the likeliest)."""
    places = [(token.chosen, token.rank), *((one, rank) for rank, one in enumerate(token.top, start=1))]
    return {
        str(one.token_id): {"logprob": _finite(one.logprob), "rank": rank, "decoded_token": one.text}
        for one, rank in places
    }


def _by_text(token: TokenLogprobs) -> dict[str, float]:
    """Returns the log probabilities of the likeliest tokens and the chosen one, by text.

    Tokens that hold parts of a character share the text U+FFFD; the likeliest of them counts.
    """
    found: dict[str, float] = {}
    for one in (*token.top, token.chosen):
        found.setdefault(one.text, _finite(one.logprob))
    return found


def _fields(token: Logprob) -> dict[str, Any]:
    """Returns the members that a chosen token and an alternative have in common in chat completions."""
    return {"token": token.text, "logprob": _finite(token.logprob), "bytes": list(token.bytes)}


def _finite(logprob: float) -> float:
    return max(logprob, FLOOR)
