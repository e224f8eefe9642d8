"""The lanes of a tier: one for each replica, and requests go where they are served soonest."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cluster.lanes.silence import QUIET_S, TICK_S
from router.ports.tier_backend import TierSnapshot, TierUnavailableError
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import settle
from tests.cluster.pools import RecordingLoop, make_pool, measured_pool, request


async def test_one_lane_per_replica_and_the_model_is_known() -> None:
    pool, client = await make_pool("a", "b")
    assert client.lanes_opened == 2
    snapshot = pool.snapshot()
    assert (snapshot.ready, snapshot.replicas, snapshot.context_length) == (True, frozenset("ab"), 128)
    assert pool.model_version("a") == client.replicas["a"].actor._version != ""
    assert pool.model_version("gone") == ""
    await pool.close()


async def test_a_snapshot_adds_up_the_ready_replicas() -> None:
    pool, client = await make_pool("a", "b")
    for name, waiting, wait_s in (("a", 4, 3.0), ("b", 2, 1.5)):
        engine = client.replicas[name].engine
        engine.waiting, engine.wait_s = waiting, wait_s
        for number in range(waiting):
            engine.submit(request(f"{name}{number}"))
        client.replicas[name].actor._registry._outboxes[pool._lanes[name].lane_id].wake()  # as a heartbeat does
    await settle()
    assert pool.snapshot() == TierSnapshot("fast", frozenset({"a", "b"}), 128, 6, 6, wait_s=1.5, kv_used=6 / 200)
    await pool.close()


async def test_a_warm_replica_gets_a_request_only_if_no_other_can_take_it() -> None:
    pool, _ = await make_pool("a", "b")
    pool.set_warm(frozenset("b"))
    for number in range(8):
        assert (await pool.acquire(request(f"r{number}"))).replica_id == "a"
    assert (pool.snapshot().replicas, pool.snapshot().warm) == (frozenset("a"), frozenset("b"))
    assert (await pool.acquire(request("again"), avoid={"a"})).replica_id == "b"
    pool.replicas_changed(["b"])
    await settle()
    assert (await pool.acquire(request("late"))).replica_id == "b"
    assert (pool.snapshot().replicas, pool.snapshot().warm) == (frozenset("b"), frozenset())
    await pool.close()


async def test_the_context_length_is_the_shortest_and_outlives_its_replica() -> None:
    pool, _ = await make_pool("a", "b", context_lengths={"b": 64})
    assert pool.snapshot().context_length == 64
    pool.replicas_changed([])
    await settle()
    assert (pool.snapshot().ready, pool.snapshot().context_length) == (False, 64)
    await pool.close()


async def test_a_tier_without_replicas_answers_unavailable() -> None:
    pool, _ = await make_pool()
    assert pool.snapshot() == TierSnapshot("fast")
    with pytest.raises(TierUnavailableError, match="fast"):
        await pool.acquire(request("q"))


async def test_a_request_waits_for_the_replacement_of_a_lost_replica() -> None:
    pool, client = await make_pool(wait_s=5.0)
    waiting = asyncio.ensure_future(pool.acquire(request("q")))
    await settle()
    assert not waiting.done()
    client.replicas["new"] = LocalReplica()
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


async def test_a_snapshot_tells_which_replica_has_how_much_of_a_prompt() -> None:
    pool, _ = await make_pool("a", "b")
    system = "You are a helpful assistant. " * 50
    home = (await pool.acquire(request("q0", system + "first"))).replica_id
    snapshot = pool.snapshot()
    same = snapshot.cached_tokens(system + "again", "")
    assert same.keys() == {home}
    assert 0.8 * len(system) / 4 < same[home] <= len(system) / 4
    assert snapshot.cached_tokens(system, "another tenant") == {}
    assert snapshot.cached_tokens("Something else", "") == {}
    await pool.close()


async def test_a_replica_that_has_gone_quiet_has_nothing_for_requests_that_others_get() -> None:
    pool, _ = await make_pool("a", "b")
    system = "You are a helpful assistant. " * 50
    home = (await pool.acquire(request("q0", system + "first"))).replica_id
    for lane in pool._lanes.values():
        lane._silence.ticks = int(QUIET_S / TICK_S)
    assert pool.snapshot().cached_tokens(system, "").keys() == {home}, "no other is heard either"
    assert pool.snapshot().loads.keys() == {"a", "b"}
    other = next(lane for name, lane in pool._lanes.items() if name != home)
    other._silence.ticks = 0
    assert pool.snapshot().cached_tokens(system, "") == {}
    assert pool.snapshot().loads.keys() == {other.replica_id}
    assert pool.snapshot().replicas == {"a", "b"}
    assert (await pool.acquire(request("q1", system + "second"))).replica_id != home
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
    pool, client = await make_pool("a", "b")
    lane = await pool.acquire(request("q"))
    async with aclosing(lane.generate(request("q"))) as batches:
        reader = asyncio.ensure_future(anext(batches))
        await settle()
        pool.replicas_changed({"a", "b"} - {lane.replica_id})
        await settle()
        assert len(pool.snapshot().replicas) == 1
        engine = client.replicas[lane.replica_id].engine
        for _ in range(3):
            engine.step()
            await settle()
        assert await reader
    assert engine.aborted == []
    await pool.close()


async def test_a_lane_lost_and_a_list_that_changes_meanwhile_open_one_lane_not_two() -> None:
    pool, client = await make_pool("a")
    client.replicas["a"].dead = True
    client.replicas["a"].engine.step()
    waiting = await_lane_loss(client)
    await waiting
    client.replicas["a"] = LocalReplica()
    pool.replicas_changed(["a"])  # before the delayed attempt
    await settle()
    await asyncio.sleep(0.4)  # past MIN_REOPEN_DELAY_S: the delayed attempt has come and gone
    assert client.lanes_opened == 2
    await pool.close()


async def await_lane_loss(client: LocalClient) -> None:
    for outbox in list(client.replicas["a"].actor._registry._outboxes.values()):
        outbox.wake()
    await settle()


async def test_replicas_to_avoid_are_not_asked_even_if_there_is_no_other() -> None:
    pool, _ = await make_pool("a", "b")
    lost = await pool.acquire(request("q"))
    again = {(await pool.acquire(request(f"q{i}"), {lost.replica_id})).replica_id for i in range(10)}
    assert again == {"a", "b"} - {lost.replica_id}
    with pytest.raises(TierUnavailableError):
        await pool.acquire(request("q"), {"a", "b"})
    await pool.close()


async def test_a_pool_that_is_closed_ends_every_wait() -> None:
    pool, client = await make_pool(wait_s=60.0)
    waiting = asyncio.ensure_future(pool.acquire(request("q")))
    await settle()
    await pool.close()
    with pytest.raises(TierUnavailableError):
        await asyncio.wait_for(waiting, 5)
    pool.replicas_changed(["late"])
    await settle()
    assert client.lanes_opened == 0


async def test_a_replica_that_never_gets_ready_is_tried_ever_more_rarely() -> None:
    pool, _ = await make_pool()
    delays: list[float] = []
    pool._loop = RecordingLoop(delays)  # type: ignore[assignment]
    pool._sync(frozenset({"gone"}))  # listed by Serve, but each lane to it breaks
    for _ in range(8):
        await settle()
        pool._open("gone")
    assert delays[:7] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    await pool.close()


async def test_a_snapshot_has_the_loads_with_what_was_sent_since() -> None:
    pool, client, _ = await measured_pool("a", "b")
    lane = await pool.acquire(request("q", "x" * 400))
    loads = pool.snapshot().loads
    other = ({"a", "b"} - {lane.replica_id}).pop()
    assert 0 < sum(loads[lane.replica_id].queued_short) <= 100  # some may be computed by now
    assert sum(loads[other].queued_short) == 0
    assert client.replicas["a"].engine.live == {}
    await pool.close()
