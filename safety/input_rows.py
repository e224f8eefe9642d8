"""``read_rows``: reads the input of the commands of ``python -m safety``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any


class InputError(Exception):
    """A line or an option of a command is wrong."""


def read_rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yields the objects in JSON lines. Blank lines are left out. Raises InputError, with the line number, for a
    malformed line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {number}: no JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(f'line {number}: must be an object with "text", a string')
        yield row
