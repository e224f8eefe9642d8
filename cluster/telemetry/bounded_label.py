"""``bounded`` and ``FirstLabels``: keep the values of a metric's label to a few, so that clients cannot add series."""

from __future__ import annotations

from collections.abc import Collection

OTHER = "other"


def bounded(value: str, known: Collection[str]) -> str:
    """Returns ``value`` if it is one of ``known``, and OTHER if not: each new value of a label is a new series."""
    return value if value in known else OTHER


class FirstLabels:
    """Gives each of the first ``most`` values its name as its label, and ``other`` to all later ones."""

    def __init__(self, most: int, other: str = OTHER) -> None:
        self._most = most
        self._other = other
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Returns the label of a value."""
        if value not in self._known:
            if len(self._known) >= self._most:
                return self._other
            self._known.add(value)
        return value
