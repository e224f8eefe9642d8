"""``ClassifierClient``: the routers' classifier. It asks the deployment, with a deadline and a circuit breaker.

Every way in which an answer can be missing or wrong becomes ClassifierUnavailableError. What happens then, the policy
of the tenant says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from cluster.safety.classifier_reply import ClassifierReply
from cluster.safety.config import ClassifierConfig
from cluster.state.circuit_breaker import BreakerPolicy, BreakerState, CircuitBreaker
from router.ports.clock import Clock, SystemClock
from safety.api import ClassifierUnavailableError, Scores
from safety.classifier.scoring import NONSENSE, check_scores

logger = logging.getLogger(__name__)

Ask = Callable[[Sequence[str]], Awaitable[object]]
"""Asks a replica for the ``ClassifierReply`` to texts. Raises ClassifierUnavailableError if it cannot answer."""


class ClassifierClient:
    """Implements ``TextClassifier``. ``version`` is that of the last reply, and before the first that of the files from
    which the application was built."""

    def __init__(self, ask: Ask, config: ClassifierConfig, version: str, clock: Clock | None = None) -> None:
        self._ask = ask
        self._config = config
        self._version = version
        self._clock = clock or SystemClock()
        self._breaker = CircuitBreaker(BreakerPolicy(config.max_faults, config.open_s, config.max_open_s))

    @property
    def version(self) -> str:
        return self._version

    @property
    def state(self) -> BreakerState:
        """The state of the breaker."""
        return self._breaker.state

    async def classify(self, texts: Sequence[str]) -> Sequence[Scores]:
        """Returns the scores of each text, in order.

        Raises ClassifierUnavailableError if the breaker is open or its half-open probe is under way, the deadline
        passes, the replica fails or dies, or the answer is no list of probabilities.
        """
        if not texts:
            return []
        breaker, allowed = self._breaker.ask(self._clock.monotonic())
        self._become(breaker)
        if not allowed:
            raise ClassifierUnavailableError("the classifier has failed repeatedly and is not asked for a while")
        timeout_s = self._config.deadline_s(sum(map(len, texts)))
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                reply = await self._ask(texts)
            scores = self._scores(reply, len(texts))
        except TimeoutError as error:
            self._time_out(deadline, timeout_s)
            raise ClassifierUnavailableError(f"the classifier did not answer within {timeout_s:g} s") from error
        except ClassifierUnavailableError:
            self._become(self._breaker.fault(self._clock.monotonic()))
            raise
        except BaseException:  # the caller left, which says nothing about the classifier
            self._become(self._breaker.abandoned(self._clock.monotonic()))
            raise
        self._become(self._breaker.success())
        return scores

    def _scores(self, reply: object, texts: int) -> Sequence[Scores]:
        """Raises ClassifierUnavailableError for anything that is not the reply to ``texts`` texts."""
        if not isinstance(reply, ClassifierReply):
            raise ClassifierUnavailableError(NONSENSE)
        self._version = reply.version
        if reply.failure is not None:
            raise ClassifierUnavailableError(reply.failure)
        return check_scores(list(reply.scores), texts)

    def _time_out(self, deadline: float, timeout_s: float) -> None:
        """Notes a timeout. It is no fault of the classifier if this event loop was busy elsewhere when it ended."""
        late = asyncio.get_running_loop().time() - deadline > timeout_s
        step = self._breaker.abandoned if late else self._breaker.fault
        self._become(step(self._clock.monotonic()))

    def _become(self, breaker: CircuitBreaker) -> None:
        before, self._breaker = self._breaker, breaker
        if breaker.state is not before.state:
            level = logging.INFO if breaker.state is BreakerState.CLOSED else logging.WARNING
            logger.log(level, "safety classifier: the circuit breaker is %s", breaker.state)
