"""``ChunkEmbedder``: the vectors of chunks and queries, through the port ``Embedder``. It caches the last vectors,
since clients send the same documents with each turn of a conversation."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.ports.embedder import Embedded, Embedder, EmbedderUnavailableError, TextTooLongError

MAX_REMEMBERED = 8192  # vectors, of less than 1 KB each
MARGIN = 0.95  # of the length that should fit, since tokens are not spread evenly
BATCH = 16  # texts of one call, so that calls of others find their turn


class ChunkVectors(NamedTuple):
    """The vectors of some texts: float32 [texts, dimensions], each of length 1. ``model`` has made all of them."""

    rows: NDArray[np.float32]
    model: str


class ChunkEmbedder:
    """Embeds texts, with a cache. ``model`` (``name@version``) and ``dimensions`` are those of the embedder.
    ``max_remembered`` is the number of vectors in the cache."""

    def __init__(self, embedder: Embedder, max_remembered: int = MAX_REMEMBERED) -> None:
        self._embedder = embedder
        self._max_remembered = max_remembered
        self._known: OrderedDict[bytes, NDArray[np.float16]] = OrderedDict()

    @property
    def model(self) -> str:
        return self._embedder.model

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    async def vectors(self, texts: Sequence[str], tenant: str = "") -> ChunkVectors:
        """Returns the vectors of texts of a tenant by ``model``. A text that is too long for the model is cut at its
        end. Raises EmbedderUnavailableError if the embedder does not answer, or with vectors of another model."""
        model = self.model
        salt = hashlib.blake2b(model.encode(), digest_size=64).digest()
        keys = [hashlib.blake2b(text.encode(), digest_size=16, key=salt).digest() for text in texts]
        # Taken before others are waited for, whose calls may let the cache forget them.
        found = {key: self._known[key] for key in keys if key in self._known}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        new = list(missing)
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            made = await self._embed([missing[key] for key in part], tenant)
            if made.model != model:  # vectors of two models must not be mixed
                raise EmbedderUnavailableError("the embedder is being replaced by another model")
            rows = dict(zip(part, made.vectors.astype(np.float16), strict=True))
            found.update(rows)
            self._remember(rows)  # at once: after a fault of a later batch this one is not made again
        self._remember(found)
        vectors = [found[key] for key in keys]
        return ChunkVectors(np.array(vectors, np.float32).reshape(len(texts), self.dimensions), model)

    def _remember(self, vectors: Mapping[bytes, NDArray[np.float16]]) -> None:
        for key, vector in vectors.items():
            self._known[key] = vector
            self._known.move_to_end(key)
        while len(self._known) > self._max_remembered:
            self._known.popitem(last=False)

    async def _embed(self, texts: Sequence[str], tenant: str) -> Embedded:
        cut = list(texts)
        while True:
            try:
                return await self._embedder.embed(cut, tenant)
            except TextTooLongError as error:
                text = cut[error.index]
                cut[error.index] = text[: min(len(text) - 1, int(MARGIN * len(text) * error.max_tokens / error.tokens))]
