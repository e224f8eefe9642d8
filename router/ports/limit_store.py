"""``LimitStore``: the port to the limits that all routers share, with its types.

A request reserves what it may need at most before its work, and settles it to what it used at the end. In between its
router renews the lease of the reservation. A reservation whose lease has run out is settled by the store itself, to the
use that was reported last.

All amounts are integers, so that every implementation computes the same: tokens, and money in units of 1e-9 of the
currency. Times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MONEY_UNITS = 1_000_000_000
"""Units of money in 1 of the currency, such as 1 dollar. A price of 0.15 per million tokens is 150 units per token."""


class LimitName(StrEnum):
    """The limits that a scope may have. The values are the names of the settings, and of fields in the API."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    CONCURRENT_REQUESTS = "concurrent_requests"
    TOKENS_PER_DAY = "tokens_per_day"
    MONEY_PER_MONTH = "money_per_month"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose limits they are: ``name`` is unique within the tenant, such as ``tenant`` or ``key:ID``.

    ``limits`` are pairs of a limit's name and its value, positive, in the order of ``LimitName``. Money is in
    MONEY_UNITS. What has no limit is not counted.
    """

    name: str
    limits: tuple[tuple[LimitName, int], ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request uses beside the request itself: tokens of input and output, and money in MONEY_UNITS."""

    tokens: int = 0
    money: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """A request for room in all of ``scopes``, which belong to ``tenant``. ``id`` is unique. ``charge`` is the most
    that the request may use."""

    id: str
    tenant: str
    scopes: tuple[Scope, ...]
    charge: Charge


@dataclass(frozen=True, slots=True)
class LimitUse:
    """The state of one limit of one scope. ``used`` includes the request that was decided on, if it was admitted.

    ``reset_ms``: until nothing is used any more, if no request follows. ``wait_ms``: until the request that was decided
    on would have room; 0 if it has it now; None if it never will, since it needs more than the whole limit.
    """

    scope: str
    name: LimitName
    limit: int
    used: int
    reset_ms: int
    wait_ms: int | None = 0

    @property
    def remaining(self) -> int:
        """What is left. Never negative, although a request may use more than it reserved."""
        return max(0, self.limit - self.used)

    @property
    def owner(self) -> str:
        """Whose limit it is: ``key`` or ``tenant``."""
        return self.scope.partition(":")[0]


@dataclass(frozen=True, slots=True)
class LimitDecision:
    """Whether a request has room within all limits, and the state of each, in the order of scopes and limits."""

    uses: tuple[LimitUse, ...]

    @property
    def refused(self) -> tuple[LimitUse, ...]:
        """The limits without room. If there is none, the request is admitted and its charge is reserved."""
        return tuple(use for use in self.uses if use.wait_ms != 0)

    @property
    def admitted(self) -> bool:
        """Whether the request may run."""
        return not self.refused

    def near(self, warn_at: float) -> tuple[LimitUse, ...]:
        """Returns the limits of which the share ``warn_at`` or more is used."""
        return tuple(use for use in self.uses if use.used >= warn_at * use.limit)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A request that still runs, and what it has used up to now."""

    id: str
    tenant: str
    used: Charge


class LimitStore(Protocol):
    """The limits of all scopes. Each method raises StateUnavailableError if the store cannot be reached in time."""

    async def reserve(self, reservation: Reservation, lease_ms: int) -> LimitDecision:
        """Reserves the charge in all scopes, or in none, and returns which. One round trip, atomic.

        The reservation is held for ``lease_ms``, unless it is renewed.
        """
        ...

    async def renew(self, renewals: Sequence[Renewal], lease_ms: int) -> None:
        """Extends the leases to ``lease_ms`` from now, and notes what was used. Unknown ids are ignored.

        A reservation whose lease has run out is held again.
        """
        ...

    async def settle(self, tenant: str, reservation_id: str, used: Charge) -> bool:
        """Replaces the reserved charge by what was ``used``, and ends the reservation. Returns whether it was open.

        A second call has no effect. A reservation whose lease has run out is settled all the same.
        """
        ...

    async def limit_uses(self, tenant: str, scopes: Sequence[Scope]) -> Sequence[LimitUse]:
        """Returns the state of the limits of ``scopes``, in their order."""
        ...

    async def open_reservations(self, tenant: str) -> int:
        """Returns the number of the tenant's reservations whose lease has not run out."""
        ...
