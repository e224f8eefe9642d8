"""The dashboards: the service as users see it, tiers and engines, scaling and rollout, tenants, safety and cache."""

from __future__ import annotations

from collections.abc import Sequence

from k8s.monitoring.boards.engine import engine
from k8s.monitoring.boards.safety_and_cache import safety_and_cache
from k8s.monitoring.boards.scaling import scaling
from k8s.monitoring.boards.service import service
from k8s.monitoring.boards.tenants import tenants
from k8s.monitoring.grafana import Dashboard


def dashboards() -> Sequence[Dashboard]:
    """Returns all dashboards."""
    return [service(), engine(), scaling(), tenants(), safety_and_cache()]
