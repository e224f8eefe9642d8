"""``CircuitBreaker``: decides whether a service that has failed may be called. A pure table of states.

See M. Nygard, "Release It!", 2nd edition, section 5.2. A breaker is immutable; each event returns the next one::

    state      ask before ``retry_at_s``  ask from then on  success    fault                      abandoned
    CLOSED     allowed                    allowed           CLOSED     CLOSED, OPEN at the limit  CLOSED
    OPEN       refused                    HALF_OPEN         OPEN       OPEN                       OPEN
    HALF_OPEN  refused                    refused           CLOSED     OPEN, for twice as long    OPEN; next call: probe

A half-open breaker lets one call through, the probe. ``abandoned`` is a call whose caller did not wait for its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class BreakerState(StrEnum):
    """The state of a circuit breaker."""

    CLOSED = "closed"  # calls pass
    OPEN = "open"  # calls are refused
    HALF_OPEN = "half_open"  # one call passes; it decides


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """The settings of a breaker. ``max_faults`` faults in a row open it, for ``open_s`` seconds at first and for
    ``max_open_s`` seconds at most."""

    max_faults: int = 5
    open_s: float = 1.0
    max_open_s: float = 30.0


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """A breaker and its history. Times are monotonic seconds.

    ``faults`` is the number of faults in a row. ``pause_s`` is the time, in seconds, for which the breaker was opened
    last.
    """

    policy: BreakerPolicy
    state: BreakerState = BreakerState.CLOSED
    faults: int = 0
    pause_s: float = 0.0
    retry_at_s: float = 0.0

    def ask(self, now_s: float) -> tuple[CircuitBreaker, bool]:
        """Returns the next breaker, and whether a call may be made now."""
        if self.state is BreakerState.CLOSED:
            return self, True
        if self.state is BreakerState.OPEN and now_s >= self.retry_at_s:
            return replace(self, state=BreakerState.HALF_OPEN), True
        return self, False

    def success(self) -> CircuitBreaker:
        """Returns the breaker after a call that was answered. A late success does not close an open breaker."""
        return self if self.state is BreakerState.OPEN else CircuitBreaker(self.policy)

    def fault(self, now_s: float) -> CircuitBreaker:
        """Returns the breaker after a call that failed, or took too long. ``now_s`` is in monotonic seconds."""
        faults, policy = self.faults + 1, self.policy
        if self.state is BreakerState.OPEN:
            return self
        if self.state is BreakerState.CLOSED and faults < policy.max_faults:
            return replace(self, faults=faults)
        pause_s = min(policy.max_open_s, 2 * self.pause_s if self.pause_s else policy.open_s)
        return replace(self, state=BreakerState.OPEN, faults=faults, pause_s=pause_s, retry_at_s=now_s + pause_s)

    def abandoned(self, now_s: float) -> CircuitBreaker:
        """Returns the breaker after a call whose end is unknown. If the probe was abandoned, the next call is the new
        probe."""
        if self.state is BreakerState.HALF_OPEN:
            return replace(self, state=BreakerState.OPEN, retry_at_s=now_s)
        return self
