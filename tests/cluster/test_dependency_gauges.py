"""What a router tells Prometheus of what it depends on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from cluster.asgi_wrappers import with_task
from cluster.state.circuit_breaker import BreakerState
from cluster.telemetry.dependency_gauges import Dependencies, DependencyGauges
from router.memory_safety_store import MemorySafetyStore
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.state_store import StateHealth
from tests.cluster.ray_metrics import record


@dataclass
class Client:
    state: BreakerState = BreakerState.CLOSED


class Store(MemoryStore):
    reported = StateHealth({"reservations": "closed", "reports": "open"}, journal_bytes=77)

    def health(self) -> StateHealth:
        return self.reported


def test_open_breakers_and_growing_journals_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record(monkeypatch)
    classifier, audit = Client(), MemorySafetyStore(SystemClock()).audit
    metrics = DependencyGauges(Dependencies(Store(SystemClock()), audit, {"classifier": classifier}))
    metrics.publish()
    names = ("classifier", "reservations", "reports")
    assert [recorded.value("ray_manta_breaker_open", dependency=name) for name in names] == [0, 0, 1]
    assert recorded.value("ray_manta_journal_bytes", log="ledger") == 77

    classifier.state = BreakerState.HALF_OPEN  # one call passes, all others are refused
    metrics.publish()
    assert recorded.value("ray_manta_breaker_open", dependency="classifier") == 1


async def test_the_task_beside_an_application_ends_with_it() -> None:
    events: list[str] = []

    async def work() -> None:
        events.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        stop = asyncio.Event()

        async def app(scope: object, receive: object, send: object) -> None:
            await stop.wait()

        task = asyncio.ensure_future(with_task(app, work)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        yield
        stop.set()
        await task
        await asyncio.sleep(0)

    async with running():
        assert events == ["began"]
    assert events == ["began", "ended"]
