"""``EmbedderReply``: the reply of a replica of the embedder to a router."""

from __future__ import annotations

from dataclasses import dataclass

from router.ports.embedder import Embeddings


@dataclass(frozen=True, slots=True)
class EmbedderReply:
    """A reply. ``model`` is as in ``Embedder``. One of the other members is set: the embeddings; ``failure``, which
    says why there are none; or ``too_long``, with the index of a text that is too long, its number of tokens and the
    maximum."""

    model: str
    embeddings: Embeddings | None = None
    failure: str | None = None
    too_long: tuple[int, int, int] | None = None
