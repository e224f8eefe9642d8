"""What every implementation of ``SafetyStore`` does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config import StateConfig
from cluster.state.redis_safety_store import RedisSafetyStore
from router import memory_safety_store
from router.memory_safety_store import MemorySafetyStore
from router.ports.audit_store import AuditEntry
from router.ports.review_store import (
    NewReviewItem,
    ReviewAction,
    ReviewItem,
    ReviewQueueFullError,
    ReviewState,
    ReviewStep,
)
from router.ports.safety_store import SafetyStore
from router.ports.state_store import StateUnavailableError
from router.review.audit_chain import verify
from tests.state.audit_entries import entry
from tests.state.clock import MONDAY, VirtualClock

START_MS = int(MONDAY * 1000)
DAY = START_MS // 86_400_000
ITEM = NewReviewItem("i1", "acme", "print-1", '{"n": 1}', 60_000, 600_000, b"\x00sealed\xff")
MAX_OPEN = 3


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[SafetyStore]:
    """A store that holds nothing yet."""
    made: SafetyStore = MemorySafetyStore(clock)
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
        made = RedisSafetyStore(config, server.url, 30, script_clock=clock)
    await made.start()
    yield made
    await made.close()


def step(action: ReviewAction, reviewer: str = "ann", exception_ms: int = 0) -> ReviewStep:
    return ReviewStep(action, reviewer, 10_000, exception_ms, '{"by": "ann"}')


CLAIM, RELEASE, APPROVE, REJECT = (step(action) for action in ReviewAction)


async def take(store: SafetyStore, asked: ReviewStep, item_id: str = "i1") -> tuple[ReviewItem, bool]:
    item, accepted = await store.reviews.step("acme", item_id, asked)
    assert item is not None
    return item, accepted


class TestReviews:
    async def test_an_item_is_found_with_its_text(self, store: SafetyStore) -> None:
        assert await store.reviews.submit(ITEM, MAX_OPEN) == "i1"

        expected = ReviewItem("i1", "acme", "print-1", '{"n": 1}', START_MS, START_MS + 60_000)
        assert await store.reviews.item("i1") == expected
        assert await store.reviews.item("i1", "acme") == expected
        assert await store.reviews.item("i1", "other") is None
        assert await store.reviews.item("i2") is None
        assert await store.reviews.text("acme", "i1") == b"\x00sealed\xff"
        assert await store.reviews.text("other", "i1") is None

    async def test_an_open_text_is_queued_once_for_each_tenant(self, store: SafetyStore) -> None:
        for name in ("i1", "i2", "i2"):
            assert await store.reviews.submit(replace(ITEM, id=name), MAX_OPEN) == "i1"
        assert await store.reviews.submit(replace(ITEM, id="i3", tenant="other"), MAX_OPEN) == "i3"
        assert await store.reviews.submit(replace(ITEM, id="i1"), MAX_OPEN) == "i1"  # a call that was repeated

        item = await store.reviews.item("i1")
        assert item is not None
        assert item.times == 3

    async def test_a_decided_text_can_be_queued_again(self, store: SafetyStore) -> None:
        await store.reviews.submit(ITEM, MAX_OPEN)
        await take(store, REJECT)

        assert await store.reviews.submit(replace(ITEM, id="i2"), MAX_OPEN) == "i2"

    async def test_a_full_queue_refuses(self, store: SafetyStore) -> None:
        for n in range(MAX_OPEN):
            await store.reviews.submit(replace(ITEM, id=f"i{n}", fingerprint=f"{n}"), MAX_OPEN)

        with pytest.raises(ReviewQueueFullError):
            await store.reviews.submit(replace(ITEM, id="more", fingerprint="more"), MAX_OPEN)
        assert await store.reviews.submit(replace(ITEM, id="same", fingerprint="0"), MAX_OPEN) == "i0"
        assert await store.reviews.submit(replace(ITEM, id="o", tenant="other"), MAX_OPEN) == "o"

    async def test_two_reviewers_never_hold_one_item(self, store: SafetyStore) -> None:
        await store.reviews.submit(ITEM, MAX_OPEN)

        tries = await asyncio.gather(*(take(store, step(ReviewAction.CLAIM, f"r{n}")) for n in range(50)))

        assert sum(accepted for _, accepted in tries) == 1
        (holder,) = {item.reviewer for item, _ in tries}
        assert not (await take(store, step(ReviewAction.APPROVE, f"{holder}0")))[1]
        assert (await take(store, step(ReviewAction.APPROVE, holder)))[1]

    async def test_a_lease_that_ends_returns_the_item(self, store: SafetyStore, clock: VirtualClock) -> None:
        await store.reviews.submit(ITEM, MAX_OPEN)
        await take(store, CLAIM)
        clock.advance(9.999)
        assert not (await take(store, step(ReviewAction.CLAIM, "bob")))[1]
        clock.advance(0.001)

        item, accepted = await take(store, step(ReviewAction.CLAIM, "bob"))

        assert (item.state, item.reviewer, accepted) == (ReviewState.CLAIMED, "bob", True)
        assert not (await take(store, APPROVE))[1]

    async def test_an_item_expires_and_loses_its_text(self, store: SafetyStore, clock: VirtualClock) -> None:
        await store.reviews.submit(replace(ITEM, keep_text=True), MAX_OPEN)
        clock.advance(60)

        assert await store.reviews.items("acme", None, 9) == []
        item, accepted = await take(store, APPROVE)
        assert (item.state, item.decided_ms, accepted) == (ReviewState.EXPIRED, START_MS + 60_000, False)
        assert await store.reviews.text("acme", "i1") is None
        assert await store.reviews.items("acme", ReviewState.EXPIRED, 9) == [item]
        clock.advance(601)
        assert await store.reviews.item("i1") is None
        assert await store.reviews.items("acme", ReviewState.EXPIRED, 9) == []

    async def test_who_holds_an_item_beyond_its_expiry_may_decide(
        self, store: SafetyStore, clock: VirtualClock
    ) -> None:
        await store.reviews.submit(ITEM, MAX_OPEN)
        clock.advance(55)
        await take(store, CLAIM)
        clock.advance(7)

        assert await store.reviews.text("acme", "i1") is not None
        assert (await take(store, APPROVE))[0].state is ReviewState.APPROVED

    @pytest.mark.parametrize("keep_text", [True, False])
    async def test_a_text_is_kept_after_the_decision_only_if_the_policy_says_so(
        self, store: SafetyStore, keep_text: bool
    ) -> None:
        await store.reviews.submit(replace(ITEM, keep_text=keep_text), MAX_OPEN)
        await take(store, REJECT)

        assert (await store.reviews.text("acme", "i1") is not None) == keep_text

    async def test_lists_are_by_tenant_and_state(self, store: SafetyStore, clock: VirtualClock) -> None:
        for n, tenant in enumerate(["acme", "other", "acme", "acme", "acme"]):
            await store.reviews.submit(replace(ITEM, id=f"i{n}", tenant=tenant, fingerprint=f"{n}"), 9)
            clock.advance(1)
        await take(store, CLAIM, "i2")
        for decided, item_id in ((APPROVE, "i3"), (REJECT, "i4")):
            clock.advance(1)
            await take(store, decided, item_id)

        async def names(tenant: str | None, state: ReviewState | None, limit: int = 9) -> list[str]:
            return [item.id for item in await store.reviews.items(tenant, state, limit)]

        assert await names(None, None) == ["i0", "i1", "i2"]
        assert await names(None, None, 2) == ["i0", "i1"]
        assert await names("acme", None) == ["i0", "i2"]
        assert await names("acme", ReviewState.WAITING) == ["i0"]
        assert await names("acme", ReviewState.CLAIMED) == ["i2"]
        assert await names("acme", ReviewState.APPROVED) == ["i3"]
        assert await names(None, ReviewState.REJECTED) == ["i4"]
        decided_items = await store.reviews.decided(None, 0, 9)
        assert [item.id for item in decided_items] == ["i3", "i4"]
        assert [item.id for item in await store.reviews.decided(None, decided_items[1].decided_ms, 9)] == ["i4"]

    async def test_reports_of_long_queues_are_whole_in_order_and_no_longer_than_asked(
        self, store: SafetyStore, clock: VirtualClock
    ) -> None:
        """More items than one page, of all states, some of which end while the report is made."""
        states = (None, APPROVE, REJECT, CLAIM)
        for n in range(330):
            kept_ms = 1000 if n % 5 == 0 else 600_000
            item = replace(ITEM, id=f"i{n:03}", fingerprint=f"{n}", kept_ms=kept_ms)
            await store.reviews.submit(item, 1000)
            if (asked := states[n % 4]) is not None:
                await take(store, asked, item.id)
        clock.advance(2)
        kept = [n for n in range(330) if n % 5]

        for state, place in ((ReviewState.APPROVED, 1), (ReviewState.REJECTED, 2)):
            expected = [f"i{n:03}" for n in reversed(kept) if n % 4 == place]
            assert [item.id for item in await store.reviews.items("acme", state, 1000)] == expected
            assert [item.id for item in await store.reviews.items("acme", state, 55)] == expected[:55]
        decided = [f"i{n:03}" for n in kept if n % 4 in (1, 2)]
        assert [item.id for item in await store.reviews.decided("acme", 0, 1000)] == decided
        assert [item.id for item in await store.reviews.decided("acme", 0, 120)] == decided[:120]
        assert len(await store.reviews.items("acme", ReviewState.WAITING, 1000)) == 83
        assert len(await store.reviews.items("acme", ReviewState.CLAIMED, 1000)) == 82
        clock.advance(59)
        assert await store.reviews.items("acme", ReviewState.WAITING, 1000) == []
        assert len(await store.reviews.items("acme", ReviewState.EXPIRED, 1000)) > 100

    async def test_an_approved_text_passes_until_its_exception_ends(
        self, store: SafetyStore, clock: VirtualClock
    ) -> None:
        await store.reviews.submit(ITEM, MAX_OPEN)
        await take(store, step(ReviewAction.APPROVE, exception_ms=5000))

        assert await store.reviews.has_exception("acme", "print-1")
        assert not await store.reviews.has_exception("other", "print-1")
        (found,) = await store.reviews.exceptions()
        assert (found.tenant, found.expires_ms, found.document) == ("acme", START_MS + 5000, '{"by": "ann"}')
        clock.advance(5)
        assert not await store.reviews.has_exception("acme", "print-1")
        assert await store.reviews.exceptions("acme") == []
        assert not await store.reviews.delete_exception("acme", "print-1")

    async def test_an_exception_is_revoked(self, store: SafetyStore) -> None:
        await store.reviews.submit(ITEM, MAX_OPEN)
        await take(store, step(ReviewAction.APPROVE, exception_ms=5000))

        assert await store.reviews.delete_exception("acme", "print-1")
        assert not await store.reviews.delete_exception("acme", "print-1")
        assert not await store.reviews.has_exception("acme", "print-1")

    async def test_a_rejected_text_has_no_exception(self, store: SafetyStore) -> None:
        await store.reviews.submit(ITEM, MAX_OPEN)
        await take(store, step(ReviewAction.REJECT, exception_ms=5000))

        assert await store.reviews.exceptions() == []


class TestAudit:
    async def test_records_are_chained_in_order_by_tenant(self, store: SafetyStore) -> None:
        assert await store.audit.append([entry(1), entry(2, "other"), entry(3)]) == 3
        assert await store.audit.append([entry(4)]) == 1

        days = await store.audit.days()
        assert [(day.tenant, day.day, day.records, day.stored) for day in days] == [
            ("acme", DAY, 3, 3),
            ("other", DAY, 1, 1),
        ]
        lines = await store.audit.lines("acme", DAY, 0, 9)
        assert [json.loads(line[65:])["id"] for line in lines] == ["e1", "e3", "e4"]
        assert await store.audit.lines("acme", DAY, 1, 1) == [lines[1]]
        assert await store.audit.lines("acme", DAY + 1, 0, 9) == []
        assert verify(days[0], lines) is None

    async def test_a_record_is_added_once(self, store: SafetyStore, clock: VirtualClock) -> None:
        assert await store.audit.append([entry(1), entry(2), entry(1)]) == 2
        clock.advance(86_400)
        assert await store.audit.append([entry(2), entry(3)]) == 1

        assert [(day.day, day.records) for day in await store.audit.days("acme")] == [(DAY, 2), (DAY + 1, 1)]

    async def test_a_day_follows_the_day_before(self, store: SafetyStore, clock: VirtualClock) -> None:
        for number in range(3):
            await store.audit.append([entry(number)])
            clock.advance(3 * 86_400)
        clock.advance(-5 * 86_400)  # a clock that is set back begins no day again
        await store.audit.append([entry(9)])

        days = await store.audit.days("acme")
        assert [(day.day, day.records) for day in days] == [(DAY, 1), (DAY + 3, 1), (DAY + 6, 2)]
        assert [day.opening for day in days] == ["0" * 64, days[0].head, days[1].head]
        for day in days:
            assert verify(day, await store.audit.lines("acme", day.day, 0, 9)) is None

    async def test_a_large_batch_arrives_whole(self, store: SafetyStore) -> None:
        assert await store.audit.append([entry(n) for n in range(600)]) == 600

        (day,) = await store.audit.days()
        assert verify(day, await store.audit.lines("acme", DAY, 0, 1000)) is None

    async def test_a_recorded_entry_arrives(self, store: SafetyStore) -> None:
        store.audit.record(entry(1))

        for _ in range(500):
            if await store.audit.days():
                break
            await asyncio.sleep(0.01)
        assert len(await store.audit.lines("acme", DAY, 0, 9)) == 1


async def test_the_secret_is_the_one_that_was_proposed_first(store: SafetyStore) -> None:
    assert await store.secret(b"\x00one") == b"\x00one"
    assert await store.secret(b"two") == b"\x00one"


async def test_a_closed_store_refuses(store: SafetyStore) -> None:
    await store.close()

    with pytest.raises(StateUnavailableError):
        await store.reviews.items(None, None, 1)
    with pytest.raises(StateUnavailableError):
        await store.audit.days()


class TestPolicies:
    async def test_a_policy_is_found_replaced_and_deleted(self, store: SafetyStore) -> None:
        assert await store.policy("acme") is None
        await store.put_policy("acme", '{"refusal": "no"}')
        await store.put_policy("acme", '{"refusal": "nö"}')
        await store.put_policy("*", "{}")

        assert await store.policy("acme") == '{"refusal": "nö"}'
        assert await store.policy_tenants() == ["*", "acme"]
        assert await store.delete_policy("acme")
        assert not await store.delete_policy("acme")
        assert await store.policy_tenants() == ["*"]

    async def test_a_closed_store_says_so(self, store: SafetyStore) -> None:
        await store.close()
        with pytest.raises(StateUnavailableError):
            await store.policy("acme")
        with pytest.raises(StateUnavailableError):
            await store.put_policy("acme", "{}")


async def test_the_audit_log_in_memory_is_bounded_and_says_what_is_lost(
    monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_safety_store, "MAX_RECORDS", 10)
    store = MemorySafetyStore(clock)
    for n in range(25):
        store.audit.record(AuditEntry(f"e{n}", f"tenant-{n % 2}", "{}"))

    days = await store.audit.days()
    assert sum(day.stored for day in days) == 10
    assert store.audit.health().lost_records == 15
    assert len(caplog.records) == 1
    for day in days:
        assert verify(day, await store.audit.lines(day.tenant, day.day, 0, 99)) is None
