"""``StateStore``: the port to the state that all routers share: API keys, limits and the ledger.

``cluster.state`` implements it with Redis; ``router.memory_store`` in the memory of one process. One suite of contract
tests runs both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.ports.key_store import KeyStore
from router.ports.ledger_store import LedgerStore
from router.ports.limit_store import LimitStore


class StateUnavailableError(Exception):
    """The store did not answer in time, refused the connection, or the circuit breaker is open.

    ``sent``: whether the call may have reached the store, and may have had its effect there.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class StateHealth:
    """The state of this process' connection to the store.

    ``breakers`` has the state of each circuit breaker, by the kind of its calls: ``closed``, ``open`` or ``half_open``.
    ``journal_bytes`` of ledger entries wait on disk. ``lost_entries`` is the number of entries that could not be kept
    there.
    """

    breakers: Mapping[str, str] = field(default_factory=dict)
    journal_bytes: int = 0
    lost_entries: int = 0


class StateStore(KeyStore, LimitStore, LedgerStore, Protocol):
    """The shared state: API keys, limits and the ledger."""

    async def start(self) -> None:
        """Prepares for calls. Called once, on the event loop of all other calls. Does not fail if the store is down."""
        ...

    async def close(self) -> None:
        """Closes all connections. Further calls raise StateUnavailableError."""
        ...

    def health(self) -> StateHealth:
        """Returns the state of this process' connection to the store, without a call to the store."""
        ...
