"""What a hit costs, and what is counted."""

from __future__ import annotations

import httpx
import pytest

from tests.router.cached import Cached


async def test_a_free_hit_teaches_the_limits_nothing(cached: Cached) -> None:
    limiter = cached.app.parts.limiter  # type: ignore[attr-defined]
    await cached.ask()
    learnt = limiter.tokens_per_character("fast"), limiter._estimator._answers["acme", "fast"]
    for _ in range(20):
        assert (await cached.status()).startswith("exact")
    assert (limiter.tokens_per_character("fast"), limiter._estimator._answers["acme", "fast"]) == learnt


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
