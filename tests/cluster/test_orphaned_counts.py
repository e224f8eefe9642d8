"""What a router that dies leaves on a replica: the counts of its requests go to another router."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import pytest

import cluster.lanes.lane
import cluster.lanes.lane_messages
import cluster.replica.lane_registry
import cluster.replica.tier_replica
from cluster.lanes.lane import Lane
from engine.api import Delta, Usage
from router.ports.tier_backend import (
    OrphanedAttempt,
    ReplicaLostError,
)
from tests.cluster.engines import LocalReplica
from tests.cluster.lanes import first, open_lane, request, settle


async def die(lane: Lane) -> None:
    """Ends a lane as its router's death does, which reads no counts any more."""
    await lane.close()
    await settle()


async def read_one(
    lane: Lane, name: str, replica: LocalReplica, max_tokens: int = 9
) -> AsyncGenerator[list[Delta], None]:
    """Begins a request and reads its first token."""
    batches = lane.generate(request(name, max_tokens), account=f"account of {name}")
    reading = asyncio.ensure_future(first(batches))
    await settle()
    replica.engine.step()
    await reading
    return batches


@pytest.mark.parametrize("opens", ["before", "after"])
async def test_what_a_dead_router_leaves_goes_with_its_counts_to_another(opens: str) -> None:
    replica, adopted = LocalReplica(), list[OrphanedAttempt]()
    dying, _ = await open_lane(replica)
    living = (await open_lane(replica, on_orphans=adopted.extend))[0] if opens == "before" else None
    ended = await read_one(dying, "ended", replica, max_tokens=1)
    running = await read_one(dying, "running", replica)
    replica.engine.step()
    await settle()
    await die(dying)
    if living is None:
        living, _ = await open_lane(replica, on_orphans=adopted.extend)
        await settle()

    assert sorted(adopted, key=lambda each: each.request_id) == [
        OrphanedAttempt("ended", "account of ended", Usage(1, 1, 0)),
        OrphanedAttempt("running", "account of running", Usage(1, 2, 0)),
    ]
    for batches in (ended, running):
        await batches.aclose()
    await die(living)


async def test_what_was_given_to_a_router_that_dies_too_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    replica, third = LocalReplica(), list[OrphanedAttempt]()
    lanes = [(await open_lane(replica))[0] for _ in range(2)]
    batches = await read_one(lanes[0], "q", replica)
    for lane in lanes:
        await die(lane)
    last, _ = await open_lane(replica, on_orphans=third.extend)
    await settle()

    assert [each.request_id for each in third] == ["q"]
    await batches.aclose()
    await die(last)


async def test_what_ended_long_ago_is_not_reported_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.replica.lane_registry, "ENDED_S", 0.0)
    replica, adopted = LocalReplica(), list[OrphanedAttempt]()
    dying, _ = await open_lane(replica)
    living, _ = await open_lane(replica, on_orphans=adopted.extend)
    batches = await read_one(dying, "q", replica, max_tokens=1)
    await batches.aclose()
    await die(dying)

    assert adopted == []
    await die(living)


@pytest.mark.parametrize("seed", range(20))
async def test_every_request_of_a_dead_router_is_reported_by_it_or_to_another(seed: int) -> None:
    draw, replica = random.Random(seed), LocalReplica()
    reported, adopted = dict[str, Usage](), dict[str, Usage]()
    dying, _ = await open_lane(replica)
    living, _ = await open_lane(
        replica, on_orphans=lambda found: adopted.update((each.request_id, each.usage) for each in found)
    )
    dead = False

    def write(name: str, usage: Usage | None) -> None:
        if not dead and usage is not None:
            reported[name] = usage

    async def read(name: str, leave_after: int) -> None:
        batches = dying.generate(request(name, draw.randrange(1, 12)), partial(write, name), f"account of {name}")
        async with aclosing(batches):
            with contextlib.suppress(ReplicaLostError):
                async for deltas in batches:
                    write(name, deltas[-1].usage)
                    if leave_after <= 0:
                        return
                    leave_after -= 1

    readers = [asyncio.ensure_future(read(f"q{n}", draw.randrange(12))) for n in range(40)]
    for _ in range(draw.randrange(1, 12)):
        await asyncio.sleep(0)
        replica.engine.step()
    dead = True  # it writes nothing any more, and reads nothing
    await die(dying)
    await asyncio.gather(*readers)

    counted = replica.engine.counted
    assert counted.keys() == reported.keys() | adopted.keys()
    assert {**adopted, **reported} == counted
    await die(living)
