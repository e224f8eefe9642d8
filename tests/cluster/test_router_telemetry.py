"""What a router publishes while it runs, and at its end."""

from __future__ import annotations

import asyncio

import pytest

from cluster.state.circuit_breaker import BreakerState
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.dependency_gauges import Dependencies
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.release import release
from cluster.telemetry.router_telemetry import RouterTelemetry
from router.memory_safety_store import MemorySafetyStore
from router.ports.clock import SystemClock
from tests.cluster.ray_metrics import record


class OpenClient:
    state = BreakerState.OPEN


def dependencies() -> Dependencies:
    return Dependencies(None, MemorySafetyStore(SystemClock()).audit, {"classifier": OpenClient()})


async def test_gauges_are_published_at_once_and_the_last_sums_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record(monkeypatch)
    telemetry = RouterTelemetry(TelemetryConfig())
    counter = telemetry.summed.counter("manta_test", "What a request counts.")
    published = asyncio.ensure_future(telemetry.publisher(dependencies())())
    await asyncio.sleep(0)
    assert recorded.value("ray_manta_breaker_open", dependency="classifier") == 1
    assert recorded.value("ray_manta_router_build_info", release=release()) == 1

    counter.inc(3)
    published.cancel()
    await asyncio.wait({published})
    assert recorded.value("ray_manta_test_total") == 3


def test_a_gauge_that_cannot_be_made_fails_the_router_and_not_the_task_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(monkeypatch)
    telemetry = RouterTelemetry(TelemetryConfig())

    def refuse(*_: object) -> None:
        raise ValueError("Ray takes no such label")

    monkeypatch.setattr(RayInstruments, "gauge", refuse)
    with pytest.raises(ValueError, match="no such label"):
        telemetry.publisher(dependencies())
