"""The two relations that IFEval's instructions have to a number."""

from __future__ import annotations

from typing import Literal

Relation = Literal["at least", "less than"]
RELATIONS: tuple[Relation, ...] = ("at least", "less than")


def holds(count: int, relation: Relation, number: int) -> bool:
    """Whether ``count`` is at least, or less than, ``number``. Raises ValueError for another relation."""
    if relation not in RELATIONS:
        raise ValueError(f"relations are {', '.join(RELATIONS)}, got {relation!r}")
    return count >= number if relation == "at least" else count < number
