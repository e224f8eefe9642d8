"""JSON that is written in parts.

``json.dumps`` holds the interpreter's lock until it returns. For the log probabilities of a long answer that is a
second in which no other request gets a token, also if a thread calls it. Between two parts other threads can run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def json_list(items: Iterable[Any]) -> str:
    """Returns ``items`` as a JSON array, each of them written by itself."""
    return f"[{', '.join(json.dumps(item) for item in items)}]"


def with_members(document: Mapping[str, Any], members: Mapping[str, str]) -> str:
    """Returns ``document``, which has a member at least, as a JSON object with further ``members``, whose values are
    JSON already."""
    further = (f", {json.dumps(name)}: {value}" for name, value in members.items())
    return "".join((json.dumps(document)[:-1], *further, "}"))
