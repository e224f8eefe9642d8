"""``SecondStage``: asks a larger model about the windows that the first is in doubt of, in batches of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety.classifier.artefact import Artefact, Blend, SecondOpinion
from safety.classifier.blending import asked_windows, blended, heeded
from safety.classifier.scoring import probabilities
from safety.classifier.windows import Span
from safety.encoder.batch_runner import MAX_BATCH_TOKENS, BatchRunner, OnBatches

NAME = "second opinion"

MAX_INLINE_TEXT = 1024  # characters of a call; more take over 1 ms to cut into tokens: then off the event loop

FindSpans = Callable[[str], list[Span]]
"""Returns the part of a text that each of its windows is cut from."""


class Second(Protocol):
    """Judges windows by their text. ``second_model.SecondModel`` implements it; its docstrings apply here too."""

    def sequence(self, text: str) -> list[int]: ...
    def logits(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]: ...


class SecondStage:
    """A second model in this process, behind a queue and on a thread of its own. All calls are on one event loop.

    ``runner`` queues the sequences; ``max_batch_tokens`` and ``on_batches`` are as in ``BatchRunner``. Tenants take
    turns in it as in the first stage.
    """

    def __init__(
        self,
        model: Second,
        artefact: Artefact,
        spans: FindSpans,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        on_batches: OnBatches | None = None,
    ) -> None:
        """Raises ValueError if ``artefact`` describes no second opinion."""
        self._model = model
        self._artefact = artefact
        self._spans = spans
        self._second, self._blends = _described(artefact)
        self.runner = BatchRunner(NAME, model.logits, max_batch_tokens, on_batches)

    async def probabilities(
        self, texts: Sequence[str], logits: Sequence[NDArray[np.float32]], tenant: str = "", *, urgent: bool = False
    ) -> list[NDArray[np.float64]]:
        """Returns the probabilities of the windows of each text, [windows, labels]. ``logits`` has the outputs of the
        first model's head, of that shape. ``urgent`` is as in ``SequenceQueue.add``.

        If the caller is cancelled, sequences that have not begun are dropped. Raises BatchFailedError if the second
        model fails, and ClassifierUnavailableError if it returns what is no number.
        """
        found = [probabilities(each, self._artefact) for each in logits]
        asked = [asked_windows(each, self._second.gate) for each in found]
        sequences = await self._sequences(texts, asked)
        if not any(sequences):
            return found
        rows = await self.runner.rows(list(chain.from_iterable(sequences)), tenant, urgent=urgent)
        answers = np.split(rows, np.cumsum([len(each) for each in asked])[:-1])
        for each, first, places, ids, answer in zip(found, logits, asked, sequences, answers, strict=True):
            both = blended(first[places], answer, self._blends)
            each[places] = heeded(each[places], both, self._are_whole(ids))
        return found

    async def _sequences(self, texts: Sequence[str], asked: Sequence[NDArray[np.intp]]) -> list[list[list[int]]]:
        """Returns the sequences of the windows of each text that are asked about."""
        if sum(len(text) for text, places in zip(texts, asked, strict=True) if len(places)) <= MAX_INLINE_TEXT:
            return list(map(self._sequences_of, texts, asked))
        return await asyncio.to_thread(lambda: list(map(self._sequences_of, texts, asked)))

    def _sequences_of(self, text: str, places: NDArray[np.intp]) -> list[list[int]]:
        if not len(places):
            return []
        spans = self._spans(text)
        return [self._model.sequence(text[slice(*spans[place])]) for place in places]

    def _are_whole(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
        """Returns which sequences have a text that was not cut off, bool [sequences]."""
        longest = len(self._second.prefix) + self._second.max_tokens + 1
        return np.array([len(each) < longest for each in sequences], np.bool_)


def _described(artefact: Artefact) -> tuple[SecondOpinion, list[Blend]]:
    blends = [label.blend for label in artefact.labels if label.blend is not None]
    if artefact.second_opinion is None or len(blends) < len(artefact.labels):
        raise ValueError("the classifier's files describe no second opinion")
    return artefact.second_opinion, blends
