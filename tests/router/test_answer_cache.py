"""The answer cache over HTTP, on a scripted backend, a virtual clock, and a scripted semantic index."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from engine.api import FinishReason
from router.app import CacheParts, build_app
from router.config import KeyConfig, Role, RouterConfig
from router.memory_entry_store import MemoryEntryStore
from router.memory_safety_store import MemorySafetyStore
from router.memory_store import MemoryStore
from router.ports.cache_entry import encode_entry
from router.ports.state_store import StateUnavailableError
from router.review.review_wiring import ReviewService
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.backend import ScriptedBackend
from tests.router.guarded import Policies
from tests.router.scripted_index import ScriptedIndex
from tests.safety.scripted_classifier import ScriptedClassifier
from tests.state.cached import all_of, spoil
from tests.state.clock import VirtualClock

CHAT, TEXT, FEEDBACK = "/v1/chat/completions", "/v1/completions", "/v1/cache/feedback"
KEYS = (
    KeyConfig(key="sk-user", tenant="acme", team="core"),
    KeyConfig(key="sk-other", tenant="other", team="core"),
    KeyConfig(key="sk-viewer", tenant="acme", team="core", role=Role.VIEWER),
    KeyConfig(key="sk-admin", tenant="ops", team="core", role=Role.ADMIN),
)
PRICES = {"version": "1", "tiers": {name: {"input": 1.0, "output": 4.0} for name in ("fast", "balanced", "frontier")}}


class Counted:
    """Remembers what was counted. Implements ``CacheMetrics``."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()

    def asked(self, tenant: str, status: str, reason: str) -> None:
        self.counts["asked", tenant, status, reason] += 1

    def stored(self, tenant: str) -> None:
        self.counts["stored", tenant] += 1

    def unstored(self, tenant: str, reason: str) -> None:
        self.counts["unstored", tenant, reason] += 1

    def poisoned(self) -> None:
        self.counts[("poisoned",)] += 1

    def judged(self, tenant: str, judge: str, *, wrong: bool) -> None:
        self.counts["judged", tenant, judge, str(wrong)] += 1


class Cached:
    """A router with an answer cache. ``cache`` are settings of it."""

    def __init__(
        self,
        *,
        guarded: bool = False,
        store: MemoryEntryStore | None = None,
        backend: ScriptedBackend | None = None,
        request_timeout_s: float = 600,
        **cache: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.backend = backend or ScriptedBackend()
        self.entries = store or MemoryEntryStore(self.clock)
        self.index = ScriptedIndex(self.entries)
        self.ledger = MemoryStore(self.clock)
        self.metrics = Counted()
        self.policies, self.classifier = Policies(), ScriptedClassifier()
        self.safety = MemorySafetyStore(self.clock)
        guard = PolicyGuard(self.policies, Parts(self.classifier))
        settings = {"enabled": True, "shadow_share": 0.0, **cache}
        config = RouterConfig.model_validate(
            {"keys": KEYS, "prices": PRICES, "cache": settings, "request_timeout_s": request_timeout_s}
        )
        self.app = build_app(
            config,
            self.backend,
            clock=self.clock,
            store=self.ledger,
            make_guard=(lambda oversight, store: guard) if guarded else None,
            reviews=ReviewService(self.safety, config.review, self.clock),
            cache=CacheParts(self.entries, self.index, self.metrics),
        )

    async def post(self, path: str, body: dict[str, Any], key: str = "sk-user", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        sent = {"authorization": f"Bearer {key}", **headers}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=sent) as http:
            answer = await http.post(path, json=body)
        await asyncio.sleep(0.01)  # what is stored beside the request
        return answer

    async def ask(self, text: str = "What is a quark?", key: str = "sk-user", **more: Any) -> httpx.Response:
        """Asks a question, greedily by default. Fields that are None are left out."""
        body = {"model": "fast", "temperature": 0, "messages": [{"role": "user", "content": text}], **more}
        return await self.post(CHAT, {name: value for name, value in body.items() if value is not None}, key)

    async def status(self, text: str = "What is a quark?", key: str = "sk-user", **more: Any) -> str:
        answer = await self.ask(text, key, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["x-manta-cache"])

    def documents(self) -> list[dict[str, Any]]:
        """The ledger's documents, in order."""
        return [json.loads(entry.document) for entry in self.ledger._entries.values()]


@pytest.fixture
async def cached() -> Cached:
    return Cached()


def text_of(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


async def test_the_same_question_twice_is_an_exact_hit(cached: Cached) -> None:
    first = await cached.ask()
    cached.clock.advance(12)
    second = await cached.ask()
    assert first.headers["x-manta-cache"] == "miss; new"
    assert second.headers["x-manta-cache"] == "exact; age=12"
    assert text_of(second) == text_of(first)
    assert second.json()["usage"] == first.json()["usage"]
    assert second.json()["id"] != first.json()["id"]
    assert len(cached.backend.requests) == 1
    assert "x-manta-cache-entry" not in first.headers
    assert [entry.id for entry in await all_of(cached.entries.entries())] == [second.headers["x-manta-cache-entry"]]


async def test_a_hit_is_streamed_like_a_generation(cached: Cached) -> None:
    whole = await cached.ask()
    streamed = await cached.ask(stream=True, stream_options={"include_usage": True})
    assert streamed.headers["x-manta-cache"] == "exact; age=0"
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == text_of(whole)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == whole.json()["usage"]
    assert streamed.text.rstrip().endswith("data: [DONE]")


async def test_a_streamed_answer_is_stored_too(cached: Cached) -> None:
    await cached.ask(stream=True)
    assert await cached.status() == "exact; age=0"


async def test_choices_and_prompts_keep_their_places(cached: Cached) -> None:
    body = {"model": "fast", "temperature": 0, "prompt": ["one", "two"], "n": 2, "max_tokens": 9}
    first, second = await cached.post(TEXT, body), await cached.post(TEXT, body)
    assert second.headers["x-manta-cache"] == "exact; age=0"
    assert second.json()["choices"] == first.json()["choices"]


@pytest.mark.parametrize(
    "more",
    [
        {"key": "sk-other"},
        {"model": "balanced"},
        {"text": "What is a quark"},
        {"max_tokens": 5},
        {"stop": ["x"]},
        {"n": 2},
        {"frequency_penalty": 0.5},
        {"logit_bias": {"7": 1}},
        {"seed": 1, "temperature": 0.5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "What is a quark?"}]},
        {"messages": [{"role": "user", "content": "What is a quark?", "name": "ann"}]},
        {"cache": {"namespace": "b"}},
    ],
    ids=str,
)
async def test_whatever_decides_the_answer_makes_another_question(cached: Cached, more: dict[str, Any]) -> None:
    await cached.ask()
    assert (await cached.status(**more)).startswith("miss")
    assert (await cached.status(**more)).startswith("exact")


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True},
        {"user": "ann"},
        {"priority": -1},
        {"deadline_s": 30},
        {"max_cost": 1.0},
        {"seed": 5},
        {"temperature": 1, "top_k": 1},
        {"metadata": {"a": "b"}},
        {"cache": {"semantic": False}},
    ],
    ids=str,
)
async def test_what_does_not_decide_the_answer_makes_none(cached: Cached, more: dict[str, Any]) -> None:
    await cached.ask()
    assert (await cached.status(**more)).startswith("exact")


@pytest.mark.parametrize("changed_field", ["model", "version"])
async def test_another_model_behind_the_tier_is_a_miss(changed_field: str) -> None:
    before = Cached()
    await before.ask()
    after = Cached(store=before.entries)
    assert (await after.status()).startswith("exact")
    tiers = after.backend.tiers()
    after.backend.tiers = lambda: [replace(tier, **{changed_field: "another"}) for tier in tiers]  # type: ignore[method-assign,arg-type]
    changed = Cached(store=before.entries)
    changed.backend.tiers = after.backend.tiers  # type: ignore[method-assign]
    changed.app = build_app(
        RouterConfig.model_validate({"keys": KEYS, "cache": {"enabled": True}}),
        changed.backend,
        clock=changed.clock,
        cache=CacheParts(before.entries),
    )
    assert await changed.status() == "miss; new"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"temperature": 1}, "sampled"),
        ({"temperature": None}, "sampled"),
        ({"logprobs": True}, "logprobs"),
        ({"cache": {"mode": "off"}}, "no-cache"),
    ],
    ids=str,
)
async def test_what_is_not_for_the_cache_passes_it(cached: Cached, more: dict[str, Any], reason: str) -> None:
    for _ in range(2):
        assert await cached.status(**more) == f"bypass; {reason}"
    assert await all_of(cached.entries.entries()) == []


async def test_sampled_answers_are_stored_where_the_tenant_allows_it() -> None:
    cached = Cached(tenants={"acme": {"sampled": True}})
    assert await cached.status(temperature=1) == "miss; new"
    assert await cached.status(temperature=1) == "exact; age=0"
    assert await cached.status(temperature=1, key="sk-other") == "bypass; sampled"


async def test_a_tenant_may_be_without_the_cache_and_alone_with_it() -> None:
    without = Cached(tenants={"acme": {"enabled": False}})
    alone = Cached(enabled=False, tenants={"acme": {"enabled": True}})
    off = Cached(enabled=False)
    for _ in range(2):
        assert await without.status() == await alone.status(key="sk-other") == await off.status() == "bypass; off"
    await alone.ask()
    assert await alone.status() == "exact; age=0"


@pytest.mark.parametrize("outcome", [FinishReason.ERROR, FinishReason.REFUSED])
async def test_an_answer_that_is_not_whole_is_not_stored(cached: Cached, outcome: FinishReason) -> None:
    cached.backend.outcome = outcome
    await cached.ask()
    cached.backend.outcome = FinishReason.STOP
    cached.clock.advance(2)
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"


async def test_an_answer_that_ends_at_the_limit_of_tokens_is_stored_for_that_limit(cached: Cached) -> None:
    cached.backend.outcome = FinishReason.LENGTH
    first = await cached.ask(max_tokens=3)
    (entry,) = await all_of(cached.entries.entries())
    assert entry.question == ""  # no other question gets it: elsewhere its answer may have been complete
    again = await cached.ask(max_tokens=3)
    assert again.headers["x-manta-cache"] == "exact; age=0"
    assert again.json()["choices"] == first.json()["choices"]
    assert await cached.status(max_tokens=4) == "miss; new"


async def test_a_free_hit_teaches_the_limits_nothing(cached: Cached) -> None:
    limiter = cached.app._pipeline._limiter  # type: ignore[attr-defined]
    await cached.ask()
    learnt = limiter.tokens_per_character("fast"), limiter._estimator._answers["acme", "fast"]
    for _ in range(20):
        assert (await cached.status()).startswith("exact")
    assert (limiter.tokens_per_character("fast"), limiter._estimator._answers["acme", "fast"]) == learnt


async def test_an_empty_answer_is_not_stored(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.router.backend.WORDS", (" ", "\n"))
    await cached.ask()
    assert await all_of(cached.entries.entries()) == []


async def test_a_large_answer_is_not_stored() -> None:
    cached = Cached(max_entry_bytes=1024)
    await cached.ask("x" * 1000)
    assert await all_of(cached.entries.entries()) == []


@pytest.mark.parametrize("by", ["field", "header"])
async def test_no_cache_asks_for_a_new_answer_and_stores_it(cached: Cached, by: str) -> None:
    await cached.ask()
    (before,) = await all_of(cached.entries.entries())
    body = {"model": "fast", "temperature": 0, "messages": [{"role": "user", "content": "What is a quark?"}]}
    if by == "field":
        answer = await cached.post(CHAT, {**body, "cache": {"mode": "no-cache"}})
    else:
        answer = await cached.post(CHAT, body, **{"cache-control": "No-Cache"})
    assert answer.headers["x-manta-cache"] == "bypass; no-cache"
    (after,) = await all_of(cached.entries.entries())
    assert after.key == before.key
    assert after.id != before.id


async def test_no_store_takes_a_stored_answer_and_stores_none(cached: Cached) -> None:
    assert await cached.status(cache={"mode": "no-store"}) == "miss; no-store"
    assert await all_of(cached.entries.entries()) == []
    await cached.ask()
    assert await cached.status(cache={"mode": "no-store"}) == "exact; age=0"


async def test_max_age_and_ttl_bound_the_age_of_an_answer(cached: Cached) -> None:
    await cached.ask(cache={"ttl_s": 60})
    cached.clock.advance(30)
    assert await cached.status(cache={"max_age_s": 29}) == "miss; max-age"
    assert await cached.status(cache={"max_age_s": 29}) == "exact; age=0"  # the one that was generated just now
    await cached.ask(cache={"mode": "no-cache", "ttl_s": 10})
    cached.clock.advance(11)
    assert await cached.status() == "miss; new"


@pytest.mark.parametrize(
    ("field", "value"),
    [("mode", "never"), ("max_age_s", -1), ("ttl_s", 0), ("namespace", "x" * 129), ("other", 1)],
)
async def test_a_wrong_control_is_named(cached: Cached, field: str, value: object) -> None:
    answer = await cached.ask(cache={field: value})
    assert answer.status_code == 400
    assert field in answer.json()["error"]["param"]


async def test_a_hit_is_free_and_counted(cached: Cached) -> None:
    await cached.ask()
    await cached.ask()
    miss, hit = cached.documents()
    assert (miss["cache"], hit["cache"]) == ("miss", "exact")
    assert miss["cost"] > 0
    assert (hit["cost"], hit["input_tokens"], hit["output_tokens"], hit["exact"]) == (0, 0, 0, True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(cached.app), base_url="http://test") as http:
        used = await http.get("/v1/usage", headers={"authorization": "Bearer sk-user"})
    assert [(row["requests"], row["cache_hits"]) for row in used.json()["data"]] == [(2, 1)]


async def test_a_hit_costs_what_its_generation_did_where_it_is_billed() -> None:
    cached = Cached(billing="full")
    await cached.ask()
    await cached.ask()
    miss, hit = cached.documents()
    counts = ("cost", "input_tokens", "output_tokens", "cached_input_tokens")
    assert [hit[name] for name in counts] == [miss[name] for name in counts]


async def test_identical_requests_at_once_share_one_generation(cached: Cached) -> None:
    answers = await asyncio.gather(*(cached.ask(stream=n % 2 == 1 or None) for n in range(16)))
    assert len(cached.backend.requests) == 1
    said = [answer.headers["x-manta-cache"] for answer in answers]
    assert sorted(said) == ["exact; shared; age=0"] * 15 + ["miss; new"]


class Outage(MemoryEntryStore):
    """A store that can be gone. Implements ``EntryStore``."""

    gone = False

    def _check_open(self) -> None:
        if self.gone:
            raise StateUnavailableError("gone")


async def test_without_the_store_answers_go_on_and_with_it_again_hits() -> None:
    store = Outage(VirtualClock())
    cached = Cached(store=store)
    await cached.ask()
    store.gone = True
    assert await cached.status() == "bypass; unavailable"
    assert (await cached.ask("Another?")).status_code == 200
    store.gone = False
    assert await cached.status() == "exact; age=0"
    assert await cached.status("Another?") == "miss; new"


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x80\n{}"])
async def test_a_poisoned_entry_is_a_miss_and_replaced(cached: Cached, data: bytes) -> None:
    await cached.ask()
    (entry,) = await all_of(cached.entries.entries())
    spoil(cached.entries, None, "acme", entry.key, data)
    assert await cached.status() == "miss; new"
    assert cached.metrics.counts[("poisoned",)] == 1
    assert await cached.status() == "exact; age=0"


@pytest.mark.parametrize("document", ["", "{}", '{"answers":[]}', '{"answers":[{"prompt":0,"text":1}]}'])
async def test_an_entry_without_the_answers_is_a_miss(cached: Cached, document: str) -> None:
    await cached.ask()
    (entry,) = await all_of(cached.entries.entries())
    spoil(cached.entries, None, "acme", entry.key, encode_entry(replace(entry, document=document)))
    assert await cached.status() == "miss; poisoned"
    assert cached.metrics.counts[("poisoned",)] == 1
    assert (await cached.status()).startswith("exact")


async def test_a_question_of_the_same_meaning_is_a_semantic_hit(cached: Cached) -> None:
    first = await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.97)
    second = await cached.ask("What are quarks?")
    assert second.headers["x-manta-cache"] == "semantic; score=0.970"
    assert text_of(second) == text_of(first)
    assert len(cached.backend.requests) == 1
    assert second.headers["x-manta-cache-entry"]
    assert cached.documents()[-1]["cache"] == "semantic"


async def test_what_the_index_refuses_is_a_miss_that_says_why(cached: Cached) -> None:
    await cached.ask()
    cached.index.same("What is not a quark?", "What is a quark?", 0.99, refused_by="negation")
    assert await cached.status("What is not a quark?") == "miss; negation"


@pytest.mark.parametrize(
    "more",
    [
        {"key": "sk-other"},
        {"cache": {"semantic": False}},
        {"cache": {"namespace": "b"}},
        {"max_tokens": 7},
        {"messages": [{"role": "system", "content": "Shout."}, {"role": "user", "content": "What are quarks?"}]},
    ],
    ids=str,
)
async def test_meaning_counts_only_where_all_else_is_the_same(cached: Cached, more: dict[str, Any]) -> None:
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.97)
    assert await cached.status("What are quarks?", **more) == "miss; new"


async def test_an_entry_that_the_index_still_has_and_the_store_has_not_is_a_miss(cached: Cached) -> None:
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.97)
    await cached.index.follow()
    cached.index.frozen = True
    (entry,) = await all_of(cached.entries.entries())
    await cached.entries.delete("acme", entry.id)
    assert await cached.status("What are quarks?") == "miss; gone"


async def test_without_the_index_exact_hits_go_on(cached: Cached) -> None:
    cached.index.unavailable = True
    assert await cached.status() == "miss; index unavailable"
    assert await cached.status() == "exact; age=0"


async def test_a_share_of_semantic_hits_is_generated_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = Cached(shadow_share=1.0)
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.97)
    cached.index.same("Who was Quark?", "What is a quark?", 0.96)
    assert await cached.status("What are quarks?") == "miss; shadow"
    monkeypatch.setattr("tests.router.backend.WORDS", ("Something ", "else"))
    assert await cached.status("Who was Quark?") == "miss; shadow"
    assert [(told.wrong, told.judge.value, told.score, told.question, told.weight) for told in cached.index.told] == [
        (False, "shadow", 0.97, "What are quarks?", 1.0),
        (True, "shadow", 0.96, "Who was Quark?", 1.0),
    ]


async def test_a_share_of_near_misses_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = Cached(near_miss_share=1.0)
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.7, "score")
    cached.index.same("Who was Quark?", "What is a quark?", 0.6, "score")
    cached.index.same("What is no quark?", "What is a quark?", 0.0, "negation")
    assert await cached.status("What are quarks?") == "miss; score"
    monkeypatch.setattr("tests.router.backend.WORDS", ("Something ", "else"))
    assert await cached.status("Who was Quark?") == "miss; score"
    assert await cached.status("What is no quark?") == "miss; negation"
    assert [(told.wrong, told.judge.value, told.score) for told in cached.index.told] == [
        (False, "near_miss", 0.7),
        (True, "near_miss", 0.6),
    ]


async def test_no_near_miss_is_compared_where_the_share_is_none() -> None:
    cached = Cached(near_miss_share=0.0)
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.7, "score")
    assert await cached.status("What are quarks?") == "miss; score"
    assert cached.index.told == []


async def test_an_answer_that_was_wrong_for_another_question_stays_for_its_own(cached: Cached) -> None:
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.97)
    entry = (await cached.ask("What are quarks?")).headers["x-manta-cache-entry"]
    said = await feedback(cached, entry, question="What are quarks?")
    assert said.json()["deleted"] is False
    (told,) = cached.index.told
    assert (told.wrong, told.question, told.score) == (True, "What are quarks?", None)
    assert told.who
    assert await cached.status() == "exact; age=0"
    assert (await feedback(cached, entry, question="What is a quark?")).json()["deleted"] is True


async def test_no_answer_of_a_refused_or_unscanned_request_is_stored() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(when_unavailable="pass", content={"block": 0.7})
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"
    cached.classifier.mode = "dead"
    assert await cached.status("Another?") == "bypass; unscanned"
    cached.classifier.mode = "well"
    cached.policies.set(when_unavailable="pass", content={"block": 0.8})
    assert await cached.status() == "miss; new"  # another policy: the stored answer might not pass it


async def test_an_answer_that_another_classifier_or_list_has_passed_is_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cached = Cached(guarded=True)
    cached.policies.set(content={"block": 0.7}, pii={"answers": "redact"})
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"
    cached.classifier.version = "scripted-2"
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"
    monkeypatch.setattr("safety.answer_checks.PII_VERSION", "another")
    assert await cached.status() == "miss; new"


async def feedback(cached: Cached, entry: str, key: str = "sk-user", **more: Any) -> httpx.Response:
    return await cached.post(FEEDBACK, {"entry": entry, **more}, key)


async def test_a_wrong_answer_is_deleted_by_its_tenant_and_the_index_learns_of_it(cached: Cached) -> None:
    await cached.ask()
    entry = (await cached.ask()).headers["x-manta-cache-entry"]
    assert (await feedback(cached, entry, "sk-other")).status_code == 404
    assert (await feedback(cached, entry, "sk-viewer")).status_code == 403
    assert (await feedback(cached, entry, wrong=False)).json()["deleted"] is False
    assert (await cached.status()).startswith("exact")
    said = await feedback(cached, entry)
    assert said.json() == {"object": "cache_feedback", "entry": entry, "wrong": True, "deleted": True}
    assert (await feedback(cached, entry)).status_code == 404
    assert await cached.status() == "miss; new"
    assert [(each.wrong, each.judge.value) for each in cached.index.told] == [(False, "client"), (True, "client")]


@pytest.mark.parametrize("entry", ["", "x", "../" * 20, f"{'0' * 64}-{'0' * 11}", f"{'0' * 64}-{'0' * 12}\n"])
async def test_what_is_no_id_of_an_entry_is_refused(cached: Cached, entry: str) -> None:
    answer = await feedback(cached, entry)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "entry"


async def invalidate(cached: Cached, **body: Any) -> dict[str, Any]:
    answer = await cached.post("/admin/v1/cache/invalidate", body, "sk-admin")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def filled() -> Cached:
    """Three entries of acme, one of them on another tier and a day old, and one of another tenant."""
    cached = Cached(ttl_s=10 * 86_400)
    await cached.ask("Old question?", model="balanced")
    cached.clock.advance(86_400)
    for text, key in (("What is a quark?", "sk-user"), ("What is a lepton?", "sk-user"), ("Who?", "sk-other")):
        await cached.ask(text, key)
    return cached


@pytest.mark.parametrize(
    ("which", "count"),
    [
        ({"tenant": "acme"}, 3),
        ({"model_version": "fast-model"}, 3),
        ({"model_version": "balanced-model"}, 1),
        ({"template_version": "greeting@1"}, 0),
        ({"question_prefix": "What is"}, 2),
        ({"older_than_s": 3600}, 1),
        ({"tenant": "acme", "model_version": "fast-model", "question_prefix": "What is a q"}, 1),
        ({"all": True}, 4),
    ],
    ids=str,
)
async def test_entries_are_counted_first_and_then_deleted(which: dict[str, Any], count: int) -> None:
    cached = await filled()
    dry = await invalidate(cached, **which)
    assert (dry["dry_run"], dry["count"], len(dry["sample"])) == (True, count, count)
    assert len(await all_of(cached.entries.entries())) == 4
    assert "quark" not in json.dumps(dry)
    done = await invalidate(cached, **which, dry_run=False)
    assert (done["dry_run"], done["count"]) == (False, count)
    assert len(await all_of(cached.entries.entries())) == 4 - count


async def test_one_entry_is_deleted_by_its_id_and_who_did_it_is_in_the_audit_log() -> None:
    cached = await filled()
    entry = (await cached.ask()).headers["x-manta-cache-entry"]
    assert (await invalidate(cached, entry=entry, dry_run=False))["count"] == 1
    assert await cached.status() == "miss; new"
    (day,) = await cached.safety.audit.days("acme")
    (line,) = await cached.safety.audit.lines("acme", day.day, 0, 10)
    record = json.loads(line.partition(" ")[2])
    assert (record["check"], record["outcome"], record["count"]) == ("answer cache", "invalidated", 1)
    assert record["reviewer"]
    assert record["filter"] == {"entry_id": entry}


async def test_only_administrators_invalidate_and_say_what(cached: Cached) -> None:
    assert (await cached.post("/admin/v1/cache/invalidate", {"all": True}, "sk-user")).status_code == 403
    assert (await cached.post("/admin/v1/cache/invalidate", {}, "sk-admin")).status_code == 400
    assert (await cached.post("/admin/v1/cache/invalidate", {"tennant": "x"}, "sk-admin")).status_code == 400
    off = Cached(enabled=False)
    assert (await off.post("/admin/v1/cache/invalidate", {"all": True}, "sk-admin")).status_code == 404


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
CALL = ("<tool_call>", '\n{"name": "look_up", "arguments": ', '{"of": "quark"}', "}\n</tool_call>")


def deltas_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The deltas of a stream with one choice."""
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


async def test_a_tool_call_comes_again_under_an_id_of_its_own(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.router.backend.WORDS", CALL)
    first, second = [await cached.ask(tools=[TOOL]) for _ in range(2)]
    streamed = await cached.ask(tools=[TOOL], stream=True)
    assert (second.headers["x-manta-cache"], streamed.headers["x-manta-cache"]) == ("exact; age=0",) * 2
    ours, theirs = (answer.json()["choices"][0] for answer in (first, second))
    assert theirs["finish_reason"] == ours["finish_reason"] == "tool_calls"
    (call,), (again,) = ours["message"]["tool_calls"], theirs["message"]["tool_calls"]
    assert again["function"] == call["function"] == {"name": "look_up", "arguments": '{"of": "quark"}'}
    assert again["id"] != call["id"]
    pieces = [piece for delta in deltas_of(streamed) for piece in delta.get("tool_calls") or ()]
    assert "".join(piece["function"].get("arguments") or "" for piece in pieces) == '{"of": "quark"}'
    assert pieces[0]["function"]["name"] == "look_up"


async def test_reasoning_comes_again_whole_and_streamed(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM's issue 32068: hits that are streamed lose it."""
    monkeypatch.setattr("tests.router.backend.WORDS", ("<think>", "So it is", "</think>", "Yes."))
    first, second = [await cached.ask() for _ in range(2)]
    streamed = await cached.ask(stream=True)
    assert second.json()["choices"] == first.json()["choices"]
    message = first.json()["choices"][0]["message"]
    name = next(name for name in message if name.startswith("reasoning"))
    assert "So it is" in message[name]
    assert "".join(delta.get(name) or "" for delta in deltas_of(streamed)) == message[name]


async def test_a_long_hit_is_streamed_in_pieces(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM's issue 11145: a hit is one piece, however long."""
    text = "Some words of a long answer — with an emoji 🎉 here and there. " * 40
    monkeypatch.setattr("tests.router.backend.WORDS", (text,))
    await cached.ask()
    pieces = [delta["content"] for delta in deltas_of(await cached.ask(stream=True)) if delta.get("content")]
    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= 256


@pytest.mark.parametrize(
    "parameter", [{"top_k": 9}, {"min_p": 0.1}, {"repetition_penalty": 1.1}, {"top_p": 0.7}], ids=str
)
async def test_parameters_beyond_openais_count_in_sampled_answers(cached: Cached, parameter: dict[str, Any]) -> None:
    """LiteLLM's issue 5049: a changed top_k gets the former answer."""
    await cached.ask(temperature=0.5, seed=1)
    assert await cached.status(temperature=0.5, seed=1, **parameter) == "miss; new"


async def test_a_failure_is_not_given_again(cached: Cached) -> None:
    """A failure that is stored outlives the outage."""
    cached.backend.fault, cached.backend.fault_at = RuntimeError("broken"), 2
    assert (await cached.ask()).status_code == 500
    cached.backend.fault = None
    assert await cached.status() == "miss; new"


async def test_prompts_of_token_ids_are_found_by_the_same_request_alone(cached: Cached) -> None:
    body = {"model": "fast", "temperature": 0, "prompt": [1, 2, 3]}
    first, second = await cached.post(TEXT, body), await cached.post(TEXT, body)
    assert (first.headers["x-manta-cache"], second.headers["x-manta-cache"]) == ("miss; new", "exact; age=0")
    (entry,) = await all_of(cached.entries.entries())
    assert not entry.semantic
    assert (await cached.post(TEXT, {**body, "prompt": "1 2 3"})).headers["x-manta-cache"] == "miss; new"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "x" * 2001}],
        [{"role": "user", "content": "Call it."}, {"role": "tool", "tool_call_id": "1", "content": "7"}],
    ],
    ids=["long", "tool result"],
)
async def test_what_has_no_short_last_question_is_found_by_the_same_request_alone(
    cached: Cached, messages: list[dict[str, Any]]
) -> None:
    await cached.ask(messages=messages)
    (entry,) = await all_of(cached.entries.entries())
    assert not entry.semantic


async def test_a_refusal_that_is_sent_as_an_answer_is_not_stored() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(phrases={"block": ["quark"]}, on_block="answer")
    answer = await cached.ask()
    assert answer.headers["x-manta-cache"] == "bypass; refused"
    assert await all_of(cached.entries.entries()) == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_the_guard_halts_is_not_stored(stream: bool) -> None:
    cached = Cached(guarded=True)
    cached.policies.set(phrases={"block": ["wörld"]})
    for _ in range(2):
        answer = await cached.ask(stream=stream)
        assert not answer.headers["x-manta-cache"].startswith("exact")
        cached.clock.advance(2)
    assert len(cached.backend.requests) == 2
    assert await all_of(cached.entries.entries()) == []


async def test_an_answer_that_the_guard_redacts_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.router.backend.WORDS", ("Write to ann@example.com", " soon."))
    cached = Cached(guarded=True)
    cached.policies.set(pii={"answers": "redact"})
    assert "ann@example.com" not in text_of(await cached.ask())
    assert await all_of(cached.entries.entries()) == []


async def test_requests_with_pseudonyms_pass_the_cache_and_redacted_ones_do_not() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(pii={"requests": "pseudonymise"})
    assert await cached.status("Write to ann@example.com.") == "bypass; pseudonyms"
    cached.policies.set(pii={"requests": "redact"})
    assert await cached.status("Write to ann@example.com.") == "miss; new"
    # The model has seen the same for both, and so has the cache: no address is stored.
    assert await cached.status("Write to bob@example.com.") == "exact; age=0"
    (entry,) = await all_of(cached.entries.entries())
    assert "@" not in entry.question


async def test_a_request_in_doubt_that_goes_on_passes_the_cache() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(content={"block": 0.99, "review": 0.0}, review={"action": "pass"})
    assert await cached.status() == "bypass; review"


async def test_requests_and_stored_answers_are_counted_by_tenant_and_reason(
    cached: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    for temperature in (0, 0, 1):
        await cached.ask(temperature=temperature)
    monkeypatch.setattr("tests.router.backend.WORDS", (" ",))
    await cached.ask("Another?")
    assert cached.metrics.counts == {
        ("asked", "acme", "miss", "new"): 2,
        ("asked", "acme", "exact", ""): 1,
        ("asked", "acme", "bypass", "sampled"): 1,
        ("stored", "acme"): 1,
        ("unstored", "acme", "empty"): 1,
    }


async def test_a_request_with_a_deadline_waits_for_another_a_part_of_it_only(cached: Cached) -> None:
    cached.backend.stall_at = 2
    leader = asyncio.create_task(cached.ask())
    await asyncio.sleep(0.05)
    cached.backend.stall_at = None
    assert await cached.status(deadline_s=0.2) == "miss; wait"
    leader.cancel()
