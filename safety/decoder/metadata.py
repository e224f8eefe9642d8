"""``Metadata``: the keys of a GGUF file with their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from safety.decoder.architecture import UnsupportedDecoderError

Value = TypeVar("Value", int, float, str, list[Any])


class Metadata:
    """The values by key. They are checked as they are taken."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def value(self, key: str, kind: type[Value], default: Value | None = None) -> Value:
        """Returns the value of a key. Raises UnsupportedDecoderError if it is of another type, and if it is missing
        without ``default``."""
        found = self._values.get(key, default)
        if not isinstance(found, kind) or isinstance(found, bool):
            raise UnsupportedDecoderError(f"{key} must be of type {kind.__name__}, not {str(found)[:80]}")
        return found
