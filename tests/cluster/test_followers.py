"""Deployments beside the tiers that follow the flow of requests, on a real Ray cluster."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from ray import serve
from ray.serve._private.common import ReplicaState

from cluster.app import build_with
from cluster.config import MantaConfig
from tests.cluster.graph import KEY, dev_config, eventually
from tests.cluster.queueing_engine import QueueingFactory

pytestmark = pytest.mark.slow

APP = "followed"
TEXTS = ["a replica that has more work than it can do"] * 24
"""The texts of one request. The embedder spends far more time on them than the router, whose only replica must not fall
behind."""


def followed_config() -> MantaConfig:
    """dev.yaml with its first tier and its embedder, which follows the requests, and a policy that waits for
    seconds."""
    arguments = dev_config()
    router = arguments["router"]
    names = ("fast", "embeddings")
    prices = {**router["prices"], "tiers": {name: router["prices"]["tiers"][name] for name in names}}
    ingress = {name: value for name, value in arguments["ingress"].items() if name != "replicas"}
    scaling = {
        "interval_s": 0.5,
        "followers": {"Router": {"max": 1}, "Embedder": {"max": 2, "utilisation": 0.1}},
        "fast": {"down_window_s": 3, "down_period_s": 2, "flow_window_s": 4},
    }
    return MantaConfig.model_validate(
        {
            "router": {"keys": router["keys"], "prices": prices},
            "ingress": ingress,
            "tiers": arguments["tiers"][:1],
            "embedder": {**arguments["embedder"], "num_cpus": 0},
            "autoscaling": scaling,
        }
    )


@contextmanager
def embedding(url: str) -> Iterator[list[int]]:
    """Asks for embeddings, one request after the other, for as long as it is entered. Yields the statuses."""
    statuses: list[int] = []
    ended = threading.Event()
    headers = {"authorization": f"Bearer {KEY}"}

    def ask() -> None:
        with httpx.Client(timeout=30, headers=headers) as client:
            while not ended.is_set():
                body = {"model": "all-MiniLM-L6-v2", "input": TEXTS}
                statuses.append(client.post(f"{url}/v1/embeddings", json=body).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join()


def test_the_embedder_follows_its_requests_and_the_decision_says_so(
    serve_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{serve_port}/{APP}"
    serve.run(build_with(followed_config(), QueueingFactory()), name=APP, route_prefix=f"/{APP}")

    def decisions() -> dict[str, dict[str, Any]]:
        headers = {"authorization": "Bearer sk-manta-admin"}
        found = httpx.get(f"{url}/admin/v1/scaling", headers=headers, timeout=30).raise_for_status().json()
        return {row["tier"]: row for row in found["data"]}

    def running() -> int:
        states = serve.status().applications[APP].deployments["Embedder"].replica_states
        return states.get(ReplicaState.RUNNING, 0)

    try:
        eventually(lambda: httpx.get(f"{url}/healthz").status_code == 200, "the tier is ready")
        began = time.monotonic()
        with embedding(url) as statuses:
            eventually(lambda: decisions()["Embedder"]["target"] == 2, "the embedder's target is raised")
            raised_s, raised = time.monotonic() - began, decisions()
            eventually(lambda: running() == 2, "two embedders run")
            two_s = time.monotonic() - began
        eventually(lambda: running() == 1, "one embedder runs again")
    finally:
        serve.delete(APP)
    router = raised["Router"]
    with capsys.disabled():
        lines = (f"target raised after {raised_s:.1f} s, two run after {two_s:.1f} s", raised["Embedder"]["text"])
        sys.stdout.write("\n".join(["", *lines, router["text"], f"{len(statuses)} requests", ""]))
    assert set(statuses) == {200}
    assert "requests/s, each takes" in raised["Embedder"]["text"]
    assert (router["target"], router["reason"]) == (1, "steady")
    assert router["numbers"]["requests_per_s"] > 0
