"""``SemanticCacheReplica``: a replica of the deployment ``SemanticCache``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from cluster.autoscaling.busy_counter import BusyCounter
from cluster.cache.cache_reply import CacheReply
from cluster.cache.config import SemanticCacheConfig
from cluster.cache.index_follower import IndexFollower
from cluster.telemetry.application_name import application_name
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.logs import replica_logs
from cluster.telemetry.tracing import call_tracer
from router.ports.answer_cache import (
    HitFeedback,
    SemanticIndex,
    SemanticQuestion,
    SemanticUnavailableError,
)
from router.ports.trace_names import SpanName


class FollowerStoppedError(RuntimeError):
    """The replica no longer follows the changes of the stored answers."""


class LocalParts(Protocol):
    """The parts of a replica of the semantic cache, in its process: the index, and the follower that updates it.
    ``cluster.cache.replica_parts.RedisParts`` implements it."""

    @property
    def index(self) -> SemanticIndex: ...
    @property
    def follower(self) -> IndexFollower: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...


MakeParts = Callable[[Any], LocalParts]
"""Makes the parts, from what a process needs to ask the embedder."""


class SemanticCacheReplica:
    """The actor of one replica. The constructor must run on the actor's event loop, as Serve runs it.

    Each replica follows all changes, so that any of them answers any look-up. ``make_parts`` makes the index in the
    replica's process; ``embedder`` is its argument, the link to the embedder. ``telemetry`` None: the
    defaults.
    """

    def __init__(
        self,
        config: SemanticCacheConfig,
        make_parts: MakeParts,
        embedder: Any,
        telemetry: TelemetryConfig | None = None,
    ) -> None:
        telemetry = telemetry or TelemetryConfig()
        replica_logs(telemetry.logs)
        # While the index is built, or Redis is away, all requests go on without: not each is a trace to be kept.
        refusals = (SemanticUnavailableError,)
        self._traces = call_tracer(telemetry, "cache", SpanName.LOOKUP, refusals, application_name())
        self._config = config
        self._parts = make_parts(embedder)
        self._busy = BusyCounter()
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def lookup(self, question: SemanticQuestion, trace: Mapping[str, str] | None = None) -> CacheReply:
        """Returns the best candidate, or why the replica could not look. Faults of Redis and of the embedder are in the
        reply, not raised. ``trace`` is the caller's ``trace_headers``; None: it does not trace the request."""
        self._busy.count()
        try:
            with self._traces.call(trace):
                return CacheReply(await self._parts.index.lookup(question))
        except SemanticUnavailableError as error:
            return CacheReply(failure=str(error))

    async def feedback(self, feedback: HitFeedback) -> CacheReply:
        """Takes the judgement of a hit into account. Faults of Redis and of the embedder are in the reply, not
        raised."""
        try:
            await self._parts.index.feedback(feedback)
        except SemanticUnavailableError as error:
            return CacheReply(failure=str(error))
        return CacheReply()

    async def status(self) -> dict[str, Any]:
        """Returns the size of the index and the follower's state and counters, for operators and tests."""
        follower = self._parts.follower
        size = None if follower.index is None else follower.index.size._asdict()
        return {"pid": os.getpid(), "state": follower.state.value, "index": size, **asdict(follower.counts)}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the numbers by which the deployment is scaled, if it is (``busy_report``)."""
        return self._busy.numbers()

    def check_health(self) -> None:
        """Raises FollowerStoppedError if changes are no longer followed. Serve calls it every
        ``health_check_period_s``."""
        if self._following.done():
            raise FollowerStoppedError("the semantic index is no longer brought up to date")

    def __del__(self) -> None:
        # Serve calls it when a replica ends.
        if traces := getattr(self, "_traces", None):  # absent if the constructor failed
            traces.close()

    async def _follow(self) -> None:
        await self._parts.start()
        try:
            await self._parts.follower.run()
        finally:
            await self._parts.close()
