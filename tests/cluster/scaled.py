"""``Scaled``: a service on a Ray cluster whose first tier is scaled by its load."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from ray import serve
from ray.serve._private.common import ReplicaState

from cluster.app import build_with
from cluster.config import MantaConfig
from tests.cluster.graph import KEY, dev_config, eventually
from tests.cluster.queueing_engine import EXPECTED, QueueingFactory

APP = "scaled"
ADMIN_KEY = "sk-manta-admin"
RATE = 13.0  # requests/s; a replica answers eight, and should need at most four fifths of its KV cache for them
Answer = tuple[int, str]
"""The tokens of a streamed answer, and why it ended."""


def scaled_config() -> MantaConfig:
    """dev.yaml with its first tier alone, of one to two replicas, and a policy that waits for seconds, not minutes."""
    arguments = dev_config()
    router = arguments["router"]
    prices = {**router["prices"], "tiers": {"fast": router["prices"]["tiers"]["fast"]}}
    tier = {**arguments["tiers"][0], "drain_timeout_s": 30}
    fast = {"down_window_s": 3, "down_period_s": 2, "flow_window_s": 6, "default_cold_start_s": 3}
    scaling = {"interval_s": 0.5, "tiers": {"fast": {"min": 1, "max": 2}}, "fast": fast}
    return MantaConfig.model_validate(
        {
            "router": {"keys": router["keys"], "prices": prices},
            "ingress": arguments["ingress"],
            "tiers": [tier],
            "autoscaling": scaling,
        }
    )


class Scaled:
    """The application, as clients and operators see it."""

    def __init__(self, port: int, config: MantaConfig, load_s: float = 0.0, name: str = APP) -> None:
        """``load_s``: seconds that a replica takes to load its engine."""
        self.name = name
        self.url = f"http://127.0.0.1:{port}/{name}"
        serve.run(build_with(config, QueueingFactory(load_s)), name=name, route_prefix=f"/{name}")
        eventually(lambda: httpx.get(f"{self.url}/healthz").status_code == 200, "the tier is ready")
        self.answered: set[str] = set()  # the processes of replicas from which tokens have come
        self.client = httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)

    @property
    def running(self) -> int:
        """Replicas that serve."""
        deployment = serve.status().applications[self.name].deployments["fast"]
        return deployment.replica_states.get(ReplicaState.RUNNING, 0)

    def admin(self, method: str, path: str = "", body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Calls ``/admin/v1/scaling``, as ``manta scale`` does."""
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        answer = httpx.request(method, f"{self.url}/admin/v1/scaling{path}", json=body, headers=headers, timeout=30)
        document: dict[str, Any] = answer.raise_for_status().json()
        return document

    @property
    def decision(self) -> dict[str, Any]:
        """The last decision."""
        nothing: dict[str, Any] = {"target": None, "at": 0.0}
        return next(iter(self.admin("GET")["data"]), nothing)

    async def stream(self, tokens: int) -> Answer:
        """Returns the tokens of a streamed answer, and why it ended: "cut" and its last line, if it has no end."""
        body = {"model": "fast", "stream": True, "max_tokens": tokens, "temperature": 1}
        messages = [{"role": "user", "content": f"hello {time.monotonic()}"}]
        count, reason, done, last = 0, "", False, ""
        async with self.client.stream("POST", "/v1/chat/completions", json=body | {"messages": messages}) as response:
            async for line in response.aiter_lines():
                done = done or line == "data: [DONE]"
                last = line or last
                count += line.count(" tok")
                self.answered.update(re.findall(r"@(\d+)", line))
                reason = "length" if '"length"' in line else reason
        return count, reason if done and reason else f"cut: {last}"

    @asynccontextmanager
    async def load(self) -> AsyncIterator[list[asyncio.Task[Answer]]]:
        """Sends RATE requests a second for as long as it is entered. Yields the answers."""
        answers: list[asyncio.Task[Answer]] = []

        async def send() -> None:
            due = time.monotonic()
            while True:
                answers.append(asyncio.create_task(self.stream(EXPECTED)))
                due += 1 / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))

        sender = asyncio.create_task(send())
        try:
            yield answers
        finally:
            sender.cancel()

    async def seconds_until(self, condition: Callable[[], bool], what: str) -> float:
        """Returns how long it takes until ``condition`` holds."""
        began = time.monotonic()
        await asyncio.to_thread(eventually, condition, what, 30.0)
        return time.monotonic() - began
