"""``SemanticCacheClient``: the routers' semantic index. It calls the deployment ``SemanticCache``, with a
deadline and a circuit breaker."""

from __future__ import annotations

import logging
from typing import Protocol

from cluster.cache.cache_reply import CacheReply
from cluster.cache.config import SemanticCacheConfig
from cluster.model_service.deployment_calls import GuardedCalls
from cluster.state.circuit_breaker import BreakerState
from router.ports.answer_cache import HitFeedback, SemanticMatch, SemanticQuestion, SemanticUnavailableError
from router.ports.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

FEEDBACK_S = 5.0
"""The deadline of a feedback, for which no request waits."""


class Ask(Protocol):
    """A call to a replica. Each coroutine raises SemanticUnavailableError if the replica cannot answer."""

    async def lookup(self, question: SemanticQuestion) -> object: ...
    async def feedback(self, feedback: HitFeedback) -> object: ...


class SemanticCacheClient:
    """Calls the deployment ``SemanticCache`` by ``ask``. Implements ``SemanticIndex``. ``clock`` times the circuit
    breaker; None: the system's. A replica that is lost or late counts as a fault for the breaker. A reply that the
    replica cannot search, for example without Redis, does not: it came in time."""

    def __init__(self, ask: Ask, config: SemanticCacheConfig, clock: Clock | None = None) -> None:
        self._ask = ask
        self._config = config
        self._calls = GuardedCalls("semantic index", config, clock or SystemClock(), SemanticUnavailableError)
        self._failure: str | None = None

    @property
    def state(self) -> BreakerState:
        """The state of the circuit breaker."""
        return self._calls.state

    async def lookup(self, question: SemanticQuestion) -> SemanticMatch | None:
        reply = await self._calls.call(lambda: self._lookup(question), self._config.deadline_ms / 1000)
        self._note(reply.failure)
        if reply.failure is not None:
            raise SemanticUnavailableError(reply.failure)
        return reply.match

    async def feedback(self, feedback: HitFeedback) -> None:
        reply = await self._calls.call(lambda: self._feedback(feedback), FEEDBACK_S)
        if reply.failure is not None:
            raise SemanticUnavailableError(reply.failure)

    async def _lookup(self, question: SemanticQuestion) -> CacheReply:
        return _checked(await self._ask.lookup(question))

    async def _feedback(self, feedback: HitFeedback) -> CacheReply:
        return _checked(await self._ask.feedback(feedback))

    def _note(self, failure: str | None) -> None:
        """Logs the first of failures in a row, and the end of them: not each request that goes on without."""
        if failure is not None and self._failure is None:
            logger.warning("answers are found by their exact question only, for now: %s", failure)
        if failure is None and self._failure is not None:
            logger.info("answers are found by the meaning of their question again")
        self._failure = failure


def _checked(reply: object) -> CacheReply:
    if not isinstance(reply, CacheReply):
        raise SemanticUnavailableError("the semantic index is answering nonsense")
    return reply
