"""``Grammar``: the grammar that an answer must follow (structured output, guided decoding)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

MAX_GRAMMAR_CHARS = 65_536
"""Most characters in the source of one grammar."""

JSON_STYLE: Mapping[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How answers write JSON, as options of llguidance: as Python's json.dumps does, so that most of an object's syntax is
forced and need not be sampled."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that an answer must follow (vLLM's ``StructuredOutputsParams``).

    ``source`` is written in the language that ``kind`` names. ``param`` is the request field that the grammar came
    from; errors name that field. ``label`` is the name of the grammar in error messages, for example "The schema of a
    tool"; if it is empty they name its ``kind``. Neither takes part in comparison, because equal sources compile to the
    same grammar. ``strict`` matters for JSON schemas only: with it, a keyword that cannot be enforced is an error;
    without it, the keyword is ignored (``unenforced_keywords`` lists them). Creating a grammar checks nothing: the
    engine compiles it with the first request that has it, and refuses a malformed ``source``, or one of more than
    MAX_GRAMMAR_CHARS characters, with RequestError.
    """

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    source: str
    param: str = field(default="grammar", compare=False)
    label: str = field(default="", compare=False)
    strict: bool = True

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, strict: bool = True) -> Self:
        """Makes a grammar of JSON that is valid under ``schema``, written as by Python's json.dumps. True: any JSON."""
        return cls("json_schema", json.dumps(schema), strict=strict)

    @classmethod
    def json_object(cls) -> Self:
        """Makes a grammar of any JSON object."""
        return cls("json_object", "")

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Makes a grammar of texts that ``pattern`` matches completely. The syntax is Rust's, without look-around."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, choices: Sequence[str]) -> Self:
        """Makes a grammar of the texts ``choices``."""
        return cls("choice", json.dumps(list(choices)))

    @classmethod
    def lark(cls, text: str) -> Self:
        """Makes a context-free grammar in Lark's syntax; its start rule is ``start``."""
        return cls("lark", text)
