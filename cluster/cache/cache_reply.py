"""``CacheReply``: what a replica of the semantic cache answers. Both ends know it."""

from __future__ import annotations

from dataclasses import dataclass

from router.ports.answer_cache import SemanticMatch


@dataclass(frozen=True, slots=True)
class CacheReply:
    """``match`` as ``SemanticIndex.lookup`` returns it. ``failure``: why the replica could not look."""

    match: SemanticMatch | None = None
    failure: str | None = None
