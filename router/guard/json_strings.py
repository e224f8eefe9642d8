"""Reads the texts in a JSON document, and replaces them. Pure.

Texts are strings, names of members and numbers.

Members of an object keep their order, and members with the same name are all kept: readers of JSON differ in which of
these they take, and each must have been inspected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

ESCAPE = re.compile(r"(?<!\\)\\++u([0-9a-fA-F]{4})")
r"""A letter as JSON may write it, ``\u0040``, or JSON within JSON, ``\\u0040``."""
MAX_DEPTH = 128
"""Deeper JSON is not taken apart: functions that call themselves for each level would reach the interpreter's limit."""


class Members(list[tuple[str, Any]]):
    """The members of a JSON object, as pairs of name and value."""


class Number(str):
    """A JSON number as it is written. It is kept as text because it may be a card number."""

    __slots__ = ()


def document_of(text: str) -> Any:
    """Returns the JSON value in ``text``, with objects as Members and numbers as Number; None if ``text`` is no JSON
    object, list, string or number, or is nested more than MAX_DEPTH deep."""
    try:
        value = json.loads(text, object_pairs_hook=Members, parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError):
        return None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        return None
    return value if isinstance(value, list | str) else None


def _is_deep(value: Any) -> bool:
    """Returns whether a document is nested more than MAX_DEPTH deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for each in level for inner in _values_of(each)]
    return bool(level)


def _values_of(value: Any) -> Sequence[Any]:
    if isinstance(value, Members):
        return [each for _, each in value]
    return value if isinstance(value, list) else ()


def with_letters(text: str) -> str:
    r"""Returns ``text`` with the letters that escapes such as ``\u0040`` stand for. Text that is no JSON, but quotes it
    or is a cut-off piece of it, could otherwise hide what is to be redacted."""
    if "\\u" not in text:
        return text
    letters = ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return letters.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def strings_of(value: Any) -> Iterator[str]:
    """Yields all texts of the document: strings, names of members and numbers, in document order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Members):
        for name, each in value:
            yield name
            yield from strings_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings_of(each)


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Returns the document with each text replaced by the result of ``change``. ``change`` is called in the order of
    ``strings_of``. A number that changes becomes a string."""
    if isinstance(value, str):
        changed = change(value)
        return value if changed == value else changed
    if isinstance(value, Members):
        return Members([(change(name), with_strings(each, change)) for name, each in value])
    if isinstance(value, list):
        return [with_strings(each, change) for each in value]
    return value


def with_first_string(value: Any, text: str) -> Any:
    """Returns the document with ``text`` as its first string and all others empty. Names of members and numbers
    stay."""
    rest = iter([text])

    def changed(each: Any) -> Any:
        if isinstance(each, Number):
            return each
        if isinstance(each, str):
            return next(rest, "") if each else each
        if isinstance(each, Members):
            return Members([(name, changed(member)) for name, member in each])
        return [changed(item) for item in each] if isinstance(each, list) else each

    return changed(value)


def dumped(value: Any) -> str:
    """Returns the document, with Members and Number in it, as JSON text."""
    if isinstance(value, Number):
        return value
    if isinstance(value, Members):
        return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {dumped(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumped, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
