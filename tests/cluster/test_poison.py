"""A request that kills the replicas that run it, on a real Ray cluster: it gets an error, and other streams go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from load_tests.chaos.client import send_all
from load_tests.chaos.engines import LATE_POISON, POISON, PoisonFactory
from load_tests.chaos.mix import KINDS, mix
from load_tests.chaos.transcript import difference
from load_tests.chaos.trial import disturbed
from tests.cluster.graph import KEY, eventually
from tests.cluster.workers import actor_pids

pytestmark = pytest.mark.slow

REPLICAS = 3
TIMEOUT_S = 60.0
ARGUMENTS: dict[str, Any] = {
    "router": {"keys": [{"key": KEY, "tenant": "dev", "team": "core"}], "auto": None},
    "ingress": {"num_cpus": 0, "drain_timeout_s": 5},
    "tiers": [
        {
            "name": "fast",
            "num_cpus": 0,
            "replicas": REPLICAS,
            "drain_timeout_s": 5,
            "health_check_period_s": 1,  # by which Serve notices that a replica was killed
            "engine": {"model": "deployments/models/fast", "dtype": "float32", "threads": 1},
        }
    ],
}


@pytest.fixture(scope="module")
def url(serve_port: int) -> Iterator[str]:
    """The service, with several replicas."""
    application = build_with(MantaConfig.model_validate(ARGUMENTS), PoisonFactory(step_s=0.015))
    serve.run(application, name="poison", route_prefix="/poison")
    found = f"http://127.0.0.1:{serve_port}/poison"
    yield found
    serve.delete("poison")


def ready(url: str) -> bool:
    response = httpx.get(f"{url}/healthz", timeout=5)
    return response.status_code == 200 and response.json()["tiers"]["fast"]["replicas"] == REPLICAS == len(
        replica_pids()
    )


@pytest.mark.parametrize(
    ("words", "most"),
    # A busy machine may notice a loss only when the turn is over, which then proves nothing.
    [pytest.param(POISON, 2, id="at its first token"), pytest.param(LATE_POISON, 3, id="in the middle of its answer")],
)
def test_a_poison_request_kills_few_replicas_and_the_streams_beside_it_are_undisturbed(
    url: str, words: str, most: int
) -> None:
    eventually(lambda: ready(url), "all replicas are ready")
    kinds = {kind: KINDS[kind] for kind in ("greedy", "seeded", "choices", "schema", "logprobs")}
    requests = mix(10, 120, kinds)  # long enough for some to be on a replica that is killed in the middle of an answer
    expected = asyncio.run(send_all(url, KEY, requests, TIMEOUT_S))
    before = replica_pids()
    answers: list[httpx.Response] = []

    def send_poison() -> None:
        body = {"model": "fast", "max_tokens": 40, "ignore_eos": True, "messages": [{"role": "user", "content": words}]}
        headers = {"authorization": f"Bearer {KEY}"}
        answers.append(httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=TIMEOUT_S))

    got, _ = asyncio.run(disturbed(url, KEY, requests, 100, send_poison, TIMEOUT_S))

    assert [each.problem for each in got] == [None] * len(got)
    for number, transcript in enumerate(got):
        assert difference(expected[number % len(expected)], transcript) is None
    assert any(each.failovers for each in got), "no stream was hit"
    [answer] = answers
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "poison_request")
    assert 1 <= sum(not psutil.pid_exists(pid) for pid in before) <= most


def replica_pids() -> list[int]:
    """The processes of the tier's replicas."""
    return actor_pids("ServeReplica:poison:fast")
