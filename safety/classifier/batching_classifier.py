"""``BatchingClassifier``: scores texts of many callers at the same time, in batches, on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety.api import ClassifierBusyError, ClassifierUnavailableError, Scores
from safety.classifier.artefact import Artefact
from safety.classifier.scoring import scores_of
from safety.encoder.batch_runner import MAX_BATCH_TOKENS, BatchFailedError, BatchRunner, OnBatches

MAX_TENANT_WINDOWS = 1024
"""The default for the most windows of a tenant that wait: some 400,000 characters, 40 s of a core. More would miss
their deadline. A text that is longer still waits alone."""

MAX_SHORT_CALL = 4
"""The windows of a call that waits whatever else of its tenant does: a prompt of usual length, or a check of an answer.
It comes before long texts of the tenant, which would otherwise end all answers of the tenant."""

MAX_INLINE_TEXT = 4096  # characters; more take over 1 ms to cut into word pieces, which is then done off the event loop


class Model(Protocol):
    """Scores windows. ``window_classifier.WindowClassifier`` implements it; its docstrings apply here too."""

    @property
    def artefact(self) -> Artefact: ...
    def windows(self, text: str) -> list[list[int]]: ...
    def score(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float64]: ...


class BatchingClassifier:
    """Implements ``TextClassifier`` with a model in this process. All calls are on one event loop. ``runner`` queues
    the windows. A batch has at most ``max_batch_tokens`` tokens. ``classify`` refuses a call of more than
    MAX_SHORT_CALL windows if windows of its tenant wait and would be more than ``max_tenant_windows`` with its own.
    ``on_batches`` is as in ``BatchRunner``."""

    def __init__(
        self,
        model: Model,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        max_tenant_windows: int = MAX_TENANT_WINDOWS,
        on_batches: OnBatches | None = None,
    ) -> None:
        self._model = model
        self._max_tenant_windows = max_tenant_windows
        self.runner = BatchRunner("classifier", model.score, max_batch_tokens, on_batches)

    @property
    def version(self) -> str:
        return self._model.artefact.version

    def busy_s(self) -> float:
        """Returns the seconds for which the present batch has been computed; 0 if there is none."""
        return self.runner.busy_s()

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> list[Scores]:
        """Returns the scores of each text, in order. ``urgent`` is as in ``TextClassifier``. If the caller is
        cancelled, windows that have not begun are dropped.

        Raises ClassifierUnavailableError if the model fails or a score is no probability, and ClassifierBusyError if
        too many windows of the tenant wait already.
        """
        windows = [await self._windows(text) for text in texts]
        if not windows:
            return []
        count, waiting = sum(map(len, windows)), self.runner.waiting(tenant)
        if count > MAX_SHORT_CALL and waiting and waiting + count > self._max_tenant_windows:
            raise ClassifierBusyError(f"{waiting} windows of the tenant wait already")
        try:
            rows = await self.runner.rows(list(chain.from_iterable(windows)), tenant, urgent=urgent)
        except BatchFailedError as error:
            raise ClassifierUnavailableError(str(error)) from error
        ends = np.cumsum([len(each) for each in windows])[:-1]
        return [scores_of(each, self._model.artefact) for each in np.split(rows, ends)]

    def close(self) -> None:
        """Ends the thread after the batch that is being computed."""
        self.runner.close()

    async def _windows(self, text: str) -> list[list[int]]:
        if len(text) <= MAX_INLINE_TEXT:
            return self._model.windows(text)
        return await asyncio.to_thread(self._model.windows, text)
