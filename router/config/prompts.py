"""Prompt templates, and conversations that are too long."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from router.config.settings import Settings

OverflowPolicy = Literal["larger_tier", "retrieve", "compress", "trim"]
"""What can be done with a conversation that is too long. ``larger_tier``: another tier of the key takes it whole.
``retrieve``: the passages of older turns that fit the last one best stand in their place. ``compress``: older turns
lose the sentences that have least to do with the last one. ``trim``: the oldest turns are dropped whole."""


class OverflowConfig(Settings):
    """The policies for a conversation that does not fit a tier's context, or is longer than ``max_prompt_tokens``."""

    policies: tuple[OverflowPolicy, ...] = ()
    """What is tried, in this order, until the conversation fits. (): nothing; the request is refused."""
    max_prompt_tokens: int | None = Field(None, ge=16)
    """The most tokens of a conversation, even if the tier's context has room for more: long prompts cost more and are
    answered worse. None: as many as the context has."""
    answer_tokens: int = Field(256, ge=1)
    """Tokens that are left for the answer to a request without ``max_tokens``; a quarter of the context at most."""


class PromptsConfig(Settings):
    """The settings of stored prompts, and of conversations that are too long."""

    cache_s: float = Field(5.0, ge=0, le=3600)
    """Seconds after which a router reads again which version of a prompt is active."""
    overflow: OverflowConfig = OverflowConfig()
    """What happens to conversations that are too long."""
    tiers: dict[str, OverflowConfig] = Field(default_factory=dict)
    """The same for single tiers, instead of ``overflow``."""
    tenants: dict[str, OverflowConfig] = Field(default_factory=dict)
    """The same for single tenants. A tenant's setting comes before that of the tier."""

    def overflow_of(self, tenant: str, tier: str) -> OverflowConfig:
        """Returns the overflow settings that apply to a tenant's conversations on a tier."""
        return self.tenants.get(tenant) or self.tiers.get(tier) or self.overflow
