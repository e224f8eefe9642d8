"""What an answer is to be as a whole: of a form, or the likeliest that can be found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from engine.errors import RequestError

MOST_BEAMS = 32
MOST_BEAM_STOPS = 16  # tokens that end an answer: a search looks at more candidates for each


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must look like."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    source: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool) -> Self:
        """JSON that is valid by ``schema``, written as Python's json.dumps does."""
        return cls("json_schema", json.dumps(schema))

    @classmethod
    def json_object(cls) -> Self:
        """Any JSON object."""
        return cls("json_object", "")

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Text that ``pattern`` matches as a whole; Rust's syntax, without look-around."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, choices: Sequence[str]) -> Self:
        """One of ``choices``."""
        return cls("choice", json.dumps(list(choices)))

    @classmethod
    def lark(cls, text: str) -> Self:
        """A context-free grammar in the syntax of Lark; its start is ``start``."""
        return cls("lark", text)


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """Looks for the likeliest answers as wholes, ``width`` beginnings at a time: transformers' search, its names and
    its scores. A score is the sum of log probabilities over (tokens ** ``length_penalty``).

    Ends when there are ``width`` whole answers, with ``early_stopping``; without, when no beginning is likely to become
    better than the worst of them; with ``"never"``, when none can be. ``do_sample`` draws the next tokens of all
    beginnings together, without replacement, after temperature and cuts.

    Raises RequestError, naming the field, for a value out of range."""

    width: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    do_sample: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MOST_BEAMS:
            raise RequestError(f"A beam search has a width between 1 and {MOST_BEAMS}, got {self.width!r}", "beam")
        if not -10.0 <= self.length_penalty <= 10.0:
            raise RequestError("length_penalty must be between -10 and 10", "length_penalty")
        if self.early_stopping not in (True, False, "never"):
            raise RequestError('early_stopping must be true, false or "never"', "early_stopping")
