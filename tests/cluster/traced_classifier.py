"""``classifier``: a classifier in this process that notes its batches, over a scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from cluster.telemetry.noted_batches import note_batches
from safety.classifier.batching_classifier import BatchingClassifier
from tests.safety.scripted_model import Scripted, directory, scripted

__all__ = ["classifier", "directory", "scripted"]


@pytest_asyncio.fixture
async def classifier(scripted: Scripted) -> AsyncIterator[BatchingClassifier]:
    made = BatchingClassifier(scripted, on_batches=note_batches)
    yield made
    made.close()
