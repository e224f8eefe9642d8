"""Cuts by connected components of questions: two pairs that share a question, also by way of others, stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from deployments.models.training.pairs.pair import Pair, normal
from deployments.models.training.safety.splits import NearDuplicates


def components(pairs: Sequence[Pair]) -> list[str]:
    """Returns the name of each pair's component: the least normalised text in it (union-find by path halving)."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for pair in pairs:
        one, other = sorted((root(normal(pair.text_a)), root(normal(pair.text_b))))
        parent[other] = one
    return [root(normal(pair.text_a)) for pair in pairs]


def place_of(component: str) -> float:
    """Returns where a component lies from 0 to 1, by a hash of its name: data sets that grow keep their cut. No seed
    of a training changes it, so the mean of two trainings is judged by pairs that neither has seen."""
    digest = hashlib.sha256(f"0 {component}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def cut(pairs: Sequence[Pair], shares: Sequence[float]) -> list[list[Pair]]:
    """Returns one list for each of ``shares`` (they add up to less than 1), and one with the rest."""
    parts: list[list[Pair]] = [[] for _ in range(len(shares) + 1)]
    for pair, component in zip(pairs, components(pairs), strict=True):
        place, part = place_of(component), 0
        while part < len(shares) and place >= shares[part]:
            place -= shares[part]
            part += 1
        parts[part].append(pair)
    return parts


def without_near_duplicates(pairs: Sequence[Pair], kept_apart: Iterable[Pair]) -> list[Pair]:
    """Returns the pairs of which no text is a near-duplicate of one in ``kept_apart``."""
    known = NearDuplicates(normal(text) for pair in kept_apart for text in (pair.text_a, pair.text_b))
    return [pair for pair in pairs if normal(pair.text_a) not in known and normal(pair.text_b) not in known]
