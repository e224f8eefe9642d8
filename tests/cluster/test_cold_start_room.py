"""Requests that wait for a tier at zero: how many, how long, and what the autoscaler hears of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.autoscaling.config import WaitingRoomConfig
from cluster.autoscaling.snapshot import WaitingRoom
from cluster.config import PlacementConfig
from cluster.lanes import cold_start_room
from cluster.lanes.cold_start_room import ColdStartRoom
from cluster.lanes.lane import Lane
from cluster.lanes.lane_pool import LanePool
from engine.api import GenerationRequest, Priority, SamplingParams
from router.errors import refusal_of
from router.ports.tier_backend import TierStartingError
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import settle


def request(name: str) -> GenerationRequest:
    return GenerationRequest(name, (1, 2, 3, 4, 5), SamplingParams(max_tokens=3))


class Tier:
    """A tier at zero with a waiting room, whose reports are on record."""

    def __init__(self, cold_start_s: float = 20.0, **config: float) -> None:
        self.reports: list[WaitingRoom] = []
        self.cold_start_s = cold_start_s
        self.client = LocalClient({})
        self.room = ColdStartRoom("fast", WaitingRoomConfig.model_validate(config), self.report, self.read)
        self.pool = LanePool("fast", self.client, PlacementConfig(wait_s=0), lambda _: None, room=self.room)

    async def report(self, room: WaitingRoom) -> None:
        self.reports.append(room)

    async def read(self) -> float:
        return self.cold_start_s

    async def start(self) -> None:
        self.client.replicas["first"] = LocalReplica()
        self.pool.replicas_changed(["first"])
        await settle()

    def ask(self, name: str) -> asyncio.Task[Lane]:
        return asyncio.create_task(self.pool.acquire(request(name)))

    @property
    def last(self) -> tuple[int, float]:
        return self.reports[-1].requests, self.reports[-1].prompt_tokens


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a task of the room decides when
            await asyncio.sleep(0.001)


async def test_a_request_that_waits_is_reported_at_once_and_gets_the_first_replica() -> None:
    tier = Tier()
    assert tier.pool.snapshot().available
    assert not tier.pool.snapshot().ready
    asked = tier.ask("a")
    await settle()
    assert tier.last == (1, 5.0)
    await tier.start()
    assert (await asked).replica_id == "first"
    await eventually(lambda: tier.last == (0, 0.0))
    assert (await tier.ask("b")).replica_id == "first"
    assert tier.last == (0, 0.0)
    await tier.pool.close()


async def test_reports_go_on_while_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start_room, "REPORT_S", 0.01)
    tier = Tier()
    asked = [tier.ask("a"), tier.ask("b")]
    await eventually(lambda: len(tier.reports) > 3)
    assert tier.last == (2, 10.0)
    asked[0].cancel()  # its client has left
    await eventually(lambda: tier.last == (1, 5.0))
    asked[1].cancel()
    await eventually(lambda: tier.last == (0, 0.0))
    count = len(tier.reports)
    await asyncio.sleep(0.05)
    assert len(tier.reports) == count
    await tier.pool.close()


async def test_a_full_room_refuses_with_the_time_that_is_left() -> None:
    tier = Tier(cold_start_s=20.0, max_requests=2)
    asked = [tier.ask("a"), tier.ask("b")]
    await settle()
    with pytest.raises(TierStartingError, match="2 requests wait already") as raised:
        await tier.ask("c")
    assert 19 < raised.value.retry_after_s <= 20
    refusal = refusal_of(raised.value)
    assert (refusal.kind.value, refusal.code) == ("unavailable", "tier_starting")
    assert refusal.retry_after_s == raised.value.retry_after_s
    await tier.start()
    assert [(await each).replica_id for each in asked] == ["first"] * 2
    await tier.pool.close()


async def test_a_request_whose_time_is_over_is_refused() -> None:
    tier = Tier(cold_start_s=0.0, ttl_s=1.01)
    with pytest.raises(TierStartingError, match=r"no replica within 1\.01 s"):
        await tier.ask("a")
    await eventually(lambda: tier.last == (0, 0.0))
    await tier.pool.close()


async def test_a_tier_that_starts_too_slowly_to_wait_for_is_started_all_the_same() -> None:
    tier = Tier(cold_start_s=300.0, ttl_s=60)
    with pytest.raises(TierStartingError, match="in about 300 s") as raised:
        await tier.ask("a")
    assert raised.value.retry_after_s == pytest.approx(300, abs=1)
    await settle()
    assert tier.last[0] == 1
    await tier.start()
    await eventually(lambda: tier.last == (0, 0.0))
    await tier.pool.close()


async def test_who_comes_later_waits_for_the_rest_of_the_start_that_another_was_refused_for() -> None:
    tier = Tier(cold_start_s=2.5, ttl_s=2)
    with pytest.raises(TierStartingError, match="in about 2 s"):
        await tier.ask("a")
    await asyncio.sleep(0.6)  # of the start, of which 1.9 s are left
    asked = tier.ask("b")
    await settle()
    assert not asked.done()
    await tier.start()
    assert (await asked).replica_id == "first"
    await tier.pool.close()


async def test_who_tries_again_after_its_time_is_not_told_of_a_whole_start() -> None:
    tier = Tier(cold_start_s=1.5, ttl_s=1.5, max_requests=1)
    with pytest.raises(TierStartingError, match="has started no replica"):
        await tier.ask("a")
    again = tier.ask("b")
    await settle()
    with pytest.raises(TierStartingError) as raised:
        await tier.ask("c")
    assert raised.value.retry_after_s == pytest.approx(1.0)
    again.cancel()
    await tier.pool.close()


async def test_a_store_that_hangs_keeps_no_request_from_its_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start_room, "READ_S", 0.01)
    tier = Tier()

    async def hang() -> float:
        await asyncio.Event().wait()
        return 0.0

    tier.room = ColdStartRoom("fast", WaitingRoomConfig(ttl_s=1.05), tier.report, hang)
    pool = LanePool("fast", tier.client, PlacementConfig(wait_s=0), lambda _: None, room=tier.room)
    async with asyncio.timeout(3):
        with pytest.raises(TierStartingError, match="has started no replica"):
            await pool.acquire(request("a"))
    await pool.close()
    await tier.pool.close()


async def test_a_pool_that_closes_ends_the_wait_and_the_reports() -> None:
    tier = Tier()
    asked = tier.ask("a")
    await settle()
    await tier.pool.close()
    with pytest.raises(Exception, match="No replica"):
        await asked
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_batch_work_that_waits_asks_for_a_first_replica_and_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start_room, "REPORT_S", 0.01)
    tier = Tier()
    batch = [
        asyncio.create_task(tier.pool.acquire(replace(request(f"b{n}"), priority=Priority.BATCH))) for n in range(3)
    ]
    await settle()
    await eventually(lambda: tier.last == (3, 0.0))
    asked = tier.ask("a")
    await eventually(lambda: tier.last == (4, 5.0))
    await tier.start()
    assert {(await each).replica_id for each in (*batch, asked)} == {"first"}
    await tier.pool.close()
