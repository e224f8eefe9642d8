"""``BatchingEmbedder``: embeds texts of many callers at the same time, in batches, on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.embedder.sentence_model_files import SentenceArtefact
from router.ports.embedder import Embedded, EmbedderUnavailableError, TextTooLongError
from safety.encoder.batch_runner import MAX_BATCH_TOKENS, BatchFailedError, BatchRunner, OnBatches

MAX_INLINE_CHARACTERS = 4096
"""Characters of a call; more take over 1 ms to cut into word pieces, which is then done off the event loop."""


class Model(Protocol):
    """The model that computes vectors. ``sentence_encoder.SentenceEncoder`` implements it; its docstrings apply here
    too."""

    @property
    def artefact(self) -> SentenceArtefact: ...
    def tokens(self, text: str) -> list[int]: ...
    def vectors(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]: ...


class BatchingEmbedder:
    """Implements ``Embedder`` with a model in this process. All calls are on one event loop. ``runner`` queues the
    texts. A batch has at most ``max_batch_tokens`` tokens. ``on_batches`` is as in ``BatchRunner``."""

    def __init__(
        self, model: Model, max_batch_tokens: int = MAX_BATCH_TOKENS, on_batches: OnBatches | None = None
    ) -> None:
        self._model = model
        self.runner = BatchRunner("embedder", model.vectors, max_batch_tokens, on_batches)

    @property
    def model(self) -> str:
        return self._model.artefact.model

    @property
    def dimensions(self) -> int:
        return self._model.artefact.settings.dimensions

    @property
    def max_tokens(self) -> int:
        return self._model.artefact.settings.max_tokens

    def busy_s(self) -> float:
        """Returns the seconds for which the present batch has been computed; 0 if there is none."""
        return self.runner.busy_s()

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        """Returns the embeddings of ``texts``. If the caller is cancelled, its texts that still wait are dropped.
        Tenants take turns (``SequenceQueue``), and of a tenant's calls the shortest comes first.

        Raises TextTooLongError for a text with more tokens than the model takes, and EmbedderUnavailableError if the
        model fails.
        """
        if not texts:
            return Embedded(np.zeros((0, self.dimensions), np.float32), (), self.model)
        if sum(map(len, texts)) <= MAX_INLINE_CHARACTERS:
            sequences = self._sequences(texts)
        else:
            sequences = await asyncio.to_thread(self._sequences, texts)
        # By length, so that few places of a batch are padding.
        order = sorted(range(len(texts)), key=lambda place: len(sequences[place]))
        try:
            rows = await self.runner.rows([sequences[place] for place in order], tenant)
        except BatchFailedError as error:
            raise EmbedderUnavailableError(str(error)) from error
        vectors = np.empty_like(rows)
        vectors[order] = rows
        return Embedded(vectors, tuple(map(len, sequences)), self.model)

    def close(self) -> None:
        """Ends the thread after the batch that is being computed."""
        self.runner.close()

    def _sequences(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text. Raises TextTooLongError."""
        sequences = []
        for index, text in enumerate(texts):
            sequences.append(self._model.tokens(text))
            if len(sequences[-1]) > self.max_tokens:
                raise TextTooLongError(index, len(sequences[-1]), self.max_tokens)
        return sequences
