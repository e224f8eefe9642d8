"""``TierBackend``: the port through which the router reaches the model tiers, with its types and errors.

``cluster.serve_backend`` implements it with Serve handles and lanes; tests have implementations of their own. One call
of ``TierBackend.generate`` is one attempt on one replica. ``router.generation.attempts`` decides about the next one.

Errors that an implementation raises (beside ``engine.api.RequestError``)::

    BackendError
    ├── TierUnavailableError       no replica of the tier is ready (starting, all dead, or Serve refused)
    │   └── TierStartingError      the tier was at zero replicas, and the request cannot wait for a first one
    ├── SlowReaderError            the client reads too slowly; its buffer is full
    ├── PoisonRequestError         several replicas were lost while they ran the request; made by the router
    └── ReplicaError               one replica failed or refused; another may succeed
        ├── ReplicaLostError       the replica died, or hangs
        │   └── ReplicaUnreachableError  it was gone before the request was sent to it
        ├── ReplicaDrainedError    the replica stops as planned, and its time to finish is over
        ├── ReplicaOverloadedError the replica's queue is full
        └── ReplicaVersionError    the replica's release cannot honour the request (during a rollout)
            └── ModelVersionError  the replica has another version of the model than the answer has begun with
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.api import Delta, GenerationRequest, Prompt, Usage
from router.ports.replica_load import ReplicaLoad

OnUsage = Callable[[Usage | None], None]
"""Takes the engine's final token counts of an attempt; None if they will never be known."""

OnPlaced = Callable[[str, int], None]
"""Takes the id of the replica that gets an attempt, and the tokens of the prompt that it likely has to compute."""


@dataclass(frozen=True, slots=True)
class OrphanedAttempt:
    """The end of an attempt whose router may have died before it could write it to the ledger.

    ``request_id`` is that of the engine request. ``account`` is the argument that the router gave to
    ``TierBackend.generate``. ``usage`` has the engine's final token counts.
    """

    request_id: str
    account: str
    usage: Usage


CachedTokens = Callable[[Prompt, str], Mapping[str, int]]
"""Takes a prompt and its cache salt. Returns the tokens of the prompt that replicas likely have in their prefix caches,
by replica id; a replica that is not among them has none."""

OnOrphans = Callable[[Sequence[OrphanedAttempt]], None]
"""Takes the attempts of other routers, and of this one, whose connection to the replica has ended. An attempt may come
again, and its router may have written it already."""


class BackendError(Exception):
    """The base of the errors that a backend raises when the request is not at fault."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class TierUnavailableError(BackendError):
    """No replica of the tier can take a request now."""


class TierStartingError(TierUnavailableError):
    """The tier has no replica, since it is scaled to zero while no request comes, and the request cannot wait for a
    first one. ``retry_after_s`` estimates when there is one, in seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SlowReaderError(BackendError):
    """The client reads so slowly that its buffer is full. Its request is ended so that it delays no other request."""


class PoisonRequestError(BackendError):
    """The replicas ``replica_ids`` were lost one after the other while they ran the request, which may be the cause."""

    def __init__(self, replica_ids: Sequence[str]) -> None:
        super().__init__(
            f"The request was given up: {len(replica_ids)} replicas of the model were lost while they ran it."
        )
        self.replica_ids = tuple(replica_ids)


class ReplicaError(BackendError):
    """The replica failed or refused the attempt. ``replica_id`` is empty if the backend does not know the replica.
    ``version`` is that of its model; "": unknown."""

    def __init__(self, message: str, replica_id: str = "", version: str = "") -> None:
        super().__init__(message)
        self.replica_id = replica_id
        self.version = version


class ReplicaLostError(ReplicaError):
    """The replica that ran the attempt has died, or hangs. The request may be the cause."""


class ReplicaUnreachableError(ReplicaLostError):
    """The replica was gone before the request was sent to it."""


class ReplicaDrainedError(ReplicaError):
    """The replica stops as planned, such as in a rollout, and its time to finish running requests is over."""


class ReplicaOverloadedError(ReplicaError):
    """The replica's queue is full. ``retry_after_s`` estimates when it will have room, in seconds."""

    def __init__(self, message: str, replica_id: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, replica_id)
        self.retry_after_s = retry_after_s


class ReplicaVersionError(ReplicaError):
    """The replica runs another release of Manta, which does not know a field or a value of the request."""


class ModelVersionError(ReplicaVersionError):
    """The replica has another version of the model, or other settings of the engine, than the answer has begun with."""


@dataclass(frozen=True, slots=True)
class TierDescription:
    """The properties of a tier that never change after the start."""

    name: str
    model: str  # the name of the model that the tier runs
    sampling: Mapping[str, float] = field(default_factory=dict)  # sampling parameters of requests that set none
    version: str = ""  # of the model's files and the engine's settings: with another, answers may differ
    replica_version: str = ""  # that its replicas report while they run this release; "": not known
    drain_timeout_s: float = 600.0  # seconds that a replica which is to stop may take to finish what it runs
    replicas: int | None = None  # the number that is configured; None: the load decides, or it is not known


def nothing_cached(prompt: Prompt, cache_salt: str) -> Mapping[str, int]:
    """The ``CachedTokens`` of a backend that does not know."""
    return {}


@dataclass(frozen=True, slots=True)
class TierSnapshot:
    """The load of a tier at one instant, over all of its ready replicas but the warm ones."""

    name: str
    replicas: frozenset[str] = frozenset()  # ids of the replicas that are ready, without ``warm``
    context_length: int | None = None  # tokens, prompt and answer together; None until a replica has reported it
    running: int = 0  # running sequences, of all replicas together
    waiting: int = 0  # sequences in the waiting queues, of all replicas together
    wait_s: float = 0.0  # estimated seconds until one more sequence starts, on the replica with the shortest wait
    kv_used: float = 0.0  # KV cache usage: the share of KV blocks in use, 0 to 1
    loads: Mapping[str, ReplicaLoad] = field(default_factory=dict, compare=False)  # of the ready replicas, by id
    scales_to_zero: bool = False  # whether it may have no replica; the first request starts one then
    warm: frozenset[str] = frozenset()  # ids of ready replicas beside those, which get what no other one can take
    cached_tokens: CachedTokens = field(default=nothing_cached, compare=False)

    @property
    def ready(self) -> bool:
        """Whether the tier has a ready replica."""
        return bool(self.replicas)

    @property
    def available(self) -> bool:
        """Whether the tier takes requests: it has a ready replica, or may be without one."""
        return self.ready or self.scales_to_zero


class TierBackend(Protocol):
    """The model tiers of the service and the load of their replicas. It runs requests on them."""

    async def start(self, on_orphans: OnOrphans) -> None:
        """Begins to connect to replicas. Called once, on the event loop that makes all other calls.

        ``on_orphans`` is called with the attempts that replicas report for routers that have died.
        """
        ...

    async def close(self) -> None:
        """Closes all connections to replicas. Running requests are aborted. Further calls have no effect."""
        ...

    def tiers(self) -> Sequence[TierDescription]:
        """Returns all tiers in order of ability, weakest first."""
        ...

    def snapshot(self) -> Sequence[TierSnapshot]:
        """Returns the present load of every tier, in the order of ``tiers``."""
        ...

    def model_version(self, tier: str, replica_id: str) -> str:
        """Returns the version of the model of a replica, as in ``TierDescription.replica_version``; "": not known."""
        ...

    def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        """Runs ``request`` on one replica of ``tier`` and yields its deltas.

        ``avoid`` holds the ids of replicas that must not be used. Deltas come in order within a choice. Deltas that
        arrive while the reader is busy come in one batch. The last delta of the request is one with ``Delta.last``.
        Closing the generator early aborts the request within one engine step. ``on_usage`` is then called with the
        engine's token counts up to the abort, maybe after the generator has closed; or with None if the replica is
        lost. It is not called after the last delta, which has the counts itself. ``account`` is the draft from which
        another router writes the attempt to the ledger if this one dies; "" if nothing is to be written. ``on_placed``
        is called once a replica is chosen, in the same step of the event loop in which its load in ``snapshot`` begins
        to have the request. A backend whose loads lack what was sent since the replica's report does not call it.

        The first ``anext`` may raise any error of this module, or RequestError. Later ones may raise ReplicaLostError,
        ReplicaDrainedError, ReplicaVersionError and SlowReaderError. Failed and drained replicas name the version of
        their model, and a request with a ``model_version`` is refused by replicas that have another one.
        """
        ...
