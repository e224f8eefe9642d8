"""Reviewers, submissions and time in any order: the memory and the Redis implementation agree, and no item has two
reviewers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_safety_store import RedisSafetyStore
from router.memory_safety_store import MemorySafetyStore
from router.ports.review_store import (
    NewReviewItem,
    ReviewAction,
    ReviewItem,
    ReviewQueueFullError,
    ReviewState,
    ReviewStep,
    ReviewStore,
)
from tests.state.clock import VirtualClock

T = TypeVar("T")

REVIEWERS = ["ann", "bob", "eve"]
NO_SHRINKING = (Phase.explicit, Phase.generate)  # each example takes half a second
SECONDS = st.sampled_from([0, 0.001, 1, 4.999, 5, 20, 60])


class Machine(RuleBasedStateMachine):
    """One tenant's queue in both stores, on one clock."""

    url: str
    journal: Path

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.runner = asyncio.Runner()
        config = StateConfig(journal=self.journal, timeout_s=5, background_timeout_s=5)
        self.stores = (
            MemorySafetyStore(self.clock),
            RedisSafetyStore(config, self.url, 30, script_clock=self.clock),
        )
        self.runner.run(self.stores[1].start())
        self.tenant = f"t{id(self)}"
        self.made = 0
        self.final: dict[str, ReviewItem] = {}

    def teardown(self) -> None:
        self.runner.run(self.stores[1].close())
        self.runner.close()

    def both(self, call: Callable[[ReviewStore], Awaitable[T]]) -> T:
        """Makes a call of both stores and returns their answer, which must be the same."""

        async def ask() -> list[T]:
            return [await call(store.reviews) for store in self.stores]

        memory, redis = self.runner.run(ask())
        assert memory == redis
        return memory

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(fingerprint=st.sampled_from("abc"), expires_ms=st.sampled_from([1, 5000, 60_000]), keep=st.booleans())
    def submit(self, fingerprint: str, expires_ms: int, keep: bool) -> None:
        self.made += 1
        name = f"{self.tenant}-{self.made}"
        new = NewReviewItem(name, self.tenant, fingerprint, "{}", expires_ms, 30_000, b"text", keep)

        async def call(store: ReviewStore) -> str | None:
            try:
                return await store.submit(new, 2)
            except ReviewQueueFullError:
                return None

        self.both(call)

    @rule(
        back=st.integers(0, 3),
        action=st.sampled_from(ReviewAction),
        reviewer=st.sampled_from(REVIEWERS),
        lease_ms=st.sampled_from([1, 5000, 90_000]),
        exception_ms=st.sampled_from([0, 20_000]),
    )
    def step(self, back: int, action: ReviewAction, reviewer: str, lease_ms: int, exception_ms: int) -> None:
        name = f"{self.tenant}-{self.made - back}"
        before = self.both(lambda store: store.item(name, self.tenant))
        asked = ReviewStep(action, reviewer, lease_ms, exception_ms)
        after, accepted = self.both(lambda store: store.step(self.tenant, name, asked))
        if before is not None and before.state is ReviewState.CLAIMED and before.reviewer != reviewer:
            assert not accepted
            assert after == before

    @invariant()
    def the_stores_agree_and_what_is_final_stays(self) -> None:
        for state in (None, ReviewState.EXPIRED, ReviewState.APPROVED):
            for item in self.both(lambda store, state=state: store.items(self.tenant, state, 99)):  # type: ignore[misc]
                self.both(lambda store, name=item.id: store.text(self.tenant, name))  # type: ignore[misc]
                assert (item.reviewer != "") == (item.state not in (ReviewState.WAITING, ReviewState.EXPIRED))
                if not item.state.open:
                    assert self.final.setdefault(item.id, item) == item
        self.both(lambda store: store.exceptions(self.tenant))
        self.both(lambda store: store.decided(self.tenant, 0, 99))


def test_both_stores_agree_whatever_happens(redis_server: RedisServer, tmp_path: Path) -> None:
    class Bound(Machine):
        url, journal = redis_server.url, tmp_path

    checks = list(HealthCheck)
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=5, stateful_step_count=15, deadline=None, suppress_health_check=checks, phases=NO_SHRINKING
        ),
    )
