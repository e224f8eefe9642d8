"""``RedisQuestions``: the stored questions with their vectors, and the judgements of hits, in Redis.

The records of a tenant are one hash, which HSCAN returns with its values: the index is rebuilt without a call for each
entry, and without reading the answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.pair_judgement import PairJudgement, decode_judgement, encode_judgement
from cluster.state.question_record import (
    PoisonedQuestionError,
    QuestionRecord,
    decode_question,
    encode_question,
)
from cluster.state.redis_client import Client
from router.ports.clock import Clock, SystemClock
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

MAX_LOOKUPS = 64  # at a time
MAX_CHANGES = 4
PAGE = 500  # records that are read with one call, about 450 kB
MAX_JUDGEMENTS = 10_000
"""Hits and near misses with a known outcome that are kept of a tenant, the newest, about 180 bytes each."""
JUDGEMENTS_S = 90 * 86_400
MAX_REFUSED = 10_000
"""Pairs of questions that are no hit, of a tenant, about 100 bytes each."""


class QuestionPage(NamedTuple):
    """A page of the stored records. ``poisoned`` has tenant and id of each value that is no valid record."""

    records: Sequence[QuestionRecord]
    poisoned: Sequence[tuple[str, str]]


class RedisQuestions:
    """The stored questions and the judgements of hits, in the Redis at ``url``. Implements ``QuestionStore``. Each
    coroutine but ``start`` and ``close`` raises StateUnavailableError if Redis does not answer. Creating the object
    raises ValueError for a wrong URL. ``clock`` times the circuit breakers."""

    def __init__(self, config: StateConfig, url: str, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        background_s = config.background_timeout_s
        self._lookups = GuardedConnections(
            "questions", config, url, clock, config.timeout_s, MAX_LOOKUPS, pipelined=True
        )
        self._changes = GuardedConnections("questions, changes", config, url, clock, background_s, MAX_CHANGES)

    async def start(self) -> None:
        """Makes the first connections. Does not fail if Redis is down."""
        try:
            await asyncio.gather(self._lookups.open(), self._changes.open())
        except StateUnavailableError as error:
            logger.warning("starting without the questions of stored answers: %s", error)

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(self._lookups.close(), self._changes.close())

    async def get(self, tenant: str, ids: Sequence[str]) -> list[QuestionRecord | None]:
        """Returns the record of each id, in order; None for an id without a readable record. It takes one round
        trip."""
        if not ids:
            return []
        name = redis_names.cache_questions(tenant)
        found = await self._lookups.call(lambda client: client.execute_command("HMGET", name, *ids))
        return [_readable(data, tenant, entry_id) for data, entry_id in zip(found, ids, strict=True)]

    async def put(self, records: Sequence[QuestionRecord]) -> None:
        """Stores records. Each replaces a former record with its id."""
        by_tenant: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        for record in records:
            by_tenant[record.tenant][record.id] = encode_question(record)

        async def put(client: Client) -> None:
            for tenant, fields in by_tenant.items():
                await client.sadd(redis_names.CACHE_QUESTION_TENANTS, tenant)
                await client.hset(redis_names.cache_questions(tenant), mapping=fields)

        if by_tenant:
            await self._changes.call(put)

    async def delete(self, entries: Iterable[tuple[str, str]]) -> None:
        """Deletes the records of ``entries``, pairs of tenant and id. Unknown ones are ignored."""
        by_tenant: defaultdict[str, list[str]] = defaultdict(list)
        for tenant, entry_id in entries:
            by_tenant[tenant].append(entry_id)

        async def delete(client: Client) -> None:
            for tenant, ids in by_tenant.items():
                await client.hdel(redis_names.cache_questions(tenant), *ids)

        if by_tenant:
            await self._changes.call(delete)

    async def pages(self, tenant: str | None = None) -> AsyncIterator[QuestionPage]:
        """Yields the records of ``tenant``, or of all tenants. A record that is stored or deleted meanwhile may be left
        out, or come twice."""
        for name in await self._tenants() if tenant is None else [tenant]:
            cursor: int | None = None
            while cursor != 0:
                found = await self._changes.call(_scan(redis_names.cache_questions(name), cursor or 0))
                cursor = int(found[0])
                yield await asyncio.to_thread(_page, name, found[1])

    async def _tenants(self) -> list[str]:
        found = await self._changes.call(lambda client: client.smembers(redis_names.CACHE_QUESTION_TENANTS))
        return sorted(name.decode() for name in found)

    async def position(self, model: int) -> str | None:
        """Returns the position of the feed up to which all questions have a record of the model with the digest
        ``model``; None: unknown."""
        found = await self._changes.call(
            lambda client: client.hget(redis_names.CACHE_QUESTION_POSITIONS, f"{model:016x}")
        )
        return None if found is None else str(int(found))

    async def note_position(self, model: int, position: str) -> None:
        """Records that all questions up to ``position`` of the feed have a record of the model with the digest
        ``model``."""
        name = redis_names.CACHE_QUESTION_POSITIONS
        await self._changes.call(lambda client: client.hset(name, f"{model:016x}", position))

    async def judge(self, tenant: str, judgement: PairJudgement) -> None:
        """Adds the judgement of a hit to the tenant's labelled data. The newest MAX_JUDGEMENTS are kept, for
        JUDGEMENTS_S after the last one."""
        name = redis_names.cache_judgements(tenant)

        async def add(client: Client) -> None:
            await client.lpush(name, encode_judgement(judgement))
            await client.ltrim(name, 0, MAX_JUDGEMENTS - 1)
            await client.expire(name, JUDGEMENTS_S)

        await self._changes.call(add)

    async def judgements(self, tenant: str, version: str) -> list[PairJudgement]:
        """Returns the tenant's labelled data of a scorer's version, the newest first: scores of another one say nothing
        about its own. What cannot be read is left out."""
        found = await self._changes.call(lambda client: client.lrange(redis_names.cache_judgements(tenant), 0, -1))
        return await asyncio.to_thread(_judgements, found, version)  # many of them take longer than a look-up may

    async def refuse(self, tenant: str, pair: str, now_ms: int, expires_ms: int) -> None:
        """Records that a pair of questions, by its ``pair_digest``, is no hit until ``expires_ms``. Both times are in
        milliseconds since the epoch, and ``now_ms`` is the present one. Beyond MAX_REFUSED pairs of the tenant, those
        that end first are forgotten."""
        name = redis_names.cache_refused(tenant)

        async def add(client: Client) -> None:
            await client.zadd(name, {pair: expires_ms}, gt=True)
            await client.zremrangebyscore(name, "-inf", now_ms)
            await client.zremrangebyrank(name, 0, -MAX_REFUSED - 1)
            for _, last_ms in await client.zrange(name, -1, -1, withscores=True):
                await client.pexpire(name, int(last_ms) - now_ms)

        await self._changes.call(add)

    async def refused(self, tenant: str, pairs: Sequence[str], now_ms: int) -> set[str]:
        """Returns those of ``pairs``, by their ``pair_digest``, that ``refuse`` has noted and that have not expired at
        ``now_ms``. One round trip."""
        if not pairs:
            return set()
        name = redis_names.cache_refused(tenant)
        ends = await self._lookups.call(lambda client: client.execute_command("ZMSCORE", name, *pairs))
        return {pair for pair, end in zip(pairs, ends, strict=True) if end is not None and float(end) > now_ms}


def _judgements(documents: Sequence[bytes], version: str) -> list[PairJudgement]:
    read = (decode_judgement(document) for document in documents)
    return [each for each in read if each is not None and each.version == version]


def _scan(name: str, cursor: int) -> Callable[[Client], Any]:
    return lambda client: client.hscan(name, cursor, count=PAGE)


def _page(tenant: str, rows: dict[bytes, bytes]) -> QuestionPage:
    records: list[QuestionRecord] = []
    poisoned: list[tuple[str, str]] = []
    for name, data in rows.items():
        entry_id = name.decode(errors="replace")
        record = _readable(data, tenant, entry_id)
        if record is None:
            poisoned.append((tenant, entry_id))
        else:
            records.append(record)
    return QuestionPage(records, poisoned)


def _readable(data: bytes | None, tenant: str, entry_id: str) -> QuestionRecord | None:
    try:
        return None if data is None else decode_question(data, tenant, entry_id)
    except PoisonedQuestionError:
        return None
