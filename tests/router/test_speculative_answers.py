"""Answers that the engine begins while the request is checked: what is sent, billed and aborted, whatever the checks
say, and in whichever order both end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from engine.api import ContextLengthError, Conversation, Delta, GenerationRequest, RequestError, Usage
from router import speculative_answers
from router.app_factory import build_app
from router.config.failover import FailoverConfig
from router.config.keys import KeyConfig
from router.config.limits import LimitsConfig
from router.config.router import RouterConfig
from router.generation.wasted_share import MAX_KEYS, WastedShares
from router.memory_entry_store import MemoryEntryStore
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.tier_backend import OnPlaced, OnUsage, TierUnavailableError
from router.ports.usage_metrics import NoUsageMetrics
from router.router_ports import CacheParts, RouterPorts
from safety.api import Scores
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.backend import WORDS, ScriptedBackend
from tests.router.cached import Counted
from tests.router.guarded import CHAT, TEXT, texts_of
from tests.router.leaving import post
from tests.router.policies import Policies
from tests.router.scripted_index import ScriptedIndex
from tests.router.served import KEY
from tests.safety.scripted_classifier import ScriptedClassifier

ANSWER = "".join(WORDS)
MAIL = "Write to ann@example.com"
TOO_LONG = ContextLengthError("too long", "messages", "context_length_exceeded")
WAIT_S = 5.0  # for what must happen; a test that fails waits for it


class HeldClassifier(ScriptedClassifier):
    """Answers only while ``goes_on`` is set. ``asked`` is set when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        self.asked.set()
        await self.goes_on.wait()
        return await super().classify(texts, tenant, urgent=urgent)


class WatchedBackend(ScriptedBackend):
    """``began`` is set when an answer has begun. The first ``refused`` calls fail."""

    refused: int = 0
    refusal: Exception = TierUnavailableError("full")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.began = asyncio.Event()

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        self.began.set()
        if self.refused:
            self.refused -= 1
            self.closed += 1
            self.requests.append(request)
            raise self.refusal
        async for deltas in super().generate(tier, request, avoid, on_usage, account, on_placed):
            yield deltas


class CountedUsage(NoUsageMetrics):
    """Counts what became of answers that were begun."""

    def __init__(self) -> None:
        self.speculations: Counter[str] = Counter()

    def speculation(self, tier: str, outcome: str) -> None:
        self.speculations[outcome] += 1


class Speculating:
    """A router whose tenant lets the engine begin beside the checks, which wait until the test lets them go on."""

    def __init__(
        self,
        cached: bool = False,
        tokens_per_minute: int = 10_000,
        overflow: Mapping[str, Any] = MappingProxyType({}),
        **policy: Any,
    ) -> None:
        self.classifier, self.policies = HeldClassifier(), Policies()
        self.policies.set(**{"speculative_generation": True, "deadline_s": 30, **policy})
        self.backend = WatchedBackend()
        self.store, self.metrics, clock = MemoryStore(SystemClock()), CountedUsage(), SystemClock()
        entries = MemoryEntryStore(clock)
        cache = CacheParts(entries, ScriptedIndex(entries), Counted())
        config = RouterConfig.model_validate(
            {
                "keys": [
                    KeyConfig(
                        key=KEY, tenant="acme", team="core", limits=LimitsConfig(tokens_per_minute=tokens_per_minute)
                    )
                ],
                "failover": FailoverConfig(max_attempts=1),
                "cache": {"enabled": cached},
                "prompts": {"overflow": dict(overflow)},
            }
        )
        ports = RouterPorts(
            store=self.store,
            make_guard=lambda oversight, store: PolicyGuard(self.policies, Parts(self.classifier)),
            cache=cache if cached else None,
            metrics=self.metrics,
        )
        self.app = build_app(config, self.backend, ports)

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            return await http.post(path, json={"model": "fast", **body})

    def ask(self, text: str = "Hi", path: str = CHAT, **more: Any) -> asyncio.Task[httpx.Response]:
        """Asks a question. Its checks wait."""
        body = {"prompt": text} if path == TEXT else {"messages": [{"role": "user", "content": text}]}
        return asyncio.create_task(self.post(path, {**body, **more}))

    async def both_under_way(self) -> None:
        """Returns when the engine has begun, and the classifier was asked."""
        await asyncio.wait_for(self.backend.began.wait(), WAIT_S)
        await asyncio.wait_for(self.classifier.asked.wait(), WAIT_S)

    async def settled(self, asked: asyncio.Task[httpx.Response]) -> httpx.Response:
        """Lets the checks go on, and returns the answer."""
        await self.both_under_way()
        self.classifier.goes_on.set()
        answer = await asyncio.wait_for(asked, WAIT_S)
        await self.until(lambda: self.backend.closed == len(self.backend.requests))
        return answer

    async def until(self, holds: Any) -> None:
        for _ in range(500):
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come to that")

    async def entry(self) -> dict[str, Any]:
        """The only entry in the ledger."""
        await self.until(lambda: self.store._entries)
        (entry,) = self.store._entries.values()
        return dict(json.loads(entry.document))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_the_engine_begins_beside_the_checks_and_its_answer_is_sent_after_them(path: str, stream: bool) -> None:
    service = Speculating()
    asked = service.ask(path=path, stream=stream)
    await service.both_under_way()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asked.done()
    assert service.store._entries == {}
    answer = await service.settled(asked)

    assert texts_of(answer, stream) == {0: (("<Hi>" if path == TEXT else "") + ANSWER, "stop")}
    assert answer.headers["x-manta-safety"] == "allowed"
    (request,) = service.backend.requests
    entry = await service.entry()
    assert entry["id"] == request.request_id.removesuffix("-0")
    assert (entry["input_tokens"], entry["output_tokens"], entry["outcome"]) == (3, 5, "finished")
    assert service.metrics.speculations == {"kept": 1}


async def test_without_the_setting_the_engine_waits_for_the_checks() -> None:
    service = Speculating(speculative_generation=False)
    asked = service.ask()
    await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
    for _ in range(20):
        await asyncio.sleep(0)
    assert service.backend.requests == []
    service.classifier.goes_on.set()
    assert (await asked).status_code == 200
    assert service.metrics.speculations == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("on_block", ["error", "answer"])
async def test_what_the_checks_refuse_is_aborted_and_costs_nothing(
    on_block: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service = Speculating(on_block=on_block)
    service.backend.stall_at = 2  # the engine is still at work when the verdict comes
    answer = await service.settled(service.ask("HARM", stream=stream))

    assert answer.status_code == (400 if on_block == "error" else 200)
    assert "Hello" not in answer.text
    assert service.backend.closed == 1
    entry = await service.entry()
    assert (entry["input_tokens"], entry["output_tokens"], entry["safety"]["decision"]) == (0, 0, "blocked")
    assert service.metrics.speculations == {"refused": 1}
    assert "never retrieved" not in caplog.text


async def test_what_the_checks_redact_is_begun_anew_under_an_id_of_its_own_and_billed_once() -> None:
    service = Speculating(pii={"requests": "redact"})
    answer = await service.settled(service.ask(MAIL))

    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert answer.headers["x-manta-safety"].startswith("redacted")
    first, second = service.backend.requests
    assert isinstance(first.prompt, Conversation)
    assert isinstance(second.prompt, Conversation)
    assert first.prompt.messages[0].content == MAIL
    assert "ann@" not in second.prompt.messages[0].content
    assert first.request_id != second.request_id
    entry = await service.entry()
    assert (entry["input_tokens"], entry["output_tokens"]) == (3, 5)
    assert service.metrics.speculations == {"changed": 1}


async def test_checks_that_take_long_end_the_engines_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may wait for a person, for minutes."""
    monkeypatch.setattr(speculative_answers, "MAX_AHEAD_S", 0.05)
    service = Speculating()
    service.backend.stall_at = 2
    asked = service.ask()
    await service.both_under_way()
    await service.until(lambda: service.backend.closed == 1)
    service.backend.stall_at = None
    answer = await service.settled(asked)

    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert len({each.request_id for each in service.backend.requests}) == 2
    assert service.metrics.speculations == {"late": 1}


@pytest.mark.parametrize("text", ["Hi", "HARM"])
async def test_an_error_of_the_engine_waits_for_the_verdict(text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service = Speculating()
    service.backend.refused, service.backend.refusal = 1, RequestError("too odd", "prompt")
    asked = service.ask(text)
    await service.both_under_way()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asked.done()
    answer = await service.settled(asked)

    assert answer.status_code == 400
    assert ("too odd" in answer.json()["error"]["message"]) is (text == "Hi")
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("after", [False, True])
async def test_an_error_in_the_midst_of_an_answer_is_told_as_ever(after: bool) -> None:
    """The fault comes before or after the verdict."""
    service = Speculating()
    service.backend.fault, service.backend.fault_at = RuntimeError("broken"), 3 if after else 0
    answer = await service.settled(service.ask())
    assert answer.status_code == 500
    assert (await service.entry())["outcome"] == "failed"


async def test_all_choices_and_prompts_are_begun_at_once() -> None:
    service = Speculating()
    asked = asyncio.create_task(service.post(TEXT, {"prompt": ["one", "two"], "n": 2, "stream": True}))
    await service.both_under_way()
    await service.until(lambda: len(service.backend.requests) == 2)
    texts = texts_of(await service.settled(asked), stream=True)

    assert {index: text for index, (text, _) in texts.items()} == {
        0: f"<one>{ANSWER}",
        1: f"1<one>{ANSWER}",
        2: f"<two>{ANSWER}",
        3: f"1<two>{ANSWER}",
    }
    assert len(service.backend.requests) == 2


async def test_a_halt_ends_the_answer_that_was_begun_ahead() -> None:
    service = Speculating(phrases={"block": ["wörld", "漢字"]}, halts="request")
    answer = await service.settled(service.ask(stream=True))
    assert texts_of(answer, stream=True)[0][1] == "content_filter"
    assert "wörld" not in answer.text
    (request,) = service.backend.requests
    assert request.sampling.bad_words == ("漢字",)


async def test_a_conversation_that_the_engine_finds_too_long_is_shortened_after_the_checks() -> None:
    service = Speculating(overflow={"policies": ["trim"]})
    service.backend.refused, service.backend.refusal = 1, TOO_LONG
    turns = [
        {"role": role, "content": f"{role} {place}. " * 60} for place in range(4) for role in ("user", "assistant")
    ]
    body = {"messages": [*turns, {"role": "user", "content": "And on Mondays?"}]}
    answer = await service.settled(asyncio.create_task(service.post(CHAT, body)))

    assert answer.status_code == 200
    assert "trim" in answer.headers["x-manta-context"]
    first, second = service.backend.requests
    assert isinstance(first.prompt, Conversation)
    assert isinstance(second.prompt, Conversation)
    assert len(second.prompt.messages) < len(first.prompt.messages)
    entry = await service.entry()
    assert (entry["input_tokens"], entry["output_tokens"]) == (3, 5)
    assert service.metrics.speculations == {"kept": 1}


async def test_a_request_that_the_answer_cache_may_answer_waits_for_the_checks() -> None:
    service = Speculating(cached=True)
    asked = service.ask(temperature=0)
    await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
    for _ in range(20):
        await asyncio.sleep(0)
    assert service.backend.requests == []
    service.classifier.goes_on.set()
    assert (await asked).headers["x-manta-cache"] == "miss; new"
    assert (await service.ask(temperature=0)).headers["x-manta-cache"].startswith("exact")
    service.classifier.goes_on.clear()
    sampled = await service.settled(service.ask("And sampled?", temperature=1))
    assert sampled.headers["x-manta-cache"].startswith("bypass")
    assert service.metrics.speculations == {"kept": 1}


async def test_a_client_that_leaves_during_the_checks_ends_both() -> None:
    service = Speculating()
    service.backend.stall_at = 2
    leaves = asyncio.Event()
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
    asked = asyncio.create_task(post(service.app, CHAT, body, leaves))
    await service.both_under_way()
    leaves.set()
    await asyncio.wait_for(asked, WAIT_S)
    assert service.backend.closed == 1
    entry = await service.entry()
    assert (entry["outcome"], entry["input_tokens"], entry["output_tokens"]) == ("cancelled", 0, 0)


async def test_a_refused_request_leaves_its_tokens_to_the_next_one() -> None:
    """Otherwise its reservation would stay taken: the limit has room for one of them."""
    service = Speculating(tokens_per_minute=60)
    service.classifier.goes_on.set()
    for _ in range(3):
        assert (await service.ask("HARM", max_tokens=40)).status_code == 400
    assert (await service.ask("Hi", max_tokens=40)).status_code == 200


async def test_a_client_that_is_always_refused_causes_no_more_work_of_the_engine() -> None:
    service = Speculating()
    service.classifier.goes_on.set()
    for _ in range(20):
        await service.ask("HARM")
    wasted = len(service.backend.requests)
    assert 0 < wasted <= 6
    for _ in range(10):
        assert (await service.ask("Hi")).status_code == 200
    service.classifier.goes_on.clear()
    service.backend.began.clear()
    assert (await service.settled(service.ask("Hi"))).status_code == 200
    assert service.metrics.speculations["refused"] == wasted


def test_few_refusals_among_many_requests_do_not_stop_work_ahead() -> None:
    shares, key = WastedShares(), ("acme", "k")
    for place in range(1000):
        assert shares.pays(key)
        shares.observe(key, place % 5 == 0)
    assert shares.pays(("acme", "other"))


def test_shares_of_few_keys_are_remembered() -> None:
    shares = WastedShares()
    for _ in range(8):
        shares.observe(("acme", "first"), wasted=True)
    assert not shares.pays(("acme", "first"))
    for place in range(MAX_KEYS):
        shares.observe(("acme", str(place)), wasted=True)
    assert len(shares._shares) == MAX_KEYS
    assert shares.pays(("acme", "first"))


async def test_a_canary_changes_every_prompt_so_that_the_engine_waits() -> None:
    service = Speculating(prompt_canary="block")
    service.classifier.goes_on.set()
    assert (await service.ask()).status_code == 200
    assert service.metrics.speculations == {}
    assert len(service.backend.requests) == 1


@pytest.mark.parametrize("policy", ["refuse", "pass"])
async def test_a_check_that_fails_follows_the_policy(policy: str) -> None:
    service = Speculating(when_unavailable=policy)
    service.classifier.mode = "dead"
    answer = await service.settled(service.ask())
    assert answer.status_code == (503 if policy == "refuse" else 200)
    assert service.metrics.speculations == {"refused" if policy == "refuse" else "kept": 1}
    used = Usage((await service.entry())["input_tokens"], 0, 0)
    assert used.prompt_tokens == (0 if policy == "refuse" else 3)
