"""The script of the review queue and the pure function of transitions decide alike, step by step, on one clock."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_safety_store import RedisSafetyStore
from router.ports.review_store import NewReviewItem, ReviewAction, ReviewItem, ReviewState, ReviewStep
from router.review.review_transitions import taken
from tests.state.clock import VirtualClock

STEPS = 500  # of each seed
TIMES_MS = (1, 999, 1000, 5000)
"""Leases, expiries and waits are drawn from the same times, so that ends are met to the millisecond."""


@pytest.mark.parametrize("seed", range(3))
async def test_the_script_decides_as_the_pure_function_does(
    redis_server: RedisServer, tmp_path: Path, clock: VirtualClock, seed: int
) -> None:
    draw = random.Random(seed)
    config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
    store = RedisSafetyStore(config, redis_server.url, 30, script_clock=clock)
    await store.start()
    item: ReviewItem | None
    accepted_by: set[tuple[ReviewAction, ReviewState, bool]]
    now_ms, item, accepted_by = int(clock.now() * 1000), None, set()
    for number in range(STEPS):
        # A final item is kept for a few steps more, in which nothing may change it.
        if item is None or (not item.state.open and draw.random() < 0.2):
            new = NewReviewItem(f"i{number}", "acme", "print", "{}", draw.choice(TIMES_MS), 10**9)
            assert await store.reviews.submit(new, 9) == new.id
            item = ReviewItem(new.id, "acme", "print", "{}", now_ms, now_ms + new.expires_in_ms)
        wait_ms = draw.choice((0, 0, *TIMES_MS))
        clock.advance(wait_ms / 1000)
        now_ms = int(clock.now() * 1000)
        step = ReviewStep(draw.choice(list(ReviewAction)), draw.choice(("ann", "bob")), draw.choice(TIMES_MS))

        item, accepted = taken(item, step, now_ms)

        assert await store.reviews.step("acme", item.id, step) == (item, accepted), (number, step)
        accepted_by.add((step.action, item.state, accepted))
    assert len(accepted_by) > 10  # the steps were of all kinds
    await store.close()
