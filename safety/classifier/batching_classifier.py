"""``BatchingClassifier``: scores texts of many callers at the same time, in batches, on a thread of its own.

A batch never waits for more texts: while one is computed the next ones gather, and they are the next batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety.api import ClassifierUnavailableError, Scores
from safety.classifier.artefact import Artefact
from safety.classifier.scoring import NONSENSE, scores_of
from safety.classifier.window_queue import QueuedWindow, WindowQueue

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 512
"""The default for the most tokens in a batch. More are hardly faster, take more memory, and hold up the next caller."""

MAX_INLINE_TEXT = 4096  # characters; more take over 1 ms to cut into word pieces, which is then done off the event loop


class Model(Protocol):
    """Scores windows. ``window_classifier.WindowClassifier`` implements it; its docstrings hold here too."""

    @property
    def artefact(self) -> Artefact: ...
    def windows(self, text: str) -> list[list[int]]: ...
    def score(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float64]: ...


class _Call:
    """The windows of one call, and their probabilities as they come."""

    def __init__(self, windows: int) -> None:
        self._rows: dict[int, NDArray[np.float64]] = {}
        self._windows = windows
        self.done: asyncio.Future[NDArray[np.float64]] = asyncio.get_running_loop().create_future()
        """The probabilities of all windows in order, [windows, labels]."""

    def take(self, place: int, row: NDArray[np.float64]) -> None:
        """Notes the probabilities of a window, [labels]."""
        self._rows[place] = row
        if len(self._rows) == self._windows and not self.done.done():
            self.done.set_result(np.stack([self._rows[each] for each in range(self._windows)]))

    def fail(self, error: ClassifierUnavailableError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class BatchingClassifier:
    """Implements ``TextClassifier`` with a model in this process. All calls are on one event loop."""

    def __init__(self, model: Model, max_batch_tokens: int = MAX_BATCH_TOKENS) -> None:
        self._model = model
        self._queue: WindowQueue[_Call] = WindowQueue(max_batch_tokens)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classifier")
        self._runner: asyncio.Task[None] | None = None
        self._begun_s: float | None = None
        self.batches = 0  # computed so far
        self.batched_windows = 0  # in them

    @property
    def version(self) -> str:
        return self._model.artefact.version

    def busy_s(self) -> float:
        """Returns for how many seconds the present batch has been computed; 0 if there is none."""
        return 0.0 if self._begun_s is None else time.monotonic() - self._begun_s

    async def classify(self, texts: Sequence[str]) -> list[Scores]:
        """Returns the scores of each text, in order. If the caller is cancelled, windows that have not begun are
        dropped. Raises ClassifierUnavailableError if the model fails or a score is no probability."""
        windows = [await self._windows(text) for text in texts]
        if not windows:
            return []
        call = _Call(sum(map(len, windows)))
        self._queue.add(call, list(chain.from_iterable(windows)))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        try:
            rows = await call.done
        finally:
            self._queue.drop(call)
        ends = np.cumsum([len(each) for each in windows])[:-1]
        return [scores_of(each, self._model.artefact) for each in np.split(rows, ends)]

    def close(self) -> None:
        """Ends the thread after the batch that is being computed."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _windows(self, text: str) -> list[list[int]]:
        if len(text) <= MAX_INLINE_TEXT:
            return self._model.windows(text)
        return await asyncio.to_thread(self._model.windows, text)

    async def _run(self) -> None:
        """Computes batches until no window waits."""
        try:
            while batch := self._queue.next_batch():
                await self._compute(batch)
        finally:
            self._runner = None

    async def _compute(self, batch: Sequence[QueuedWindow[_Call]]) -> None:
        self.batches += 1
        self.batched_windows += len(batch)
        self._begun_s = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._model.score, [window.tokens for window in batch])
        except Exception as error:
            # Whatever the model raises, the callers get it as the classifier's failure.
            logger.exception("the classifier failed on a batch of %d windows", len(batch))
            _fail(batch, f"the classifier failed: {type(error).__name__}")
            return
        finally:
            self._begun_s = None
        if len(rows) != len(batch):
            _fail(batch, NONSENSE)
            return
        for window, row in zip(batch, rows, strict=True):
            window.owner.take(window.place, row)


def _fail(batch: Sequence[QueuedWindow[_Call]], reason: str) -> None:
    for window in batch:
        window.owner.fail(ClassifierUnavailableError(reason))
