"""The model tiers, as the router sees them.

``cluster`` implements ``TierBackend`` with Serve handles and lanes; tests implement it by hand. One call of
``TierBackend.generate`` is one attempt on one replica; ``router.generation.attempts`` decides about the next one.

Errors that an implementation raises (beside ``engine.api.RequestError``)::

    BackendError
    ├── TierUnavailableError       no replica of the tier is ready (starting, all dead, or Serve refused)
    ├── SlowReaderError            the client reads too slowly; its buffer is full
    └── ReplicaError               one replica is at fault; another may do better
        ├── ReplicaLostError       the replica died or cannot be reached
        ├── ReplicaOverloadedError the replica's queue is full
        └── ReplicaVersionError    the replica's release cannot honour the request (during a rollout)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.api import Delta, GenerationRequest


class BackendError(Exception):
    """Root of what a backend raises when the request is not at fault."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class TierUnavailableError(BackendError):
    """No replica of the tier can take a request now."""


class SlowReaderError(BackendError):
    """The client reads so slowly that its buffer is full. Its request is ended so that it delays no other request."""


class ReplicaError(BackendError):
    """An attempt failed through its replica. ``replica_id`` is empty where the backend does not know it."""

    def __init__(self, message: str, replica_id: str = "") -> None:
        super().__init__(message)
        self.replica_id = replica_id


class ReplicaLostError(ReplicaError):
    """The replica that ran the attempt has died or cannot be reached."""


class ReplicaOverloadedError(ReplicaError):
    """The replica's queue is full. ``retry_after_s`` estimates when it will have room, in seconds."""

    def __init__(self, message: str, replica_id: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, replica_id)
        self.retry_after_s = retry_after_s


class ReplicaVersionError(ReplicaError):
    """The replica runs another release of Manta, which does not know a field or a value of the request."""


@dataclass(frozen=True, slots=True)
class TierDescription:
    """The static part of a tier: known at start, never changed."""

    name: str
    model: str  # the name of the model behind it


@dataclass(frozen=True, slots=True)
class TierSnapshot:
    """The load of a tier at one instant, over all of its ready replicas."""

    name: str
    replicas: frozenset[str] = frozenset()  # ids of the replicas that are ready
    context_length: int | None = None  # tokens, prompt and answer together; None until a replica has reported it
    running: int = 0  # sequences that are being computed
    waiting: int = 0  # sequences in the queues
    wait_s: float = 0.0  # estimated wait of one more request on the replica with the shortest wait, in seconds
    kv_used: float = 0.0  # share of KV blocks in use, 0 to 1

    @property
    def ready(self) -> bool:
        """Whether a replica can take a request."""
        return bool(self.replicas)


class TierBackend(Protocol):
    """The tiers, however they are reached."""

    async def start(self) -> None:
        """Begin to look for replicas. Called once, on the event loop that makes all other calls."""
        ...

    async def close(self) -> None:
        """Close all connections to replicas; requests still running are aborted. May be called again."""
        ...

    def tiers(self) -> Sequence[TierDescription]:
        """Every tier, in order of ability, weakest first."""
        ...

    def snapshot(self) -> Sequence[TierSnapshot]:
        """The load of every tier now, in the order of ``tiers``."""
        ...

    def generate(
        self, tier: str, request: GenerationRequest, avoid: Collection[str] = ()
    ) -> AsyncGenerator[Sequence[Delta], None]:
        """Run ``request`` on one replica of ``tier`` that is not in ``avoid`` and yield its deltas, coalesced while the
        reader is busy.

        The last delta carries a finish reason. Closing the generator early (``aclose``) aborts the request's work
        within one engine step. The first ``anext`` raises refusals (RequestError, ReplicaOverloadedError) and
        TierUnavailableError, before any delta.
        """
        ...
