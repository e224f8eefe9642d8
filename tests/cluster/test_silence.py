"""A replica that hangs is lost after a few seconds; one that computes for long is not. The hang is a real process that
is stopped by SIGSTOP."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.config import PlacementConfig
from cluster.lanes.dataclass_codec import Record
from cluster.lanes.lane_messages import LaneItem
from cluster.lanes.lane_pool import LanePool
from cluster.lanes.silence import MAX_SILENCE_S, QUIET_S, TICK_S, Silence
from engine.api import GenerationRequest, SamplingParams
from router.ports.tier_backend import ReplicaLostError

ROOT = Path(__file__).resolve().parents[2]
REPLICA = """
import asyncio, hashlib, pickle, sys, threading, time
from tests.cluster.engines import LocalReplica

def long_steps(seconds):  # as on the engine's thread: Python code, and C code that lets go of the interpreter
    while True:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            pass
        hashlib.pbkdf2_hmac("sha256", b"", b"", int(2e6 * seconds))

async def main():
    replica = LocalReplica()
    if float(sys.argv[1]):
        threading.Thread(target=long_steps, args=(float(sys.argv[1]),), daemon=True).start()
    async for item in replica.actor.lane("lane", replica_id="r"):
        data = pickle.dumps(item)
        sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
        sys.stdout.buffer.flush()

asyncio.run(main())
"""


class Processes:
    """ReplicaClient over pipes: each replica is a process of its own. Submissions are accepted and never answered."""

    def __init__(self) -> None:
        self.children: dict[str, asyncio.subprocess.Process] = {}
        self.items = 0

    async def start(self, name: str, busy_s: float) -> None:
        self.children[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", REPLICA, str(busy_s)),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )

    async def stop(self) -> None:
        for child in self.children.values():
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def connect(self) -> None:
        return None

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        reader = self.children[replica_id].stdout
        assert reader is not None
        while True:
            item: LaneItem = pickle.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))
            self.items += 1
            yield item

    async def submit(
        self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
    ) -> Record | None:
        return None

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        return None


@asynccontextmanager
async def pool_of(busy_s: float, *names: str) -> AsyncIterator[tuple[LanePool, Processes]]:
    client = Processes()
    pool = LanePool("fast", client, PlacementConfig(wait_s=60), lambda _: None)
    try:
        for name in names:
            await client.start(name, busy_s)
        pool.replicas_changed(names)
        for _ in range(1000):
            if pool.snapshot().replicas == frozenset(names):
                break
            await asyncio.sleep(0.05)
        assert pool.snapshot().replicas == frozenset(names)
        yield pool, client
    finally:
        await pool.close()
        await client.stop()


async def read(pool: LanePool, replica_id: str) -> None:
    request = GenerationRequest("q", "hi", SamplingParams(max_tokens=3))
    async for _ in pool._lanes[replica_id].generate(request):
        pass


async def test_a_stopped_process_is_lost_within_4_s_and_gets_no_requests_before() -> None:
    async with pool_of(0, "a", "b") as (pool, client):
        reading = asyncio.create_task(read(pool, "a"))
        await asyncio.sleep(0.1)
        client.children["a"].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        await asyncio.sleep(QUIET_S + 1.0)
        for number in range(8):
            lane = await pool.acquire(GenerationRequest(f"q{number}", "hi", SamplingParams(max_tokens=3)))
            assert lane.replica_id == "b"
        with pytest.raises(ReplicaLostError, match="does not answer"):
            await reading
        assert 2.0 < time.monotonic() - stopped < 4.5
        assert pool.snapshot().replicas == {"b"}


async def test_a_process_that_computes_for_long_is_not_lost() -> None:
    async with pool_of(4.0, "a", "b") as (pool, client):
        lanes, items = list(pool._lanes.values()), client.items
        await asyncio.sleep(6)
        assert list(pool._lanes.values()) == lanes
        assert client.items >= items + 8


async def test_the_only_replica_of_a_tier_is_not_lost_early() -> None:
    async with pool_of(0, "a") as (pool, client):
        (lane,) = pool._lanes.values()
        client.children["a"].send_signal(signal.SIGSTOP)
        await asyncio.sleep(4)
        assert pool._lanes == {"a": lane}
        assert (await pool.acquire(GenerationRequest("q", "hi", SamplingParams(max_tokens=3)))) is lane
        client.children["a"].send_signal(signal.SIGCONT)


async def test_a_router_that_stands_still_itself_loses_no_replica() -> None:
    async with pool_of(0, "a", "b") as (pool, _):
        lanes = list(pool._lanes.values())
        time.sleep(4)  # noqa: ASYNC251 the event loop stands still
        await asyncio.sleep(0.5)
        assert list(pool._lanes.values()) == lanes


def test_silence_is_a_loss_early_only_while_another_replica_is_heard() -> None:
    silence = Silence(3.0, ticks=int(3 / TICK_S) - 1)
    assert not silence.is_lost(True)
    silence.ticks += 1
    assert silence.is_lost(True)
    assert not silence.is_lost(False)
    silence.ticks = int(MAX_SILENCE_S / TICK_S)
    assert silence.is_lost(False)
