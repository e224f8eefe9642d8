"""What a request may ask of the answer cache: no-cache, no-store, ages."""

from __future__ import annotations

import pytest

from tests.router.cached import CHAT, Cached
from tests.state.cached import all_of


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
