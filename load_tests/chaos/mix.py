"""The requests of a run: each kind of answer whose state has to be the same again after a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {
        "names": {"type": "array", "items": {"type": "string"}, "minItems": 6, "maxItems": 12},
        "count": {"type": "integer"},
    },
    "required": ["names", "count"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "plan_trip",
        "description": "Plans a trip.",
        "parameters": {
            "type": "object",
            "properties": {"stops": {"type": "array", "items": {"type": "string"}, "minItems": 5, "maxItems": 10}},
            "required": ["stops"],
            "additionalProperties": False,
        },
    },
}
# They begin as many answers go on, so that text is held back all the time, and never come whole.
END = "2"  # the token that ends an answer of the tier fast; with min_tokens instead, stop strings would not count
STOPS = ["e \u0001", "a \u0001", ". \u0001", " \u0001"]

KINDS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 0.9, "top_p": 0.95},
    "choices": {"temperature": 0.8, "n": 3},
    "schema": {
        "temperature": 0.8,
        "min_tokens": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "names", "schema": SCHEMA}},
    },
    "tools": {"temperature": 0.8, "min_tokens": 0, "tools": [TOOL], "tool_choice": "required"},
    "stops": {"temperature": 0.7, "stop": STOPS, "min_tokens": 0, "logit_bias": {END: -100}},
    "logprobs": {"temperature": 0.7, "logprobs": True, "top_logprobs": 3},
    "penalties": {"temperature": 0.8, "presence_penalty": 0.5, "frequency_penalty": 0.4, "repetition_penalty": 1.1},
    "bad_words": {"temperature": 0.8, "bad_words": ["the", "is", "and"]},
    "prompt_logprobs": {"temperature": 0, "prompt_logprobs": 2, "stream": False},
    "beams": {"temperature": 0, "use_beam_search": True, "best_of": 4, "n": 2, "min_tokens": 0, "max_tokens": 48},
}
"""The fields of each kind, beside those that all have. All but ``prompt_logprobs``, which the API gives with whole
answers alone, are streamed."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a run: its kind, and the body for ``POST /v1/chat/completions``."""

    kind: str
    body: Mapping[str, Any]


def mix(streams: int, max_tokens: int, kinds: Mapping[str, Mapping[str, Any]] = KINDS) -> list[Request]:
    """Returns ``streams`` requests, the kinds in turn. Every answer is determined: greedy, or by a seed of its own.

    ``max_tokens`` is the length of answers that do not end by themselves. The stored answers of the service are not
    used.
    """
    return [
        Request(kind, _body(number, max_tokens, kinds[kind]))
        for number, kind in enumerate(islice(cycle(kinds), streams))
    ]


def _body(number: int, max_tokens: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    body = {
        "model": "fast",
        "messages": [{"role": "user", "content": f"Tell me a long story about traveller number {number}."}],
        "max_tokens": max_tokens,
        "seed": 1000 + number,
        "min_tokens": max_tokens,  # not ignore_eos: the tokens behind an end have no text, which looks like a pause
        "stream": True,
        "cache": {"mode": "off"},
        **fields,
    }
    return {**body, "stream_options": {"include_usage": True}} if body["stream"] else body
