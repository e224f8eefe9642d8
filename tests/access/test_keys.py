"""Created API keys: what opens, for how long, and what is kept of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.access.key_format import KEY, ApiKey, SecretHash, new_id, new_secret
from router.access.key_registry import KeyRegistry
from router.access.principal_cache import PrincipalCache, Verified
from router.access.stored_key import KeyOwner, new_key
from router.config.limits import LimitsConfig
from router.memory_store import MemoryStore
from router.ports.key_store import KeyRecord
from router.ports.state_store import StateUnavailableError
from tests.access.service import Service
from tests.state.clock import VirtualClock

OWNER = KeyOwner(tenant="acme", team="core")


def test_a_key_is_recognised_and_has_256_bits() -> None:
    key = ApiKey(new_id(), new_secret())
    assert key.text.startswith("sk-manta-")
    assert ApiKey.parse(key.text) == key
    assert 62 ** len(key.secret) >= 2**256
    assert len({new_secret() for _ in range(100)}) == 100


@given(st.text(max_size=80))
def test_other_text_is_no_key(text: str) -> None:
    assert (ApiKey.parse(text) is None) == (KEY.fullmatch(text) is None)


def test_equal_secrets_have_different_hashes_that_both_match() -> None:
    one, other = SecretHash.of("secret"), SecretHash.of("secret")
    assert one != other
    assert one.matches("secret")
    assert other.matches("secret")
    assert not one.matches("secre")


def test_the_stored_record_has_nothing_of_the_secret() -> None:
    stored, key = new_key(OWNER, 0.0)
    assert key.secret not in stored.record.document
    assert stored.record.digest == key.id
    assert stored.opens(key, 0.0)


@pytest.mark.parametrize("other", [ApiKey("a" * 12, "x"), None])
def test_another_secret_does_not_open(other: ApiKey | None) -> None:
    stored, key = new_key(OWNER, 0.0)
    assert not stored.opens(other or key._replace(secret=new_secret()), 0.0)


def test_a_rotated_key_opens_by_its_former_secret_for_the_grace_only() -> None:
    stored, old = new_key(OWNER, 0.0)
    stored, new = stored.rotated(100.0, grace_s=60.0)
    assert new.id == old.id
    assert stored.opens(new, 100.0)
    assert stored.opens(old, 159.9)
    assert not stored.opens(old, 160.0)
    assert stored.valid_until(100.0) == 160.0
    assert not stored.rotated(200.0, grace_s=0.0)[0].opens(new, 200.0)


def test_a_revoked_key_stays_revoked_and_an_expired_one_is_closed() -> None:
    stored, key = new_key(OWNER, 0.0, expires_at=10.0)
    assert stored.opens(key, 9.9)
    assert not stored.opens(key, 10.0)
    revoked = stored.revoked(5.0)
    assert revoked.revoked(7.0).revoked_at == 5.0
    assert not revoked.opens(key, 6.0)


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    cache = PrincipalCache(2)
    for name in "ab":
        cache.put(name, Verified(None, 0.0))
    cache.get("a")
    cache.put("c", Verified(None, 0.0))
    assert (cache.get("a") is None, cache.get("b") is None, len(cache)) == (False, True, 2)


class CountingStore(MemoryStore):
    """Counts look-ups, fails them when ``down``, and keeps them waiting while ``held`` is not set."""

    lookups = 0
    down = False
    held: asyncio.Event | None = None

    async def key_by_digest(self, digest: str) -> KeyRecord | None:
        self.lookups += 1
        if self.down:
            raise StateUnavailableError("down")
        if self.held is not None:
            await self.held.wait()
        return await super().key_by_digest(digest)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def service(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("tests.access.service.MemoryStore", CountingStore)
    return Service(clock=clock)


def counting(service: Service) -> CountingStore:
    assert isinstance(service.store, CountingStore)
    return service.store


async def test_a_hot_key_is_looked_up_once_in_a_few_seconds(service: Service) -> None:
    key = (await service.create())["key"]
    for _ in range(20):
        assert (await service.ask(key)).status_code == 200
    assert counting(service).lookups == 1


async def test_a_revoked_key_is_refused_within_the_stated_time(service: Service, clock: VirtualClock) -> None:
    made = await service.create()
    assert (await service.ask(made["key"])).status_code == 200
    async with service.client() as http:
        assert (await http.delete(f"/admin/v1/keys/{made['id']}")).json()["deleted"] is True
    clock.advance(5.0)
    refused = await service.ask(made["key"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_verified_key_outlives_the_store_and_an_unknown_one_is_a_503(
    service: Service, clock: VirtualClock
) -> None:
    key, unseen = (await service.create())["key"], (await service.create())["key"]
    await service.ask(key)
    counting(service).down = True
    clock.advance(100.0)
    assert (await service.ask(key)).status_code == 200
    refused = await service.ask(unseen)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "state_unavailable")
    clock.advance(300.0)
    assert (await service.ask(key)).status_code == 503


async def test_while_the_store_is_unreachable_no_request_waits_for_the_lookup_that_tries_it_again(
    service: Service, clock: VirtualClock
) -> None:
    made = await service.create()
    store = counting(service)
    assert (await service.ask(made["key"])).status_code == 200
    store.down = True
    clock.advance(5.0)
    assert (await service.ask(made["key"])).status_code == 200

    store.down, store.held = False, asyncio.Event()  # it is back, and slow
    clock.advance(1.0)
    answers = await asyncio.wait_for(asyncio.gather(*(service.ask(made["key"]) for _ in range(5))), 10)
    assert [answer.status_code for answer in answers] == [200] * 5

    store.held.set()
    async with service.client() as http:
        await http.delete(f"/admin/v1/keys/{made['id']}")
    clock.advance(5.0)
    assert (await service.ask(made["key"])).status_code == 401


async def test_guessed_keys_do_not_push_verified_ones_out(service: Service) -> None:
    key = (await service.create())["key"]
    await service.ask(key)
    for _ in range(3):
        guess = ApiKey(new_id(), new_secret()).text
        assert (await service.ask(guess)).status_code == 401
        assert (await service.ask(guess)).status_code == 401
    assert counting(service).lookups == 4  # each guess once
    await service.ask(key)
    assert counting(service).lookups == 4


async def test_a_former_secret_is_refused_when_its_grace_is_over(service: Service, clock: VirtualClock) -> None:
    made = await service.create()
    async with service.client() as http:
        new = (await http.post(f"/admin/v1/keys/{made['id']}/rotate", json={"grace_s": 2})).json()
    assert new["id"] == made["id"]
    for key in (made["key"], new["key"]):
        assert (await service.ask(key)).status_code == 200
    clock.advance(2.0)
    assert (await service.ask(made["key"])).status_code == 401
    assert (await service.ask(new["key"])).status_code == 200


async def test_a_record_of_another_release_is_read_without_its_new_members() -> None:
    stored, key = new_key(OWNER, 0.0)
    record = replace(stored.record, document=stored.record.document[:-1] + ',"tomorrow":1}')
    store = MemoryStore(VirtualClock())
    await store.put_key(record)
    assert await KeyRegistry(store, VirtualClock()).find(key) is not None


class SlowStore(MemoryStore):
    """Answers a look-up one turn of the event loop later, as a store over a network does."""

    async def key_by_digest(self, digest: str) -> KeyRecord | None:
        found = await super().key_by_digest(digest)
        await asyncio.sleep(0)
        return found


@pytest.mark.parametrize("revoked_first", [False, True])
async def test_a_key_that_is_revoked_while_it_is_changed_stays_revoked(revoked_first: bool) -> None:
    clock = VirtualClock()
    registry = KeyRegistry(SlowStore(clock), clock)
    stored, key = await registry.create(OWNER)
    changes = [registry.revoke(stored.id), registry.change(stored.id, {"limits": LimitsConfig(requests_per_minute=7)})]

    await asyncio.gather(*(changes if revoked_first else changes[::-1]))

    assert await registry.find(key) is None
    after = await registry.get(stored.id)
    assert after.limits.requests_per_minute == 7
    assert not after.active(clock.now())


async def test_of_two_rotations_at_once_both_are_made_one_after_the_other() -> None:
    clock = VirtualClock()
    registry = KeyRegistry(SlowStore(clock), clock)
    stored, _ = await registry.create(OWNER)

    rotations = await asyncio.gather(registry.rotate(stored.id), registry.rotate(stored.id))

    opened = [await registry.find(key) is not None for _, key in rotations]
    assert sorted(opened) == [False, True]
