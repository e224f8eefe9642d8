"""A tier that goes to zero, on a real Ray cluster: the first request starts it, and it ends when nobody uses it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ray import serve
from ray.serve._private.common import ReplicaState

from cluster.app import build_with
from cluster.autoscaling.config import AutoscalingConfig
from cluster.config import MantaConfig
from tests.cluster.graph import KEY, eventually
from tests.cluster.queueing_engine import QueueingFactory
from tests.cluster.scaled import ADMIN_KEY, scaled_config

pytestmark = pytest.mark.slow

APP = "sleeping"
IDLE_S = 2.0
LONG = 200  # tokens of a stream that takes longer than IDLE_S
LOAD_S = 2.0  # that a replica takes to load its engine: longer than between two decisions
WAITING = 3  # requests that may wait


def sleeping_config() -> MantaConfig:
    """A tier of zero or one replica, which starts in a few seconds."""
    config = scaled_config()
    assert config.autoscaling is not None
    room = {"max_requests": WAITING, "ttl_s": 30}
    fast = config.autoscaling.fast.model_dump() | {"flow_window_s": 2, "default_cold_start_s": 10}
    tier = {"min": 0, "max": 1, "idle_s": IDLE_S, "waiting_room": room}
    scaling = {"interval_s": 0.5, "tiers": {"fast": tier}, "fast": fast}
    return config.model_copy(update={"autoscaling": AutoscalingConfig.model_validate(scaling)})


class Sleeping:
    """The application, as clients and operators see it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/{APP}"
        serve.run(build_with(sleeping_config(), QueueingFactory(LOAD_S)), name=APP, route_prefix=f"/{APP}")
        eventually(lambda: self.health.status_code == 200, "the service is ready")
        self.client = httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)

    @property
    def health(self) -> httpx.Response:
        return httpx.get(f"{self.url}/healthz", timeout=10)

    @property
    def running(self) -> int:
        deployment = serve.status().applications[APP].deployments["fast"]
        return deployment.replica_states.get(ReplicaState.RUNNING, 0)

    @property
    def decision(self) -> dict[str, Any]:
        """The last decision; {} before the first."""
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        answer = httpx.get(f"{self.url}/admin/v1/scaling", headers=headers, timeout=10)
        return next(iter(answer.raise_for_status().json()["data"]), {})

    async def ask(self, tokens: int) -> httpx.Response:
        """A streamed answer."""
        messages = [{"role": "user", "content": f"hello {time.monotonic()}"}]
        body = {"model": "fast", "stream": True, "max_tokens": tokens, "temperature": 1, "messages": messages}
        return await self.client.post("/v1/chat/completions", json=body)


@pytest.fixture
def sleeping(serve_port: int) -> Iterator[Sleeping]:
    running = Sleeping(serve_port)
    yield running
    serve.delete(APP)


def whole(answer: httpx.Response, tokens: int) -> bool:
    return answer.status_code == 200 and answer.text.count(" tok") == tokens and "[DONE]" in answer.text


async def seconds_until(asleep: Sleeping, count: int) -> float:
    began = time.monotonic()
    await asyncio.to_thread(eventually, lambda: asleep.running == count, f"{count} replicas run", 60.0)
    return time.monotonic() - began


async def test_the_first_requests_start_the_tier_and_it_ends_after_its_idle_time_without_a_cut_stream(
    sleeping: Sleeping, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {}
    await asyncio.sleep(2)
    assert (sleeping.running, sleeping.decision["target"]) == (0, 0)  # nothing has asked for it
    assert sleeping.health.json()["tiers"]["fast"] == {"ready": True, "replicas": 0}

    began = time.monotonic()
    asked = [asyncio.create_task(sleeping.ask(5)) for _ in range(WAITING + 2)]
    answers = [await each for each in asked]
    times["first answer, from zero"] = time.monotonic() - began
    assert sum(whole(each, 5) for each in answers) == WAITING, [each.text for each in answers]
    refused = [each for each in answers if each.status_code == 503]
    assert len(refused) == 2
    for each in refused:
        assert each.json()["error"]["code"] == "tier_starting"
        assert each.headers["x-manta-refused"] == "reason=tier_starting"
        assert 1 <= int(each.headers["retry-after"]) <= 10

    long = asyncio.create_task(sleeping.ask(LONG))
    times["then a long stream"] = -time.monotonic()
    assert whole(await long, LONG)
    times["then a long stream"] += time.monotonic()
    started = sleeping.decision
    assert times["then a long stream"] > IDLE_S
    times["then at zero again"] = await seconds_until(sleeping, 0)
    lowered = sleeping.decision

    began = time.monotonic()
    assert whole(await sleeping.ask(5), 5)
    times["answer after that"] = time.monotonic() - began
    with capsys.disabled():
        cold = f"cold start measured: {started['numbers']['cold_start_s']:.1f} s"
        lines = [*(f"{name}: {seconds:.1f} s" for name, seconds in times.items()), cold, lowered["text"]]
        sys.stdout.write("\n".join(["", *lines, ""]))
    assert (lowered["target"], lowered["reason"]) == (0, "idle")
    # It is measured from one decision, of which there are two a second, to another.
    assert abs(started["numbers"]["cold_start_s"] - times["first answer, from zero"]) < 2.0
    assert sleeping.health.status_code == 200
    await sleeping.client.aclose()
