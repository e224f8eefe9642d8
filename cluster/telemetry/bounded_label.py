"""``bounded``: keeps the values of a metric's label to a known set, so that clients cannot add series."""

from __future__ import annotations

from collections.abc import Collection

OTHER = "other"


def bounded(value: str, known: Collection[str]) -> str:
    """Returns ``value`` if it is one of ``known``, and OTHER if not: each new value of a label is a new series."""
    return value if value in known else OTHER
