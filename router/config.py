"""Settings of the router, each with its unit and its reason. Unknown keys are refused."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

HASHED = "sha256:"
MIN_TOP_P = 1e-9
"""Stands for 0, which the engine does not take: the most probable token alone."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyConfig(Settings):
    """One API key and whose it is."""

    key: str = Field(min_length=1, repr=False)
    """The key itself, or ``sha256:<hex digest>`` of it, so that a config in version control opens nothing."""
    tenant: str = Field(min_length=1)
    """Who pays and whose data it is: prefix caches are never shared between tenants."""
    team: str = Field(min_length=1)
    """Part of the tenant, for attribution."""
    tiers: tuple[str, ...] | None = Field(None, min_length=1)
    """The tiers that the key may use; others do not exist for it. None: all."""

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, key: str) -> str:
        # A digest with a slip in it would otherwise be taken for a key, and be one that anybody can read in the config.
        if key.startswith(HASHED) and not re.fullmatch(r"[0-9a-f]{64}", key.removeprefix(HASHED)):
            raise ValueError("sha256: must be followed by 64 lower-case hexadecimal digits")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError("a key must be made of printable ASCII without spaces: it travels in a header")
        return key


class AutoConfig(Settings):
    """``model: auto``: by what a forecaster expects of each tier if there is one, else by complexity score, 0 to 1."""

    forecast: str | None = Field(None, min_length=1)
    """Path of a forecaster's file, as ``python -m deployments.models.training.routing`` writes it, fitted to exactly
    the tiers configured. Relative to the working directory, as paths of models are. Read once, where the application is
    built. None: no forecaster."""
    tolerance: float = Field(0.05, ge=0, le=1)
    """How far a tier's chance of a right answer may be below the best tier's for the cheaper one to be chosen. 0 always
    takes the best, 1 always the cheapest."""
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """By tier, the complexity score from which it answers; the weakest tier has none. A tier that is not named is
    not chosen, unless a key may use no other. None: spread evenly from 0.30 to 0.55."""


class ProfileConfig(Settings):
    """Sampling for a use case; what a request sets itself goes before."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=-1)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)

    @property
    def parameters(self) -> dict[str, float]:
        """What is set, by the engine's names. OpenAI's ``top_p: 0`` means the most probable token alone."""
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
    """Everything the router decides by."""

    keys: tuple[KeyConfig, ...] = Field(min_length=1)
    """Who may come in."""
    auto: AutoConfig | None = AutoConfig()
    """How ``model: auto`` chooses. None: there is no such model."""
    aliases: dict[Annotated[str, Field(pattern=r"^[!-~]{1,128}$")], str] = Field(default_factory=dict)
    """Other names of tiers, or of ``auto``, that requests may give as ``model``: clients often have a name built in."""
    max_lost_replicas: int = Field(2, ge=1)
    """Replicas that may be lost under one request before anything was sent, until it is given up: a request that kills
    replicas must not be tried on all of them."""
    profiles: dict[str, ProfileConfig] = PROFILES
    """By the names that requests give as ``profile``."""
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """Larger requests get a 413 before they are read whole: memory per request is bounded."""
    max_prompts: int = Field(64, ge=1)
    """Prompts in one /v1/completions request; each is a sequence of its own in the engine."""
    request_timeout_s: float = Field(600.0, gt=0)
    """End to end, the stream included. Below every time-out in front of us, so that it is ours that speaks."""
    max_concurrent_requests: int = Field(4096, ge=1)
    """Requests at once per router; one more gets a 429. Below what Serve allows: its refusal is not OpenAI's shape."""
