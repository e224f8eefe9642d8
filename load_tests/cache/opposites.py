"""A thousand pairs of questions that differ in one thing, of ten kinds. Training has seen none of their frames.

A kind has ten frames and ten fillings; every filling stands in every frame, whether the question makes sense or not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from load_tests.cache.pair_rows import LabelledPair


class Opposite(NamedTuple):
    """A pair, and its kind."""

    kind: str
    pair: LabelledPair


def opposites() -> list[Opposite]:
    """Returns the pairs, a hundred of each kind. All are different."""
    kinds: dict[str, Any] = json.loads(Path(__file__).with_name("opposites.json").read_text(encoding="utf-8"))
    return [
        Opposite(kind, LabelledPair(one, other, False)) for kind, lists in kinds.items() for one, other in _pairs(lists)
    ]


def _pairs(lists: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for frame in lists["frames"]:
        for filling in lists.get("ab") or lists["x"]:
            yield _pair(frame, filling, directed="ab" in lists)


def _pair(frame: str | list[str], filling: str | list[str], directed: bool) -> tuple[str, str]:
    """``frame``: one text, or two that differ. ``filling``: one word, or two."""
    first, second = (frame, frame) if isinstance(frame, str) else frame
    if directed:
        return first.format(a=filling[0], b=filling[1]), second.format(a=filling[0], b=filling[1])
    if isinstance(filling, str):
        return first.format(x=filling), second.format(x=filling)
    return first.format(x=filling[0]), first.format(x=filling[1])
