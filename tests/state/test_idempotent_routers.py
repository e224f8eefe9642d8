"""Requests with an idempotency key on several routers: one run, one bill, also after a router was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.local.redis_server import RedisServer
from engine.api import Usage
from router.app_factory import build_app
from router.config.admission import AdmissionConfig, ClassAdmission
from router.config.idempotency import IdempotencyConfig
from router.errors import AdmissionRefusedError
from router.idempotency.idempotent_requests import Claim, IdempotentRequests
from router.ledger.orphaned_entries import part_of
from router.memory_idempotency_store import MemoryIdempotencyStore
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.idempotency_store import KeyClaim, KeyTerms
from router.ports.state_store import StateUnavailableError
from router.ports.tier_backend import OrphanedAttempt
from router.router_ports import RouterPorts
from tests.router.backend import WORDS
from tests.state.clock import VirtualClock
from tests.state.keyed_router import CHAT, CONFIG, LEASE_S, KeyedRouter

ROOT = Path(__file__).resolve().parents[2]


class SlowToAnswer(MemoryIdempotencyStore):
    """Takes a key, and does not answer in time unless ``answers``."""

    answers = False

    async def claim(self, tenant: str, key: str, request: str, owner: str, account: str, terms: KeyTerms) -> KeyClaim:
        claimed = await super().claim(tenant, key, request, owner, account, terms)
        if not self.answers:
            raise StateUnavailableError("the shared state did not answer within 0.1 s")
        return claimed


@asynccontextmanager
async def routers(count: int, server: RedisServer, journal: Path) -> AsyncIterator[list[KeyedRouter]]:
    ledger = MemoryStore(SystemClock())
    made = [KeyedRouter(server.url, journal / str(number), ledger) for number in range(count)]
    for each in made:
        await each.keys.start()
    yield made
    for each in made:
        await each.keys.close()


async def test_a_retry_gets_the_same_answer_from_any_router_and_is_billed_once(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(2, redis_server, tmp_path) as (one, two):
        first, again = await one.ask(), await two.ask()
        assert first.status_code == again.status_code == 200
        assert again.content == first.content
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert await one.billed() == (1, len(WORDS))
        assert two.backend.requests == []
        assert (await two.ask("key-2")).json()["id"] != first.json()["id"]
        assert (await two.ask(user="sk-second")).json()["id"] != first.json()["id"], "a key is that of an API key"


async def test_while_the_first_request_runs_its_key_is_taken(redis_server: RedisServer, tmp_path: Path) -> None:
    async with routers(2, redis_server, tmp_path) as (one, two):
        one.backend.gate.clear()
        first = asyncio.create_task(one.ask())
        for _ in range(500):
            if one.backend.requests:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.3 * LEASE_S)  # the lease is renewed
        refused = await two.ask()
        assert refused.status_code == 409
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "idempotency_key_in_use"
        one.backend.gate.set()
        assert (await two.ask("key-2")).status_code == 200
        answer = await first
        assert (await two.ask()).content == answer.content


async def test_another_body_with_the_same_key_is_refused(redis_server: RedisServer, tmp_path: Path) -> None:
    async with routers(1, redis_server, tmp_path) as (router,):
        await router.ask()
        refused = await router.ask(max_tokens=3)
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "idempotency_key_reused"
        assert refused.json()["error"]["type"] == "invalid_request_error"


async def test_after_an_error_the_key_is_free(redis_server: RedisServer, tmp_path: Path) -> None:
    async with routers(1, redis_server, tmp_path) as (router,):
        router.backend.fault = RuntimeError("boom")
        assert (await router.ask()).status_code == 500
        router.backend.fault = None
        assert (await router.ask()).status_code == 200


async def test_a_streamed_or_very_long_answer_is_run_again(redis_server: RedisServer, tmp_path: Path) -> None:
    async with routers(1, redis_server, tmp_path) as (router,):
        for more in ({"stream": True}, {"n": 20}):
            answers = [await router.ask(f"key {more}", **more) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]
            assert "idempotent-replayed" not in answers[1].headers
        assert len(router.backend.requests) == 4


async def test_a_wrong_key_is_refused_and_one_without_redis_is_named(redis_server: RedisServer, tmp_path: Path) -> None:
    async with routers(1, redis_server, tmp_path) as (router,):
        refused = await router.ask("x" * 256)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "idempotency-key"
        redis_server.kill()
        answer = await router.ask()
        assert answer.status_code == 200
        assert answer.headers["x-manta-ignored"] == "idempotency-key"


async def test_a_retry_runs_beside_a_request_that_has_lost_its_lease_and_one_is_billed(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(2, redis_server, tmp_path) as (one, two):
        one.backend.gate.clear()
        first = asyncio.create_task(one.ask())
        for _ in range(500):
            if one.backend.requests:
                break
            await asyncio.sleep(0.01)
        await one.keys.close()  # as if Redis could not be reached from there
        await asyncio.sleep(1.5 * LEASE_S)
        retry = await two.ask()
        one.backend.gate.set()
        assert (await first).status_code == retry.status_code == 200
        ids = [router.backend.requests[0].request_id for router in (one, two)]
        assert ids[0] != ids[1], "a replica would take them for one request"
        assert part_of(ids[0]) == part_of(ids[1])
        assert await one.billed() == (1, len(WORDS))


async def test_a_request_whose_claim_was_not_answered_shares_no_account_with_its_retry(clock: VirtualClock) -> None:
    slow = SlowToAnswer(clock)
    requests = IdempotentRequests(slow, IdempotencyConfig())
    first = await requests.claim("acme", "k", "key-1", (CHAT, b""), streamed=False)
    assert first.ignored
    slow.answers = True
    clock.advance(6)
    retry = await requests.claim("acme", "k", "key-1", (CHAT, b""), streamed=False)
    assert not retry.ignored
    assert retry.account != first.account, "both may run at the same time, and each is billed"


class SlowToRelease(MemoryIdempotencyStore):
    """Releases a key when ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.gate = asyncio.Event()

    async def release(self, tenant: str, key: str, owner: str) -> None:
        await self.gate.wait()
        await super().release(tenant, key, owner)


async def refuse(claim: Claim) -> None:
    async with claim:
        raise AdmissionRefusedError("full", "reason=ttft", 1)


async def asked(router: KeyedRouter) -> None:
    for _ in range(500):
        if router.backend.requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the backend has got no request within 5 s")


async def test_a_refusal_waits_for_no_release_and_a_retry_at_once_finds_its_key_free(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    keys, one = SlowToRelease(), ClassAdmission(max_requests=1)
    full = CONFIG.model_copy(update={"admission": AdmissionConfig(standard=one)})
    router = KeyedRouter(redis_server.url, tmp_path)
    router.app = build_app(full, router.backend, RouterPorts(store=router.ledger, idempotency=keys))
    router.backend.gate.clear()
    first = asyncio.create_task(router.ask(None))
    await asked(router)
    async with asyncio.timeout(5):
        refused = await router.ask()
    assert refused.status_code == 429
    retry = asyncio.create_task(router.ask())
    await asyncio.sleep(0.1)
    assert not retry.done(), "it is not told that another request has its key"
    router.backend.gate.set()
    await first
    keys.gate.set()
    assert (await retry).status_code == 200
    assert (await router.ask()).headers["idempotent-replayed"] == "true"
    assert await router.billed() == (2, 2 * len(WORDS))


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_refused_retry_keeps_the_account_of_a_lost_router_unless_it_has_an_entry_itself(
    clock: VirtualClock, recorded: bool
) -> None:
    requests = IdempotentRequests(MemoryIdempotencyStore(clock), IdempotencyConfig())

    async def claim() -> Claim:
        return await requests.claim("acme", "k", "key-1", (CHAT, b""), streamed=False)

    lost = await claim()
    clock.advance(6)
    refused = await claim()
    assert refused.account == lost.account
    refused.recorded = recorded
    with pytest.raises(AdmissionRefusedError):
        await refuse(refused)
    retry = await claim()
    assert (retry.account == lost.account) is not recorded
    await requests.close()


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.state.keyed_router import KeyedRouter

async def main():
    router = KeyedRouter(sys.argv[1], Path(sys.argv[2]))
    await router.keys.start()
    router.backend.gate.clear()
    task = asyncio.create_task(router.ask())
    while not router.backend.accounts:
        await asyncio.sleep(0.01)
    print(router.backend.requests[0].request_id, router.backend.accounts[0], flush=True)
    await task

asyncio.run(main())
"""


@pytest.mark.parametrize("orphan_first", [True, False])
async def test_the_retry_of_a_request_whose_router_was_killed_is_billed_once(
    redis_server: RedisServer, tmp_path: Path, orphan_first: bool
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, redis_server.url, str(tmp_path / "child")),
        env=environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        request_id, _, draft = (await asyncio.wait_for(child.stdout.readline(), 60)).decode().strip().partition(" ")
        async with routers(1, redis_server, tmp_path) as (router,):
            assert (await router.ask()).status_code == 409
            child.send_signal(signal.SIGKILL)
            orphan = OrphanedAttempt(request_id, draft, Usage(3, 2, 0))
            await router.backend.start(router.app.parts.adopt)  # type: ignore[attr-defined]
            if orphan_first:
                router.backend.on_orphans([orphan])
                assert await router.billed() == (1, 2)
            for _ in range(100):
                if (answer := await router.ask()).status_code == 200:
                    break
                assert answer.status_code == 409
                await asyncio.sleep(0.05)
            if not orphan_first:
                router.backend.on_orphans([orphan])
            assert answer.status_code == 200
            assert "idempotent-replayed" not in answer.headers
            assert await router.billed() == (1, len(WORDS))
            assert json.loads(draft)["id"] == request_id.partition("-")[0]
            assert (await router.ask()).headers["idempotent-replayed"] == "true"
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
