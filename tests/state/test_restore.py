"""A service's state is copied while it runs, and restored, by the commands of docs/operations.md."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer, redis_binary
from cluster.state.question_record import QuestionRecord
from cluster.state.redis_collection_store import RedisCollections
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_prompt_store import RedisPromptStore
from cluster.state.redis_questions import RedisQuestions
from cluster.state.redis_safety_store import RedisSafetyStore
from cluster.state.redis_store import RedisStore
from router.ports.collection_store import CollectionLimits, CollectionRecord, NewDocument
from router.ports.key_store import KeyRecord
from router.ports.ledger_store import LedgerEntry, LedgerQuery
from router.ports.limit_store import Charge, LimitName, Reservation, Scope
from router.ports.prompt_store import Activation, ActivationKind
from router.ports.review_store import NewReviewItem, ReviewAction, ReviewStep
from router.review.audit_chain import verify
from tests.state import cached
from tests.state.audit_entries import entry as audit_entry
from tests.state.conftest import free_port, wait_until_ready

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
KEY = KeyRecord("k1", "acme", "digest-1", '{"team": "core"}')
LIMIT = Scope("tenant", ((LimitName.TOKENS_PER_DAY, 1000),))
SECRET = b"a secret of thirty-two characters"
LIMITS = CollectionLimits(collections=5, documents=5, chunks=10, bytes=1000)
REWRITE_S = 20.0


class Stores:
    """All that a service keeps in Redis, by the stores of its routers and its semantic index. Their clocks are real,
    since Redis forgets what has expired when it reads a copy."""

    def __init__(self, url: str, journal: Path) -> None:
        config = StateConfig(journal=journal, timeout_s=5, background_timeout_s=5, max_open_s=0.2)
        self.state = RedisStore(config, url)
        self.safety = RedisSafetyStore(config, url, 30)
        self.prompts = RedisPromptStore(config, url)
        self.entries = RedisEntryStore(config, url)
        self.questions = RedisQuestions(config, url)
        self.collections = RedisCollections(config, url)

    @classmethod
    @asynccontextmanager
    async def opened(cls, server: RedisServer, journal: Path) -> AsyncIterator[Stores]:
        made = cls(server.url, journal)
        async with AsyncExitStack() as stack:
            for store in (made.state, made.safety, made.prompts, made.entries, made.questions, made.collections):
                await store.start()
                stack.push_async_callback(store.close)
            yield made


async def write(stores: Stores, now_ms: int) -> None:
    """Puts something of every kind into the stores."""
    state, reviews = stores.state, stores.safety.reviews
    await state.put_key(KEY)
    await state.reserve(Reservation("r1", "acme", (LIMIT,), Charge(300, 0)), 600_000)
    await state.append([ledger_entry(number, now_ms) for number in range(20)])
    await stores.safety.put_policy("acme", '{"pii": {"requests": "redact"}}')
    assert await stores.safety.secret(SECRET) == SECRET
    for name in ("waits", "claimed", "approved"):
        item = NewReviewItem(name, "acme", f"print-{name}", "{}", 600_000, 600_000, b"\x00sealed\xff")
        await reviews.submit(item, 10)
    for name, action in (("claimed", ReviewAction.CLAIM), ("approved", ReviewAction.APPROVE)):
        await reviews.step("acme", name, ReviewStep(action, "ann", 600_000, 600_000, "{}"))
    for first in (0, 20):
        await stores.safety.audit.append([audit_entry(number) for number in range(first, first + 20)])
    await stores.prompts.add("acme", "greet", "one")
    await stores.prompts.activate("acme", "greet", Activation(1, ActivationKind.ACTIVATE, now_ms, "ann"))
    answer = cached.entry(created_ms=now_ms, expires_ms=now_ms + 600_000)
    await stores.entries.put(answer, cached.ROOM)
    vector = np.linspace(0, 1, 8, dtype=np.float32)
    await stores.questions.put(
        [QuestionRecord("acme", answer.id, "a context", "Question 1?", now_ms, now_ms + 600_000, 7, vector)]
    )
    await stores.collections.create_collection("acme", CollectionRecord("books", "u1", "{}"), LIMITS)
    await stores.collections.put_documents("acme", "u1", [NewDocument("a", b"\x00body\xff", 2, 100)], LIMITS)
    await stores.collections.put_vectors("acme", "u1", "a", 1, b"\x01\x02")


def ledger_entry(number: int, now_ms: int) -> LedgerEntry:
    amounts = {"requests": 1, "tokens": 10 + number}
    return LedgerEntry(f"e{number}", "acme", now_ms, {"team": "core", "tier": "fast"}, amounts, f'{{"n": {number}}}')


async def read(stores: Stores, now_ms: int) -> Mapping[str, Any]:
    """Everything that ``write`` has written, as the stores read it."""
    state, reviews, audit = stores.state, stores.safety.reviews, stores.safety.audit
    day = LedgerQuery(now_ms - 86_400_000, now_ms + 86_400_000, tenant="acme", group_by=("team", "tier"))
    days = await audit.days("acme")
    lines = {each.day: await audit.lines("acme", each.day, 0, 100) for each in days}
    pages = [page async for page in stores.questions.pages()]
    return {
        "keys": await state.keys(),
        "the key of a digest": await state.key_by_digest(KEY.digest),
        "tokens of today": [use.used for use in await state.limit_uses("acme", [LIMIT])],
        "sums": await state.sums(day),
        "entries": [await state.entry("acme", f"e{number}") for number in range(20)],
        "policy": await stores.safety.policy("acme"),
        "secret": await stores.safety.secret(b"another one of thirty-two letters"),
        "reviews": await reviews.items("acme", None, 10),
        "sealed text": await reviews.text("acme", "waits"),
        "exceptions": await reviews.exceptions("acme"),
        "audit": (days, lines),
        "prompt": (await stores.prompts.active("acme", "greet"), await stores.prompts.activations("acme", "greet")),
        "answer": await stores.entries.get("acme", cached.key(1)),
        "sizes": await stores.entries.sizes(),
        "questions": [(each.id, each.question, each.vector.tolist()) for page in pages for each in page.records],
        "collections": await stores.collections.collections("acme"),
        "documents": await stores.collections.documents("acme", "u1", ["a"]),
    }


def documented() -> list[str]:
    """The commands of the section, one a line: the first makes the copy, the others restore it."""
    text = OPERATIONS.read_text()
    section = text.partition("## Backup and restore of Redis\n")[2].partition("\n## ")[0]
    return [line.strip().partition("    #")[0] for line in re.findall(r"^    \S.*$", section, re.MULTILINE)]


class Operator:
    """Runs documented commands on this machine's server, in a directory of its own."""

    def __init__(self, server: RedisServer, data: Path, directory: Path) -> None:
        self._server = server
        url = directory / "redis-url"  # as the steps of the installation write it, which redis-cli understands
        url.write_text(server.url.replace("://:", "://default:"))
        self._places = {
            "/etc/manta/redis-url": url,
            "/var/lib/redis": data,
            "/etc/redis/redis.conf": data / "redis.conf",
        }
        self._directory = directory

    def run(self, command: str) -> None:
        for documented_path, path in self._places.items():
            command = command.replace(documented_path, shlex.quote(str(path)))
        environment = {"PATH": f"{redis_binary().parent}:{os.defpath}"}
        subprocess.run(["bash", "-ec", command], cwd=self._directory, env=environment, check=True, timeout=60)

    def restore(self, commands: list[str]) -> None:
        """Runs the commands; between them it waits as the text says."""
        for command in commands:
            self.run(command)
            if "--daemonize" in command:
                wait_until_ready(self._server)
            if "appendonly yes" in command:
                self._wait_for_rewrite()

    def _wait_for_rewrite(self) -> None:
        deadline = time.monotonic() + REWRITE_S
        with redis.Redis.from_url(self._server.url) as client:
            while client.info("persistence")["aof_rewrite_in_progress"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "data", free_port())
    made.start()
    wait_until_ready(made)
    yield made
    made.stop()
    with redis.Redis.from_url(made.url) as left, suppress(redis.exceptions.ConnectionError):
        left.shutdown(nosave=True)  # one that a test has left as a daemon


async def test_a_restored_copy_has_the_whole_state(server: RedisServer, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    operator = Operator(server, tmp_path / "data", tmp_path)
    copy, *restore = documented()
    async with Stores.opened(server, tmp_path / "journal") as stores:
        await write(stores, now_ms)
        before = await read(stores, now_ms)
        operator.run(copy)
        await stores.state.put_key(replace(KEY, id="k2", digest="digest-2"))
        await stores.state.append([ledger_entry(100, now_ms)])
        server.kill()
        stores.state.record(ledger_entry(200, now_ms))  # waits in the journal
        operator.restore(restore)
        server.start()
        wait_until_ready(server)
        for _ in range(200):
            if await stores.state.entry("acme", "e200") is not None:
                break
            await asyncio.sleep(0.05)
        assert await stores.state.entry("acme", "e200") == '{"n": 200}', "what waited in the journal is added"
    async with Stores.opened(server, tmp_path / "another") as stores:
        after = dict(await read(stores, now_ms))
        assert await stores.state.key("k2") is None, "what was written after the copy is gone"
        assert await stores.state.entry("acme", "e100") is None
        days, lines = after["audit"]
        assert [verify(day, lines[day.day]) for day in days] == [None] * len(days)
        assert sum(day.records for day in days) == 40
        await stores.safety.audit.append([audit_entry(99)])  # the chain goes on
        (*_, today) = await stores.safety.audit.days("acme")
        assert verify(today, await stores.safety.audit.lines("acme", today.day, 0, 100)) is None
    (was,), (now,) = before["sums"], after.pop("sums")
    assert now.amounts["requests"] == was.amounts["requests"] + 1
    assert now.amounts["tokens"] == was.amounts["tokens"] + 210
    assert after == {name: value for name, value in before.items() if name != "sums"}
    assert all(before.values()), "something of every kind was written"
    with redis.Redis.from_url(server.url) as client:
        assert client.info("persistence")["aof_enabled"] == 1


def test_a_copy_that_is_only_put_in_its_place_is_not_read(server: RedisServer, tmp_path: Path) -> None:
    """Why the restore needs its steps: a Redis with an append-only file reads nothing else."""
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "1")
    operator = Operator(server, tmp_path / "data", tmp_path)
    copy, put, *_ = documented()
    operator.run(copy)
    server.kill()
    operator.run(put)
    server.start()
    wait_until_ready(server)
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 0
