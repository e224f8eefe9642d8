"""``FakeEmbedder``: a deterministic embedder without a model, for tests of what uses the port."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.ports.embedder import Embedded, EmbedderUnavailableError, TextTooLongError

SPECIAL_TOKENS = 2


class FakeEmbedder:
    """Implements ``Embedder``. A vector is the sum of random ones of the text's words, case ignored, so texts with the
    same words are similar. A token is a word or a mark.

    ``available`` False: calls raise EmbedderUnavailableError. ``stuck`` True: calls never end. ``calls`` has the texts
    of each call, and ``tenants`` its tenant.
    """

    model = "fake@1"

    def __init__(self, dimensions: int = 64, max_tokens: int = 256) -> None:
        self.dimensions = dimensions
        self.max_tokens = max_tokens
        self.available = True
        self.stuck = False
        self.calls: list[list[str]] = []
        self.tenants: list[str] = []

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        self.calls.append(list(texts))
        self.tenants.append(tenant)
        if not self.available:
            raise EmbedderUnavailableError("the fake embedder is switched off")
        if self.stuck:
            await asyncio.Event().wait()
        words = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]
        tokens = tuple(len(each) + SPECIAL_TOKENS for each in words)
        for index, count in enumerate(tokens):
            if count > self.max_tokens:
                raise TextTooLongError(index, count, self.max_tokens)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, each in zip(vectors, words, strict=True):
            row += sum((self._vector(word) for word in each), 0.01 * self._vector("")).astype(np.float32)
            row /= np.linalg.norm(row)
        return Embedded(vectors, tokens, self.model)

    def _vector(self, word: str) -> NDArray[np.float64]:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.dimensions)
