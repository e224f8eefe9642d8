"""Tenants take turns at the embedder, and everything that asks it says whose texts they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.embedder.batching_embedder import BatchingEmbedder
from cluster.embedder.embedder_replica import EmbedderReplica
from cluster.embedder.sentence_encoder import SentenceEncoder
from cluster.embedder.sentence_model_files import SentenceArtefact, read_artefact
from tests.embedder.models import embedder_config, write_model


class HeldModel:
    """A model whose batches wait until ``go`` is set. ``batches`` has the number of the sequences of each."""

    def __init__(self, model: SentenceEncoder) -> None:
        self._model = model
        self.begun, self.go = threading.Event(), threading.Event()
        self.batches: list[int] = []

    @property
    def artefact(self) -> SentenceArtefact:
        return self._model.artefact

    def tokens(self, text: str) -> list[int]:
        return self._model.tokens(text)

    def vectors(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append(len(batch))
        self.begun.set()
        self.go.wait()
        return self._model.vectors(batch)


def held(directory: Path) -> HeldModel:
    config = embedder_config(write_model(directory))
    return HeldModel(SentenceEncoder(read_artefact(config), config.precision))


async def test_a_hundred_calls_of_a_tenant_delay_another_by_a_batch(tmp_path: Path) -> None:
    model = held(tmp_path)
    embedder = BatchingEmbedder(model, max_batch_tokens=64)
    replica = EmbedderReplica(embedder_config("unused"), lambda _: embedder)
    busy = [asyncio.create_task(replica.embed(["the rain is lovely"] * 16, "busy")) for _ in range(100)]
    await asyncio.to_thread(model.begun.wait)
    other = asyncio.create_task(replica.embed(["short rain today"], "other"))
    await asyncio.sleep(0.01)  # it is queued
    model.go.set()

    reply = await other

    assert reply.embeddings is not None
    assert len(model.batches) <= 3
    assert not any(task.done() for task in busy)
    for task in busy:
        task.cancel()
    await asyncio.wait(busy)
    embedder.close()


async def test_the_vectors_of_tenants_in_one_batch_are_their_own(tmp_path: Path) -> None:
    model = held(tmp_path)
    model.go.set()
    embedder = BatchingEmbedder(model)
    texts = {"a": "the rain is lovely", "b": "interest rates rose", "c": "short"}
    together = await asyncio.gather(*(embedder.embed([text], tenant) for tenant, text in texts.items()))
    for text, found in zip(texts.values(), together, strict=True):
        np.testing.assert_allclose((await embedder.embed([text])).vectors, found.vectors, atol=1e-5)
    embedder.close()
