"""The vectors of chunks: the cache forgets while others wait, and the embedder may be replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from router.ports.embedder import Embedded, EmbedderUnavailableError
from router.retrieval.chunk_embedder import ChunkEmbedder
from tests.embedder.fake_embedder import FakeEmbedder


class Gated(FakeEmbedder):
    """Waits for ``gate`` in calls with ``held``, and has the model ``then`` afterwards."""

    def __init__(self, held: str, then: str = "fake@1") -> None:
        super().__init__()
        self.held = held
        self.then = then
        self.gate = asyncio.Event()

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        if self.held in texts:
            await self.gate.wait()
            self.model = self.then
        return await super().embed(texts, tenant)


async def test_a_vector_that_others_make_the_cache_forget_meanwhile_is_there_all_the_same() -> None:
    embedder = Gated("slow")
    chunks = ChunkEmbedder(embedder, max_remembered=2)
    [known] = (await chunks.vectors(["known"])).rows
    asked = asyncio.create_task(chunks.vectors(["known", "slow"]))
    await asyncio.sleep(0)
    await chunks.vectors(["a", "b", "c"])
    embedder.gate.set()

    found = await asked

    assert np.array_equal(found.rows[0], known)


async def test_vectors_of_two_models_are_not_mixed() -> None:
    embedder = Gated("slow", then="fake@2")
    chunks = ChunkEmbedder(embedder)
    await chunks.vectors(["known"])
    embedder.gate.set()

    with pytest.raises(EmbedderUnavailableError, match="replaced"):
        await chunks.vectors(["known", "slow"])

    await chunks.vectors(["known"])
    assert embedder.calls == [["known"], ["slow"], ["known"]]
