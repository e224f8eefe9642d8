"""``RedisReviews``: the review queues and exceptions in Redis. Implements the router's port ``ReviewStore``.

Each change is one call of a script. So it is atomic, two reviewers never hold one item, and it takes one round trip.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from cluster.state import redis_names
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.lua_script import LuaScript
from cluster.state.redis_client import Client
from router.bounded_gather import bounded_gather, results_of
from router.ports.clock import Clock
from router.ports.review_store import (
    NewReviewItem,
    ReviewException,
    ReviewItem,
    ReviewQueueFullError,
    ReviewState,
    ReviewStep,
)

MAX_TENANTS_AT_ONCE = 8


class RedisReviews:
    """The review queues and exceptions. ``requests`` is the channel of calls that a request waits for, ``people`` that
    of all other calls. ``script_clock`` replaces the Redis server's time in tests."""

    def __init__(
        self, requests: GuardedConnections, people: GuardedConnections, script_clock: Clock | None = None
    ) -> None:
        self._requests = requests
        self._people = people
        self._script_clock = script_clock
        self._script = LuaScript("review")

    async def submit(self, item: NewReviewItem, max_open: int) -> str:
        text = item.text
        durations = (item.expires_in_ms, item.kept_ms, int(item.keep_text), max_open)
        arguments = (item.id, item.fingerprint, item.document, *durations, int(text is not None), text or b"")

        async def add(client: Client) -> Any:
            await client.sadd(redis_names.SAFETY_TENANTS, item.tenant)
            kept_ms = 2 * (item.expires_in_ms + item.kept_ms) + redis_names.DAY_MS  # a claim may outlast the expiry
            await client.set(redis_names.review_tenant(item.id), item.tenant, px=kept_ms)
            found = await self._calls("submit", item.tenant, *arguments)(client)
            if found is None or found.decode() != item.id:  # the queue is full, or has an item with this text
                await client.delete(redis_names.review_tenant(item.id))
            return found

        found = await self._people.call(add)
        if found is None:
            raise ReviewQueueFullError(f"{max_open} items wait already")
        return str(found.decode())

    async def item(self, item_id: str, tenant: str | None = None) -> ReviewItem | None:
        if tenant is None:
            found = await self._people.call(lambda client: client.get(redis_names.review_tenant(item_id)))
            if found is None:
                return None
            tenant = found.decode()
        row = await self._people.call(self._calls("get", tenant, item_id))
        return None if row is None else _item(tenant, row)

    async def text(self, tenant: str, item_id: str) -> bytes | None:
        found: bytes | None = await self._people.call(self._calls("text", tenant, item_id))
        return found

    async def items(self, tenant: str | None, state: ReviewState | None, limit: int) -> Sequence[ReviewItem]:
        rows = await self._of_tenants(tenant, "items", "" if state is None else state.value, limit)
        items = [_item(name, row) for name, found in rows for row in found]
        if state is None or state.open:
            return sorted(items, key=lambda item: (item.created_ms, item.id))[:limit]
        return sorted(items, key=lambda item: (item.decided_ms, item.id), reverse=True)[:limit]

    async def decided(self, tenant: str | None, since_ms: int, limit: int) -> Sequence[ReviewItem]:
        rows = await self._of_tenants(tenant, "decided", since_ms, limit)
        items = [_item(name, row) for name, found in rows for row in found]
        return sorted(items, key=lambda item: (item.decided_ms, item.id))[:limit]

    async def step(self, tenant: str, item_id: str, step: ReviewStep) -> tuple[ReviewItem | None, bool]:
        durations = (step.lease_ms, step.exception_ms)
        arguments = (item_id, step.action.value, step.reviewer, *durations, step.exception_document)
        answer = await self._people.call(self._calls("step", tenant, *arguments))
        return (None, False) if answer is None else (_item(tenant, answer[1]), bool(answer[0]))

    async def has_exception(self, tenant: str, fingerprint: str) -> bool:
        return bool(await self._requests.call(self._calls("allowed", tenant, fingerprint)))

    async def exceptions(self, tenant: str | None = None) -> Sequence[ReviewException]:
        return [
            ReviewException(name, row[0].decode(), int(row[1]), row[2].decode())
            for name, found in await self._of_tenants(tenant, "exceptions")
            for row in sorted(found)
        ]

    async def delete_exception(self, tenant: str, fingerprint: str) -> bool:
        return bool(await self._people.call(self._calls("revoke", tenant, fingerprint)))

    async def _of_tenants(
        self, tenant: str | None, operation: str, *arguments: str | int
    ) -> list[tuple[str, list[Any]]]:
        """Runs the script for ``tenant``, or for each tenant. Returns names and answers, sorted by name."""
        names = [tenant] if tenant is not None else await self._people.call(tenants)
        calls = [partial(self._people.call, self._calls(operation, name, *arguments)) for name in names]
        return list(zip(names, results_of(await bounded_gather(calls, MAX_TENANTS_AT_ONCE)), strict=True))

    def _calls(self, operation: str, tenant: str, *arguments: str | int | bytes) -> Callable[[Client], Awaitable[Any]]:
        """Returns a function that runs the script with a client, and returns the script's answer."""
        now = "" if self._script_clock is None else int(self._script_clock.now() * 1000)
        sent: list[Any] = [operation, redis_names.base(tenant), now, *arguments]
        return lambda client: self._script.run(client, [redis_names.review_queue(tenant)], sent)


async def tenants(client: Client) -> list[str]:
    """Returns the tenants with items or audit records, sorted."""
    return sorted(name.decode() for name in await client.smembers(redis_names.SAFETY_TENANTS))


def _item(tenant: str, row: Sequence[bytes]) -> ReviewItem:
    """Returns the item that the script has written."""
    item_id, fingerprint, document, created, expires, state, reviewer, lease, decided, times = (
        each.decode() for each in row
    )
    stamps = int(created), int(expires), ReviewState(state), reviewer, int(lease), int(decided), int(times)
    return ReviewItem(item_id, tenant, fingerprint, document, *stamps)
