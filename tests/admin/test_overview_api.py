"""The overview has what can be had, whatever fails beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cluster.admin.top_numbers import glance
from router.admin import overview_api
from router.admin.overview_api import OverviewSources, added
from router.memory_store import MemoryStore
from router.ports.state_store import StateUnavailableError
from tests.access.service import Service, config
from tests.admin.overviews import BUCKETS, ScriptedCounts, overview, shown
from tests.admin.scripted_scaling import ScriptedScaling


async def test_the_overview_has_load_queues_use_and_breakers(counted_service: Service) -> None:
    assert (await counted_service.ask("sk-user")).status_code == 200
    found = await overview(counted_service)
    fast, balanced, _ = found["tiers"]
    assert (fast["tier"], fast["wanted"], fast["replicas"]) == ("fast", 3, 1)
    assert fast["engines"]["replicas"] == 2
    assert fast["engines"]["classes"]["standard"]["waiting"] == 3
    assert fast["engines"]["generated_tokens"] == 600
    assert (balanced["wanted"], balanced["engines"]) == (None, None)
    assert found["today"]["requests"] == 1
    assert found["today"]["outcomes"] == {"finished": 1}
    assert found["today"]["cost"] > 0
    assert found["router"]["ended"] == {"finished": 1}
    assert found["router"]["id"] == "router-1"
    assert found["breakers"]["classifier"] == "open"
    assert found["missing"] == []


async def test_many_who_look_at_once_ask_the_replicas_once() -> None:
    counts = ScriptedCounts()
    service = Service(overview=OverviewSources(counts))
    await asyncio.gather(*(overview(service) for _ in range(5)))
    assert counts.looks == 1
    service.virtual.advance(0.6)
    await overview(service)
    assert counts.looks == 2


class DownStore(MemoryStore):
    """The shared state while it cannot be reached."""

    async def sums(self, query: object) -> Any:
        raise StateUnavailableError("down")


async def test_the_overview_answers_while_the_shared_state_is_down(
    counted_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryStore, "sums", DownStore.sums)
    found = await overview(counted_service)
    assert found["today"] is None
    assert "shared state" in found["missing"][0]
    assert "cost –" in shown(glance([found]))


async def test_the_overview_answers_while_the_store_of_the_autoscaler_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview_api, "WANTED_S", 0.02)
    asked, answers = 0, asyncio.Event()

    class HangingScaling(ScriptedScaling):
        async def decisions(self) -> Sequence[Mapping[str, object]]:
            nonlocal asked
            asked += 1
            await answers.wait()
            return await super().decisions()

    clock = Service().clock
    service = Service(scaling=HangingScaling(clock.now()))
    async with asyncio.timeout(5):
        for _ in range(3):
            found = await overview(service)
            assert "no answer within" in found["missing"][0]
            service.virtual.advance(0.6)
    assert asked == 1
    answers.set()
    await asyncio.sleep(0)
    assert (await overview(service))["tiers"][0]["wanted"] == 3
    assert (await overview(service))["tiers"][0]["wanted"] == 3


async def test_a_request_that_a_limit_refuses_is_counted() -> None:
    service = Service(config(tenants={"acme": {"limits": {"requests_per_minute": 1}}}))
    assert [(await service.ask("sk-user")).status_code for _ in range(3)] == [200, 429, 429]
    assert (await overview(service))["router"]["limited"] == {"requests_per_minute": 2}


def test_histograms_of_a_release_with_other_buckets_are_left_out() -> None:
    ours = [1] * BUCKETS
    assert added([ours, [5, 5], ours, ()]) == [2] * BUCKETS
    assert added([]) == [0] * BUCKETS
