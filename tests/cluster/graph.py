"""A running Manta for tests: the dev.yaml graph on a Ray cluster of its own, in this process."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import yaml
from ray import serve
from ray.exceptions import RayError

from cluster.app import build
from cluster.config import MantaConfig
from cluster.replica.tier_replica import ReplicaDescription

ROOT = Path(__file__).resolve().parents[2]
APP = "manta"
KEY = "sk-manta-dev"

T = TypeVar("T")


def dev_config() -> dict[str, Any]:
    """The arguments that dev.yaml gives the application, without the optional tier: its model is not everywhere. Serve
    looks at replicas every second, since tests wait until it has noticed that one was killed."""
    deployed = yaml.safe_load((ROOT / "deployments" / "dev.yaml").read_text())
    arguments: dict[str, Any] = deployed["applications"][0]["args"]
    tiers = [{**tier, "health_check_period_s": 1} for tier in arguments["tiers"] if not tier.get("optional")]
    prices = arguments["router"]["prices"]["tiers"]
    names = [*(tier["name"] for tier in tiers), "embeddings"]
    arguments["router"]["prices"]["tiers"] = {name: prices[name] for name in names}
    return arguments | {"tiers": tiers}


def free_port() -> int:
    """A port of loopback where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait until ``condition`` holds; another process decides when, so this one has to look."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class Graph:
    """The graph and the ways tests look at it: HTTP from outside, Serve handles from inside."""

    def __init__(self, port: int, arguments: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._loop = loop  # that Serve handles live on
        serve.run(build(MantaConfig.model_validate(arguments)), name=APP, route_prefix="/")
        eventually(self.ready, "every tier is ready")

    def ready(self) -> bool:
        """Whether /healthz says so."""
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def client(self, key: str = KEY) -> openai.OpenAI:
        """The real client of OpenAI."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def post(self, path: str, body: Any = None, *, key: str | None = KEY, **kwargs: Any) -> httpx.Response:
        """A request without the client's own checks."""
        headers = kwargs.pop("headers", {}) | ({"authorization": f"Bearer {key}"} if key is not None else {})
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=180, **kwargs)

    def describe(self, tier: str, application: str = APP) -> list[ReplicaDescription]:
        """What each replica of the tier says of itself; a replica just killed is not counted."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.run(self._describe(tier, application))
            except RayError:  # Serve has not yet noticed that the replica is gone
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the application, and with it every process of the graph."""
        serve.delete(APP)

    async def _describe(self, tier: str, application: str) -> list[ReplicaDescription]:
        handle = serve.get_deployment_handle(tier, application)
        return list(await handle.broadcast("describe").results_async())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives, on the loop that Serve handles live on."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)
