"""What every implementation of ``StateStore`` does with keys, and when it is closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.ports.key_store import KeyRecord
from router.ports.state_store import StateStore, StateUnavailableError

KEY = KeyRecord("k1", "acme", "digest-1", '{"team": "core"}')


class TestKeys:
    async def test_a_key_is_found_by_digest_and_by_id(self, store: StateStore) -> None:
        await store.put_key(KEY)

        assert await store.key_by_digest("digest-1") == KEY
        assert await store.key("k1") == KEY
        assert await store.key_by_digest("digest-2") is None
        assert await store.key("k2") is None

    async def test_a_replaced_key_is_found_by_its_new_digest_alone(self, store: StateStore) -> None:
        await store.put_key(KEY)
        rotated = replace(KEY, digest="digest-2", document="{}")
        await store.put_key(rotated)

        assert await store.key_by_digest("digest-1") is None
        assert await store.key_by_digest("digest-2") == rotated
        assert await store.keys("acme") == [rotated]

    async def test_a_record_is_replaced_only_while_it_is_what_was_read(self, store: StateStore) -> None:
        await store.put_key(KEY)
        revoked, limited = replace(KEY, document='{"revoked": 1}'), replace(KEY, document='{"limits": 2}')

        assert await store.replace_key(KEY, revoked)
        assert not await store.replace_key(KEY, limited)

        assert await store.key_by_digest(KEY.digest) == revoked
        assert await store.key(KEY.id) == revoked
        unknown = replace(KEY, digest="digest-9", id="k9")
        assert not await store.replace_key(unknown, unknown)

    async def test_a_key_that_changes_its_tenant_leaves_the_old_one(self, store: StateStore) -> None:
        await store.put_key(KEY)
        await store.put_key(replace(KEY, tenant="other"))

        assert await store.keys("acme") == []
        assert [record.tenant for record in await store.keys()] == ["other"]

    async def test_keys_are_listed_by_tenant(self, store: StateStore) -> None:
        for key in ("b2", "b1", "a2", "a1"):
            await store.put_key(replace(KEY, id=key, tenant=key[0], digest=key))

        assert [record.id for record in await store.keys("b")] == ["b1", "b2"]
        assert [record.id for record in await store.keys()] == ["a1", "a2", "b1", "b2"]
        assert await store.keys("c") == []

    async def test_a_deleted_key_is_found_by_nothing(self, store: StateStore) -> None:
        await store.put_key(KEY)

        assert await store.delete_key("k1")
        assert not await store.delete_key("k1")
        assert await store.key_by_digest("digest-1") is None
        assert await store.keys() == []


async def test_a_closed_store_refuses(store: StateStore) -> None:
    await store.close()

    with pytest.raises(StateUnavailableError):
        await store.open_reservations("acme")
