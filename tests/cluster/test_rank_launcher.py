"""A tier whose model is split over processes: placed together, answering as one, replaced when one of them dies."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from pydantic import ValidationError
from ray import serve
from ray.util.placement_group import placement_group_table

from cluster.app import tier_deployment
from cluster.config import PlacementConfig, TierConfig
from cluster.lanes.serve_replica_client import ServeReplicaClient
from cluster.replica.rank_launcher import bundles
from cluster.replica.tier_engine import make_engine
from cluster.serve_backend import ServeBackend
from cluster.telemetry.config import LogsConfig
from engine.api import Conversation, GenerationRequest, Message, SamplingParams
from router.ports.tier_backend import BackendError, TierDescription
from tests.cluster.graph import APP, Graph, eventually
from tests.cluster.smallapp import Front
from tests.cluster.workers import actor_pids

ENGINE = {"model": "deployments/models/fast", "dtype": "float32", "threads": 1, "tensor_parallel": 2}
QUESTION = Conversation((Message("user", "What does KV cache mean?"),))
TIER: dict[str, Any] = {
    "name": "split",
    "num_cpus": 0.5,
    "drain_timeout_s": 5,
    "health_check_period_s": 0.5,
    "engine": ENGINE,
}


def test_each_rank_has_a_bundle_and_the_replica_the_first() -> None:
    engine = {**ENGINE, "tensor_parallel": 4, "device": "cuda"}
    tier = TierConfig.model_validate(
        {"name": "split", "num_cpus": 2, "num_gpus": 1, "resources": {"h200": 1}, "engine": engine}
    )

    assert bundles(tier) == [{"CPU": 2, "GPU": 1, "h200": 1}, *[{"CPU": 2, "GPU": 1}] * 3]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_cpus": 0}, "num_cpus"),
        ({"num_gpus": 0, "engine": {**ENGINE, "device": "cuda"}}, "num_gpus"),
        ({"num_gpus": 0.5, "engine": {**ENGINE, "device": "cuda"}}, "num_gpus"),
        ({"num_gpus": 2, "engine": {**ENGINE, "device": "cuda"}}, "num_gpus"),
    ],
)
def test_a_tier_that_cannot_be_placed_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        TierConfig.model_validate(TIER | changes)


class Asker:
    """Asks a split tier, which stands beside the graph's own, and the graph's ``fast``, which has the same model."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        tier = TierConfig.model_validate(TIER)
        behind = tier_deployment(tier, {"num_replicas": 1}, LogsConfig()).bind(tier, make_engine)
        # A tier cannot be what HAProxy talks to; nobody asks the one that stands before it.
        front = serve.deployment(ray_actor_options={"num_cpus": 0})(Front).bind(behind)
        serve.run(front, name="split", route_prefix="/split")
        handles = {"split": serve.get_deployment_handle("split", "split")}
        self._handles = handles | {"fast": serve.get_deployment_handle("fast", APP)}
        self._backend = graph.run(self._connect())

    async def _connect(self) -> ServeBackend:
        tiers = [TierDescription(name, name) for name in self._handles]
        clients = {name: ServeReplicaClient(handle) for name, handle in self._handles.items()}
        backend = ServeBackend(tiers, clients, PlacementConfig(wait_s=1))
        await backend.start(lambda _: None)
        return backend

    def close(self) -> None:
        self.graph.run(self._backend.close())
        serve.delete("split")

    def ranks(self) -> list[int]:
        """The processes of the split model beside the first."""
        return actor_pids("Rank")

    def replica(self) -> int:
        """The process of the first."""
        (pid,) = actor_pids("ServeReplica:split:split")
        return pid

    def answer(self, tier: str) -> list[int]:
        """Tokens of a greedy answer; none while there is no replica, or when it is lost."""
        return self.graph.run(self._ask(tier))

    async def _ask(self, tier: str) -> list[int]:
        request = GenerationRequest(uuid.uuid4().hex, QUESTION, SamplingParams(temperature=0, max_tokens=24))
        try:
            batches = [deltas async for deltas in self._backend.generate(tier, request)]
        except BackendError:
            return []
        return [token for deltas in batches for delta in deltas for token in delta.token_ids]


@pytest.fixture(scope="module")
def asker(graph: Graph) -> Iterator[Asker]:
    made = Asker(graph)
    yield made
    made.close()
    eventually(lambda: not made.ranks(), "the processes of the tier have ended")


@pytest.mark.slow
def test_a_split_tier_answers_as_a_whole_one(asker: Asker) -> None:
    assert len(asker.ranks()) == 1
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    assert [(group["strategy"], group["bundles"]) for group in groups] == [
        ("STRICT_PACK", {0: {"CPU": 0.5}, 1: {"CPU": 0.5}})
    ]
    eventually(lambda: asker.answer("split") != [], "the tier answers")

    assert asker.answer("split") == asker.answer("fast")


@pytest.mark.slow
def test_a_replica_that_loses_a_rank_is_replaced_with_all_of_them(asker: Asker) -> None:
    (victim,) = asker.ranks()
    replica = asker.replica()

    os.kill(victim, signal.SIGKILL)

    eventually(lambda: not psutil.pid_exists(replica), "the replica is stopped")
    eventually(lambda: asker.answer("split") != [], "another one answers")
    (other,) = asker.ranks()
    assert other != victim


@pytest.mark.slow
def test_ranks_end_with_a_replica_that_is_killed(asker: Asker) -> None:
    (worker,) = asker.ranks()

    os.kill(asker.replica(), signal.SIGKILL)

    eventually(lambda: not psutil.pid_exists(worker), "the rank has ended", timeout_s=10)
    eventually(lambda: asker.answer("split") != [], "another replica answers")
