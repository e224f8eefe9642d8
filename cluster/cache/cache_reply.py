"""``CacheReply``: the reply of a replica of the semantic cache to a router."""

from __future__ import annotations

from dataclasses import dataclass

from router.ports.answer_cache import SemanticMatch


@dataclass(frozen=True, slots=True)
class CacheReply:
    """A reply. ``match`` is the result of ``SemanticIndex.lookup``. ``failure`` says why the replica could not search;
    None: it could."""

    match: SemanticMatch | None = None
    failure: str | None = None
