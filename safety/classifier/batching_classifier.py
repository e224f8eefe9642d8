"""``BatchingClassifier``: scores texts of many callers at the same time, in batches, on a thread for each model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety.api import ClassifierBusyError, ClassifierUnavailableError, Scores
from safety.classifier.artefact import Artefact
from safety.classifier.scoring import probabilities, scores_of
from safety.classifier.second_stage import Second, SecondStage
from safety.classifier.windows import Span
from safety.encoder.batch_runner import MAX_BATCH_TOKENS, BatchFailedError, BatchRunner, OnBatches

MAX_TENANT_WINDOWS = 1024
"""The default for the most windows of a tenant that wait: some 400,000 characters, 40 s of a core. More would miss
their deadline. A text that is longer still waits alone."""

SECOND_WINDOWS = 5
"""The windows of the first model that one of the second takes the time of."""

MAX_SHORT_CALL = 4
"""The windows of a call that waits whatever else of its tenant does: a prompt of usual length, or a check of an answer.
It comes before long texts of the tenant, which would otherwise end all answers of the tenant."""

MAX_INLINE_TEXT = 4096  # characters; more take over 1 ms to cut into word pieces, which is then done off the event loop


class Model(Protocol):
    """Judges windows. ``window_classifier.WindowClassifier`` implements it; its docstrings apply here too."""

    @property
    def artefact(self) -> Artefact: ...
    def windows(self, text: str) -> list[list[int]]: ...
    def spans(self, text: str) -> list[Span]: ...
    def logits(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]: ...


class BatchingClassifier:
    """Implements ``TextClassifier`` with a model in this process. All calls are on one event loop. ``runner`` queues
    the windows. A batch has at most ``max_batch_tokens`` tokens. ``classify`` refuses a call of more than
    MAX_SHORT_CALL windows if windows of its tenant wait and would be more than ``max_tenant_windows`` with its own.
    ``on_batches`` is as in ``BatchRunner``; it gets the facts of each model.

    ``second`` is asked about windows of which ``model`` is in doubt, as its artefact says; None: none is. The attribute
    ``second`` is the stage that asks it.
    """

    def __init__(
        self,
        model: Model,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        max_tenant_windows: int = MAX_TENANT_WINDOWS,
        on_batches: OnBatches | None = None,
        second: Second | None = None,
    ) -> None:
        """Raises ValueError if there is a ``second`` and the artefact of ``model`` describes no second opinion."""
        self._model = model
        self._max_tenant_windows = max_tenant_windows
        self.runner = BatchRunner("classifier", model.logits, max_batch_tokens, on_batches)
        self.second: SecondStage | None = None
        if second is not None:
            self.second = SecondStage(second, model.artefact, model.spans, max_batch_tokens, on_batches)

    @property
    def version(self) -> str:
        return self._model.artefact.version_with(self.second is not None)

    def busy_s(self) -> float:
        """Returns the seconds for which the present batch has been computed, of two models the longer time; 0 if there
        is none."""
        return max(runner.busy_s() for runner in self._runners())

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> list[Scores]:
        """Returns the scores of each text, in order. ``urgent`` is as in ``TextClassifier``. If the caller is
        cancelled, windows that have not begun are dropped.

        Raises ClassifierUnavailableError if a model fails or a score is no probability, and ClassifierBusyError if
        too many windows of the tenant wait already.
        """
        windows = [await self._windows(text) for text in texts]
        if not windows:
            return []
        count, waiting = sum(map(len, windows)), self._waiting(tenant)
        if count > MAX_SHORT_CALL and waiting and waiting + count > self._max_tenant_windows:
            raise ClassifierBusyError(f"{waiting} windows of the tenant wait already")
        try:
            rows = await self.runner.rows(list(chain.from_iterable(windows)), tenant, urgent=urgent)
            logits = np.split(rows, np.cumsum([len(each) for each in windows])[:-1])
            found = await self._probabilities(texts, logits, tenant, urgent=urgent)
        except BatchFailedError as error:
            raise ClassifierUnavailableError(str(error)) from error
        return [scores_of(each, self._model.artefact) for each in found]

    def close(self) -> None:
        """Ends the threads after the batches that are being computed."""
        for runner in self._runners():
            runner.close()

    def _runners(self) -> list[BatchRunner]:
        return [self.runner] if self.second is None else [self.runner, self.second.runner]

    def _waiting(self, tenant: str) -> int:
        """Returns the number of windows of a tenant that wait, each that waits for the second model for several."""
        later = 0 if self.second is None else self.second.runner.waiting(tenant)
        return self.runner.waiting(tenant) + SECOND_WINDOWS * later

    async def _probabilities(
        self, texts: Sequence[str], logits: Sequence[NDArray[np.float32]], tenant: str, *, urgent: bool
    ) -> list[NDArray[np.float64]]:
        if self.second is None:
            return [probabilities(each, self._model.artefact) for each in logits]
        return await self.second.probabilities(texts, logits, tenant, urgent=urgent)

    async def _windows(self, text: str) -> list[list[int]]:
        if len(text) <= MAX_INLINE_TEXT:
            return self._model.windows(text)
        return await asyncio.to_thread(self._model.windows, text)
