"""Hand-written training questions of many domains: three wordings of each question, and two similar ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Final, NamedTuple

from deployments.models.training.pairs.pair import Pair
from deployments.models.training.pairs.retyped import retyped
from deployments.models.training.pairs.splits import place_of

FILE: Final = Path(__file__).with_name("written.jsonl")
SOURCE: Final = "written"
NEAR_PAIRS: Final = 2  # of each near question, each with another wording


class Group(NamedTuple):
    """``same``: wordings of one question. ``near``: questions that look like it and have other answers."""

    domain: str
    same: tuple[str, ...]
    near: tuple[str, ...]


def groups() -> list[Group]:
    """Reads the groups. Raises OSError."""
    rows = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    return [Group(row["domain"], tuple(row["same"]), tuple(row["near"])) for row in rows]


def cut_by_domain(found: Sequence[Group], share: float) -> tuple[list[Group], list[Group]]:
    """Returns two lists: the groups of about ``share`` of the domains, for tests, and the groups of the other domains,
    for training."""
    kept = {group.domain for group in found if place_of(group.domain) < share}
    return [group for group in found if group.domain in kept], [group for group in found if group.domain not in kept]


def pairs_of(group: Group, rng: random.Random) -> Iterator[Pair]:
    """Yields all pairs of wordings as the same, and each near question with NEAR_PAIRS of them as different."""
    for one, other in combinations(group.same, 2):
        yield Pair(one, other, 1, SOURCE)
    for near in group.near:
        for text in rng.sample(group.same, min(NEAR_PAIRS, len(group.same))):
            yield Pair(text, near, 0, SOURCE)


def drawn(found: Sequence[Group], limit: int, rng: random.Random) -> list[Pair]:
    """Returns ``limit`` pairs. The first pass over the groups leaves the texts as they are. Further passes retype one
    side of each pair."""
    made: list[Pair] = []
    while found and len(made) < limit:
        again = bool(made)
        for group in rng.sample(found, len(found)):
            pairs = pairs_of(group, rng)
            made += [replace(pair, text_b=retyped(pair.text_b, rng)) for pair in pairs] if again else pairs
    return made[:limit]
