"""What users of other caches have reported: wrong pairs, which the guard refuses, and wrong hits over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from router.cache.pair_guard.pair_rules import refusal
from tests.router.asking import BODY, Asking
from tests.router.cached import CHAT, TEXT, Cached
from tests.state.cached import all_of

REPORTED = [
    # vllm-project/semantic-router 2691, 2728: opposite settings score .94 to .98
    ("How to turn on dark mode?", "How to turn off dark mode?"),
    ("Is port 6379 open by default?", "Is port 6379 closed by default?"),
    ("How do I enable two-factor login?", "How do I disable two-factor login?"),
    # vllm-project/semantic-router 160: calculations that differ in one number
    ("What is 15% of 200?", "What is 15% of 300?"),
    # langchain-ai/langchain-redis 22
    ("What is 1+1?", "What is 21+1?"),
    # zilliztech/GPTCache 694: a question and its reversal
    ("Does caffeine cause insomnia?", "Does insomnia cause caffeine?"),
    ("Can I convert a PDF to Word?", "Can I convert a Word to PDF?"),
    ("Is it safe to take ibuprofen before aspirin?", "Is it safe to take aspirin before ibuprofen?"),
    # vllm-project/semantic-router 2691 with its multilingual encoder: no list of English words sees these
    ("¿Cómo activo el modo oscuro?", "¿Cómo desactivo el modo oscuro?"),
    ("Comment activer le mode sombre ?", "Comment désactiver le mode sombre ?"),
    ("Ist die API für Studenten kostenlos?", "Ist die API für Studenten nicht kostenlos?"),
    # zilliztech/GPTCache 435: another question in Chinese gets the first answer
    ("法国的首都是哪里？", "意大利的首都是哪里？"),
    # the like of them
    ("Which plan includes support?", "Which plan excludes support?"),
    ("Is the API free for students?", "Is the API not free for students?"),
]

PARAPHRASES = [
    # langchain-ai/langchain 29517: these should be one question
    ("What is the capital of France?", "Can you tell me the capital city of France?"),
    # vllm-project/semantic-router 2728: controls
    ("How to turn on dark mode?", "How do I turn dark mode on?"),
    ("Is port 6379 open by default?", "By default, is port 6379 open?"),
]


@pytest.mark.parametrize(("one", "other"), REPORTED)
def test_a_reported_wrong_hit_is_refused(one: str, other: str) -> None:
    assert refusal(one, other) is not None


@pytest.mark.parametrize(("one", "other"), PARAPHRASES)
def test_a_reported_miss_is_not_refused(one: str, other: str) -> None:
    assert refusal(one, other) is None


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("choice", ["none", "required", {"type": "function", "function": {"name": "look_up"}}], ids=str)
async def test_what_a_request_says_of_tools_is_in_the_key(cached: Cached, choice: Any) -> None:
    """microsoft/autogen 7968, 8211: "must call a tool" and "must not" share an entry."""
    await cached.ask(tools=[TOOL], tool_choice="auto")
    assert not (await cached.status(tools=[TOOL], tool_choice=choice)).startswith("exact")
    assert (await cached.status(tools=[TOOL], tool_choice="auto")).startswith("exact")


async def test_hits_do_not_make_an_answer_live_longer(cached: Cached) -> None:
    """redis/redis-vl-python 603: each hit begins the time to live anew."""
    await cached.ask(cache={"ttl_s": 60})
    for _ in range(5):
        cached.clock.advance(11)
        assert (await cached.status()).startswith("exact")
    cached.clock.advance(6)
    assert await cached.status() == "miss; new"


@pytest.mark.parametrize(("path", "asked"), [(CHAT, BODY), (TEXT, {"model": "fast", "temperature": 0, "prompt": "Q?"})])
@pytest.mark.parametrize("streams", [(True, True), (True, False), (False, True)])
async def test_each_endpoint_stores_its_streams_and_streams_its_hits(
    cached: Cached, path: str, asked: dict[str, Any], streams: tuple[bool, bool]
) -> None:
    """BerriAI/litellm 24579, 8570, 5401: streams are not stored, their hits have no key, and are logged as no hits."""
    first, second = [await cached.post(path, {**asked, "stream": stream}) for stream in streams]
    assert first.headers["x-manta-cache"] == "miss; new"
    assert second.headers["x-manta-cache"] == "exact; age=0"
    (entry,) = await all_of(cached.entries.entries())
    assert second.headers["x-manta-cache-entry"] == entry.id
    assert [document["cache"] for document in cached.documents()] == ["miss", "exact"]


async def test_the_part_of_a_stream_whose_client_left_is_not_stored(cached: Cached) -> None:
    """Krukov/cashews 246, caddyserver/cache-handler 73: the next client gets the part as a whole answer."""
    cached.backend.stall_at = 2
    asking = Asking(cached.app)
    await asyncio.sleep(0.02)
    await asking.leave()
    cached.backend.stall_at = None
    await asyncio.sleep(0.02)
    assert await all_of(cached.entries.entries()) == []
    assert await cached.status() == "miss; new"


@pytest.mark.parametrize(
    "change", [{"tools": [TOOL]}, {"response_format": {"type": "json_object"}}, {"system": "Shout."}]
)
async def test_meaning_is_compared_only_under_the_same_instructions(cached: Cached, change: dict[str, Any]) -> None:
    """vllm-project/semantic-router 3423, spring-projects/spring-ai 5256: the last message alone is the key."""
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.99)
    said = [{"role": "user", "content": "What are quarks?"}]
    if system := change.pop("system", None):
        said.insert(0, {"role": "system", "content": system})
    assert await cached.status(messages=said, **change) == "miss; new"
    assert (await cached.status("What are quarks?")).startswith("semantic")


async def test_a_question_that_is_stored_anew_is_answered_by_the_new_answer(
    cached: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zilliztech/GPTCache 529, langchain-ai/langchain-redis 22: the older answer comes again."""
    await cached.ask()
    monkeypatch.setattr("tests.router.backend.WORDS", ("Another ", "answer"))
    await cached.ask(cache={"mode": "no-cache"})
    cached.index.same("What are quarks?", "What is a quark?", 0.99)
    for text in ("What is a quark?", "What are quarks?"):
        said = await cached.ask(text)
        assert json.loads(said.text)["choices"][0]["message"]["content"] == "Another answer"


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_hit_has_the_usage_of_its_generation_with_all_details(
    cached: Cached, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """BerriAI/litellm 42244: streamed hits lose the details."""
    monkeypatch.setattr("tests.router.backend.WORDS", ("<think>", "So it is", "</think>", "Yes."))
    first = await cached.ask()
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    hit = await cached.ask(**more)
    assert hit.headers["x-manta-cache"] == "exact; age=0"
    chunks = [line[6:] for line in hit.text.splitlines() if line.startswith("data: {")] or [hit.text]
    usage = json.loads(chunks[-1])["usage"]
    assert usage == first.json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0


async def test_a_hit_cites_the_documents_of_its_own_request(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """garrytan/gbrain 3658: what only the stored request had asked for is answered to another one."""
    monkeypatch.setattr("tests.router.backend.WORDS", ("It is north [1].",))
    text = "The harbour is north of the town."
    await cached.ask("Where is it?", documents=[{"id": "first", "text": text}])
    hit = await cached.ask("Where is it?", documents=[{"id": "second", "text": text}])
    assert hit.headers["x-manta-cache"] == "exact; age=0"
    (found,) = hit.json()["choices"][0]["message"]["annotations"]
    assert found["document_citation"]["document"] == "second"
    other = [{"id": "second", "text": "The harbour is south of the town."}]
    assert await cached.status("Where is it?", documents=other) == "miss; new"
