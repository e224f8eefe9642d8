"""Requests with an idempotency key."""

from __future__ import annotations

from pydantic import Field

from router.config.settings import Settings


class IdempotencyConfig(Settings):
    """Requests with the header Idempotency-Key, whose whole answers are given again to a retry."""

    enabled: bool = True
    """Whether the header has an effect."""
    window_s: float = Field(86_400.0, ge=60, le=7 * 86_400)
    """Seconds for which an answer is kept for retries."""
    lease_s: float = Field(5.0, ge=0.2, le=60)
    """Seconds after which the key of a router that has died is free again."""
    max_keys: int = Field(10_000, ge=1)
    """The most keys of a tenant. The one whose time ends first makes room."""
    max_bytes: int = Field(32 * 1024 * 1024, ge=65_536)
    """The most bytes of a tenant's stored answers together, in Redis."""
    max_answer_bytes: int = Field(256 * 1024, ge=1024)
    """The largest answer that is stored. A retry of a larger one is run again."""
