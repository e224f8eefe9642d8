"""The scopes whose limits a request must keep: its API key and its tenant. Pure."""

from __future__ import annotations

from functools import lru_cache

from router.config.limits import LimitsConfig
from router.ports.limit_store import MONEY_UNITS, LimitName, Scope

TENANT = "tenant"
MAX_REMEMBERED = 4096
"""Keys whose scopes are computed once: each request needs them."""


@lru_cache(MAX_REMEMBERED)
def scopes_of(key_id: str, key: LimitsConfig, tenant: LimitsConfig) -> tuple[Scope, ...]:
    """Returns the scopes of a request that have limits, the key's first."""
    scopes = (Scope(f"key:{key_id}", limits_of(key)), Scope(TENANT, limits_of(tenant)))
    return tuple(scope for scope in scopes if scope.limits)


def limits_of(config: LimitsConfig) -> tuple[tuple[LimitName, int], ...]:
    """Returns the limits that ``config`` sets, as pairs of name and value for ``Scope.limits``. Money is converted to
    units of 1e-9 of the currency."""
    set_limits = [(name, getattr(config, name.value)) for name in LimitName]
    return tuple(
        (name, round(limit * MONEY_UNITS) if name is LimitName.MONEY_PER_MONTH else limit)
        for name, limit in set_limits
        if limit is not None
    )
