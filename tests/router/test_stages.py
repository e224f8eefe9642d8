"""The times of a request's stages are measured, whether it is traced or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence

import httpx
import pytest

from engine.api import Delta, GenerationRequest
from router.app_factory import build_app
from router.config.router import RouterConfig
from router.errors import UnavailableError
from router.ports.stage_metrics import STREAM, Operation
from router.ports.tier_backend import OnPlaced, OnUsage
from router.router_ports import RouterPorts
from router.stage_clock import StageClock
from safety.api import Scores
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_source import ConfiguredPolicies
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.backend import ScriptedBackend
from tests.router.cached import KEYS
from tests.router.stages import Stages
from tests.safety.scripted_classifier import ScriptedClassifier
from tests.state.clock import VirtualClock

UPLOAD_S, FIRST_S, EACH_S, CHECK_S = 0.25, 3.0, 0.5, 0.125
ROOMS = ("access", "prompt", "route", "limits", "safety", "cache", "answer")


class SlowBackend(ScriptedBackend):
    """Takes FIRST_S to the first delta, and EACH_S to each further one."""

    def __init__(self, clock: VirtualClock, fault: Exception | None = None, fault_at: int = 0) -> None:
        super().__init__(fault=fault, fault_at=fault_at)
        self._clock = clock
        self.batches = 0

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        self._clock.advance(FIRST_S)
        async for deltas in super().generate(tier, request, avoid, on_usage, account, on_placed):
            self.batches += 1
            yield deltas
            self._clock.advance(EACH_S)


class SlowClassifier(ScriptedClassifier):
    """Takes CHECK_S for each call, and lets other tasks run meanwhile."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        await asyncio.sleep(0.02)
        self._clock.advance(CHECK_S)
        return await super().classify(texts, tenant, urgent=urgent)


class Timed:
    """A router on a virtual clock, whose clients take UPLOAD_S to send a body."""

    def __init__(self, fault: Exception | None = None, fault_at: int = 0, policy: PolicyConfig | None = None) -> None:
        self.clock = VirtualClock()
        self.stages = Stages()
        config = RouterConfig.model_validate({"keys": KEYS, "failover": {"max_attempts": 1}})
        self.backend = SlowBackend(self.clock, fault, fault_at)
        guard = None
        if policy is not None:
            policies = ConfiguredPolicies(SafetyPolicies(default=policy))
            guard = PolicyGuard(policies, Parts(SlowClassifier(self.clock)))
        self.app = build_app(
            config,
            self.backend,
            RouterPorts(
                clock=self.clock,
                make_guard=None if guard is None else lambda oversight, store: guard,
                embedder=FakeEmbedder(),
                stages=self.stages,
            ),
        )

    async def post(self, path: str, body: bytes, key: str = "sk-user") -> httpx.Response:
        async def slowly() -> AsyncIterator[bytes]:
            self.clock.advance(UPLOAD_S)
            yield body

        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.post(path, content=slowly(), headers={"authorization": f"Bearer {key}"})

    async def complete(self, stream: bool, key: str = "sk-user") -> httpx.Response:
        body = b'{"model": "fast", "prompt": "Hi", "stream": %s}' % (b"true" if stream else b"false")
        return await self.post("/v1/completions", body, key)

    def seconds(self, operation: Operation = Operation.GENERATION) -> list[tuple[str, float]]:
        assert {each for each, _, _ in self.stages.ended} <= {operation}
        return [(stage, seconds) for _, stage, seconds in self.stages.ended]


def test_a_stage_ends_where_the_next_one_begins_and_the_last_with_the_request() -> None:
    now, ended = iter((10.0, 11.0, 11.5, 99.0, 100.0, 101.0)), []
    clock = StageClock(lambda *stage: ended.append(stage), lambda: next(now))
    clock.enter("access")
    clock.enter("route")
    clock.end()
    clock.enter("answer")
    clock.end()
    assert ended == [("access", 1.0), ("route", 0.5)]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_answer_begins_with_its_first_events_and_the_rest_is_the_stream(stream: bool) -> None:
    timed = Timed()
    assert (await timed.complete(stream)).status_code == 200
    before = [("access", UPLOAD_S), *((room, 0.0) for room in ROOMS[1:-1])]
    assert timed.seconds() == [*before, ("answer", FIRST_S), (STREAM, EACH_S * timed.backend.batches)]


async def test_a_search_for_passages_is_a_second_stage_of_the_prompt_after_the_first_route() -> None:
    timed = Timed()
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "documents": [{"text": "Well."}]}
    assert (await timed.post("/v1/chat/completions", json.dumps(body).encode())).status_code == 200
    assert [stage for stage, _ in timed.seconds()] == [*ROOMS[:3], "prompt", "route", *ROOMS[3:], STREAM]


@pytest.mark.parametrize(
    ("fault_at", "last"), [(0, ("answer", FIRST_S)), (2, (STREAM, 2 * EACH_S))], ids=["before it", "within it"]
)
async def test_the_last_stage_of_an_answer_that_fails_ends_with_it(fault_at: int, last: tuple[str, float]) -> None:
    timed = Timed(UnavailableError("The replica is gone."), fault_at)
    await timed.complete(stream=True)
    assert timed.seconds()[-1] == last


async def test_a_stream_whose_first_text_is_held_back_has_the_stage_of_moderation() -> None:
    timed = Timed(policy=PolicyConfig(stream="hold"))
    began = timed.clock.seconds
    assert (await timed.complete(stream=True)).status_code == 200
    found = dict(timed.seconds())
    assert list(found) == [*ROOMS, "moderate", STREAM]
    assert found["safety"] == CHECK_S
    assert FIRST_S <= found["answer"] <= FIRST_S + EACH_S  # the router reads ahead
    assert found["moderate"] >= CHECK_S
    assert sum(found.values()) == timed.clock.seconds - began


@pytest.mark.parametrize(
    ("policy", "stream"),
    [(PolicyConfig(stream="hold"), False), (PolicyConfig(stream="beside"), True), (PolicyConfig(content=None), False)],
    ids=["a whole answer", "checks beside the stream", "requests alone"],
)
async def test_an_answer_of_which_no_first_text_is_held_back_has_not(policy: PolicyConfig, stream: bool) -> None:
    timed = Timed(policy=policy)
    assert (await timed.complete(stream)).status_code == 200
    assert [stage for stage, _ in timed.seconds()] == [*ROOMS, STREAM]


async def test_a_refused_request_has_the_stages_up_to_its_refusal() -> None:
    timed = Timed()
    assert (await timed.complete(stream=True, key="sk-nobody")).status_code == 401
    assert [stage for stage, _ in timed.seconds()] == ["access"]


async def test_a_client_that_leaves_ends_the_stage_in_which_it_leaves() -> None:
    timed = Timed()
    timed.backend.stall_at = 1
    asking = asyncio.create_task(timed.complete(stream=True))
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert timed.seconds()[-2:] == [("answer", FIRST_S), (STREAM, EACH_S)]


async def test_embeddings_are_timed_apart_from_generation() -> None:
    timed = Timed()
    answer = await timed.post("/v1/embeddings", b'{"model": "fake", "input": "Hi"}')
    assert answer.status_code == 200, answer.text
    assert [stage for stage, _ in timed.seconds(Operation.EMBEDDINGS)] == ["access", "limits", "safety", "answer"]
