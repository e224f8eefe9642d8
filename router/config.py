"""``RouterConfig``: the settings of the router. Unknown keys are refused."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

HASHED = "sha256:"
"""Marks an API key in the config that is given as its SHA-256 digest."""

MIN_TOP_P = 1e-9
"""What OpenAI's ``top_p: 0`` becomes, since the engine refuses 0. Both select the most probable token alone."""


class Settings(BaseModel):
    """The base of all settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitsConfig(Settings):
    """How much a key or a tenant may use. None: no limit."""

    requests_per_minute: int | None = Field(None, ge=1)
    """Requests in any minute."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Tokens in any minute, input and output together."""
    concurrent_requests: int | None = Field(None, ge=1)
    """Requests at the same time."""
    tokens_per_day: int | None = Field(None, ge=1)
    """Tokens of a day (UTC), input and output together."""
    money_per_month: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Money of a calendar month (UTC), in the currency of the prices."""


class TenantConfig(Settings):
    """The settings of a tenant."""

    limits: LimitsConfig = LimitsConfig()
    """How much all keys of the tenant may use together, whatever limits each key has."""


class LimitPolicy(Settings):
    """How the limits of keys and tenants are kept."""

    when_unavailable: Literal["admit", "refuse"] = "admit"
    """What happens to a request with limits while the shared state does not answer: it is admitted without being
    counted, or refused with a 503. Refuse where a budget must never be exceeded."""
    warn_at: float = Field(0.8, gt=0, le=1)
    """The share of a limit from which on answers have the header x-manta-limit-warning."""
    lease_s: float = Field(15.0, ge=1, le=3600)
    """Seconds after which the reservations of a router that has died are returned. Living routers renew theirs."""
    usual_output_tokens: int = Field(256, ge=1)
    """Tokens that are reserved for an answer without ``max_tokens``, until the usual length of the tenant's answers is
    known."""


class KeyConfig(Settings):
    """An API key and its owner."""

    key: str = Field(min_length=1, repr=False)
    """The key itself, or ``sha256:`` and its hexadecimal digest, which may be put under version control."""
    tenant: str = Field(min_length=1)
    """The tenant, which is billed and owns the data. Cached prefixes are never shared between tenants."""
    team: str = Field(min_length=1)
    """The team within the tenant, for accounting."""
    tiers: tuple[str, ...] | None = Field(None, min_length=1)
    """The tiers that the key may use. A request for another one gets a 404. None: all tiers."""
    limits: LimitsConfig = LimitsConfig()
    """How much the key may use."""

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        # A mistyped digest would otherwise be taken for a key in plain text, readable in the config.
        if key.startswith(HASHED) and not re.fullmatch(r"[0-9a-f]{64}", key.removeprefix(HASHED)):
            raise ValueError("sha256: must be followed by 64 lower-case hexadecimal digits")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError("a key must be made of printable ASCII without spaces: it travels in a header")
        return key


class AutoConfig(Settings):
    """How ``model: auto`` chooses a tier: by a forecast of each tier's quality, or by the prompt's complexity score."""

    forecast: str | None = Field(None, min_length=1)
    """Path of a forecaster's file, which ``python -m deployments.models.training.routing`` writes. None: the complexity
    score decides. The forecaster must be fitted to all configured tiers. A relative path starts at the working
    directory. The file is read once, in the process that builds the application."""
    tolerance: float = Field(0.05, ge=0, le=1)
    """With a forecaster: the cheapest tier is chosen whose forecast chance of a right answer is at most this much below
    the best tier's. 0 always chooses the best tier, 1 always the cheapest."""
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """Without a forecaster: the complexity score, 0 to 1, from which each tier is chosen. The weakest tier has no
    threshold. A tier without one is never chosen, unless a key may use no other. None: thresholds are spread evenly
    from 0.30 to 0.55."""


class ProfileConfig(Settings):
    """A sampling profile: sampling parameters for a use case. What a request sets itself overrides them."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=-1)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that the profile sets, by their names in SamplingParams. ``top_p: 0`` becomes MIN_TOP_P."""
        parameters: dict[str, float] = self.model_dump(exclude_none=True)
        if "top_p" in parameters:
            parameters["top_p"] = max(parameters["top_p"], MIN_TOP_P)
        return parameters


PROFILES = {
    "extraction": ProfileConfig(temperature=0.0, top_k=1, top_p=0.1),
    "factual": ProfileConfig(temperature=0.4, top_k=40, top_p=0.7),
    "creative": ProfileConfig(temperature=1.0, top_k=80, top_p=0.95),
    "experimental": ProfileConfig(temperature=1.5, top_k=200, top_p=0.98),
}


class RouterConfig(Settings):
    """The settings of the router."""

    keys: tuple[KeyConfig, ...] = Field(min_length=1)
    """The API keys that are accepted."""
    tenants: dict[str, TenantConfig] = Field(default_factory=dict)
    """Settings of tenants, by name. A tenant without any has no limits but those of its keys."""
    limits: LimitPolicy = LimitPolicy()
    """How limits are kept."""
    auto: AutoConfig | None = AutoConfig()
    """How ``model: auto`` chooses a tier. None: there is no model ``auto``."""
    aliases: dict[Annotated[str, Field(pattern=r"^[!-~]{1,128}$")], str] = Field(default_factory=dict)
    """Further names of tiers, or of ``auto``, for clients whose model name cannot be changed."""
    max_lost_replicas: int = Field(2, ge=1)
    """Lost replicas after which a request is given up. Until then it is tried again, unless its answer has begun. The
    limit keeps a request that kills replicas from being tried on all of them."""
    profiles: dict[str, ProfileConfig] = PROFILES
    """The sampling profiles, by the name that requests give as ``profile``."""
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """The largest body of a request, in bytes. A larger one gets a 413 before it is read completely."""
    max_prompts: int = Field(64, ge=1)
    """The most prompts of one /v1/completions request. Each becomes an engine request of its own."""
    request_timeout_s: float = Field(600.0, gt=0)
    """Seconds that a request may take in all, its stream included. It should be below the time-outs of proxies in front
    of the router, since this one ends with a clear error."""
    max_concurrent_requests: int = Field(4096, ge=1)
    """The most concurrent requests per router replica. Further ones get a 429. It must be below
    ``ingress.max_ongoing_requests``, beyond which Serve refuses with an error that is not in OpenAI's format."""
