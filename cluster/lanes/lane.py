"""The router's end of a lane: one long-lived stream from one replica that carries the deltas of all requests on it.

Serve charges 0.3 to 0.7 ms of CPU for each item streamed through a handle, so tokens never travel alone: the replica
yields one item per engine step, with a row for every request that this router has there. The way of a request::

    generate → stream registered → submit (one unary call) → rows arrive through the lane → DeltaStream → reader
             ↘ reader leaves early → abort (one unary call) → blocks freed within one engine step

The life of a lane is the table LANE_STATES. A lane that breaks fails every stream on it; a lane whose replica is
draining takes no new requests and closes itself after its last one, which is what lets the replica stop in time.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from contextvars import Context
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from cluster.lanes.delta_stream import DeltaStream
from cluster.lanes.messages import LaneItem, ReplicaLoad, unpack
from engine.api import Delta, EngineDeadError, EngineError, GenerationRequest, ModelInfo
from router.ports.tiers import ReplicaLostError

logger = logging.getLogger(__name__)

T = TypeVar("T")

SILENCE_S = 20.0  # without even a heartbeat, which comes every second: the replica hangs or cannot be reached


class ReplicaCalls(Protocol):
    """The calls that a lane makes to its replica. Each raises ReplicaLostError when the replica cannot answer."""

    def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        """Open a lane; the first item names the model."""
        ...

    async def submit(self, replica_id: str, lane_id: str, request: GenerationRequest) -> EngineError | None:
        """Start a request whose deltas go to the lane; returns the error if it was refused."""
        ...

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        """Give requests up. Unknown ids are ignored."""
        ...


def _detached(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task outside the context of the HTTP request that happens to start it.

    Serve gives every call made within one HTTP request the same internal id, and its routing loop never ends when two
    calls with one id wait for the same deployment.
    """
    return asyncio.get_running_loop().create_task(work, context=Context())


class LaneState(Enum):
    OPENING = auto()  # no item has arrived yet
    READY = auto()
    DRAINING = auto()  # finishes what it has, takes nothing new
    CLOSED = auto()


LANE_STATES: dict[LaneState, frozenset[LaneState]] = {
    LaneState.OPENING: frozenset({LaneState.READY, LaneState.DRAINING, LaneState.CLOSED}),
    LaneState.READY: frozenset({LaneState.DRAINING, LaneState.CLOSED}),
    LaneState.DRAINING: frozenset({LaneState.CLOSED}),
    LaneState.CLOSED: frozenset(),
}


class Lane:
    """One lane, from this router to the replica ``replica_id``.

    ``buffer_limit``: deltas of each choice that a slow reader may leave unread before its request is ended.
    ``on_change`` is called after each change of state.
    """

    def __init__(
        self, calls: ReplicaCalls, replica_id: str, *, buffer_limit: int, on_change: Callable[[], None]
    ) -> None:
        self.replica_id = replica_id
        self.lane_id = uuid.uuid4().hex
        self.state = LaneState.OPENING
        self.load = ReplicaLoad(0, 0, 0, 0)
        self.model: ModelInfo | None = None
        self._calls = calls
        self._buffer_limit = buffer_limit
        self._on_change = on_change
        self._streams: dict[str, DeltaStream] = {}
        self._aborts: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Lane {self.lane_id[:8]} to {self.replica_id}: {self.state.name}, {len(self._streams)} streams>"

    @property
    def outstanding(self) -> int:
        """Requests that the replica has, by its own count or by ours, whichever is fresher (the larger)."""
        return max(self.load.running + self.load.waiting, len(self._streams))

    def start(self) -> None:
        """Open the lane in the background."""
        self._pump = _detached(self._run())
        self._pump.add_done_callback(self._ended)

    def drain(self) -> None:
        """Take nothing new; close after the last request."""
        if LaneState.DRAINING in LANE_STATES[self.state]:
            self._move(LaneState.DRAINING)
            self._close_if_drained()

    async def close(self) -> None:
        """Close now; requests still on the lane fail, and the replica aborts them."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[list[Delta], None]:
        """Run ``request`` on this lane's replica and yield what arrives, coalesced while the reader is busy.

        Raises the replica's refusal (an EngineError), ReplicaLostError, or SlowReaderError.
        """
        limit = self._buffer_limit * request.sampling.choices
        stream = self._streams[request.request_id] = DeltaStream(limit)
        if self.state is LaneState.CLOSED:
            stream.fail(ReplicaLostError("The replica closed its lane before the request was sent."))
        submission = _detached(self._calls.submit(self.replica_id, self.lane_id, request))
        try:
            # Shielded: a submission that has left cannot be called back, only followed by an abort.
            refusal = await asyncio.shield(submission)
            if refusal is not None:
                stream.finished = True
                raise ReplicaLostError(str(refusal)) if isinstance(refusal, EngineDeadError) else refusal
            while True:
                deltas = await stream.take()
                yield deltas
                if deltas[-1].last:
                    return
        finally:
            del self._streams[request.request_id]
            if not stream.finished:
                self._spawn(self._abort_after(submission, request.request_id))
            elif not submission.done():
                submission.cancel()
            self._close_if_drained()

    async def _run(self) -> None:
        async with aclosing(self._calls.lane(self.replica_id, self.lane_id)) as items:
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        self._receive(await anext(items))
                except TimeoutError:
                    raise ReplicaLostError(f"Replica {self.replica_id} was silent for {SILENCE_S:g} s.") from None
                except StopAsyncIteration:
                    return

    def _ended(self, pump: asyncio.Task[None]) -> None:
        error = None if pump.cancelled() else pump.exception()
        if error is not None and not isinstance(error, ReplicaLostError):
            logger.error("%r broke", self, exc_info=error)
        fault = ReplicaLostError("The replica that ran this request was lost.")
        for stream in self._streams.values():
            stream.fail(fault)
        self._move(LaneState.CLOSED)

    def _receive(self, item: LaneItem) -> None:
        self.load = item.load
        if item.model is not None:
            self.model = item.model
            if self.state is LaneState.OPENING:
                self._move(LaneState.READY)
        streams = self._streams
        for row in item.rows:
            stream = streams.get(row[0])  # None: the reader has left and the abort is on its way
            if stream is not None and not stream.push(unpack(row)):
                self._abort(row[0])

    def _move(self, state: LaneState) -> None:
        if state not in LANE_STATES[self.state]:
            raise RuntimeError(f"a lane cannot go from {self.state.name} to {state.name}")
        self.state = state
        self._on_change()

    def _close_if_drained(self) -> None:
        if self.state is LaneState.DRAINING and not self._streams and not self._tasks and self._pump is not None:
            self._pump.cancel()

    async def _abort_after(self, submission: asyncio.Future[EngineError | None], request_id: str) -> None:
        """Abort once the submission has arrived: an abort that overtook it would be lost."""
        try:
            refusal = await submission
        except ReplicaLostError:
            refusal = None  # only the answer may have been lost
        if refusal is None:
            self._abort(request_id)

    def _abort(self, request_id: str) -> None:
        """Aborts that fall into one turn of the loop travel together."""
        self._aborts.add(request_id)
        if len(self._aborts) == 1:
            self._spawn(self._send_aborts())

    async def _send_aborts(self) -> None:
        ids, self._aborts = sorted(self._aborts), set()
        try:
            await self._calls.abort(self.replica_id, self.lane_id, ids)
        except ReplicaLostError as error:
            # The lane breaks with its replica, and a replica aborts what a broken lane had: nothing is left to do.
            logger.info("abort of %d requests on %r: %s", len(ids), self, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = _detached(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._close_if_drained()
