"""Hits by meaning over HTTP, by a scripted semantic index."""

from __future__ import annotations

from typing import Any

import pytest

from tests.router.cached import Cached, text_of
from tests.state.cached import all_of


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
