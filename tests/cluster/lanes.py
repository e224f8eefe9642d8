"""A lane and its replica without Serve, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from cluster.lanes.lane import Lane
from cluster.lanes.lane_state import LaneState
from engine.api import Delta, GenerationRequest, SamplingParams
from router.ports.tier_backend import OnOrphans
from tests.cluster.engines import LocalClient, LocalReplica


def request(request_id: str, max_tokens: int = 3) -> GenerationRequest:
    return GenerationRequest(request_id, "hi", SamplingParams(max_tokens=max_tokens))


def ignore(*_: object) -> None:
    """Takes what a lane reports."""


async def settle() -> None:
    """Let everything that is ready run: no call here crosses more than a few turns of the loop."""
    for _ in range(20):
        await asyncio.sleep(0)


async def open_lane(
    replica: LocalReplica, buffer_limit: int = 1000, on_orphans: OnOrphans = ignore
) -> tuple[Lane, LocalClient]:
    calls = LocalClient({"r1": replica})
    lane = Lane(calls, "r1", buffer_limit=buffer_limit, on_change=ignore, on_orphans=on_orphans)
    lane.start()
    await settle()
    assert lane.state is LaneState.READY
    return lane, calls


async def first(batches: AsyncGenerator[list[Delta], None]) -> list[Delta]:
    return await anext(batches)


async def exhaust(batches: AsyncGenerator[list[Delta], None]) -> None:
    async for _ in batches:
        pass
