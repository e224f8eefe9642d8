"""``tenant_labels``: the labels of tenants in metrics, bounded in number."""

from __future__ import annotations

from cluster.telemetry.bounded_label import FirstLabels

MAX_TENANTS = 100
"""As many take up to 3,000 series of a service with four tiers, beside some 2,000 of Ray's own."""

OTHERS = "(others)"
"""No tenant of a key has this name: names begin with a letter or a digit."""


def tenant_labels(most: int = MAX_TENANTS) -> FirstLabels:
    """Returns what gives each of the first ``most`` tenants its name as its label, and OTHERS to all later ones."""
    return FirstLabels(most, OTHERS)
