"""Translates a ``Grammar`` into llguidance's own language. Pure; a sandbox tries the result before anything else uses
it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from engine.schema_support import without_unenforced
from engine.structured_output import JSON_STYLE, Grammar


def define(grammar: Grammar) -> str:
    """Returns the grammar in llguidance's language. Raises ValueError, with a message for the client, if ``source`` is
    not valid for its ``kind``."""
    if not _is_unicode(grammar.source):
        raise ValueError("it holds half of a surrogate pair, which is no character.")
    match grammar.kind:
        case "json_schema":
            return _of_schema(_parsed(grammar.source), grammar.strict)
        case "json_object":
            return _of_schema({"type": "object"}, strict=True)
        case "regex":
            return _of_pattern(grammar.source)
        case "choice":
            return _of_choices(_parsed(grammar.source))
        case "lark":
            return grammar.source


def _of_schema(schema: object, strict: bool) -> str:
    """Returns the definition of a JSON schema. Without ``strict``, keywords that cannot be enforced are ignored."""
    if isinstance(schema, bool):
        if not schema:
            raise ValueError("the schema false allows nothing.")
        schema = {}
    if not isinstance(schema, dict):
        raise ValueError("a schema is an object, or true.")
    if not strict:
        schema = _lenient(schema)
    options = schema.get("x-guidance", {})
    if not isinstance(options, dict):
        raise ValueError("x-guidance must be an object.")
    options = {**options, **JSON_STYLE, **({} if strict else {"lenient": True})}
    return _grammars({"json_schema": {**schema, "x-guidance": options}})


def _lenient(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema without patterns and references that llguidance would refuse even when it is lenient."""
    try:
        kept = without_unenforced(schema)
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None
    assert isinstance(kept, dict)
    return kept


def _of_choices(choices: object) -> str:
    """Returns a definition with one pattern for all choices. A rule for each would make the parser slow, because it
    tracks every rule that may apply."""
    if not (isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices)):
        raise ValueError("there must be at least one choice, and each must be a string.")
    if not all(map(_is_unicode, choices)):
        raise ValueError("it holds half of a surrogate pair, which is no character.")
    return _of_pattern("|".join(map(_escaped, dict.fromkeys(choices))))


def _of_pattern(pattern: str) -> str:
    """Returns the definition of a regular expression."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_regex(pattern)


def _escaped(text: str) -> str:
    """Returns a pattern that matches exactly ``text``."""
    return "".join(char if char.isalnum() or char == " " else f"\\x{{{ord(char):X}}}" for char in text)


def _grammars(grammar: dict[str, Any]) -> str:
    """Returns the JSON of a definition with one grammar. Raises ValueError if it cannot be written as JSON."""
    try:
        return json.dumps({"grammars": [grammar]}, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None
    except ValueError:
        raise ValueError("a number in it is too large.") from None


def _parsed(source: str) -> object:
    """Parses JSON. Raises ValueError, with a message for the client, for invalid JSON and for NaN and Infinity."""
    try:
        return json.loads(source, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at character {error.pos}.") from None
    except ValueError:
        raise ValueError("it is no JSON: it has a number that JSON cannot write.") from None


def _refuse(constant: str) -> NoReturn:
    """Raises ValueError for NaN and Infinity, which JSON does not have."""
    raise ValueError(constant)


def _is_unicode(text: str) -> bool:
    """Returns whether ``text`` has no surrogates."""
    return not any(0xD800 <= ord(char) < 0xE000 for char in text)
