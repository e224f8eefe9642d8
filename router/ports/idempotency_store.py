"""``IdempotencyStore``: the port to the idempotency keys of requests, which all routers share.

``cluster.state`` implements it with Redis, ``router.memory_idempotency_store`` in the memory of one process. One suite
of contract tests runs both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """How long and how much is kept. ``lease_ms``: how long a request has its key without ``renew``. ``window_ms``: how
    long a key and its answer are kept after their last change. ``max_keys`` and ``max_bytes``: the most that one tenant
    may have; the key whose time ends first makes room."""

    lease_ms: int
    window_ms: int
    max_keys: int
    max_bytes: int


class KeyState(StrEnum):
    """The state in which ``claim`` has found an idempotency key."""

    CLAIMED = "claimed"  # the caller has the key now
    RUNNING = "running"  # another request has it
    ANSWERED = "answered"  # the answer is stored
    DIFFERENT = "different"  # the key was used for another request


class KeyClaim(NamedTuple):
    """The answer of ``claim``. ``value`` is the stored answer if it is ANSWERED; if it is CLAIMED, the account of the
    first request with the key, whose router has died, or that of this one."""

    state: KeyState
    value: str = ""


class IdempotencyStore(Protocol):
    """The idempotency keys. Each coroutine raises StateUnavailableError if the store cannot be reached in time."""

    async def start(self) -> None:
        """Prepares for calls. Called once, on the event loop of all other calls. Does not fail if the store is down."""
        ...

    async def close(self) -> None:
        """Closes all connections. Further calls raise StateUnavailableError."""
        ...

    async def claim(self, tenant: str, key: str, request: str, owner: str, account: str, terms: KeyTerms) -> KeyClaim:
        """Takes ``key`` for ``owner``, unless it is taken or answered. ``request`` is a digest of the request, and
        ``account`` the id of its ledger entry. A key whose lease has ended is taken with its former account."""
        ...

    async def renew(self, tenant: str, key: str, owner: str, terms: KeyTerms) -> bool:
        """Extends the lease of ``owner``. Returns whether it still has the key."""
        ...

    async def answer(self, tenant: str, key: str, owner: str, answer: str, terms: KeyTerms) -> bool:
        """Stores the answer to the request of ``owner``. Returns whether it still had the key."""
        ...

    async def release(self, tenant: str, key: str, owner: str) -> None:
        """Forgets the key, if ``owner`` has it."""
        ...
