"""The limit of the waiting queue: which tenant may still add a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.api import OverloadedError, Priority

Line = tuple[Priority, str]
"""One of the queue's lists: a priority class and a tenant, whose requests wait in order of arrival."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """The lengths of the waiting queue at one instant, and the estimated wait."""

    waiting: int = 0  # requests
    by_line: Mapping[Line, int] = field(default_factory=dict)  # requests by priority class and tenant
    wait_s: float = 0.0  # estimated wait of one more request, in seconds

    def of(self, tenant: str) -> int:
        """Returns the number of waiting requests of ``tenant``."""
        return sum(self.by_line.get((priority, tenant), 0) for priority in Priority)


def check_room(tenant: str, queue: QueueState, arrivals: Mapping[str, int], bound: int) -> None:
    """Raises OverloadedError if the queue takes no further request of ``tenant``. ``arrivals`` counts, by tenant, the
    requests that have come since ``queue`` was read.

    The queue holds ``bound`` requests. If it is full, a tenant that has less than an equal share of ``bound`` waiting
    may still add one, so that no tenant is shut out by the backlog of another; the queue never exceeds twice ``bound``.
    """
    waiting = queue.waiting + sum(arrivals.values())
    if waiting < bound:
        return
    own = queue.of(tenant) + arrivals.get(tenant, 0)
    tenants = len({name for _, name in queue.by_line} | arrivals.keys() | {tenant})
    if own < bound // tenants and waiting < 2 * bound:
        return
    raise OverloadedError(f"{waiting} requests are waiting already.", max(queue.wait_s, 1.0))
