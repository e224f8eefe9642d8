"""``RedisStore``: implements the router's port ``StateStore`` with Redis.

Each decision about limits is one call of a script, so it is atomic and takes one round trip. The scripts take the time
from the Redis server: the clocks of routers need not agree.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.circuit_breaker import BreakerState
from cluster.state.disk_journal import DiskJournal
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.ledger_writer import LedgerWriter
from cluster.state.lua_script import LuaScript
from cluster.state.recently_added_tenants import RecentlyAddedTenants
from cluster.state.redis_client import Client
from router.bounded_gather import bounded_gather, results_of
from router.ports.clock import Clock, SystemClock
from router.ports.key_store import KeyRecord
from router.ports.ledger_store import CAPPED_LABEL, OTHER, LedgerEntry, LedgerQuery, LedgerSum, Resolution, summed
from router.ports.limit_store import Charge, LimitDecision, LimitUse, Renewal, Reservation, Scope
from router.ports.state_store import StateHealth, StateUnavailableError

Row = tuple[int, dict[str, str], dict[str, int]]
"""The start of an interval in milliseconds, labels, and an amount by its name."""

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
CLOSE_S = 2.0  # the longest that ``close`` waits for ledger entries
MAX_LIMIT_CALLS = 128  # at a time, of requests that reserve
MAX_KEY_CALLS = 32  # the same, of requests whose key is looked up; anyone may send these
MAX_BACKGROUND_CALLS = 32
MAX_REPORT_CALLS = 4  # of people who look at the usage; settlements do not wait for these
MAX_INTERVALS_AT_ONCE = 50  # whose sums are read with one call
KEY_MEMBERS = tuple(field.name for field in fields(KeyRecord))
MAX_SCOPES = 4096  # of keys with their limits, whose JSON is remembered
MAX_LABELS = 4096  # of ledger entries; the same
RESOLUTIONS_JSON = json.dumps([[each.value, each.ms, redis_names.sums_ttl_ms(each)] for each in Resolution])
MAX_TENANTS_AT_ONCE = 8  # whose entries, or leases, are sent side by side, each within a deadline of its own


def default_journal(url: str, parent: Path | None = None) -> Path:
    """Returns the journal's directory for the Redis at ``url`` in ``parent``, by default that of temporary files.
    Creates it if it does not exist.

    Services with different Redis servers must not adopt each other's entries, so its name has a digest of the address.
    Raises PermissionError if it belongs to another user or others may write to it: they could forge entries.
    """
    digest = hashlib.sha256(url.rpartition("@")[2].encode()).hexdigest()[:12]
    directory = (parent or Path(tempfile.gettempdir())) / f"manta-journal-{os.getuid()}-{digest}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{directory} must be a directory that only this user can write to; or set state.journal")
    return directory


class RedisStore:
    """The shared state in the Redis at ``url``. Implements ``StateStore``.

    ``clock`` times the circuit breakers. ``script_clock`` replaces the Redis server's time in tests. Raises OSError if
    the journal's directory cannot be used, and ValueError for a wrong URL. ``on_lost`` is called for each ledger entry
    that found no room in the journal.
    """

    def __init__(
        self,
        config: StateConfig,
        url: str,
        clock: Clock | None = None,
        script_clock: Clock | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        clock = clock or SystemClock()
        self._script_clock = script_clock
        wait_s, later_s = config.timeout_s, config.background_timeout_s
        self._reservations = GuardedConnections(
            "reservations", config, url, clock, wait_s, MAX_LIMIT_CALLS, pipelined=True
        )
        self._settlements = GuardedConnections(
            "settlements", config, url, clock, later_s, MAX_LIMIT_CALLS, pipelined=True
        )
        self._key_lookups = GuardedConnections("key lookups", config, url, clock, wait_s, MAX_KEY_CALLS)
        self._background = GuardedConnections("background", config, url, clock, later_s, MAX_BACKGROUND_CALLS)
        self._reports = GuardedConnections("reports", config, url, clock, later_s, MAX_REPORT_CALLS)
        self._limits = LuaScript("limits")
        self._ledger = LuaScript("ledger")
        self._replace_key = LuaScript("replace_key")
        self._entries_kept_ms = config.entries_kept_days * DAY_MS
        directory = config.journal or default_journal(url)
        self._writer = LedgerWriter(DiskJournal(directory, config.journal_max_bytes), self.append, on_lost)
        self._known_tenants = RecentlyAddedTenants(clock)  # in the set of tenants

    @property
    def breaker(self) -> BreakerState:
        """The state of the circuit breaker of reservations."""
        return self._reservations.breaker

    async def start(self) -> None:
        self._writer.start()
        try:
            await asyncio.gather(*(channel.open() for channel in self._channels))  # the first request finds them open
        except StateUnavailableError as error:
            logger.warning("starting without the shared state: %s", error)

    async def close(self) -> None:
        await self._writer.close(CLOSE_S)
        for channel in self._channels:
            await channel.close()

    def health(self) -> StateHealth:
        breakers = {channel.name: channel.breaker.value for channel in self._channels}
        return StateHealth(breakers, self._writer.waiting_bytes, self._writer.lost)

    @property
    def _channels(self) -> tuple[GuardedConnections, ...]:
        return self._reservations, self._settlements, self._key_lookups, self._background, self._reports

    # API keys

    async def put_key(self, record: KeyRecord) -> None:
        before = await self.key(record.id)
        document = json.dumps(asdict(record))

        async def put(client: Client) -> None:
            if before is not None and before.digest != record.digest:
                await client.delete(redis_names.key_digest(before.digest))
            if before is not None and before.tenant != record.tenant:
                await client.hdel(redis_names.key_records(before.tenant), record.id)
            await client.sadd(redis_names.TENANTS, record.tenant)
            await client.set(redis_names.key_tenant(record.id), record.tenant)
            await client.hset(redis_names.key_records(record.tenant), record.id, document)
            await client.set(redis_names.key_digest(record.digest), document)

        await self._background.call(put)

    async def replace_key(self, expected: KeyRecord, record: KeyRecord) -> bool:
        documents = [json.dumps(asdict(each)) for each in (expected, record)]

        async def replace(client: Client) -> bool:
            # What authentication reads is first: a failure after it leaves an outdated list, but no key that opens.
            if not await self._replace_key.run(client, [redis_names.key_digest(record.digest)], documents):
                return False
            await client.hset(redis_names.key_records(record.tenant), record.id, documents[1])
            return True

        return await self._background.call(replace)

    async def key_by_digest(self, digest: str) -> KeyRecord | None:
        found = await self._key_lookups.call(lambda client: client.get(redis_names.key_digest(digest)))
        return None if found is None else _record(found)

    async def key(self, key_id: str) -> KeyRecord | None:
        async def get(client: Client) -> bytes | None:
            tenant = await client.get(redis_names.key_tenant(key_id))
            return None if tenant is None else await client.hget(redis_names.key_records(tenant.decode()), key_id)

        found = await self._background.call(get)
        return None if found is None else _record(found)

    async def keys(self, tenant: str | None = None) -> Sequence[KeyRecord]:
        async def read(client: Client) -> list[bytes]:
            names = await self._tenants(client) if tenant is None else [tenant]
            return [each for name in names for each in await client.hvals(redis_names.key_records(name))]

        records = [_record(each) for each in await self._background.call(read)]
        found = [record for record in records if record is not None]
        return sorted(found, key=lambda record: (record.tenant, record.id))

    async def delete_key(self, key_id: str) -> bool:
        record = await self.key(key_id)
        if record is None:
            return False

        async def delete(client: Client) -> bool:
            await client.delete(redis_names.key_digest(record.digest))  # first: from now on the key is refused
            await client.hdel(redis_names.key_records(record.tenant), key_id)
            return bool(await client.delete(redis_names.key_tenant(key_id)))

        return await self._background.call(delete)

    # Limits

    async def reserve(self, reservation: Reservation, lease_ms: int) -> LimitDecision:
        charge, scopes = reservation.charge, reservation.scopes
        arguments = (reservation.id, lease_ms, charge.tokens, charge.money, _scopes_json(scopes))
        answer = await self._reservations.call(
            lambda client: self._run_limits(client, "reserve", reservation.tenant, *arguments)
        )
        return LimitDecision(_limit_uses(scopes, answer))

    async def renew(self, renewals: Sequence[Renewal], lease_ms: int) -> None:
        by_tenant: defaultdict[str, list[list[Any]]] = defaultdict(list)
        for renewal in renewals:
            by_tenant[renewal.tenant].append([renewal.id, renewal.used.tokens, renewal.used.money])

        async def run(tenant: str, rows: list[list[Any]]) -> None:
            arguments = (lease_ms, json.dumps(rows))
            await self._settlements.call(lambda client: self._run_limits(client, "renew", tenant, *arguments))

        calls = [partial(run, tenant, rows) for tenant, rows in by_tenant.items()]
        results_of(await bounded_gather(calls, MAX_TENANTS_AT_ONCE))

    async def settle(self, tenant: str, reservation_id: str, used: Charge) -> bool:
        arguments = (reservation_id, used.tokens, used.money)
        return bool(await self._settlements.call(lambda client: self._run_limits(client, "settle", tenant, *arguments)))

    async def count(self, reservation: Reservation) -> None:
        charge = reservation.charge
        arguments = (reservation.id, charge.tokens, charge.money, _scopes_json(reservation.scopes))
        await self._settlements.call(lambda client: self._run_limits(client, "count", reservation.tenant, *arguments))

    async def limit_uses(self, tenant: str, scopes: Sequence[Scope]) -> Sequence[LimitUse]:
        answer = await self._settlements.call(
            lambda client: self._run_limits(client, "uses", tenant, _scopes_json(tuple(scopes)))
        )
        return _limit_uses(scopes, answer)

    async def open_reservations(self, tenant: str) -> int:
        return int(await self._settlements.call(lambda client: self._run_limits(client, "open", tenant)))

    async def _run_limits(self, client: Client, operation: str, tenant: str, *arguments: str | int) -> Any:
        """Calls the script of the limits. Returns its answer, an integer, or integers as text."""
        header: list[str | int] = [operation, redis_names.base(tenant), self._now()]
        return await self._limits.run(client, [redis_names.leases(tenant)], [*header, *arguments])

    def _now(self) -> str | int:
        """Returns the time that the scripts take, in milliseconds since the epoch; "" for that of the server."""
        return "" if self._script_clock is None else int(self._script_clock.now() * 1000)

    # The ledger

    def record(self, entry: LedgerEntry) -> None:
        self._writer.record(entry)

    async def append(self, entries: Sequence[LedgerEntry]) -> int:
        by_tenant: defaultdict[str, list[LedgerEntry]] = defaultdict(list)
        for entry in entries:
            by_tenant[entry.tenant].append(entry)

        async def run(tenant: str, rows: list[LedgerEntry]) -> int:
            return await self._background.call(lambda client: self._append(client, tenant, rows))

        calls = [partial(run, tenant, rows) for tenant, rows in by_tenant.items()]
        return sum(results_of(await bounded_gather(calls, MAX_TENANTS_AT_ONCE)))

    async def _append(self, client: Client, tenant: str, entries: Sequence[LedgerEntry]) -> int:
        """Adds entries of one tenant with one call of the script. Returns the number of those that were new."""
        if tenant not in self._known_tenants:
            await client.sadd(redis_names.TENANTS, tenant)
            self._known_tenants.add(tenant)
        names = [
            f"{redis_names.base(tenant)}sums:",
            *(redis_names.entry(tenant, entry.id) for entry in entries),
        ]
        rows = [json.dumps(_row(entry)) for entry in entries]
        arguments: list[str | int] = [self._entries_kept_ms, RESOLUTIONS_JSON, self._now(), *rows]
        return int(await self._ledger.run(client, names, arguments))

    async def sums(self, query: LedgerQuery) -> Sequence[LedgerSum]:
        tenants = await self._reports.call(self._tenants) if query.tenant is None else [query.tenant]
        rows = [row for tenant in tenants for row in await self._sums_of(tenant, query)]
        return await asyncio.to_thread(summed, query, rows)

    async def _sums_of(self, tenant: str, query: LedgerQuery) -> list[Row]:
        """Returns a row for each sum of the tenant within the range of ``query``: start, labels, amount by its name."""
        index, length = redis_names.sums(tenant, query.resolution), query.resolution.ms
        first, end = query.start_ms // length * length, query.end_ms // length * length
        starts = await self._reports.call(lambda client: client.zrangebyscore(index, first, f"({end}"))
        rows: list[Row] = []
        for place in range(0, len(starts), MAX_INTERVALS_AT_ONCE):
            chunk = [int(start) for start in starts[place : place + MAX_INTERVALS_AT_ONCE]]
            fields = await self._reports.call(partial(_read_intervals, index, chunk))
            rows += await asyncio.to_thread(_rows, tenant, chunk, fields)
        return rows

    async def entry(self, tenant: str, entry_id: str) -> str | None:
        found = await self._background.call(lambda client: client.get(redis_names.entry(tenant, entry_id)))
        return None if found is None else found.decode()

    async def _tenants(self, client: Client) -> list[str]:
        return sorted(name.decode() for name in await client.smembers(redis_names.TENANTS))


@lru_cache(MAX_SCOPES)
def _scopes_json(scopes: tuple[Scope, ...]) -> str:
    """Returns ``scopes`` as the script reads them."""
    return json.dumps([[scope.name, [[name.value, limit] for name, limit in scope.limits]] for scope in scopes])


def _limit_uses(scopes: Sequence[Scope], answer: bytes) -> tuple[LimitUse, ...]:
    """Returns the uses in an answer of the script. Its first number (admitted or not) is ignored; then come used, reset
    and wait for each limit of ``scopes``."""
    _, *numbers = map(int, answer.split())
    limits = [(scope.name, name, limit) for scope in scopes for name, limit in scope.limits]
    rows = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return tuple(
        LimitUse(scope, name, limit, used, reset_ms, None if wait_ms < 0 else wait_ms)
        for (scope, name, limit), (used, reset_ms, wait_ms) in zip(limits, rows, strict=True)
    )


async def _read_intervals(index: str, starts: Sequence[int], client: Client) -> list[dict[bytes, bytes]]:
    """Returns the sums of the intervals that begin at ``starts``, in one round trip."""
    pipeline = client.pipeline(transaction=False)
    for start in starts:
        pipeline.hgetall(f"{index}:{start}")
    return list(await pipeline.execute())


def _rows(tenant: str, starts: Sequence[int], sums: Sequence[dict[bytes, bytes]]) -> list[Row]:
    """Returns a row for each sum of a tenant, as ``summed`` reads them."""
    rows: list[Row] = []
    for start, amounts in zip(starts, sums, strict=True):
        for field, amount in amounts.items():
            labels, name = json.loads(field)
            rows.append((start, {**labels, "tenant": tenant}, {name: int(amount)}))
    return rows


def _row(entry: LedgerEntry) -> list[Any]:
    """Returns ``entry`` as the script of the ledger reads it."""
    value = entry.labels.get(CAPPED_LABEL, "")
    labels = _labels_json(tuple(sorted(entry.labels.items())))
    others = _labels_json(tuple(sorted({**entry.labels, CAPPED_LABEL: OTHER}.items()))) if value else labels
    return [entry.document, entry.at_ms, labels, list(entry.amounts.items()), value, others, entry.part_of]


@lru_cache(MAX_LABELS)
def _labels_json(labels: tuple[tuple[str, str], ...]) -> str:
    """Returns labels, as sorted pairs, as JSON, the same for equal ones: it is a part of the names of sums."""
    return json.dumps(dict(labels), separators=(",", ":"))


def _record(document: bytes) -> KeyRecord | None:
    """Returns the key in a document of the store. Members that another release has added are ignored. A document that
    is malformed, or lacks a member, is logged and is no key: None."""
    try:
        members = json.loads(document)
        return KeyRecord(**{name: str(members[name]) for name in KEY_MEMBERS})
    except (ValueError, TypeError, KeyError) as error:
        # Only the name of the member: the document has hashes of secrets.
        logger.error("a stored key cannot be read and is left out: %s %s", type(error).__name__, _member(error))
        return None


def _member(error: Exception) -> str:
    """Returns the name of the member that a KeyError is about."""
    return str(error) if isinstance(error, KeyError) else ""
