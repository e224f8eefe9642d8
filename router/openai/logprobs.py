"""Log probabilities of tokens, as the two endpoints write them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from engine.api import Logprob, TokenLogprobs

FLOOR = -9999.0
"""What OpenAI gives for a token that is all but impossible; JSON knows no infinity."""


def chat_logprobs(tokens: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """``choices[].logprobs`` of chat completions."""
    content = [{**_fields(token.chosen), "top_logprobs": [_fields(one) for one in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


class TextPlace:
    """Counts the characters that the tokens of a choice have added to its text.

    A character that several tokens make up begins at the first of them. A token that adds no text begins where the next
    one does.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def next(self, added: bytes) -> int:
        """The offset of a token that adds these bytes to the text, in characters."""
        place = self._characters
        self._characters += len(self._decoder.decode(added))
        return place


def text_logprobs(tokens: Sequence[TokenLogprobs], place: TextPlace) -> dict[str, Any]:
    """Builds ``choices[].logprobs`` of text completions.

    ``place`` gives each token its offset in the text of the choice, and is advanced past the last one. The first token
    of a prompt has no log probability (null), because nothing precedes it.
    """
    return {
        "tokens": [token.chosen.text for token in tokens],
        "token_logprobs": [_finite(token.chosen.logprob) if token.rank else None for token in tokens],
        "top_logprobs": [_by_text(token) if token.rank else None for token in tokens],
        "text_offset": [place.next(token.text_bytes) for token in tokens],
    }


def prompt_fields(tokens: Sequence[TokenLogprobs]) -> list[dict[str, Any] | None]:
    """vLLM's ``prompt_logprobs``: by token id, the prompt's own and the likeliest, with their ranks."""
    return [_ranked(token) if token.rank else None for token in tokens]


def said(tokens: Sequence[TokenLogprobs]) -> str:
    """The text of tokens; special ones have none."""
    return b"".join(token.text_bytes for token in tokens).decode("utf-8", "replace")


def _ranked(token: TokenLogprobs) -> dict[str, Any]:
    places = [(token.chosen, token.rank), *((one, rank) for rank, one in enumerate(token.top, start=1))]
    return {
        str(one.token_id): {"logprob": _finite(one.logprob), "rank": rank, "decoded_token": one.text}
        for one, rank in places
    }


def _by_text(token: TokenLogprobs) -> dict[str, float]:
    """The likeliest tokens and the chosen one. Of several with one text, as parts of a character are, the likeliest."""
    found: dict[str, float] = {}
    for one in (*token.top, token.chosen):
        found.setdefault(one.text, _finite(one.logprob))
    return found


def _fields(token: Logprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": _finite(token.logprob), "bytes": list(token.bytes)}


def _finite(logprob: float) -> float:
    return max(logprob, FLOOR)
