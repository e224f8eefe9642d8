"""``BatchRunner``: computes the sequences of many callers at the same time, in batches, on a thread of its own.

A batch never waits for more sequences: while one is computed the next ones gather, and they are the next batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safety.encoder.sequence_queue import SequenceQueue
from safety.encoder.tenant_calls import QueuedSequence

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 256
"""The default for the most tokens in a batch. The rows of more do not fit into the cache of a core, which makes each
text slower by a tenth, and hold up the next caller."""

Rows = NDArray[Any]
Compute = Callable[[Sequence[Sequence[int]]], Rows]
"""Computes a row for each sequence of a batch, in order: [batch, ...]."""


class BatchFailedError(RuntimeError):
    """The model raised an error, or did not return one row for each sequence."""


class BatchFacts(NamedTuple):
    """What the runner called ``model`` did for one call, until ``ended_ns`` nanoseconds since 1970. ``sequences``
    counts those of the call, ``batches`` those that had some of them, and ``largest`` the sequences of the largest of
    these, those of other calls included. ``waited_s`` are the seconds until the first batch began, ``computed_s`` those
    from then on. A call that was cancelled while it waited has no batches."""

    model: str
    sequences: int
    batches: int
    largest: int
    waited_s: float
    computed_s: float
    ended_ns: int


OnBatches = Callable[[BatchFacts], None]
"""Takes the facts of a call, in the task of its caller, when it has ended. Must not raise."""


class _Call:
    """The sequences of one call, and their rows as they come."""

    def __init__(self, sequences: int) -> None:
        self._rows: dict[int, Rows] = {}
        self._sequences = sequences
        self._batches = 0
        self._largest = 0
        self._queued_s = time.monotonic()
        self._begun_s: float | None = None
        self.done: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        """The rows of all sequences in order, [sequences, ...]."""

    def begin(self, now_s: float, sequences: int) -> None:
        """Notes a batch of ``sequences`` sequences that has some of the call's."""
        self._batches += 1
        self._largest = max(self._largest, sequences)
        self._begun_s = now_s if self._begun_s is None else self._begun_s

    def facts(self, model: str) -> BatchFacts:
        """Returns what was done for the call until now."""
        now_s = time.monotonic()
        begun_s = now_s if self._begun_s is None else self._begun_s
        times = begun_s - self._queued_s, now_s - begun_s, time.time_ns()
        return BatchFacts(model, self._sequences, self._batches, self._largest, *times)

    def take(self, place: int, row: Rows) -> None:
        """Notes the row of a sequence."""
        self._rows[place] = row
        if len(self._rows) == self._sequences and not self.done.done():
            self.done.set_result(np.stack([self._rows[each] for each in range(self._sequences)]))

    def fail(self, error: BatchFailedError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class BatchRunner:
    """A model in this process, behind a queue. All calls are on one event loop. ``name`` is for the log. ``on_batches``
    gets the facts about the batches of each call; None: they are not collected.

    ``batches`` is the number of batches computed so far, ``sequences`` that of the sequences in them.
    """

    def __init__(
        self,
        name: str,
        compute: Compute,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        on_batches: OnBatches | None = None,
    ) -> None:
        self._name = name
        self._on_batches = on_batches
        self._model = compute
        self._queue: SequenceQueue[_Call] = SequenceQueue(max_batch_tokens)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._runner: asyncio.Task[None] | None = None
        self._begun_s: float | None = None
        self.batches = 0
        self.sequences = 0

    def busy_s(self) -> float:
        """Returns the seconds for which the present batch has been computed; 0 if there is none."""
        return 0.0 if self._begun_s is None else time.monotonic() - self._begun_s

    def waiting(self, tenant: str) -> int:
        """Returns the number of sequences of a tenant that wait."""
        return self._queue.waiting(tenant)

    async def rows(self, sequences: Sequence[Sequence[int]], tenant: str = "", *, urgent: bool = False) -> Rows:
        """Returns the row of each sequence of a tenant, in order. ``sequences`` must not be empty. ``urgent`` is as in
        ``SequenceQueue.add``.

        If the caller is cancelled, its sequences that have not begun are dropped. Raises BatchFailedError if the model
        fails.
        """
        call = _Call(len(sequences))
        self._queue.add(call, sequences, tenant, urgent=urgent)
        if self._runner is None:
            # Outside of the caller's context: the log lines of batches are not those of the call that began them.
            self._runner = asyncio.create_task(self._run(), context=Context())
        try:
            return await call.done
        finally:
            self._queue.drop(call, tenant)
            if self._on_batches is not None:
                self._on_batches(call.facts(self._name))

    def close(self) -> None:
        """Ends the thread after the batch that is being computed."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        """Computes batches until no sequence waits."""
        try:
            while batch := self._queue.next_batch():
                await self._compute(batch)
        finally:
            self._runner = None

    async def _compute(self, batch: Sequence[QueuedSequence[_Call]]) -> None:
        self.batches += 1
        self.sequences += len(batch)
        self._begun_s = time.monotonic()
        for call in {each.owner for each in batch}:
            call.begin(self._begun_s, len(batch))
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._model, [each.tokens for each in batch])
        except Exception as error:
            # Whatever the model raises, the callers get it as the failure of their batch.
            logger.exception("the %s failed on a batch of %d sequences", self._name, len(batch))
            _fail(batch, f"the {self._name} failed: {type(error).__name__}")
            return
        finally:
            self._begun_s = None
        if len(rows) != len(batch):
            _fail(batch, f"the {self._name} is answering nonsense: {len(rows)} rows for {len(batch)} sequences")
            return
        for sequence, row in zip(batch, rows, strict=True):
            sequence.owner.take(sequence.place, row)


def _fail(batch: Sequence[QueuedSequence[_Call]], reason: str) -> None:
    for sequence in batch:
        sequence.owner.fail(BatchFailedError(reason))
