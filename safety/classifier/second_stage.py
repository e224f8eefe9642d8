"""``SecondStage``: asks a larger model about the windows that the first is in doubt of, in batches of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety.classifier.artefact import Artefact, Blend, SecondOpinion
from safety.classifier.blending import asked_windows, blended
from safety.classifier.scoring import probabilities
from safety.classifier.windows import Span
from safety.encoder.batch_runner import MAX_BATCH_TOKENS, BatchRunner, OnBatches

NAME = "second opinion"

MAX_INLINE_TEXT = 1024  # characters of a call; more take over 1 ms to cut into tokens: then off the event loop

_Window = tuple[int, Sequence[int]]
"""The index of a window of a text, and its token ids for the second model."""

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
        windows = await self._windows(texts, asked)
        if not any(windows):
            return found
        rows = await self.runner.rows([ids for each in windows for _, ids in each], tenant, urgent=urgent)
        answers = np.split(rows, np.cumsum([len(each) for each in windows])[:-1])
        for each, first, read, answer in zip(found, logits, windows, answers, strict=True):
            if places := [place for place, _ in read]:
                each[places] = blended(first[places], answer, self._blends)
        return found

    async def _windows(self, texts: Sequence[str], asked: Sequence[NDArray[np.intp]]) -> list[list[_Window]]:
        """Returns those windows of each text, of the ``asked`` ones, that the second model can read to their ends."""
        if sum(len(text) for text, places in zip(texts, asked, strict=True) if len(places)) <= MAX_INLINE_TEXT:
            return list(map(self._windows_of, texts, asked))
        return await asyncio.to_thread(lambda: list(map(self._windows_of, texts, asked)))

    def _windows_of(self, text: str, places: NDArray[np.intp]) -> list[_Window]:
        if not len(places):
            return []
        spans = self._spans(text)
        longest = len(self._second.prefix) + self._second.max_tokens
        windows = [(int(place), self._model.sequence(text[slice(*spans[place])])) for place in places]
        # One that reaches the limit may have been cut off, and what was cut off may be the attack.
        return [(place, ids) for place, ids in windows if len(ids) <= longest]


def _described(artefact: Artefact) -> tuple[SecondOpinion, list[Blend]]:
    blends = [label.blend for label in artefact.labels if label.blend is not None]
    if artefact.second_opinion is None or len(blends) < len(artefact.labels):
        raise ValueError("the classifier's files describe no second opinion")
    return artefact.second_opinion, blends
