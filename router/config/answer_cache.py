"""The answer cache, in general and of single tenants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from pydantic import Field

from router.config.settings import Settings

MAX_CACHE_TTL_S = 90 * 86_400
"""Seconds. What is older than a quarter of a year is hardly an answer to be given again."""


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """The settings of the answer cache that apply to one tenant. The members are as in ``AnswerCacheConfig``."""

    enabled: bool
    semantic: bool
    sampled: bool
    ttl_s: float
    max_entries: int
    max_bytes: int


class TenantCacheConfig(Settings):
    """The answer cache of one tenant. A member that is None has the value of ``AnswerCacheConfig``."""

    enabled: bool | None = None
    semantic: bool | None = None
    sampled: bool | None = None
    ttl_s: float | None = Field(None, gt=0, le=MAX_CACHE_TTL_S)
    max_entries: int | None = Field(None, ge=1)
    max_bytes: int | None = Field(None, ge=1024)


class AnswerCacheConfig(Settings):
    """The answer cache: stores complete answers, and returns them to the same question, or to one of the same
    meaning."""

    enabled: bool = False
    """Whether answers are stored and given again."""
    semantic: bool = True
    """Whether an answer is also given to another question of the same meaning, where there is a semantic index."""
    sampled: bool = False
    """Whether answers are stored that were sampled at a temperature above 0 without a seed. Each request would get
    another one; with the cache, all get the first."""
    ttl_s: float = Field(86_400.0, gt=0, le=MAX_CACHE_TTL_S)
    """Seconds for which an answer is kept."""
    max_entries: int = Field(100_000, ge=1)
    """The most answers that a tenant has stored. The one that was used least recently makes room."""
    max_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    """The most bytes of a tenant's answers together, as they are stored."""
    max_entry_bytes: int = Field(256 * 1024, ge=1024)
    """The largest answer that is stored, in bytes. Larger ones are rare, and would evict many others."""
    billing: Literal["free", "full"] = "free"
    """What a hit costs: nothing, or what the generation of its answer has cost. Tokens are counted alike."""
    max_false_hit_rate: float = Field(0.01, gt=0, le=0.5)
    """The share of different questions that may be taken for the same. The semantic index keeps it, at 95 % confidence.
    A lower one gives fewer hits."""
    shadow_share: float = Field(0.01, ge=0, le=1)
    """The share of semantic hits whose answer is generated all the same, sent, and compared with the stored one."""
    near_miss_share: float = Field(0.1, ge=0, le=1)
    """The share of misses with a candidate that scored too low whose new answer is compared with that of the candidate.
    It costs a read of the store. Without it the threshold is never lowered."""
    lease_s: float = Field(3.0, ge=0.2, le=60)
    """Seconds after which identical requests stop waiting for the one that generates their answer, if its router no
    longer renews its lease."""
    max_wait_s: float = Field(60.0, gt=0, le=600)
    """The longest that a request waits for an identical one. Then it generates its own answer."""
    tenants: dict[str, TenantCacheConfig] = Field(default_factory=dict)
    """The settings that single tenants have instead, by name."""

    def terms(self, tenant: str) -> CacheTerms:
        """Returns the settings that apply to ``tenant``."""
        own = self.tenants.get(tenant)
        if own is None:
            return self._common
        changed = {name: value for name, value in own.model_dump().items() if value is not None}
        return replace(self._common, **changed)

    @cached_property
    def _common(self) -> CacheTerms:
        return CacheTerms(self.enabled, self.semantic, self.sampled, self.ttl_s, self.max_entries, self.max_bytes)
