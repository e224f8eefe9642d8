"""``RedisPromptStore``: implements the router's port ``PromptStore`` with Redis."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.redis_client import Client
from router.ports.clock import Clock, SystemClock
from router.ports.prompt_store import (
    MAX_ACTIVATIONS,
    MAX_PROMPTS,
    MAX_VERSIONS,
    Activation,
    ActivationKind,
    PromptStoreFullError,
    PromptSummary,
    StoredVersion,
)
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

MAX_LOOKUPS = 64  # of templates at a time, for which requests wait
MAX_ADMIN_CALLS = 8
ACTIVE = b"active"  # the field with the number of the active version; those of versions are their numbers


class RedisPromptStore:
    """The prompt templates in the Redis at ``url``. Implements ``PromptStore``. ``clock`` times the circuit breakers.
    Raises ValueError for a wrong URL."""

    def __init__(self, config: StateConfig, url: str, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._lookups = GuardedConnections("prompts", config, url, clock, config.timeout_s, MAX_LOOKUPS)
        self._admin = GuardedConnections(
            "prompt changes", config, url, clock, config.background_timeout_s, MAX_ADMIN_CALLS
        )

    async def start(self) -> None:
        try:
            await self._lookups.open()
            await self._admin.open()
        except StateUnavailableError as error:
            logger.warning("starting without prompt templates: %s", error)

    async def close(self) -> None:
        await self._lookups.close()
        await self._admin.close()

    async def version(self, tenant: str, prompt_id: str, version: int) -> StoredVersion | None:
        async def read(client: Client) -> StoredVersion | None:
            found = await client.hget(redis_names.prompt(tenant, prompt_id), str(version))
            return None if found is None else StoredVersion(version, bytes(found).decode())

        return await self._lookups.call(read)

    async def active(self, tenant: str, prompt_id: str) -> StoredVersion | None:
        """Returns the active version of a prompt; None if there is none. It takes two round trips, which is safe
        because a stored version never changes."""
        key = redis_names.prompt(tenant, prompt_id)

        async def read(client: Client) -> StoredVersion | None:
            if (active := await client.hget(key, ACTIVE)) is None:
                return None
            found = await client.hget(key, active)
            return None if found is None else StoredVersion(int(active), bytes(found).decode())

        return await self._lookups.call(read)

    async def add(self, tenant: str, prompt_id: str, document: str) -> int:
        numbers = redis_names.prompts(tenant)

        async def store(client: Client) -> int:
            latest = await client.hget(numbers, prompt_id)
            if latest is not None and int(latest) >= MAX_VERSIONS:
                raise PromptStoreFullError(f"the prompt has {MAX_VERSIONS} versions")
            if latest is None and await client.hlen(numbers) >= MAX_PROMPTS:
                raise PromptStoreFullError(f"the tenant has {MAX_PROMPTS} prompts")
            # A name first: a tenant without prompts harms nothing, and a prompt that no list has would be lost.
            await client.sadd(redis_names.PROMPT_TENANTS, tenant)
            number = int(await client.hincrby(numbers, prompt_id, 1))
            await client.hset(redis_names.prompt(tenant, prompt_id), str(number), document)
            return number

        return await self._admin.call(store)

    async def activate(self, tenant: str, prompt_id: str, activation: Activation) -> bool:
        key, history = redis_names.prompt(tenant, prompt_id), redis_names.prompt_activations(tenant, prompt_id)
        document = json.dumps([activation.version, activation.kind, activation.at_ms, activation.by])

        async def store(client: Client) -> bool:
            if not await client.hexists(key, str(activation.version)):
                return False
            async with client.pipeline(transaction=True) as transaction:
                transaction.hset(key, ACTIVE, activation.version)
                transaction.rpush(history, document)
                transaction.ltrim(history, -MAX_ACTIVATIONS, -1)
                await transaction.execute()
            return True

        return await self._admin.call(store)

    async def versions(self, tenant: str, prompt_id: str) -> Sequence[StoredVersion]:
        async def read(client: Client) -> list[StoredVersion]:
            found = await client.hgetall(redis_names.prompt(tenant, prompt_id))
            numbered = sorted((int(name), value) for name, value in found.items() if name != ACTIVE)
            return [StoredVersion(number, bytes(value).decode()) for number, value in numbered]

        return await self._admin.call(read)

    async def activations(self, tenant: str, prompt_id: str) -> Sequence[Activation]:
        async def read(client: Client) -> list[Activation]:
            lines = await client.lrange(redis_names.prompt_activations(tenant, prompt_id), 0, -1)
            return [_activation(line) for line in lines]

        return await self._admin.call(read)

    async def prompts(self, tenant: str | None = None) -> Sequence[PromptSummary]:
        async def read(client: Client) -> list[PromptSummary]:
            members = await client.smembers(redis_names.PROMPT_TENANTS)
            tenants = sorted(bytes(name).decode() for name in members) if tenant is None else [tenant]
            return [summary for name in tenants for summary in await _summaries(client, name)]

        return await self._admin.call(read)


async def _summaries(client: Client, tenant: str) -> list[PromptSummary]:
    latest = await client.hgetall(redis_names.prompts(tenant))
    named = sorted((bytes(prompt_id).decode(), int(number)) for prompt_id, number in latest.items())
    async with client.pipeline(transaction=False) as reads:
        for prompt_id, _ in named:
            reads.hget(redis_names.prompt(tenant, prompt_id), ACTIVE)
        active = await reads.execute()
    return [
        PromptSummary(tenant, prompt_id, None if number is None else int(number), newest)
        for (prompt_id, newest), number in zip(named, active, strict=True)
    ]


def _activation(line: bytes) -> Activation:
    version, kind, at_ms, by = json.loads(line)
    return Activation(version, ActivationKind(kind), at_ms, by)
