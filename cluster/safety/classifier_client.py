"""``ClassifierClient``: the routers' classifier. It calls the deployment, with a deadline and a circuit breaker.

Every missing or malformed answer becomes ClassifierUnavailableError. The tenant's policy decides what happens then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from cluster.model_service.deployment_calls import GuardedCalls
from cluster.safety.classifier_reply import ClassifierReply
from cluster.safety.config import ClassifierConfig
from cluster.state.circuit_breaker import BreakerState
from router.ports.clock import Clock, SystemClock
from safety.api import ClassifierBusyError, ClassifierUnavailableError, Scores
from safety.classifier.scoring import NONSENSE, check_scores

Ask = Callable[[Sequence[str], str, bool], Awaitable[object]]
"""Asks a replica for the ``ClassifierReply`` to texts of a tenant, which are urgent or not. Raises
ClassifierUnavailableError if it cannot answer."""


class ClassifierClient:
    """Calls the deployment ``SafetyClassifier`` by ``ask``. Implements ``TextClassifier``. ``version`` is the version
    in the last reply; before the first reply, that of the files from which the application was built. ``clock`` times
    the circuit breaker; None: the system's."""

    def __init__(self, ask: Ask, config: ClassifierConfig, version: str, clock: Clock | None = None) -> None:
        self._ask = ask
        self._config = config
        self._version = version
        self._calls = GuardedCalls("classifier", config, clock or SystemClock(), ClassifierUnavailableError)

    @property
    def version(self) -> str:
        return self._version

    @property
    def state(self) -> BreakerState:
        """The state of the circuit breaker."""
        return self._calls.state

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        """Returns the scores of each text, in order. ``urgent`` is as in ``TextClassifier``.

        Raises ClassifierUnavailableError if the breaker is open or its half-open probe is under way, the deadline
        passes, the replica fails or dies, or the answer is no list of probabilities; ClassifierBusyError, which is no
        fault of the replica, if too much text of the tenant waits there.
        """
        if not texts:
            return []

        async def scores() -> Sequence[Scores] | ClassifierBusyError:
            try:
                return self._scores(await self._ask(texts, tenant, urgent), len(texts))
            except ClassifierBusyError as busy:
                return busy  # no fault of the classifier

        found = await self._calls.call(scores, self._config.deadline_s(sum(map(len, texts))))
        if isinstance(found, ClassifierBusyError):
            raise found
        return found

    def _scores(self, reply: object, texts: int) -> Sequence[Scores]:
        """Raises ClassifierUnavailableError for anything that is not the reply to ``texts`` texts."""
        if not isinstance(reply, ClassifierReply):
            raise ClassifierUnavailableError(NONSENSE)
        self._version = reply.version
        if reply.failure is not None and reply.busy:
            raise ClassifierBusyError(reply.failure)
        if reply.failure is not None:
            raise ClassifierUnavailableError(reply.failure)
        return check_scores(list(reply.scores), texts)
