"""Pairs whose label follows from the labels of two other pairs (the transitive closure of the labels)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Final

from deployments.models.training.pairs.pair import Pair, normal
from deployments.models.training.pairs.splits import components

MAX_GROUP: Final = 6
"""Questions of one group. Larger groups are left out: in most of them a wrong label has joined two questions."""
SAME_SHARE: Final = 0.4  # of the pairs that are returned


def transitive(pairs: Sequence[Pair], source: str, limit: int, rng: random.Random) -> list[Pair]:
    """Returns at most ``limit`` pairs that ``pairs`` does not label. If A is the same as B, and B the same as C, then A
    and C are the same. If A is the same as B, and B differs from C, then A differs from C."""
    labelled = {frozenset((normal(pair.text_a), normal(pair.text_b))) for pair in pairs}
    groups = groups_of([pair for pair in pairs if pair.same])
    same = set(_same(groups)) - labelled
    different = set(_different([pair for pair in pairs if not pair.same], groups)) - labelled - same
    texts = {normal(text): text for pair in pairs for text in (pair.text_a, pair.text_b)}
    made = []
    for label, found, share in ((1, same, SAME_SHARE), (0, different, 1 - SAME_SHARE)):
        drawn = rng.sample(sorted(map(sorted, found)), min(len(found), round(share * limit)))
        made += [Pair(texts[one], texts[other], label, source) for one, other in drawn]
    return made


def groups_of(same: Sequence[Pair]) -> dict[str, list[str]]:
    """Returns the group of each question: the questions that are the same as it, itself included. Questions are
    normalised. Groups of more than MAX_GROUP questions are left out."""
    members: defaultdict[str, set[str]] = defaultdict(set)
    for pair, component in zip(same, components(same), strict=True):
        members[component] |= {normal(pair.text_a), normal(pair.text_b)}
    return {text: sorted(group) for group in members.values() if len(group) <= MAX_GROUP for text in group}


def _same(groups: dict[str, list[str]]) -> Iterator[frozenset[str]]:
    for text, group in groups.items():
        if text == group[0]:
            yield from map(frozenset, combinations(group, 2))


def _different(different: Sequence[Pair], groups: dict[str, list[str]]) -> Iterator[frozenset[str]]:
    for pair in different:
        one, other = normal(pair.text_a), normal(pair.text_b)
        for follows in product(groups.get(one, [one]), groups.get(other, [other])):
            if follows[0] != follows[1]:
                yield frozenset(follows)
