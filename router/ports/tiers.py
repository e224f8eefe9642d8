"""What the router needs from below, as Protocols: it knows tiers that generate, never Ray.

``cluster`` implements these with Serve handles and lanes; tests implement them by hand.

Errors that an implementation of TierBackend raises (beside ``engine.api``'s RequestError, OverloadedError)::

    BackendError
    ├── TierUnavailableError     no replica of the tier answers (starting, all dead, or Serve refused)
    └── ReplicaLostError         the replica died under this request
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.api import Delta, GenerationRequest


class BackendError(Exception):
    """Root of what a backend raises when the fault is not the request's."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class TierUnavailableError(BackendError):
    """No replica of the tier can take a request now."""


class ReplicaLostError(BackendError):
    """The replica that ran this request has died; what was streamed so far is all there is."""


@dataclass(frozen=True, slots=True)
class TierStatus:
    """A tier as the router sees it."""

    name: str
    model: str  # the model's name, for /v1/models
    context_length: int  # tokens; 0 while no replica has reported yet
    ready: bool
    replicas: int


class TierBackend(Protocol):
    """The tiers, however they are reached."""

    def status(self) -> Sequence[TierStatus]:
        """Every tier, in order of ability, weakest first."""
        ...

    def generate(self, tier: str, request: GenerationRequest) -> AsyncGenerator[Sequence[Delta], None]:
        """Start ``request`` on a replica of ``tier`` and yield its deltas, coalesced when the reader is slow.

        The last delta carries a finish reason. Closing the generator early (``aclose``) aborts the request's work
        within one engine step. Errors of admission are raised by the first ``anext``, before any delta.
        """
        ...
