"""``TenantLabels``: the labels of tenants in metrics, bounded in number."""

from __future__ import annotations

MAX_TENANTS = 100
"""As many take up to 3,000 series of a service with four tiers, beside some 2,000 of Ray's own."""

OTHERS = "(others)"
"""No tenant of a key has this name: names begin with a letter or a digit."""


class TenantLabels:
    """Gives each of the first ``most`` tenants its name as its label, and OTHERS to all later ones."""

    def __init__(self, most: int = MAX_TENANTS) -> None:
        self._most = most
        self._tenants: set[str] = set()

    def __call__(self, tenant: str) -> str:
        """Returns the label of a tenant."""
        if tenant not in self._tenants:
            if len(self._tenants) >= self._most:
                return OTHERS
            self._tenants.add(tenant)
        return tenant
