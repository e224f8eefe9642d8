"""``tenant_labels``: the labels of tenants in metrics, bounded in number."""

from __future__ import annotations

from cluster.telemetry.bounded_label import FirstLabels

MAX_TENANTS = 20
"""As many have at most 3,100 series of a router that serves four tiers (``series_bounds``), and some 800 in use."""

OTHERS = "(others)"
"""No tenant of a key has this name: names begin with a letter or a digit."""


def tenant_labels(most: int = MAX_TENANTS) -> FirstLabels:
    """Returns what gives each of the first ``most`` tenants its name as its label, and OTHERS to all later ones."""
    return FirstLabels(most, OTHERS)
