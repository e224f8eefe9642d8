"""``TierReplica``: the model replica, an actor around one engine that routers reach through lanes.

The engine runs on its own thread. Once per step it hands that step's deltas to this actor's event loop, which sorts
them into lanes. A lane that ends, for whatever reason, takes its requests with it: the router has left or died, so
their work is aborted within one engine step.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple, Protocol

from cluster.config import TierConfig
from cluster.lanes.codec import Record, VersionMismatchError
from cluster.lanes.lane_registry import LaneRegistry
from cluster.lanes.messages import (
    LaneItem,
    ReplicaLoad,
    first_lane_item,
    lane_item,
    pack,
    pack_refusal,
    unpack_request,
)
from engine.api import (
    Conversation,
    Delta,
    EngineDeadError,
    EngineError,
    EngineStats,
    GenerationRequest,
    Grammar,
    ModelInfo,
)

OnStep = Callable[[Sequence[Delta]], None]

HEARTBEAT_S = 1.0  # an idle lane still carries the load this often

MAX_INLINE_PROMPT = 8192  # characters; a longer prompt takes over a millisecond to tokenise, so not on the event loop
MAX_NEW_GRAMMARS = 2  # requests whose grammars are compiled at once; an engine tries two at once


class ReplicaEngine(Protocol):
    """What a replica needs of an engine. ``engine.AsyncEngine`` is one."""

    def start(self) -> None: ...
    def close(self) -> None: ...
    def submit(self, request: GenerationRequest) -> None: ...
    def knows_grammar(self, grammar: Grammar) -> bool: ...
    def abort(self, request_ids: Iterable[str]) -> None: ...
    def stats(self) -> EngineStats: ...
    def check_health(self) -> None: ...
    @property
    def model_info(self) -> ModelInfo: ...


class ReplicaDescription(NamedTuple):
    """A replica at one instant. ``requests`` counts those that a lane is open for."""

    pid: int
    requests: int
    model: ModelInfo
    stats: EngineStats


EngineFactory = Callable[[TierConfig, OnStep], ReplicaEngine]


def _prompt_length(request: GenerationRequest) -> int:
    """Characters of text, or token ids."""
    if isinstance(request.prompt, Conversation):
        return request.prompt.characters
    return len(request.prompt)


def _effort(request: GenerationRequest) -> int:
    """What there is to look at before a request can be queued, in characters or token ids."""
    sampling = request.sampling
    words = 2 * sum(map(len, sampling.bad_words))
    return _prompt_length(request) + words + len(sampling.allowed_token_ids or ()) + len(sampling.logit_bias)


class TierReplica:
    """One replica of one tier. Its public methods are called through Serve handles."""

    def __init__(self, tier: TierConfig, make_engine: EngineFactory) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = LaneRegistry()
        self._new_grammars = ThreadPoolExecutor(MAX_NEW_GRAMMARS, thread_name_prefix="new-grammars")
        self._engine = make_engine(tier, self._on_step)
        self._engine.start()

    async def lane(self, lane_id: str, *, replica_id: str) -> AsyncGenerator[LaneItem, None]:
        """One item per engine step, for as long as the router stays. ``replica_id`` is read by PinnedRequestRouter."""
        outbox = self._registry.open(lane_id)
        try:
            yield first_lane_item(self._load(), self._engine.model_info)
            while True:
                rows = await outbox.take(HEARTBEAT_S)
                yield lane_item(self._load(), rows)
        finally:
            self._engine.abort(self._registry.close(lane_id))

    async def submit(self, lane_id: str, packed: Record, *, replica_id: str) -> Record | None:
        """Start a packed request, whose deltas go to the lane. Returns None, or the packed refusal."""
        try:
            await self._submit(lane_id, unpack_request(packed))
        except (EngineError, VersionMismatchError) as refusal:
            return pack_refusal(refusal)
        return None

    async def abort(self, lane_id: str, request_ids: Sequence[str], *, replica_id: str) -> None:
        """Give requests up; their KV blocks are free within one engine step."""
        for request_id in request_ids:
            self._registry.release(request_id)
        self._engine.abort(request_ids)

    async def ping(self) -> None:
        """Does nothing: a call of it makes Serve list the deployment's replicas to the caller's process."""

    async def describe(self) -> ReplicaDescription:
        """Returns the model and the engine's counters, for operators and tests."""
        return ReplicaDescription(os.getpid(), self._registry.requests, self._engine.model_info, self._engine.stats())

    def check_health(self) -> None:
        """Called by Serve; raises when the engine has died or makes no progress."""
        self._engine.check_health()

    def __del__(self) -> None:
        # Serve's hook for the end of a replica.
        engine = getattr(self, "_engine", None)  # absent if the model failed to load
        if engine is not None:
            engine.close()
            self._new_grammars.shutdown(wait=False)  # what is queued there finds the engine closed

    async def _submit(self, lane_id: str, request: GenerationRequest) -> None:
        if not self._registry.claim(lane_id, request.request_id):
            raise EngineDeadError("The lane of this request is not open here.")
        try:
            if request.sampling.grammar is not None or _effort(request) > MAX_INLINE_PROMPT:
                # Shielded: the thread cannot be stopped, so what it submits must be seen to here.
                threads = self._threads(request)
                await asyncio.shield(self._loop.run_in_executor(threads, self._engine.submit, request))
            else:
                self._engine.submit(request)
        except BaseException:  # also what a library's panic raises: the request must not stay claimed
            self._registry.release(request.request_id)
            raise
        finally:
            if not self._registry.owns(lane_id, request.request_id):
                self._engine.abort([request.request_id])  # its lane closed, or it was aborted, while it was tokenised

    def _threads(self, request: GenerationRequest) -> Executor | None:
        """Where a request is submitted: None is the event loop's own pool. A new grammar may take seconds to try, so
        requests with one wait for each other only."""
        grammar = request.sampling.grammar
        return None if grammar is None or self._engine.knows_grammar(grammar) else self._new_grammars

    def _load(self) -> ReplicaLoad:
        return ReplicaLoad.of(self._engine.stats())

    def _on_step(self, deltas: Sequence[Delta]) -> None:
        """Engine thread: pack there, where the event loop does not wait for it."""
        self._loop.call_soon_threadsafe(self._registry.deliver, pack(deltas))
