"""The warm pool on a real Ray cluster: a loaded replica serves at once, a cold one only after its load."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ray import serve

from cluster.autoscaling.config import AutoscalingConfig
from cluster.autoscaling.warm_replica_store import FOLLOW_S, WarmReplicaStore
from cluster.config import MantaConfig
from tests.cluster.queueing_engine import EXPECTED
from tests.cluster.scaled import Scaled, scaled_config

pytestmark = pytest.mark.slow

LOAD_S = 4.0
"""Seconds that the engine takes to load. Models take 15 s to 10 minutes."""


def config_of(warm: int) -> MantaConfig:
    """Returns a tier of one to two replicas that serve, with ``warm`` warm replicas."""
    config = scaled_config()
    assert config.autoscaling is not None
    scaling = config.autoscaling.model_dump()
    scaling["tiers"]["fast"] |= {"warm": warm}
    return config.model_copy(update={"autoscaling": AutoscalingConfig.model_validate(scaling)})


@asynccontextmanager
async def scaled(port: int, name: str, warm: int) -> AsyncIterator[Scaled]:
    """The application, with its warm replicas loaded. Its router knows which they are."""
    # A name of its own: by its name the controller remembers what the load was like.
    running = Scaled(port, config_of(warm), LOAD_S, name)
    store = WarmReplicaStore(name)
    try:
        await running.seconds_until(lambda: running.running == 1 + warm, "the replicas run")
        await running.seconds_until(lambda: len(store.read().get("fast", ())) == warm, "the warm ones are chosen")
        await asyncio.sleep(2 * FOLLOW_S)  # until then the router may take a warm replica for one that serves
        yield running
    finally:
        await running.client.aclose()
        serve.delete(name)


async def seconds_to_a_second_replica(running: Scaled, before: int) -> tuple[float, float]:
    """Returns how long it takes from the begin of a load that needs two replicas until the target is raised, and from
    then on until answers come from a second one. ``before`` answers come one by one, and all of them from the first."""
    for _ in range(before):
        assert await running.stream(EXPECTED) == (EXPECTED, "length")
    assert len(running.answered) == 1, "a replica of the warm pool serves"
    async with running.load() as answers:
        raised_s = await running.seconds_until(lambda: running.decision["target"] == 2, "the target is raised")
        answers_s = await running.seconds_until(lambda: len(running.answered) == 2, "the second replica answers")
    assert set(await asyncio.gather(*answers)) == {(EXPECTED, "length")}
    return raised_s, answers_s


async def test_a_warm_replica_takes_traffic_at_once_and_a_cold_one_after_its_load(
    serve_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    times: dict[str, float] = {}
    for name, warm, before in (("warm", 1, 6), ("cold", 0, 2)):
        async with scaled(serve_port, name, warm) as running:
            raised_s, times[name] = await seconds_to_a_second_replica(running, before)
            with capsys.disabled():
                sys.stdout.write(f"\n{name}: target raised after {raised_s:.1f} s, answers {times[name]:.1f} s later")
    assert times["cold"] > LOAD_S
    assert times["warm"] < times["cold"] / 2
