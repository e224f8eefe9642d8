"""The strings within a JSON document, names of members included, and the document with other strings. Pure.

Members stay as they are written, in order and with those of one name: what a reader of the document sees must be what
is inspected, whichever of them it takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any


class Members(list[tuple[str, Any]]):
    """The members of a JSON object."""


def document_of(text: str) -> Any:
    """Returns the JSON object or list in ``text``, with objects as Members; None if there is none."""
    try:
        value = json.loads(text, object_pairs_hook=Members)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list | str) else None


def strings_of(value: Any) -> Iterator[str]:
    """Yields all strings, from the first to the last."""
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
    """Returns the document with each string replaced by what ``change`` makes of it, in the order of ``strings_of``."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Members):
        return Members([(change(name), with_strings(each, change)) for name, each in value])
    if isinstance(value, list):
        return [with_strings(each, change) for each in value]
    return value


def dumped(value: Any) -> str:
    """Returns the document as JSON."""
    if isinstance(value, Members):
        return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {dumped(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumped, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
