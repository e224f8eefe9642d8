"""``Lane``: the router's end of one long-lived stream from one replica that carries the deltas of all requests there.

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

from cluster.lanes.codec import Record, VersionMismatchError
from cluster.lanes.delta_stream import DeltaStream
from cluster.lanes.messages import LaneItem, LaneReader, ReplicaLoad, pack_request, unpack_refusal
from engine.api import Delta, EngineDeadError, EngineError, GenerationRequest, ModelInfo, OverloadedError
from router.ports.tier_backend import ReplicaLostError, ReplicaOverloadedError, ReplicaVersionError

logger = logging.getLogger(__name__)

T = TypeVar("T")

SILENCE_S = 20.0  # without even a heartbeat, which comes every second: the replica hangs or cannot be reached


class ReplicaClient(Protocol):
    """Reaches the replicas of one tier. Each call to a replica raises ReplicaLostError if that cannot answer."""

    async def connect(self) -> None:
        """Make the tier's replicas known to ReplicaDirectory; returns when one has answered, or failed to."""
        ...

    def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        """Open a lane; the first item has the lane's header."""
        ...

    async def submit(self, replica_id: str, lane_id: str, request: Record) -> Record | None:
        """Start a packed request whose deltas go to the lane; returns the packed refusal if it was refused."""
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


def refused(refusal: EngineError | VersionMismatchError, replica_id: str) -> Exception:
    """What a replica's refusal of a request is to the router: its own fault, or the request's."""
    match refusal:
        case VersionMismatchError():
            return ReplicaVersionError(refusal.message, replica_id)
        case OverloadedError():
            return ReplicaOverloadedError(refusal.message, replica_id, refusal.retry_after_s)
        case EngineDeadError():
            return ReplicaLostError(str(refusal), replica_id)
    return refusal


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
        self, client: ReplicaClient, replica_id: str, *, buffer_limit: int, on_change: Callable[[], None]
    ) -> None:
        self.replica_id = replica_id
        self.lane_id = uuid.uuid4().hex
        self.state = LaneState.OPENING
        self.load = ReplicaLoad()
        self.model: ModelInfo | None = None  # None until the replica has answered
        self._reader: LaneReader | None = None
        self._client = client
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

        Raises RequestError, a ReplicaError with this replica's id, or SlowReaderError.
        """
        packed = pack_request(request)
        limit = self._buffer_limit * request.sampling.choices
        stream = self._streams[request.request_id] = DeltaStream(limit)
        if self.state is LaneState.CLOSED:
            stream.fail(self._lost("The replica closed its lane before the request was sent."))
        submission = _detached(self._client.submit(self.replica_id, self.lane_id, packed))
        try:
            # Not cancelled with this wait: a submission that has left cannot be called back, only followed by an abort.
            # A replica that hangs may never answer it; then the lane breaks, and the stream with it.
            ends: set[asyncio.Future[Any]] = {submission, stream.broken()}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            refusal = submission.result() if submission.done() else None
            if refusal is not None:
                stream.finished = True
                raise refused(unpack_refusal(refusal), self.replica_id)
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
        async with aclosing(self._client.lane(self.replica_id, self.lane_id)) as items:
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        self._receive(await anext(items))
                except TimeoutError:
                    raise self._lost(f"Replica {self.replica_id} was silent for {SILENCE_S:g} s.") from None
                except StopAsyncIteration:
                    return

    def _ended(self, pump: asyncio.Task[None]) -> None:
        error = None if pump.cancelled() else pump.exception()
        if error is not None and not isinstance(error, ReplicaLostError):
            logger.error("%r broke", self, exc_info=error)
        fault = self._lost("The replica that ran this request was lost.")
        for stream in self._streams.values():
            stream.fail(fault)
        self._move(LaneState.CLOSED)

    def _receive(self, item: LaneItem) -> None:
        reader = self._reader or self._open(item)
        self.load = reader.load(item[0])
        streams = self._streams
        for row in item[1]:
            stream = streams.get(row[0])  # None: the reader has left and the abort is on its way
            if stream is None:
                continue
            try:
                kept = stream.push(reader.delta(row))
            except VersionMismatchError as error:
                stream.fail(ReplicaVersionError(error.message, self.replica_id))
                kept = False
            if not kept:
                self._abort(row[0])

    def _open(self, first: LaneItem) -> LaneReader:
        try:
            reader = self._reader = LaneReader(first[2])
        except VersionMismatchError as error:
            raise self._lost(error.message) from error
        self.model = reader.model
        if self.state is LaneState.OPENING:
            self._move(LaneState.READY)
        return reader

    def _lost(self, message: str) -> ReplicaLostError:
        return ReplicaLostError(message, self.replica_id)

    def _move(self, state: LaneState) -> None:
        if state not in LANE_STATES[self.state]:
            raise RuntimeError(f"a lane cannot go from {self.state.name} to {state.name}")
        self.state = state
        self._on_change()

    def _close_if_drained(self) -> None:
        if self.state is LaneState.DRAINING and not self._streams and not self._tasks and self._pump is not None:
            self._pump.cancel()

    async def _abort_after(self, submission: asyncio.Future[Record | None], request_id: str) -> None:
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
            await self._client.abort(self.replica_id, self.lane_id, ids)
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
