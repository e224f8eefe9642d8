"""``EmbedderClient``: the routers' embedder. It calls the deployment, with a deadline and a circuit breaker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.embedder.config import EmbedderConfig
from cluster.embedder.embedder_reply import EmbedderReply
from cluster.embedder.followed_model import FollowedModel
from cluster.model_service.deployment_calls import GuardedCalls
from cluster.state.circuit_breaker import BreakerState
from router.ports.clock import Clock, SystemClock
from router.ports.embedder import Embedded, EmbedderUnavailableError, TextTooLongError

NONSENSE = "the embedder is answering nonsense"

MAX_LENGTH_ERROR = 1e-3  # of a vector, whose length is 1

Ask = Callable[[Sequence[str], str], Awaitable[object]]
"""Asks a replica for the ``EmbedderReply`` to texts of a tenant. Raises EmbedderUnavailableError if it cannot
answer."""


@dataclass(frozen=True, slots=True)
class EmbedderDescription:
    """The properties of the embedder, as known before its first reply. The fields are as in ``Embedder``."""

    model: str
    dimensions: int
    max_tokens: int


class EmbedderClient:
    """Calls the deployment ``Embedder`` by ``ask``. Implements ``Embedder``. ``model`` is the model that this client
    follows (``FollowedModel``); before the first reply, that of ``description``, the files from which the application
    was built. ``clock`` times the circuit breaker and the change to another model; None: the system's."""

    def __init__(
        self, ask: Ask, config: EmbedderConfig, description: EmbedderDescription, clock: Clock | None = None
    ) -> None:
        self._ask = ask
        self._config = config
        self._description = description
        self._clock = clock or SystemClock()
        self._followed = FollowedModel(description.model)
        self._calls = GuardedCalls("embedder", config, self._clock, EmbedderUnavailableError)

    @property
    def model(self) -> str:
        return self._followed.model

    @property
    def dimensions(self) -> int:
        return self._description.dimensions

    @property
    def max_tokens(self) -> int:
        return self._description.max_tokens

    @property
    def state(self) -> BreakerState:
        """The state of the circuit breaker."""
        return self._calls.state

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        """Returns the embeddings of ``texts`` of a tenant.

        Raises TextTooLongError for a text with more tokens than the model takes, and EmbedderUnavailableError if the
        breaker is open or its half-open probe is under way, the deadline passes, the replica fails or dies, or the
        answer is no list of vectors of length 1.
        """
        if not texts:
            return Embedded(np.zeros((0, self.dimensions), np.float32), (), self.model)

        async def checked() -> EmbedderReply:
            reply = self._checked(await self._ask(texts, tenant), len(texts))
            self._followed = self._followed.after(reply.model, self._clock.monotonic())
            return reply

        reply = await self._calls.call(checked, self._config.deadline_s(sum(map(len, texts))))
        if reply.too_long is not None:
            raise TextTooLongError(*reply.too_long)
        assert reply.embeddings is not None, "a checked reply has embeddings unless a text is too long"
        return Embedded(*reply.embeddings, reply.model)

    def _checked(self, reply: object, texts: int) -> EmbedderReply:
        """Returns ``reply`` if it is the reply to ``texts`` texts.

        Raises EmbedderUnavailableError for anything else, such as a vector with NaN, which has no cosine."""
        if not isinstance(reply, EmbedderReply):
            raise EmbedderUnavailableError(NONSENSE)
        if reply.failure is not None:
            raise EmbedderUnavailableError(reply.failure)
        if reply.too_long is not None:
            return reply
        if reply.embeddings is None:
            raise EmbedderUnavailableError(f"{NONSENSE}: no embeddings")
        vectors, tokens = reply.embeddings
        if vectors.shape != (texts, self.dimensions) or vectors.dtype != np.float32 or len(tokens) != texts:
            found = f"{vectors.dtype} {list(vectors.shape)}"
            raise EmbedderUnavailableError(f"{NONSENSE}: {found} instead of [{texts}, {self.dimensions}]")
        lengths = np.linalg.norm(vectors, axis=1)
        if not (np.abs(lengths - 1) <= MAX_LENGTH_ERROR).all():  # False for NaN too
            raise EmbedderUnavailableError(f"{NONSENSE}: a vector has not the length 1")
        return reply
