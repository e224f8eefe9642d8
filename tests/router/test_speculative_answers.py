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
from hypothesis import given
from hypothesis import strategies as st

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
from router.ports.usage_metrics import AdmissionSample, NoUsageMetrics
from router.router_ports import CacheParts, RouterPorts
from safety.api import Scores
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.asgi_client import Client
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
    """Counts what became of answers that were begun, and keeps what the admission knows."""

    def __init__(self) -> None:
        self.speculations: Counter[str] = Counter()
        self.waiting: list[int] = []  # requests without a first token, at each decision of the admission

    def admission(self, sample: AdmissionSample) -> None:
        self.waiting.append(sample.waiting)

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
    answer = await service.settled(service.ask(path=path, stream=stream))

    assert texts_of(answer, stream) == {0: (("<Hi>" if path == TEXT else "") + ANSWER, "stop")}
    assert answer.headers["x-manta-safety"] == "allowed"
    (request,) = service.backend.requests
    entry = await service.entry()
    assert entry["id"] == request.request_id.removesuffix("-0")
    assert (entry["input_tokens"], entry["output_tokens"], entry["outcome"]) == (3, 5, "finished")
    assert service.metrics.speculations == {"kept": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_sent_before_the_verdict_though_the_engine_has_an_answer(stream: bool) -> None:
    service = Speculating()
    client = Client({"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": stream})
    asked = asyncio.ensure_future(service.app(client.scope(), client.receive, client.send))
    await service.both_under_way()
    await asyncio.sleep(0.05)
    assert client.sent == []
    assert service.store._entries == {}
    service.classifier.goes_on.set()
    await service.until(lambda: "stop" in client.text)
    client.left.set()
    await asyncio.wait_for(asked, WAIT_S)
    assert "Hello" in client.text


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


@pytest.mark.parametrize(
    "policy",
    [{"pii": {"requests": "redact"}}, {"pii": {"requests": "pseudonymise"}}, {"secrets": {"requests": "redact"}}],
    ids=["redacted", "pseudonymised", "secrets"],
)
async def test_the_engine_waits_where_the_policy_takes_texts_out_that_the_model_must_not_see(policy: Any) -> None:
    service = Speculating(**policy)
    service.classifier.goes_on.set()
    assert (await service.ask(MAIL)).status_code == 200
    assert len(service.backend.requests) == 1
    assert service.metrics.speculations == {}


async def test_what_the_checks_change_is_begun_anew_under_an_id_of_its_own_and_billed_once() -> None:
    service = Speculating(earlier_turns="drop")
    turns = [{"role": role, "content": text} for role, text in (("user", "HARM"), ("assistant", "No."), ("user", "Hi"))]
    answer = await service.settled(asyncio.create_task(service.post(CHAT, {"messages": turns})))

    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert answer.headers["x-manta-safety"].startswith("redacted; dropped_turns=1")
    first, second = service.backend.requests
    assert isinstance(first.prompt, Conversation)
    assert isinstance(second.prompt, Conversation)
    assert (len(first.prompt.messages), len(second.prompt.messages)) == (3, 1)
    assert first.request_id != second.request_id
    assert (first.attempt, second.attempt) == (0, 1)  # one arrival for autoscaling
    entry = await service.entry()
    assert (entry["input_tokens"], entry["output_tokens"]) == (3, 5)
    assert service.metrics.speculations == {"changed": 1}


async def test_a_draft_made_during_the_checks_does_not_say_that_there_are_none() -> None:
    service = Speculating()
    await service.settled(service.ask())
    (draft,) = service.backend.accounts
    assert json.loads(draft)["safety"]["decision"] == "pending"
    assert (await service.entry())["safety"]["decision"] == "allowed"


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]},
        {"response_format": {"type": "json_object"}},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            ]
        },
        {"n": 3, "stop": ["x"], "seed": 7, "logprobs": True, "top_logprobs": 2},
    ],
    ids=["tools", "json", "parts", "choices"],
)
async def test_requests_of_any_form_are_the_same_before_and_after_checks_that_find_nothing(more: Any) -> None:
    service = Speculating()
    answer = await service.settled(service.ask(**more))
    assert answer.status_code == 200
    assert service.metrics.speculations == {"kept": 1}


async def test_a_new_policy_that_comes_during_the_checks_decides() -> None:
    service = Speculating(content=None, injection={"user": None, "documents": None})
    service.policies.set(speculative_generation=True, deadline_s=30, phrases={"block": ["漢字"]})
    asked = service.ask("Hi")
    await service.both_under_way()
    service.policies.set(deadline_s=30, phrases={"block": ["Hi"]})
    answer = await service.settled(asked)
    assert answer.status_code == 200  # decided by the policy with which the checks began
    assert service.metrics.speculations == {"kept": 1}


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


async def test_no_more_work_is_begun_where_checks_are_late_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculative_answers, "MAX_AHEAD_S", 0.0)
    service = Speculating()
    service.backend.stall_at = 2
    for _ in range(10):
        service.classifier.goes_on.clear()
        asked = service.ask()
        await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
        await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.wait([asked])
    assert len(service.backend.requests) <= 2


async def test_a_client_that_leaves_during_the_checks_again_and_again_causes_no_more_work() -> None:
    service = Speculating()
    service.backend.stall_at = 2
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
    for _ in range(20):
        leaves = asyncio.Event()
        service.classifier.asked.clear()
        asked = asyncio.create_task(post(service.app, CHAT, body, leaves))
        await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
        await asyncio.sleep(0)
        leaves.set()
        await asyncio.wait_for(asked, WAIT_S)
    assert len(service.backend.requests) <= 2
    assert service.metrics.speculations["left"] == len(service.backend.requests)


@pytest.mark.parametrize("stall_at", [0, 2])
async def test_a_request_that_is_begun_anew_waits_in_the_eyes_of_the_admission(stall_at: int) -> None:
    """Also if the answer that was aborted had its first token."""
    service = Speculating(earlier_turns="drop")
    service.backend.stall_at = stall_at
    turns = [{"role": role, "content": text} for role, text in (("user", "HARM"), ("assistant", "No."), ("user", "Hi"))]
    asked = asyncio.create_task(service.post(CHAT, {"messages": turns}))
    await service.both_under_way()
    await asyncio.sleep(0.01)
    service.backend.stall_at = 0
    service.classifier.goes_on.set()
    await service.until(lambda: len(service.backend.requests) == 2)
    assert service.backend.closed == 1  # before the second has begun
    other = service.ask()
    await service.until(lambda: len(service.metrics.waiting) == 2)
    assert service.metrics.waiting == [1, 2]
    for each in (asked, other):
        each.cancel()
    await asyncio.wait([asked, other])


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
    assert (await service.settled(service.ask("HARM", max_tokens=40))).status_code == 400
    assert len(service.backend.requests) == 1
    assert (await service.ask("Hi", max_tokens=40)).status_code == 200


async def test_a_client_that_is_refused_causes_no_more_work_until_it_has_paid_for_as_much() -> None:
    service = Speculating()
    for _ in range(10):
        service.backend.began.clear()
        refused = service.ask("HARM")
        await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
        service.classifier.goes_on.set()
        assert (await refused).status_code == 400
    assert service.metrics.speculations["refused"] <= 1
    before = len(service.backend.requests)
    for _ in range(12):
        assert (await service.ask("Hi")).status_code == 200
    service.classifier.goes_on.clear()
    service.backend.began.clear()
    service.classifier.asked.clear()
    assert (await service.settled(service.ask("Hi"))).status_code == 200
    assert len(service.backend.requests) == before + 13
    assert service.metrics.speculations["kept"] >= 1


def test_few_refusals_among_many_requests_do_not_stop_work_ahead() -> None:
    shares, key = WastedShares(), ("acme", "k")
    for place in range(1000):
        assert place < 8 or shares.pays(key)
        shares.observe(key, 100, wasted=place % 5 == 0)
    assert shares.pays(("acme", "other"))


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_short_requests_that_pass_do_not_make_up_for_long_ones_that_do_not(allowed: int) -> None:
    shares, key, begun = WastedShares(), ("acme", "k"), 0
    for _ in range(100):
        for _ in range(allowed):
            shares.observe(key, 10, wasted=False)
        begun += shares.pays(key)
        shares.observe(key, 100_000, wasted=True)
    assert begun == 1


@given(st.lists(st.booleans(), max_size=200))
def test_no_more_requests_of_equal_length_are_begun_in_vain_than_pass(requests: list[bool]) -> None:
    shares, key, vain = WastedShares(), ("acme", "k"), 0
    for wasted in requests:
        vain += wasted and shares.pays(key)
        shares.observe(key, 100, wasted=wasted)
    assert vain <= 1 + requests.count(False)


def test_shares_of_few_keys_are_remembered() -> None:
    shares = WastedShares()
    shares.observe(("acme", "first"), 10, wasted=True)
    assert not shares.pays(("acme", "first"))
    for place in range(MAX_KEYS):
        shares.observe(("acme", str(place)), 10, wasted=True)
    assert len(shares._tokens) == MAX_KEYS
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
