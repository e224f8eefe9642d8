"""Limits on the usage of keys and tenants, and how they are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from router.config.settings import Settings

MIN_MONEY = 1e-9
"""The smallest budget: one of the units in which money is counted (``ports.limit_store``). Less would be rounded to 0,
which is no limit that can be counted."""


class LimitsConfig(Settings):
    """The limits on the usage of a key or a tenant. None: no limit."""

    requests_per_minute: int | None = Field(None, ge=1)
    """Requests in any minute."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Tokens in any minute, input and output together."""
    concurrent_requests: int | None = Field(None, ge=1)
    """Requests at the same time."""
    tokens_per_day: int | None = Field(None, ge=1)
    """Tokens of a day (UTC), input and output together."""
    money_per_month: float | None = Field(None, ge=MIN_MONEY, allow_inf_nan=False)
    """Money of a calendar month (UTC), in the currency of the prices."""


class LimitPolicy(Settings):
    """The settings by which the limits of keys and tenants are enforced."""

    when_unavailable: Literal["admit", "refuse"] = "admit"
    """What happens to a request with limits while the shared state does not answer: it is admitted, and counted when
    the state answers again, or refused with a 503. Refuse where a budget must never be exceeded."""
    warn_at: float = Field(0.8, gt=0, le=1)
    """The share of a limit from which on answers have the header x-manta-limit-warning."""
    lease_s: float = Field(15.0, ge=1, le=3600)
    """Seconds after which the reservations of a router that has died are returned. Living routers renew theirs."""
    usual_output_tokens: int = Field(256, ge=1)
    """Tokens that are reserved for an answer without ``max_tokens``, until the usual length of the tenant's answers is
    known."""
