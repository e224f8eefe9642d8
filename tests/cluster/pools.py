"""Lane pools over replicas in this process."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.config import PlacementConfig
from cluster.lanes.lane_pool import LanePool
from engine.api import GenerationRequest, SamplingParams
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import settle


def request(request_id: str, prompt: str = "hi") -> GenerationRequest:
    return GenerationRequest(request_id, prompt, SamplingParams(max_tokens=3))


async def make_pool(
    *names: str, wait_s: float = 0.0, context_lengths: Mapping[str, int] | None = None, drain_timeout_s: float = 600.0
) -> tuple[LanePool, LocalClient]:
    client = LocalClient({name: LocalReplica() for name in names})
    for name, length in (context_lengths or {}).items():
        client.replicas[name].engine.context_length = length
    pool = LanePool("fast", client, PlacementConfig(wait_s=wait_s), lambda _: None, drain_timeout_s)
    pool.replicas_changed(names)
    await settle()
    return pool, client


class RecordingLoop:
    """A loop that only notes for how long it was asked to wait."""

    def __init__(self, delays: list[float]) -> None:
        self._delays = delays

    def call_later(self, delay: float, *_: object) -> None:
        self._delays.append(delay)


async def measured_pool(*names: str) -> tuple[LanePool, LocalClient, list[tuple[float, float]]]:
    """A pool of replicas that report steps of 10 ms, and the predicted and measured TTFTs."""
    client = LocalClient({name: LocalReplica() for name in names})
    for replica in client.replicas.values():
        replica.engine.step_s = 0.01
    seen: list[tuple[float, float]] = []
    pool = LanePool(
        "fast",
        client,
        PlacementConfig(wait_s=0.0),
        lambda _: None,
        on_first_token=lambda predicted, measured: seen.append((predicted, measured)),
    )
    pool.replicas_changed(names)
    await settle()
    return pool, client, seen
