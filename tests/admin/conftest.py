"""A service whose engines' counts are scripted. Ray is imported by the tests of the command `manta scale`."""

from __future__ import annotations

import pytest

import tests.ray_settings  # noqa: F401 - before Ray is imported
from router.admin.overview_api import OverviewSources
from tests.access.service import Service
from tests.admin.overviews import ScriptedCounts
from tests.admin.scripted_scaling import ScriptedScaling


@pytest.fixture
def counted_service() -> Service:
    """A service with counts of its engines, an autoscaler, and a circuit breaker that is open."""
    clock = Service().clock
    sources = OverviewSources(ScriptedCounts(), lambda: {"classifier": "open"}, "router-1")
    return Service(clock=clock, scaling=ScriptedScaling(clock.now()), overview=sources)
