"""``tenant_labels``: the labels of tenants in metrics, bounded in number."""

from __future__ import annotations

from cluster.telemetry.bounded_label import FirstLabels

MAX_TENANTS = 50
"""As many take some 1,200 series of a node whose router serves four tiers, beside some 1,300 of its stages and replicas
and 2,500 of Ray's own."""

OTHERS = "(others)"
"""No tenant of a key has this name: names begin with a letter or a digit."""


def tenant_labels(most: int = MAX_TENANTS) -> FirstLabels:
    """Returns what gives each of the first ``most`` tenants its name as its label, and OTHERS to all later ones."""
    return FirstLabels(most, OTHERS)
