"""``LanePool``: a router's lanes to one tier, one per running replica. Lanes open and drain as replicas come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable

from cluster.config import PlacementConfig
from cluster.lanes.cold_start_room import ColdStartRoom
from cluster.lanes.lane import Lane
from cluster.lanes.lane_state import LaneState
from cluster.lanes.placed_requests import OnFirstToken
from cluster.lanes.prompt_size import PromptSize
from cluster.lanes.reader_wakeups import ReaderWakeups
from cluster.lanes.replica_choice import Candidate, place
from cluster.lanes.replica_client import ReplicaClient
from cluster.lanes.sent_prefixes import PrefixMemory, compared_share, fingerprint
from engine.api import GenerationRequest, Priority, Prompt, SamplingParams
from router.ports.tier_backend import OnOrphans, TierSnapshot, TierUnavailableError

logger = logging.getLogger(__name__)

# Before a lost lane is opened again, if Serve still lists the replica. The delay doubles with each try until a lane is
# ready. During a rollout, a replica with another protocol can never be reached.
MIN_REOPEN_DELAY_S = 0.25
MAX_REOPEN_DELAY_S = 8.0

HAND_OVER_SHARE, MAX_HAND_OVER_S = 0.2, 5.0
"""How long before the end of a replica's time to stop its requests are handed over: a share of that time, in seconds at
most MAX_HAND_OVER_S."""
HAND_OVER_RETRY_S = 0.1  # between looks for a replica that can take them


class LanePool:
    """The lanes of the tier ``name``, and the choice of a lane for each request.

    ``on_orphans`` is as in ``TierBackend.start``. A replica that is being stopped ends after ``drain_timeout_s``
    seconds. Shortly before, the requests that it still runs are handed over to other replicas (``Lane.hand_over``).
    ``on_first_token`` takes the predicted and the measured TTFT of each request, in seconds. ``room`` is where requests
    wait while the tier is at zero; None: it never is. ``wakeups`` are those of all pools; None: the pool has its own.
    The pool belongs to the event loop on which it is created. Only ``replicas_changed`` may be called from other
    threads.
    """

    def __init__(
        self,
        name: str,
        client: ReplicaClient,
        config: PlacementConfig,
        on_orphans: OnOrphans,
        drain_timeout_s: float = 600.0,
        on_first_token: OnFirstToken = lambda _, __: None,
        room: ColdStartRoom | None = None,
        wakeups: ReaderWakeups | None = None,
    ) -> None:
        self._on_first_token = on_first_token
        self._wakeups = wakeups or ReaderWakeups()
        self._sizes = PromptSize()
        self.name = name
        self._room = room
        self._client = client
        self._config = config
        self._on_orphans = on_orphans
        self._grace_s = drain_timeout_s - min(MAX_HAND_OVER_S, HAND_OVER_SHARE * drain_timeout_s)
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, Lane] = {}  # by replica id, without the draining ones
        self._draining: set[Lane] = set()
        self._prefixes: dict[str, PrefixMemory] = {}  # by replica id, for the same replicas as the lanes
        self._listed: frozenset[str] = frozenset()  # ids of the running replicas, as Serve last reported them
        self._warm: frozenset[str] = frozenset()  # ids of the replicas of the warm pool
        self._delays: dict[str, float] = {}  # by replica id: seconds before the next try, for lost lanes
        self._changed = asyncio.Event()
        self._closed = False
        self._context_length: int | None = None

    def replicas_changed(self, replica_ids: Iterable[str]) -> None:
        """Takes over the ids of the running replicas: opens lanes to new ones, drains those to the others.

        The listener of ReplicaDirectory. May be called from any thread; it takes effect later, on the event loop.
        """
        self._loop.call_soon_threadsafe(self._sync, frozenset(replica_ids))

    def set_warm(self, replica_ids: frozenset[str]) -> None:
        """Takes over the ids of the replicas of the warm pool, which get no request while another one can take it."""
        if replica_ids != self._warm:
            self._warm = replica_ids
            self._changed.set()

    def snapshot(self) -> TierSnapshot:
        """Returns the load of the tier over its replicas that serve, each as of the last item of its lane.

        Once reported, the context length stays known while no replica is ready.
        """
        all_ready = self._ready()
        ready = self._serving(all_ready)
        # One that has gone quiet gets no request, and its empty queue would be the forecast for all.
        by_id = {replica_id: lane.outlook for replica_id, lane in self._heard(ready).items()}
        loads = [lane.load for lane in ready.values()]
        return TierSnapshot(
            self.name,
            frozenset(ready),
            self._context_length,
            running=sum(load.running for load in loads),
            waiting=sum(load.waiting for load in loads),
            wait_s=min((load.wait_s for load in loads), default=0.0),
            kv_used=sum(load.blocks_used for load in loads) / max(sum(load.blocks_total for load in loads), 1),
            loads=by_id,
            scales_to_zero=self._room is not None,
            warm=frozenset(all_ready.keys() - ready.keys()),
            cached_tokens=self.cached_tokens,
        )

    def model_version(self, replica_id: str) -> str:
        """Returns the version of the model of a replica; "" if the pool does not know the replica."""
        lane = self._lanes.get(replica_id)
        return "" if lane is None else lane.version

    def cached_tokens(self, prompt: Prompt, cache_salt: str) -> dict[str, int]:
        """Returns the estimated tokens of a prompt that replicas have in their prefix caches, by replica id, by what
        was sent to them. One that has gone quiet gets no requests as long as another is heard of, and so is not among
        them."""
        request = GenerationRequest("admission", prompt, SamplingParams(), cache_salt=cache_salt)
        matched = self._matched(request, fingerprint(request), self._serving(self._heard(self._ready())))
        return {replica_id: tokens for replica_id, tokens in matched.items() if tokens}

    async def acquire(self, request: GenerationRequest, avoid: Collection[str] = ()) -> Lane:
        """Chooses the replica that should run ``request``, records the prompt as sent there, and returns the lane to
        it.

        Replicas with an id in ``avoid`` are left out. Waits while no other replica is ready. Raises
        TierUnavailableError after ``placement.wait_s`` seconds, or if the pool is closed; and TierStartingError if the
        tier is at zero, and the room is full or no replica is ready after the time that a request may wait in it.
        """
        chain = fingerprint(request)
        if self._room is not None and not self._listed and not self._closed:
            async with self._room.seat(request) as wait_s:
                lane = await self._awaited(request, chain, avoid, wait_s)
            if lane is None and not self._closed:
                raise self._room.expired()
        else:
            lane = await self._awaited(request, chain, avoid, self._config.wait_s)
        if lane is None:
            raise TierUnavailableError(f"No replica of the tier '{self.name}' is ready.")
        self._prefixes[lane.replica_id].remember(chain, self._sizes.tokens(request), lane.load.kv_capacity_tokens)
        return lane

    async def close(self) -> None:
        """Closes all lanes at once. Afterwards the pool opens no lanes, and ``acquire`` raises TierUnavailableError."""
        self._closed = True
        if self._room is not None:
            self._room.close()
        self._listed = frozenset()
        self._changed.set()
        await asyncio.gather(*(lane.close() for lane in [*self._lanes.values(), *self._draining]))

    def _ready(self) -> dict[str, Lane]:
        return {replica_id: lane for replica_id, lane in self._lanes.items() if lane.state is LaneState.READY}

    def _serving(self, lanes: dict[str, Lane]) -> dict[str, Lane]:
        """Returns those of ``lanes`` that are not of the warm pool; all of them if they all are."""
        return {replica_id: lane for replica_id, lane in lanes.items() if replica_id not in self._warm} or lanes

    def _heard(self, lanes: dict[str, Lane]) -> dict[str, Lane]:
        """Returns those of ``lanes`` whose replicas have been heard of lately; all of them if none has."""
        return {replica_id: lane for replica_id, lane in lanes.items() if not lane.quiet} or lanes

    def _matched(
        self, request: GenerationRequest, chain: tuple[int, ...], replica_ids: Iterable[str]
    ) -> dict[str, int]:
        """Returns the tokens of the start of the prompt that were sent to each replica before, by replica id. ``chain``
        is the prompt's fingerprint."""
        compared = self._sizes.tokens(request) * compared_share(request)  # prompt tokens that fingerprints compare
        return {each: round(compared * self._prefixes[each].matched(chain)) for each in replica_ids}

    async def _awaited(
        self, request: GenerationRequest, chain: tuple[int, ...], avoid: Collection[str], wait_s: float
    ) -> Lane | None:
        """Returns the lane for a request as soon as there is one; None after ``wait_s`` seconds, or if the pool is
        closed."""
        try:
            async with asyncio.timeout(wait_s):
                while (lane := self._choose(request, chain, avoid)) is None and not self._closed:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None
        return lane

    def _choose(self, request: GenerationRequest, chain: tuple[int, ...], avoid: Collection[str]) -> Lane | None:
        ready = {replica_id: lane for replica_id, lane in self._ready().items() if replica_id not in avoid}
        tokens = self._sizes.tokens(request)
        serving = self._serving(self._heard(ready))
        matched = self._matched(request, chain, serving)
        candidates = [
            Candidate(replica_id, lane.outlook, lane.outstanding, matched[replica_id])
            for replica_id, lane in serving.items()
        ]
        priority = _queued_as(request)
        choice = place(candidates, request.request_id, tokens, priority, self._config.affinity_weight)
        if choice is None:
            return None
        chosen = choice.candidate
        lane = self._lanes[chosen.replica_id]
        ttft_s = choice.ttft_s if _is_predicted(request) else 0.0
        uncached = max(1, tokens - chosen.matched_tokens)
        lane.placed.place(
            request.request_id, priority, uncached, chosen.load, ttft_s, asyncio.get_running_loop().time()
        )
        return lane

    def _sync(self, listed: frozenset[str]) -> None:
        """Opens lanes to replicas that are new in ``listed`` and drains lanes to those that are not in it."""
        if self._closed:
            return
        self._listed = listed
        if self._room is not None and listed:
            self._room.started()
        self._delays = {replica_id: delay for replica_id, delay in self._delays.items() if replica_id in listed}
        gone = {replica_id: self._lanes.pop(replica_id) for replica_id in self._lanes.keys() - listed}
        self._draining.update(gone.values())  # all of them, before the first ``drain`` calls ``_on_lane_change``
        for replica_id, lane in gone.items():
            del self._prefixes[replica_id]
            lane.drain()
            self._loop.call_later(self._grace_s, self._hand_over, lane)
        for replica_id in listed - self._lanes.keys():
            self._open(replica_id)

    def _hand_over(self, lane: Lane) -> None:
        """Hands over the requests of a draining lane as soon as another replica is ready to take them."""
        if self._closed or lane.state is LaneState.CLOSED:
            return
        if self._ready():
            lane.hand_over()
        else:
            self._loop.call_later(HAND_OVER_RETRY_S, self._hand_over, lane)

    def _open(self, replica_id: str) -> None:
        """Opens a lane to the replica, with an empty prefix memory, if it is listed and has none."""
        if replica_id not in self._listed or replica_id in self._lanes:
            return  # during the delay the replica has ended, or ``_sync`` has opened a lane
        lane = Lane(
            self._client,
            replica_id,
            buffer_limit=self._config.reader_buffer_tokens,
            on_change=self._on_lane_change,
            on_orphans=self._on_orphans,
            silence_s=self._config.silence_s,
            another_is_heard=lambda: any(not each.quiet for each in self._ready().values() if each is not lane),
            on_first_token=self._on_first_token,
            on_counted=lambda request, usage: self._sizes.observe(request, usage.prompt_tokens),
            wakeups=self._wakeups,
        )
        self._lanes[replica_id] = lane
        self._prefixes[replica_id] = PrefixMemory()
        lane.start()

    def _on_lane_change(self) -> None:
        """Called after each change of a lane's state: forgets closed lanes, and wakes waiting requests."""
        self._draining = {lane for lane in self._draining if lane.state is not LaneState.CLOSED}
        for replica_id, lane in list(self._lanes.items()):
            if lane.state is LaneState.CLOSED:
                del self._lanes[replica_id], self._prefixes[replica_id]
                self._reopen_later(replica_id)
            elif lane.state is LaneState.READY:
                self._delays.pop(replica_id, None)
        lengths = [lane.model.context_length for lane in self._lanes.values() if lane.model is not None]
        self._context_length = min(lengths, default=self._context_length)
        self._changed.set()

    def _reopen_later(self, replica_id: str) -> None:
        """Opens a lane to the replica after its delay, unless it is not listed any more by then."""
        if self._closed:
            return
        delay = self._delays.get(replica_id, MIN_REOPEN_DELAY_S)
        self._delays[replica_id] = min(2 * delay, MAX_REOPEN_DELAY_S)
        logger.warning("The lane to replica %s was lost; opening another in %g s", replica_id, delay)
        self._loop.call_later(delay, self._open, replica_id)


def _queued_as(request: GenerationRequest) -> Priority:
    """Returns the class whose place a request has in a replica's queues. Surplus requests come after all others: the
    class BATCH is the nearest one that replicas report."""
    return Priority.BATCH if request.surplus else request.priority


def _is_predicted(request: GenerationRequest) -> bool:
    """Returns whether a prediction is for the first row of a request, so that its measured TTFT teaches something. How
    long surplus requests wait depends on what other tenants send meanwhile."""
    return _streams_at_once(request) and not request.surplus


def _streams_at_once(request: GenerationRequest) -> bool:
    """Returns whether the first row of a request comes with its first token, which no grammar must be compiled for.
    Searches and ``best_of`` send theirs at the end."""
    sampling = request.sampling
    return sampling.beam is None and sampling.grammar is None and sampling.choices == sampling.n
