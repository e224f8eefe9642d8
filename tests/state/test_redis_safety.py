"""Reviews and the audit log in Redis: several routers, outages, tampering, names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.recently_added_tenants import KNOWN_S
from cluster.state.redis_safety_store import RedisSafetyStore
from router.ports.audit_store import AuditEntry
from router.ports.review_store import NewReviewItem, ReviewAction, ReviewQueueFullError, ReviewStep
from router.ports.state_store import StateUnavailableError
from router.review.audit_reader import AuditReader, DayReport
from tests.state.clock import VirtualClock
from tests.state.conftest import acknowledge_what_is_written, wait_until_ready
from tests.state.slow_proxy import SlowProxy


@asynccontextmanager
async def opened(url: str, journal: Path, timeout_s: float = 5.0) -> AsyncIterator[RedisSafetyStore]:
    config = StateConfig(
        journal=journal, timeout_s=timeout_s, background_timeout_s=timeout_s, max_faults=3, open_s=0.1, max_open_s=0.1
    )
    store = RedisSafetyStore(config, url, 30)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def entry(number: int, tenant: str = "acme") -> AuditEntry:
    return AuditEntry(f"e{number}", tenant, json.dumps({"n": number}))


async def ids(store: RedisSafetyStore, tenant: str = "acme") -> list[str]:
    """The ids of all records, in order."""
    days = await store.audit.days(tenant)
    lines = [line for day in days for line in await store.audit.lines(tenant, day.day, 0, 100_000)]
    return [json.loads(line[65:])["id"] for line in lines]


async def reports(store: RedisSafetyStore) -> list[DayReport]:
    days = await store.audit.days()
    reader = AuditReader(store.audit, 30)
    return [report for day in days for report in await reader.verify(day.tenant, day.day, day.day)]


async def arrived(store: RedisSafetyStore, count: int) -> list[str]:
    """The ids of records, when ``count`` are there."""
    for _ in range(1000):
        try:
            if len(found := await ids(store)) >= count:
                return found
        except StateUnavailableError:
            pass
        await asyncio.sleep(0.02)
    raise AssertionError("records are missing")


async def test_routers_that_append_at_once_share_one_chain(redis_server: RedisServer, tmp_path: Path) -> None:
    async with (
        opened(redis_server.url, tmp_path / "1") as one,
        opened(redis_server.url, tmp_path / "2") as two,
        opened(redis_server.url, tmp_path / "3") as three,
    ):
        stores = (one, two, three)
        calls = [stores[n % 3].audit.append([entry(2 * n), entry(2 * n + 1)]) for n in range(60)]
        assert sum(await asyncio.gather(*calls)) == 120
        again = await asyncio.gather(*(store.audit.append([entry(n) for n in range(120)]) for store in stores))

        assert again == [0, 0, 0]
        assert sorted(await ids(one)) == sorted(f"e{n}" for n in range(120))
        assert [report.fault for report in await reports(two)] == [None]


async def test_records_wait_while_redis_is_away_and_arrive_once(redis_server: RedisServer, tmp_path: Path) -> None:
    acknowledge_what_is_written(redis_server)
    async with opened(redis_server.url, tmp_path, timeout_s=0.3) as store:
        for number in range(50):
            store.audit.record(entry(number))
        await asyncio.sleep(0.02)
        redis_server.kill()
        for number in range(50, 150):
            store.audit.record(entry(number))
            await asyncio.sleep(0.001)
    # The router has ended meanwhile; another one adopts what it left.
    assert redis_server.keep_running()
    wait_until_ready(redis_server)
    async with opened(redis_server.url, tmp_path) as store:
        found = await arrived(store, 150)
        assert sorted(found) == sorted(f"e{n}" for n in range(150))
        assert [report.fault for report in await reports(store)] == [None]


async def test_an_append_whose_answer_is_lost_is_no_fork(redis_server: RedisServer, tmp_path: Path) -> None:
    proxy = SlowProxy(redis_server.url)
    url = await proxy.start()
    async with opened(url, tmp_path / "slow", timeout_s=0.2) as slow, opened(redis_server.url, tmp_path / "2") as other:
        await slow.audit.append([entry(0)])
        proxy.delay_s = 0.25  # the command arrives, the answer comes too late
        with pytest.raises(StateUnavailableError):
            await slow.audit.append([entry(1)])
        await arrived(other, 2)
        await other.audit.append([entry(2)])
        proxy.delay_s = 0.0
        slow.audit.record(entry(1))
        slow.audit.record(entry(3))

        assert await arrived(other, 4) == ["e0", "e1", "e2", "e3"]
        assert [report.fault for report in await reports(other)] == [None]
    await proxy.stop()


@pytest.mark.parametrize(
    ("how", "record"),
    [("changed", 3), ("removed", 3), ("swapped", 3), ("cut", 6), ("emptied", 1), ("added", 7), ("head", 6)],
)
async def test_what_is_changed_in_redis_is_found(
    redis_server: RedisServer, tmp_path: Path, how: str, record: int
) -> None:
    async with opened(redis_server.url, tmp_path) as store:
        await store.audit.append([entry(n) for n in range(6)])
        (day,) = await store.audit.days()
        name = redis_names.audit_lines("acme", day.day)
        with redis.Redis.from_url(redis_server.url) as client:
            lines = client.lrange(name, 0, -1)
            if how == "changed":
                client.lset(name, 2, lines[2].replace(b'"n":2', b'"n":7'))
            elif how == "removed":
                client.lrem(name, 1, lines[2])
            elif how == "swapped":
                client.lset(name, 2, lines[3])
                client.lset(name, 3, lines[2])
            elif how == "cut":
                client.rpop(name)
            elif how == "emptied":
                client.delete(name)
            elif how == "added":
                client.rpush(name, lines[5])
            else:
                heads = redis_names.audit_heads("acme")
                client.hset(heads, day.day, client.hget(heads, day.day)[:-1] + b"z")

        (report,) = await reports(store)

        assert report.fault is not None
        assert report.fault.record == record, report.fault


async def test_reviewers_at_two_routers_never_hold_one_item(redis_server: RedisServer, tmp_path: Path) -> None:
    async with opened(redis_server.url, tmp_path / "1") as one, opened(redis_server.url, tmp_path / "2") as two:
        for n in range(20):
            await one.reviews.submit(NewReviewItem(f"i{n}", "acme", f"{n}", "{}", 60_000, 60_000), 100)
        claims = [
            (store if reviewer else one).reviews.step(
                "acme", f"i{n}", ReviewStep(ReviewAction.CLAIM, f"{reviewer}", 10_000)
            )
            for n in range(20)
            for reviewer, store in enumerate((one, two, one, two))
        ]

        accepted = [ok for _, ok in await asyncio.gather(*claims)]

        assert [sum(accepted[place : place + 4]) for place in range(0, 80, 4)] == [1] * 20


async def test_everything_of_a_tenant_shares_a_slot_and_what_holds_texts_ends(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    tenant = "a{b}:c"
    async with opened(redis_server.url, tmp_path) as store:
        for n in range(3):
            item = NewReviewItem(f"i{n}", tenant, f"f{n}", "{}", 60_000, 60_000, b"text", True)
            await store.reviews.submit(item, 10)
        await store.reviews.step(tenant, "i0", ReviewStep(ReviewAction.APPROVE, "ann", 0, 5000))
        await store.reviews.step(tenant, "i1", ReviewStep(ReviewAction.CLAIM, "ann", 5000))
        await store.audit.append([entry(1, tenant)])
        with redis.Redis.from_url(redis_server.url) as client:
            names = [name.decode() for name in client.scan_iter()]
            forever = {name for name in names if client.pttl(name) < 0}

    of_tenant = [name for name in names if "review-tenant" not in name and "safety" not in name]
    assert {name.split("{")[1].split("}")[0] for name in of_tenant} == {"a%7Bb%7D%3Ac"}
    assert sorted(name.rpartition("}:")[2] for name in forever) == [
        "audit-heads",
        "exceptions",
        "manta:1:safety-tenants",
        "review-done:approved",
        "review-due",
        "review-open:f1",
        "review-open:f2",
        "review-queue",
        "review:i1",
        "review:i2",
    ]


async def test_texts_that_are_not_queued_leave_no_keys_behind(redis_server: RedisServer, tmp_path: Path) -> None:
    def item(number: int, fingerprint: str) -> NewReviewItem:
        return NewReviewItem(f"i{number}", "acme", fingerprint, "{}", 60_000, 60_000)

    async with opened(redis_server.url, tmp_path) as store:
        assert await store.reviews.submit(item(0, "f"), 1) == "i0"
        with redis.Redis.from_url(redis_server.url) as client:
            before = set(client.keys())
            for number in range(1, 20):
                assert await store.reviews.submit(item(number, "f"), 1) == "i0"
                with pytest.raises(ReviewQueueFullError):
                    await store.reviews.submit(item(100 + number, "other"), 1)
            assert set(client.keys()) == before
        assert (found := await store.reviews.item("i0")) is not None
        assert found.times == 20


async def test_a_tenant_of_the_audit_log_is_listed_again_after_redis_has_lost_its_data(
    redis_server: RedisServer, tmp_path: Path, clock: VirtualClock
) -> None:
    config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
    store = RedisSafetyStore(config, redis_server.url, 30, clock=clock)
    await store.start()
    await store.audit.append([entry(1)])
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    clock.advance(KNOWN_S)

    await store.audit.append([entry(2)])

    assert [day.tenant for day in await store.audit.days()] == ["acme"]
    await store.close()


async def test_records_that_find_no_room_on_disk_are_counted(redis_server: RedisServer, tmp_path: Path) -> None:
    counted: list[None] = []
    config = StateConfig(journal=tmp_path, journal_max_bytes=65536)
    store = RedisSafetyStore(config, redis_server.url, 30, on_lost=lambda: counted.append(None))
    store.audit.record(AuditEntry("large", "acme", json.dumps({"text": 70_000 * "x"})))

    assert (store.audit.health().lost_records, len(counted)) == (1, 1)
    await store.close()
