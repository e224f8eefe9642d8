"""What every store of cached answers does: that in memory and that in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.redis_entry_store import RedisEntryStore
from router.memory_entry_store import MemoryEntryStore
from router.ports.answer_cache import AWAITED_MS, CacheBounds, CacheChange, CacheSize, ChangeKind, FeedGapError, Lease
from router.ports.cache_entry import CacheEntry, PoisonedEntryError, encode_entry
from router.ports.state_store import StateUnavailableError
from tests.state.cached import ROOM, Store, all_of, entry, key, spoil
from tests.state.clock import VirtualClock

LEASE_MS = 3000
LEADING = Lease(leading=True, left_ms=LEASE_MS)


@pytest.fixture(params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> RedisServer | None:
    """The Redis behind the store; None for the one in memory."""
    if request.param == "memory":
        return None
    made: RedisServer = request.getfixturevalue("redis_server")
    return made


@pytest.fixture
async def entries(server: RedisServer | None, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryEntryStore(clock, max_changes=100)
    if server is not None:
        config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
        made = RedisEntryStore(config, server.url, script_clock=clock, max_changes=100)
    await made.start()
    yield made
    await made.close()


async def test_an_entry_is_found_as_it_was_stored_by_its_tenant_alone(entries: Store) -> None:
    stored = entry(question="Wie heißt „Ω“? \ud83d", document='{"text":"\u0000\u2028"}')
    assert await entries.put(stored, ROOM)
    assert await entries.get("acme", key(1)) == stored
    assert await entries.get("other", key(1)) is None
    assert await entries.get("acme", key(2)) is None


async def test_a_later_entry_replaces_the_former_one_of_its_key(entries: Store) -> None:
    await entries.put(entry(version=1), ROOM)
    await entries.put(entry(version=2), ROOM)
    assert await entries.get("acme", key(1)) == entry(version=2)
    assert await all_of(entries.entries()) == [entry(version=2)]
    assert not await entries.delete("acme", entry(version=1).id)
    assert await entries.get("acme", key(1)) == entry(version=2)
    assert await entries.delete("acme", entry(version=2).id)
    assert await entries.get("acme", key(1)) is None
    assert await entries.sizes() == []


async def test_an_entry_ends_with_its_time(entries: Store, clock: VirtualClock) -> None:
    await entries.put(entry(expires_ms=entry().created_ms + 1000), ROOM)
    clock.advance(0.999)
    assert await entries.get("acme", key(1)) is not None
    clock.advance(0.001)
    assert await entries.get("acme", key(1)) is None
    assert await entries.find_or_lead("acme", key(1), "a", LEASE_MS) == LEADING


async def test_an_entry_without_time_or_larger_than_the_bounds_is_not_stored(entries: Store) -> None:
    assert not await entries.put(entry(expires_ms=entry().created_ms), ROOM)
    assert not await entries.put(entry(document="x" * 2000), CacheBounds(10, 2000))
    assert await entries.get("acme", key(1)) is None


async def test_what_was_used_least_recently_makes_room(entries: Store) -> None:
    bounds = CacheBounds(3, 1_000_000)
    for number in (1, 2, 3):
        await entries.put(entry(number), bounds)
    await entries.get("acme", key(1))
    await entries.find_or_lead("acme", key(2), "a", LEASE_MS)
    await entries.put(entry(4), bounds)
    left = {each.key for each in await all_of(entries.entries("acme"))}
    assert left == {key(1), key(2), key(4)}


async def test_bytes_are_bounded_for_each_tenant_apart(entries: Store) -> None:
    size = len(encode_entry(entry(1)))
    bounds = CacheBounds(1000, 5 * size)
    for number in range(20):
        await entries.put(entry(number, tenant="acme"), bounds)
    await entries.put(entry(1, tenant="other"), bounds)
    acme, other = await entries.sizes()
    assert (acme.tenant, other.tenant, other.entries) == ("acme", "other", 1)
    assert acme.bytes <= 5 * size
    assert acme.entries == 4 or acme.entries == 5
    assert acme.bytes == sum(len(encode_entry(each)) for each in await all_of(entries.entries("acme")))
    assert await entries.get("acme", key(19)) is not None


async def test_expired_entries_make_room_before_living_ones(entries: Store, clock: VirtualClock) -> None:
    await entries.put(entry(1), ROOM)
    await entries.put(entry(2, expires_ms=entry().created_ms + 1000), ROOM)
    clock.advance(2)
    await entries.put(entry(3), CacheBounds(2, 1_000_000))
    assert {each.key for each in await all_of(entries.entries())} == {key(1), key(3)}
    assert await entries.sizes() == [CacheSize("acme", 2, len(encode_entry(entry(1))) * 2)]


async def test_one_of_many_that_ask_at_once_leads(entries: Store) -> None:
    asked = await asyncio.gather(*(entries.find_or_lead("acme", key(1), str(n), LEASE_MS) for n in range(16)))
    assert [lease for lease in asked if isinstance(lease, Lease) and lease.leading] == [LEADING]
    assert sum(lease == Lease(left_ms=LEASE_MS) for lease in asked) == 15
    assert await entries.find_or_lead("other", key(1), "x", LEASE_MS) == LEADING


async def test_a_lease_runs_out_unless_it_is_renewed(entries: Store, clock: VirtualClock) -> None:
    await entries.find_or_lead("acme", key(1), "a", LEASE_MS)
    clock.advance(2)
    assert await entries.renew("acme", key(1), "a", LEASE_MS)
    assert not await entries.renew("acme", key(1), "b", LEASE_MS)
    clock.advance(2)
    assert await entries.find_or_lead("acme", key(1), "b", LEASE_MS) == Lease(left_ms=1000)
    clock.advance(1)
    assert not await entries.renew("acme", key(1), "a", LEASE_MS)
    assert await entries.find_or_lead("acme", key(1), "b", LEASE_MS) == LEADING


async def test_the_owner_of_a_lease_is_told_that_another_one_waits(entries: Store, clock: VirtualClock) -> None:
    async def awaited(owner: str) -> bool:
        return await entries.awaited("acme", key(1), owner)

    await entries.find_or_lead("acme", key(1), "a", LEASE_MS)
    await entries.find_or_lead("acme", key(2), "b", LEASE_MS)
    assert not await awaited("a")
    await entries.find_or_lead("acme", key(1), "b", LEASE_MS)
    assert await awaited("a")
    assert not await awaited("b")
    assert not await entries.awaited("acme", key(2), "b")
    clock.advance((AWAITED_MS + 1) / 1000)
    assert not await awaited("a")  # it has asked no more
    await entries.find_or_lead("acme", key(1), "b", LEASE_MS)
    await entries.release("acme", key(1), "a")
    assert not await awaited("a")
    await entries.find_or_lead("acme", key(1), "b", LEASE_MS)
    assert not await awaited("b")  # it was the one that waited


async def test_a_released_lease_is_free_and_only_its_owner_releases_it(entries: Store) -> None:
    await entries.find_or_lead("acme", key(1), "a", LEASE_MS)
    await entries.release("acme", key(1), "b")
    assert await entries.find_or_lead("acme", key(1), "b", LEASE_MS) == Lease(left_ms=LEASE_MS)
    await entries.release("acme", key(1), "a")
    assert await entries.find_or_lead("acme", key(1), "b", LEASE_MS) == LEADING


async def test_an_answer_that_may_not_be_stored_lets_all_go_alone_for_a_while(
    entries: Store, clock: VirtualClock
) -> None:
    await entries.find_or_lead("acme", key(1), "a", LEASE_MS)
    await entries.release("acme", key(1), "a", unshared_ms=1000)
    assert await entries.find_or_lead("acme", key(1), "b", LEASE_MS) == Lease(unshared=True, left_ms=1000)
    clock.advance(1)
    assert await entries.find_or_lead("acme", key(1), "b", LEASE_MS) == LEADING


async def test_storing_an_entry_ends_the_lease_of_its_owner_alone(entries: Store) -> None:
    await entries.find_or_lead("acme", key(1), "a", LEASE_MS)
    await entries.put(entry(1), ROOM, owner="b")
    await entries.discard("acme", key(1))
    assert await entries.find_or_lead("acme", key(1), "c", LEASE_MS) == Lease(left_ms=LEASE_MS)
    await entries.put(entry(1), ROOM, owner="a")
    assert await entries.find_or_lead("acme", key(1), "c", LEASE_MS) == entry(1)
    await entries.discard("acme", key(1))
    assert await entries.find_or_lead("acme", key(1), "c", LEASE_MS) == LEADING


WHOLE = encode_entry(entry(1))


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-7],
        WHOLE[7:],
        b"",
        b"\xff\xfe\x00",
        WHOLE.replace(b"fast-model", b"evil-model"),
        encode_entry(entry(1, tenant="other")),
        encode_entry(entry(2)),
        encode_entry(replace(entry(1), created_ms="1")),  # type: ignore[arg-type]
    ],
    ids=["end", "beginning", "empty", "no text", "altered", "other tenant", "other key", "other type"],
)
async def test_a_poisoned_entry_is_told_and_can_be_removed(
    entries: Store, server: RedisServer | None, data: bytes
) -> None:
    await entries.put(entry(1), ROOM)
    await entries.put(entry(2), ROOM)
    spoil(entries, server, "acme", key(1), data)
    for find in (entries.get("acme", key(1)), entries.find_or_lead("acme", key(1), "a", LEASE_MS)):
        with pytest.raises(PoisonedEntryError) as told:
            await find
        assert "Question" not in str(told.value)
    assert await all_of(entries.entries()) == [entry(2)]
    assert await entries.discard("acme", key(1))
    assert await entries.get("acme", key(1)) is None
    assert not await entries.discard("acme", key(1))


async def test_an_entry_of_another_release_is_poisoned(
    entries: Store, server: RedisServer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entries.put(entry(1), ROOM)
    monkeypatch.setattr("router.ports.cache_entry.FORMAT", 2)
    with pytest.raises(PoisonedEntryError):
        await entries.get("acme", key(1))


async def test_all_entries_of_a_tenant_or_of_all_are_listed(entries: Store) -> None:
    made = [entry(number, tenant) for tenant in ("acme", "other") for number in range(450)]
    for each in made:
        await entries.put(each, ROOM)
    assert sorted(await all_of(entries.entries("other")), key=lambda each: each.id) == made[450:]
    assert sorted(await all_of(entries.entries()), key=lambda each: (each.tenant, each.id)) == made


async def test_all_entries_of_a_tenant_are_deleted_at_once_and_those_of_others_stay(entries: Store) -> None:
    for number in range(5):
        await entries.put(entry(number), ROOM)
        await entries.put(entry(number, "other"), ROOM)
    assert await entries.clear("acme") == 5
    assert await entries.clear("acme") == 0
    assert await entries.get("acme", key(1)) is None
    assert await all_of(entries.entries("acme")) == []
    assert [each.tenant for each in await entries.sizes()] == ["other"]
    assert await entries.get("other", key(1)) == entry(1, "other")
    assert await entries.put(entry(1, version=1), ROOM)
    assert await entries.get("acme", key(1)) == entry(1, version=1)
    assert [(each.tenant, each.entries) for each in await entries.sizes()] == [("acme", 1), ("other", 5)]


@pytest.mark.parametrize("deletes", ["clear", "many"])
async def test_an_answer_that_began_before_a_deletion_is_not_stored_after_it(entries: Store, deletes: str) -> None:
    led = await entries.find_or_lead("acme", key(1), "one", LEASE_MS)
    assert isinstance(led, Lease)
    assert led.leading
    assert led.epoch == await entries.epoch("acme")
    await (entries.clear("acme") if deletes == "clear" else entries.delete_many("acme", [entry(2).id]))
    assert await entries.epoch("acme") == led.epoch + 1
    assert await entries.epoch("other") == led.epoch
    assert not await entries.put(entry(1), ROOM, "one", led.epoch)
    assert await entries.get("acme", key(1)) is None
    assert not await entries.renew("acme", key(1), "one", LEASE_MS)
    again = await entries.find_or_lead("acme", key(1), "two", LEASE_MS)
    assert again == Lease(leading=True, left_ms=LEASE_MS, epoch=led.epoch + 1)
    assert await entries.put(entry(1), ROOM, "two", again.epoch)
    assert await entries.get("acme", key(1)) == entry(1)


async def test_many_entries_are_deleted_by_their_ids(entries: Store) -> None:
    for number in range(450):
        await entries.put(entry(number), ROOM)
    await entries.put(entry(7, version=1), ROOM)
    ids = [entry(number).id for number in range(430)]
    deleted = await entries.delete_many("acme", [*ids, "0" * 64 + "-unknown", entry(600).id])
    assert sorted(deleted) == sorted(set(ids) - {entry(7).id})
    left = {each.id for each in await all_of(entries.entries("acme"))}
    assert left == {entry(7, version=1).id, *(entry(number).id for number in range(430, 450))}


async def test_poisoned_entries_are_deleted_where_they_are_come_across(
    entries: Store, server: RedisServer | None
) -> None:
    for number in range(3):
        await entries.put(entry(number), ROOM)
    spoil(entries, server, "acme", key(1), b"spoilt")
    assert len(await all_of(entries.entries("acme"))) == 2
    assert [each.entries for each in await entries.sizes()] == [3]
    assert len(await all_of(entries.entries(discard_poisoned=True))) == 2
    assert [each.entries for each in await entries.sizes()] == [2]
    spoil(entries, server, "acme", key(2), b"spoilt")
    assert await entries.clear("acme") == 2
    assert await entries.get("acme", key(2)) is None


async def test_what_was_deleted_at_once_is_freed_bit_by_bit_and_what_is_new_stays(
    redis_server: RedisServer, clock: VirtualClock, tmp_path: Path
) -> None:
    config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
    store = RedisEntryStore(config, redis_server.url, script_clock=clock)
    for number in range(500):
        await store.put(entry(number), ROOM)
    assert await store.clear("acme") == 500
    with redis.Redis.from_url(redis_server.url) as client:

        def stored() -> int:
            return len(client.keys(redis_names.cache_entry("acme", "*")))

        assert stored() == 500
        for number in range(4):
            await store.put(entry(number, version=1), ROOM)
        assert stored() == 4
        assert client.keys(redis_names.base("acme") + "cache-old*") == []
    assert len(await all_of(store.entries("acme"))) == 4
    await store.close()


async def changes(entries: Store, after: str = "0", wait_s: float = 0.01) -> list[CacheChange]:
    return list(await entries.changes(after, 100, wait_s))


def put_of(position: int, stored: CacheEntry) -> CacheChange:
    names = stored.tenant, stored.id, stored.partition, stored.question
    return CacheChange(str(position), ChangeKind.PUT, *names, stored.created_ms, stored.expires_ms)


def deletion_of(position: int, stored: CacheEntry) -> CacheChange:
    return CacheChange(str(position), ChangeKind.DELETE, stored.tenant, stored.id, stored.partition)


async def test_the_feed_tells_what_is_stored_replaced_evicted_and_deleted(entries: Store) -> None:
    bounds = CacheBounds(2, 1_000_000)
    await entries.put(entry(1), bounds)
    await entries.put(entry(1, version=2), bounds)
    await entries.put(entry(2), bounds)
    await entries.put(entry(3, question=""), bounds)  # of no meaning, so it is not announced; it evicts 1
    await entries.delete("acme", entry(2).id)
    told = await changes(entries)
    assert sorted(told[1:3], key=lambda change: change.kind) == sorted(
        [deletion_of(int(told[1].position), entry(1)), put_of(int(told[2].position), entry(1, version=2))],
        key=lambda change: change.kind,
    ) or {change[1:] for change in told[1:3]} == {deletion_of(0, entry(1))[1:], put_of(0, entry(1, version=2))[1:]}
    assert told[0] == put_of(1, entry(1))
    assert told[3:] == [put_of(4, entry(2)), deletion_of(5, entry(1, version=2)), deletion_of(6, entry(2))]
    assert [int(change.position) for change in told] == [1, 2, 3, 4, 5, 6]
    assert await entries.position() == "6"
    assert await changes(entries, "4") == told[4:]
    assert list(await entries.changes("0", 2, 0.01)) == told[:2]


async def test_the_feed_says_that_all_entries_of_a_tenant_are_deleted(entries: Store) -> None:
    await entries.put(entry(1), ROOM)
    await entries.clear("acme")
    assert await changes(entries, "1") == [CacheChange("2", ChangeKind.CLEAR, "acme", "", "")]


async def test_a_reader_of_the_feed_waits_for_the_next_change(entries: Store) -> None:
    waiting = asyncio.create_task(changes(entries, wait_s=2))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await entries.put(entry(1), ROOM)
    assert await waiting == [put_of(1, entry(1))]
    assert await changes(entries, "1") == []


async def test_a_reader_that_has_missed_changes_is_told(entries: Store) -> None:
    with pytest.raises(FeedGapError):
        await changes(entries, "5")  # of a feed that was lost
    for number in range(1000):
        await entries.put(entry(number), ROOM)
    with pytest.raises(FeedGapError):
        await changes(entries)
    assert [change.position for change in await changes(entries, "999")] == ["1000"]


async def test_a_closed_store_is_unavailable(entries: Store) -> None:
    await entries.close()
    for call in (entries.get("acme", key(1)), entries.put(entry(1), ROOM), entries.position(), entries.sizes()):
        with pytest.raises(StateUnavailableError):
            await call
