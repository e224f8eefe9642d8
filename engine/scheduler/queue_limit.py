"""Who may still join the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.api import OverloadedError, Priority

Line = tuple[Priority, str]
"""A class and a tenant: those who wait in order of arrival."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """The waiting sequences at one instant."""

    waiting: int = 0
    by_line: Mapping[Line, int] = field(default_factory=dict)
    wait_s: float = 0.0  # estimate for one more, in seconds

    def of(self, tenant: str) -> int:
        """Those of one tenant."""
        return sum(self.by_line.get((priority, tenant), 0) for priority in Priority)


def check_room(tenant: str, queue: QueueState, arrivals: Mapping[str, int], bound: int) -> None:
    """Raises OverloadedError if ``tenant`` may not add a sequence. ``arrivals`` have come since ``queue`` was seen.

    The queue holds ``bound``. When others have filled it, a tenant with less than an equal share of it waiting still
    gets in, so that nobody is shut out by a neighbour's backlog; twice ``bound`` is never exceeded.
    """
    waiting = queue.waiting + sum(arrivals.values())
    if waiting < bound:
        return
    own = queue.of(tenant) + arrivals.get(tenant, 0)
    tenants = len({name for _, name in queue.by_line} | arrivals.keys() | {tenant})
    if own < bound // tenants and waiting < 2 * bound:
        return
    raise OverloadedError(f"{waiting} requests are waiting already.", max(queue.wait_s, 1.0))
