from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cluster.config import PlacementConfig
from cluster.lanes.pool import LanePool
from engine.api import GenerationRequest, SamplingParams
from router.ports.tiers import TierUnavailableError
from tests.cluster.engines import LocalCalls, LocalReplica
from tests.cluster.test_lanes import settle


def request(request_id: str, prompt: str = "hi") -> GenerationRequest:
    return GenerationRequest(request_id, prompt, SamplingParams(max_tokens=3))


async def make_pool(*names: str, wait_s: float = 0.0) -> tuple[LanePool, LocalCalls]:
    calls = LocalCalls({name: LocalReplica() for name in names})
    pool = LanePool("fast", calls, PlacementConfig(wait_s=wait_s))
    pool.replicas_changed(names)
    await settle()
    return pool, calls


async def test_one_lane_per_replica_and_the_model_is_known() -> None:
    pool, calls = await make_pool("a", "b")
    assert calls.lanes_opened == 2
    status = pool.status()
    assert (status.ready, status.replicas, status.model, status.context_length) == (True, 2, "stepped", 128)
    await pool.close()


async def test_a_tier_without_replicas_answers_unavailable() -> None:
    pool, _ = await make_pool()
    assert not pool.status().ready
    with pytest.raises(TierUnavailableError, match="fast"):
        await pool.acquire(request("q"))


async def test_a_request_waits_for_the_replacement_of_a_lost_replica() -> None:
    pool, calls = await make_pool(wait_s=5.0)
    waiting = asyncio.ensure_future(pool.acquire(request("q")))
    await settle()
    assert not waiting.done()
    calls.replicas["new"] = LocalReplica()
    pool.replicas_changed(["new"])
    assert (await waiting).replica_id == "new"
    await pool.close()


async def test_prompts_with_a_known_prefix_return_to_their_replica() -> None:
    pool, _ = await make_pool("a", "b", "c")
    system = "You are a helpful assistant. " * 50
    home = (await pool.acquire(request("q0", system + "first"))).replica_id
    again = {(await pool.acquire(request(f"q{i}", system + f"turn {i}"))).replica_id for i in range(1, 20)}
    assert again == {home}
    await pool.close()


async def test_load_spreads_requests_that_share_a_prefix() -> None:
    pool, _ = await make_pool("a", "b")
    system = "You are a helpful assistant. " * 50
    readers = []
    used = set()
    for i in range(12):
        lane = await pool.acquire(request(f"q{i}", system))
        used.add(lane.replica_id)
        readers.append(asyncio.ensure_future(anext(lane.generate(request(f"q{i}", system)))))
        await settle()
    assert used == {"a", "b"}
    for reader in readers:
        reader.cancel()
    await settle()
    await pool.close()


async def test_a_replica_that_leaves_the_list_is_drained_not_cut() -> None:
    pool, calls = await make_pool("a", "b")
    lane = await pool.acquire(request("q"))
    async with aclosing(lane.generate(request("q"))) as batches:
        reader = asyncio.ensure_future(anext(batches))
        await settle()
        pool.replicas_changed({"a", "b"} - {lane.replica_id})
        await settle()
        assert pool.status().replicas == 1
        engine = calls.replicas[lane.replica_id].engine
        for _ in range(3):
            engine.step()
            await settle()
        assert await reader
    assert engine.aborted == []
    await pool.close()


async def test_a_lane_lost_and_a_list_that_changes_meanwhile_open_one_lane_not_two() -> None:
    pool, calls = await make_pool("a")
    calls.replicas["a"].dead = True
    calls.replicas["a"].engine.step()
    waiting = await_lane_loss(calls)
    await waiting
    calls.replicas["a"] = LocalReplica()
    pool.replicas_changed(["a"])  # before the delayed attempt
    await settle()
    await asyncio.sleep(0.4)  # past REOPEN_DELAY_S: the delayed attempt has come and gone
    assert calls.lanes_opened == 2
    await pool.close()


async def await_lane_loss(calls: LocalCalls) -> None:
    board = calls.replicas["a"].actor._board
    board.deliver([("nobody", (), "", None, None, None, None, 0, None, False)])
    for outlet in list(board._outlets.values()):
        outlet.wake()
    await settle()


async def test_a_lane_that_lost_a_request_is_not_asked_again() -> None:
    pool, _ = await make_pool("a", "b")
    lost = await pool.acquire(request("q"))
    again = {(await pool.acquire(request(f"q{i}"), avoid=lost)).replica_id for i in range(10)}
    assert again == {"a", "b"} - {lost.replica_id}
    await pool.close()
