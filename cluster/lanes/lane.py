"""``Lane``: the router's end of one long-lived stream from a replica, with the deltas of all its requests there.

An item that is streamed through a Serve handle costs 0.3 to 0.7 ms of CPU. Therefore the replica yields one item per
engine step, with a row for every request that this router has there, instead of one per token. The steps of a request::

    generate → stream registered → submit (one unary call) → rows arrive through the lane → DeltaStream → reader
             ↘ reader leaves early → abort (one unary call) → blocks freed within one engine step

LANE_STATES has the states of a lane. When a lane breaks, as it does when the replica's engine dies, all its requests
fail. When its replica drains, the lane takes no new requests and closes itself after its last one, so that the replica
can stop. Before its time for that is over, ``hand_over`` ends the requests that are left, and the router continues them
on other replicas.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from contextvars import Context
from typing import Any, TypeVar

from cluster.lanes.awaited_counts import AwaitedCounts
from cluster.lanes.dataclass_codec import Record, Row, VersionMismatchError
from cluster.lanes.delta_stream import DeltaStream
from cluster.lanes.lane_messages import LaneItem, LaneReader, orphans_in, pack_request, unpack_refusal
from cluster.lanes.lane_state import LANE_STATES, LaneState
from cluster.lanes.placed_requests import OnFirstToken, PlacedRequests
from cluster.lanes.reader_wakeups import ReaderWakeups
from cluster.lanes.replica_client import ReplicaClient
from cluster.lanes.replica_errors import ended_with_engine, router_error
from cluster.lanes.request_validation import validated_at_once
from cluster.lanes.silence import MAX_SILENCE_S, TICK_S, Silence
from engine.api import Delta, EngineDeadError, EngineError, GenerationRequest, ModelInfo, Usage
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import (
    OnOrphans,
    OnUsage,
    ReplicaDrainedError,
    ReplicaLostError,
    ReplicaUnreachableError,
    ReplicaVersionError,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")


def _detached(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Returns a task that runs ``work`` outside the context of the HTTP request that starts it.

    Serve gives all calls within one HTTP request the same internal id, and its routing loop never ends if two calls
    with the same id wait for the same deployment.
    """
    return asyncio.get_running_loop().create_task(work, context=Context())


async def _refusal(submission: asyncio.Task[Record | None], stream: DeltaStream) -> Record | None:
    """Waits for the reply to a submission, or for the first delta, which may come before it. Returns the packed
    refusal; None: the request was accepted, or its stream has begun or failed.

    Cancelling this wait does not cancel the submission, which only an abort can undo once it was sent. A replica that
    hangs may never reply; then the lane breaks, and the stream fails with it.
    """
    ends: set[asyncio.Future[Any]] = {submission, stream.begun()}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    return submission.result() if submission.done() and not stream.began else None


def _retrieve(submission: asyncio.Task[Record | None]) -> None:
    """Retrieves the error of a submission whose answer has come without its reply, so that asyncio does not log it."""
    if not submission.cancelled():
        submission.exception()


class Lane:
    """One lane, from the replica ``replica_id`` to this router.

    ``buffer_limit`` x the choices of a request is the number of deltas that a slow reader may leave unread before its
    request is ended. ``on_change`` is called after each change of ``state``. ``on_orphans`` is called with requests of
    other routers' lanes, or of earlier lanes of this router, that have ended after their lane. The lane is lost after
    ``silence_s`` seconds without an item if ``another_is_heard`` returns True, which means that another replica of the
    tier is heard; otherwise after MAX_SILENCE_S. ``load`` is the replica's load in the last item. ``placed`` has the
    requests of ``LanePool.acquire``; ``on_first_token`` is called with their TTFTs. ``on_counted`` is called with each
    request whose last delta has come, and its token counts. ``wakeups`` are those of all lanes of the router; None: the
    lane has its own. ``model`` describes the replica's model; None until the first item has arrived.
    """

    def __init__(
        self,
        client: ReplicaClient,
        replica_id: str,
        *,
        buffer_limit: int,
        on_change: Callable[[], None],
        on_orphans: OnOrphans,
        silence_s: float = MAX_SILENCE_S,
        another_is_heard: Callable[[], bool] = lambda: False,
        on_first_token: OnFirstToken = lambda _, __: None,
        on_counted: Callable[[GenerationRequest, Usage], None] = lambda _, __: None,
        wakeups: ReaderWakeups | None = None,
    ) -> None:
        self._wakeups = wakeups or ReaderWakeups()
        self.placed = PlacedRequests(on_first_token)
        self._on_counted = on_counted
        self._silence = Silence(silence_s)
        self._another_is_heard = another_is_heard
        self._watch: asyncio.TimerHandle | None = None
        self._fault = "The replica that ran this request was lost."
        self.replica_id = replica_id
        self.lane_id = uuid.uuid4().hex
        self.state = LaneState.OPENING
        self.load = ReplicaLoad()
        self.model: ModelInfo | None = None
        self._reader: LaneReader | None = None
        self._client = client
        self._buffer_limit = buffer_limit
        self._on_change = on_change
        self._on_orphans = on_orphans
        self._streams: dict[str, DeltaStream] = {}
        self._awaited = AwaitedCounts(self._close_if_drained)
        self._aborts: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Lane {self.lane_id[:8]} to {self.replica_id}: {self.state.name}, {len(self._streams)} streams>"

    @property
    def outstanding(self) -> int:
        """An estimate of the sequences on the replica, by which placement compares replicas.

        It is the larger of two numbers: the running and waiting sequences that the replica reported in its last item,
        and the unfinished requests that this router has there. The first includes the work of other routers and lacks
        requests submitted since.
        """
        return max(self.load.running + self.load.waiting, len(self._streams))

    @property
    def outlook(self) -> ReplicaLoad:
        """The replica's load, by which TTFTs are predicted: the last report, and the requests that this router has sent
        since."""
        return self.placed.outlook(self.load, asyncio.get_running_loop().time())

    @property
    def quiet(self) -> bool:
        """Whether the replica is late with its heartbeat."""
        return self._silence.quiet

    def start(self) -> None:
        """Opens the lane in the background and returns at once. Called once."""
        self._pump = _detached(self._run())
        self._pump.add_done_callback(self._ended)
        self._watch = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def drain(self) -> None:
        """Stops taking requests and closes the lane after the last one. Has no effect if it drains or is closed
        already."""
        if LaneState.DRAINING in LANE_STATES[self.state]:
            self._move(LaneState.DRAINING)
            self._close_if_drained()

    def hand_over(self) -> None:
        """Ends all requests of a draining lane with ReplicaDrainedError; then the lane closes. The replica aborts them
        and reports their counts."""
        drained = ReplicaDrainedError("The replica that ran this request stops.", self.replica_id, self.version)
        for request_id, stream in self._streams.items():
            if not stream.finished:
                stream.fail(drained)
                self._abort(request_id)

    async def close(self) -> None:
        """Closes the lane at once. Its unfinished requests fail with ReplicaLostError, and the replica aborts them."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])

    async def generate(
        self, request: GenerationRequest, on_usage: OnUsage | None = None, account: str = ""
    ) -> AsyncGenerator[list[Delta], None]:
        """Submits ``request`` to this lane's replica and yields its deltas in order, in batches.

        Deltas that arrive while the reader is busy come in one batch. Closing the generator early aborts the request,
        and ``on_usage`` is then called as in ``TierBackend.generate``, which explains ``account`` too. Raises
        RequestError, a ReplicaError with this replica's id and the version of its model, or SlowReaderError.
        """
        packed, at_once = pack_request(request, account), validated_at_once(request)
        limit = self._buffer_limit * request.sampling.choices
        stream = self._streams[request.request_id] = DeltaStream(limit, self._wakeups)
        if self.state is LaneState.CLOSED:
            words = "The replica closed its lane before the request was sent."
            stream.fail(ReplicaUnreachableError(words, self.replica_id, self.version))
        submission = _detached(self._client.submit(self.replica_id, self.lane_id, packed, validated_at_once=at_once))
        refused = False
        try:
            refusal = await _refusal(submission, stream)
            if refusal is not None:
                stream.finished = refused = True
                raise self._refused(unpack_refusal(refusal))
            self.placed.accepted(request.request_id)
            while True:
                deltas = await stream.take()
                if not deltas[-1].last:
                    yield deltas
                    continue
                if ended_with_engine(deltas[-1]):
                    if len(deltas) > 1:
                        yield deltas[:-1]
                    raise self._lost("The engine that ran this request has ended.")
                if stream.usage is not None:
                    self._on_counted(request, stream.usage)
                yield deltas
                return
        finally:
            del self._streams[request.request_id]
            self.placed.end(request.request_id)
            if on_usage is not None and not refused:
                self._settle(request.request_id, stream, on_usage)
            self._end(request.request_id, stream, submission)
            self._close_if_drained()

    def _end(self, request_id: str, stream: DeltaStream, submission: asyncio.Task[Record | None]) -> None:
        """Ends the submission of a request without a reader. Aborts the request if it has not ended."""
        if stream.began and not stream.finished:  # the replica has the request, whatever becomes of its reply
            submission.add_done_callback(_retrieve)
            self._abort(request_id)
        elif not stream.finished:
            self._spawn(self._abort_after(submission, request_id))
        elif not submission.done():
            submission.cancel()
        else:
            _retrieve(submission)

    def _refused(self, refusal: EngineError | VersionMismatchError) -> Exception:
        """Returns (does not raise) the error for a refusal. Ends the lane if the replica's engine has died, so that no
        request is sent there again before the lane has noticed it by itself."""
        if isinstance(refusal, EngineDeadError) and self._pump is not None:
            self.drain()  # at once: it takes some turns of the event loop until the lane is closed
            self._pump.cancel()
        return router_error(refusal, self.replica_id)

    def _settle(self, request_id: str, stream: DeltaStream, on_usage: OnUsage) -> None:
        """Reports the counts of a request whose reader has left: at once if the stream has them, or will never have
        them; else when the replica's row after the abort arrives, if one arrives that can be read."""
        if stream.usage is not None or self.state is LaneState.CLOSED:
            on_usage(stream.usage)
        else:
            self._awaited.add(request_id, on_usage)

    async def _run(self) -> None:
        """Receives the lane's items until it ends."""
        async with aclosing(self._client.lane(self.replica_id, self.lane_id)) as items:
            async for item in items:
                self._silence.ticks = 0
                self._receive(item)

    def _tick(self) -> None:
        """Counts the silence of the replica, and ends the lane if it means that the replica is lost."""
        self._silence.ticks += 1
        opening = self.state is LaneState.OPENING  # a replica may take its time for that, and no request waits for it
        if self._pump is not None and self._silence.is_lost(not opening and self._another_is_heard()):
            logger.warning("%r was silent for %g s", self, self._silence.seconds)
            self._fault = "The replica that ran this request does not answer any more."
            self._pump.cancel()
        elif self.state is not LaneState.CLOSED:
            self._watch = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _ended(self, pump: asyncio.Task[None]) -> None:
        """Closes the lane when ``_run`` has ended, for whatever reason, and fails its streams."""
        error = None if pump.cancelled() else pump.exception()
        if error is not None and not isinstance(error, ReplicaLostError):
            logger.error("%r broke", self, exc_info=error)
        if self._watch is not None:
            self._watch.cancel()
        fault = self._lost(self._fault)
        for stream in self._streams.values():
            stream.fail(fault)
        self._awaited.end()
        self._move(LaneState.CLOSED)

    def _receive(self, item: LaneItem) -> None:
        """Takes over the item's load and pushes its deltas to their streams. Aborts requests whose stream fails."""
        if (reader := self._reader) is None:
            reader = self._open(item)
        elif orphans := orphans_in(item):
            self._on_orphans(orphans)
        self.load = reader.load(item[0])
        streams, now = self._streams, asyncio.get_running_loop().time()
        self.placed.reported(now, after_step=bool(item[1]))
        for row in item[1]:
            stream = streams.get(row[0])  # None: the reader has left, and the abort was sent
            if stream is None:
                self._receive_late(reader, row)
                continue
            try:
                delta = reader.delta(row)
                if delta.token_ids:
                    self.placed.first_token(delta.request_id, now)
                kept = stream.push(delta)
            except VersionMismatchError as error:
                stream.fail(ReplicaVersionError(error.message, self.replica_id))
                kept = False
            if not kept:
                self._abort(row[0])

    def _receive_late(self, reader: LaneReader, row: Row) -> None:
        """Takes the counts from the last row of a request whose reader has left, if they are waited for."""
        if row[0] not in self._awaited:
            return
        try:
            delta = reader.delta(row)
        except VersionMismatchError:
            return  # it may have been the last row; ``AwaitedCounts`` ends the wait
        if delta.last:
            self._awaited.report(row[0], delta.usage)

    def _open(self, first: LaneItem) -> LaneReader:
        """Makes the lane ready, by the header in its first item. Raises ReplicaLostError for another protocol."""
        try:
            reader = self._reader = LaneReader(first[2])
        except VersionMismatchError as error:
            raise self._lost(error.message) from error
        self.model = reader.model
        if self.state is LaneState.OPENING:
            self._move(LaneState.READY)
        return reader

    @property
    def version(self) -> str:
        """The version of the model of the replica; "" until it is known."""
        return "" if self.model is None else self.model.version

    def _lost(self, message: str) -> ReplicaLostError:
        return ReplicaLostError(message, self.replica_id, self.version)

    def _move(self, state: LaneState) -> None:
        """Changes the state. Raises RuntimeError for a change that LANE_STATES does not have."""
        if state not in LANE_STATES[self.state]:
            raise RuntimeError(f"a lane cannot go from {self.state.name} to {state.name}")
        self.state = state
        self._on_change()

    def _close_if_drained(self) -> None:
        if self.state is LaneState.DRAINING and not (self._streams or self._awaited or self._tasks) and self._pump:
            self._pump.cancel()

    async def _abort_after(self, submission: asyncio.Future[Record | None], request_id: str) -> None:
        """Aborts a request after its submission was answered. An abort that arrived before it would have no effect."""
        await asyncio.wait({submission})
        if (error := submission.exception()) is not None:
            # The replica may have the request, since only its reply may be lost. If it has not, no row will follow.
            logger.warning("a submission on %r failed: %s", self, type(error).__name__)
            self._awaited.report(request_id, None)
            self._abort(request_id)
        elif submission.result() is None:
            self._abort(request_id)
        else:
            self._awaited.report(request_id, Usage(0, 0, 0))

    def _abort(self, request_id: str) -> None:
        """Aborts a request in the background. Aborts of one iteration of the event loop are sent in one call."""
        self._aborts.add(request_id)
        if len(self._aborts) == 1:
            self._spawn(self._send_aborts())

    async def _send_aborts(self) -> None:
        ids, self._aborts = sorted(self._aborts), set()
        try:
            await self._client.abort(self.replica_id, self.lane_id, ids)
        except ReplicaLostError as error:
            # The lane breaks too, and a replica aborts all requests of a broken lane. Nothing is left to do.
            logger.info("abort of %d requests on %r: %s", len(ids), self, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs ``work`` in the background. A draining lane stays open until it has ended."""
        task = _detached(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._close_if_drained()
