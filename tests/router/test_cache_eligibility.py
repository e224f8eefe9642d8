"""Which answers are stored: whole ones, of requests that are for the cache, of tenants that have it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api import FinishReason
from tests.router.cached import Cached
from tests.state.cached import all_of


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


async def test_an_empty_answer_is_not_stored(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.router.backend.WORDS", (" ", "\n"))
    await cached.ask()
    assert await all_of(cached.entries.entries()) == []


@pytest.mark.parametrize("question", ["x" * 1000, "字" * 334], ids=["ASCII", "three bytes a character"])
async def test_a_large_answer_is_not_stored(question: str) -> None:
    cached = Cached(max_entry_bytes=1024)
    await cached.ask(question)
    assert await all_of(cached.entries.entries()) == []


async def test_a_failure_is_not_given_again(cached: Cached) -> None:
    """A failure that is stored outlives the outage."""
    cached.backend.fault, cached.backend.fault_at = RuntimeError("broken"), 2
    assert (await cached.ask()).status_code == 500
    cached.backend.fault = None
    assert await cached.status() == "miss; new"
