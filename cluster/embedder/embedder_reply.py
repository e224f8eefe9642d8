"""``EmbedderReply``: what a replica of the embedder answers. Both ends know it."""

from __future__ import annotations

from dataclasses import dataclass

from router.ports.embedder import Embeddings


@dataclass(frozen=True, slots=True)
class EmbedderReply:
    """``model`` is as in ``Embedder``. One of the others is set: ``failure`` says why there are no embeddings, and
    ``too_long`` has the place, the tokens and the most tokens of a text that is too long."""

    model: str
    embeddings: Embeddings | None = None
    failure: str | None = None
    too_long: tuple[int, int, int] | None = None
