"""``TenantLabels``: the labels of tenants in metrics, bounded in number."""

from __future__ import annotations

MAX_TENANTS = 500
OTHERS = "(others)"
"""No tenant of a key has this name: names begin with a letter or a digit."""


class TenantLabels:
    """Gives each of the first MAX_TENANTS tenants its name as its label, and OTHERS to all later ones."""

    def __init__(self) -> None:
        self._tenants: set[str] = set()

    def __call__(self, tenant: str) -> str:
        """Returns the label of a tenant."""
        if tenant not in self._tenants:
            if len(self._tenants) >= MAX_TENANTS:
                return OTHERS
            self._tenants.add(tenant)
        return tenant
