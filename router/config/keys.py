"""API keys of the config, and what a key may do."""

from __future__ import annotations

import re
from enum import StrEnum

from pydantic import Field, field_validator

from router.config.limits import LimitsConfig
from router.config.settings import Name, Names, Settings
from router.config.tenants import Spill

HASHED = "sha256:"
"""Marks an API key in the config that is given as its SHA-256 digest."""


class Role(StrEnum):
    """The role of an API key."""

    ADMIN = "admin"  # everything, ``/admin/v1`` included
    USER = "user"  # inference, and the usage of its own tenant
    VIEWER = "viewer"  # the usage of its own tenant and the list of models, but no inference


class KeyRights(Settings):
    """The rights of an API key: the tiers, models, tools and endpoints that it may use. A list that is None permits
    everything."""

    role: Role = Role.USER
    """What the key is for."""
    feature: Name | None = None
    """The feature, for accounting. None: requests may name one in the header x-manta-feature."""
    feature_header: bool | None = None
    """Whether requests may name their feature in the header x-manta-feature. None: if the key has no feature."""
    tiers: Names | None = None
    """The tiers that the key may use. ``auto`` chooses among them."""
    models: Names | None = None
    """The model names that the key may ask for: tiers, ``auto`` and aliases."""
    tools: Names | None = None
    """The functions that requests with the key may offer to the model."""
    endpoints: Names | None = None
    """The paths that the key may call, such as /v1/chat/completions. /v1/models is always allowed."""
    spill: Spill | None = None
    """Where requests with the key may go that their tier would refuse: as far as ``router.tenants.*.spill`` allows it,
    if that is set. None: as that says, or ``router.admission.spill``. Requests may narrow it (field ``spill``)."""
    limits: LimitsConfig = LimitsConfig()
    """How much the key may use."""


class KeyConfig(KeyRights):
    """An API key in the config, and its owner."""

    key: str = Field(min_length=1, repr=False)
    """The key itself, or ``sha256:`` and its hexadecimal digest, which may be put under version control."""
    tenant: Name
    """The tenant, which is billed and owns the data. Cached prefixes are never shared between tenants."""
    team: Name
    """The team within the tenant, for accounting."""

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        # A mistyped digest would otherwise be taken for a key in plain text, readable in the config.
        if key.startswith(HASHED) and not re.fullmatch(r"[0-9a-f]{64}", key.removeprefix(HASHED)):
            raise ValueError("sha256: must be followed by 64 lower-case hexadecimal digits")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError("a key must be made of printable ASCII without spaces: it travels in a header")
        return key
