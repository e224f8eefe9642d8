"""Several routers with one answer cache in Redis: shared generations, a leader that is killed, Redis that is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import redis

from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from engine.api import Conversation
from router.ports.answer_cache import AWAITED_MS
from tests.router.asking import Asking
from tests.router.backend import WORDS, ScriptedBackend
from tests.state.conftest import wait_until_ready
from tests.state.router_on_redis import LEASE_S, RouterOnRedis, SlowBackend

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def routers(
    count: int, server: RedisServer, journal: Path, backend: Callable[[], ScriptedBackend] = SlowBackend
) -> AsyncIterator[list[RouterOnRedis]]:
    async with AsyncExitStack() as stack:
        made = [RouterOnRedis(server.url, journal / str(number), backend()) for number in range(count)]
        for each in made:
            await each.entries.start()
            stack.push_async_callback(each.entries.close)
        yield made


async def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    """Waits until ``condition`` is true. Raises TimeoutError."""
    for _ in range(round(timeout_s / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def text_of(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


async def test_64_identical_requests_over_two_routers_cost_one_generation(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(2, redis_server, tmp_path) as pair:
        answers = await asyncio.gather(*(pair[number % 2].ask() for number in range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({text_of(answer) for answer in answers}) == 1
    assert sum(len(each.backend.requests) for each in pair) == 1
    assert sorted(answer.headers["x-manta-cache"] for answer in answers)[-1] == "miss; new"


async def test_64_identical_requests_with_a_canary_in_their_prompt_cost_one_generation(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    pair = [RouterOnRedis(redis_server.url, tmp_path / str(number), guarded=True) for number in range(2)]
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is a quark?"}]
    async with AsyncExitStack() as stack:
        for each in pair:
            await each.entries.start()
            stack.push_async_callback(each.entries.close)
            await each.reviews.start()
            stack.push_async_callback(each.reviews.close)
        answers = await asyncio.gather(*(pair[number % 2].ask(messages=messages) for number in range(64)))
    assert {answer.status_code for answer in answers} == {200}
    (request,) = [request for each in pair for request in each.backend.requests]
    assert isinstance(request.prompt, Conversation)
    assert request.prompt.messages[0].content != "Be kind."


async def test_requests_of_a_router_whose_leader_fails_cost_one_generation_more(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(2, redis_server, tmp_path) as (failing, other):
        failing.backend.fault, failing.backend.fault_at = RuntimeError("broken"), 2
        leader = asyncio.create_task(failing.ask())
        await asyncio.sleep(0.1)
        answers = await asyncio.gather(*(other.ask() for _ in range(16)))
        assert (await leader).status_code == 500
    assert {answer.status_code for answer in answers} == {200}
    assert len(other.backend.requests) == 1


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.state.router_on_redis import RouterOnRedis
from tests.router.backend import ScriptedBackend

async def main():
    router = RouterOnRedis(sys.argv[1], Path(sys.argv[2]), ScriptedBackend(stall_at=2))
    await router.entries.start()
    await router.ask()

asyncio.run(main())
"""


async def test_when_the_router_of_the_leader_is_killed_the_others_answer_with_one_generation_more(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, redis_server.url, str(tmp_path / "child"), env=environment, cwd=ROOT
    )
    try:
        with redis.Redis.from_url(redis_server.url) as client:
            pattern = f"{redis_names.base('acme')}cache-lease:*"
            for _ in range(600):
                if client.keys(pattern):
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("the child does not lead")
        async with routers(2, redis_server, tmp_path) as pair:
            tasks = [asyncio.create_task(pair[number % 2].ask()) for number in range(63)]
            await asyncio.sleep(0.5 + LEASE_S)  # longer than the lease: the child renews it
            assert not any(task.done() for task in tasks)
            child.send_signal(signal.SIGKILL)
            answers = await asyncio.wait_for(asyncio.gather(*tasks), 20)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    assert {answer.status_code for answer in answers} == {200}
    assert len({text_of(answer) for answer in answers}) == 1
    assert sum(len(each.backend.requests) for each in pair) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_requests_of_another_router_get_the_answer_when_the_client_that_began_it_leaves(
    redis_server: RedisServer, tmp_path: Path, stream: bool
) -> None:
    async with routers(3, redis_server, tmp_path) as (leading, *others):
        leader = Asking(leading.app, stream)
        await until(lambda: bool(leading.backend.requests))
        following = [asyncio.create_task(each.ask()) for each in others for _ in range(4)]
        await asyncio.sleep(0.1)  # each of the others has asked the store
        await leader.leave()
        answers = await asyncio.wait_for(asyncio.gather(*following), 20)
    assert {answer.status_code for answer in answers} == {200}
    assert {text_of(answer) for answer in answers} == {"".join(WORDS)}
    assert all(answer.headers["x-manta-cache"].startswith("exact") for answer in answers)
    assert [len(each.backend.requests) for each in (leading, *others)] == [1, 0, 0]


async def test_a_generation_ends_when_nobody_waits_for_it_in_any_router(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(2, redis_server, tmp_path, lambda: ScriptedBackend(stall_at=2)) as (leading, other):
        leader = Asking(leading.app)
        await until(lambda: bool(leading.backend.requests))
        follower = Asking(other.app)
        await asyncio.sleep(0.1)
        await leader.leave()
        await asyncio.sleep(1.5 * AWAITED_MS / 1000)  # it asks again and again
        assert leading.backend.closed == 0
        await follower.leave()
        await until(lambda: leading.backend.closed == 1)
        assert (len(leading.backend.requests), len(other.backend.requests)) == (1, 0)


async def test_without_others_a_client_that_leaves_ends_its_generation_at_once(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(2, redis_server, tmp_path, lambda: ScriptedBackend(stall_at=2)) as (leading, other):
        leader = Asking(leading.app)
        await until(lambda: bool(leading.backend.requests))
        await leader.leave()
        await until(lambda: leading.backend.closed == 1, AWAITED_MS / 2000)
        assert len(other.backend.requests) == 0


async def test_an_answer_of_one_router_is_a_hit_of_another(redis_server: RedisServer, tmp_path: Path) -> None:
    async with routers(2, redis_server, tmp_path) as (one, two):
        assert await one.status() == "miss; new"
        assert (await two.status()).startswith("exact")


async def test_while_redis_is_gone_answers_go_on_and_hits_come_back_with_it(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(1, redis_server, tmp_path) as (router,):
        assert await router.status() == "miss; new"
        redis_server.kill()
        for _ in range(5):
            assert await router.status() == "bypass; unavailable"
        redis_server.keep_running()
        wait_until_ready(redis_server)
        for _ in range(100):
            if (await router.status()) == "exact; age=0":
                break
            await asyncio.sleep(0.05)
        assert (await router.status()).startswith("exact")


@pytest.mark.parametrize("data", [b"{}", b"\x00" * 100], ids=["short", "zeros"])
async def test_a_poisoned_entry_in_redis_is_a_miss_and_replaced(
    redis_server: RedisServer, tmp_path: Path, data: bytes
) -> None:
    async with routers(1, redis_server, tmp_path) as (router,):
        await router.status()
        with redis.Redis.from_url(redis_server.url) as client:
            (name,) = client.keys(f"{redis_names.base('acme')}cache:*")
            whole = client.get(name)
            client.set(name, data)
            assert await router.status() == "miss; new"
            assert client.get(name) not in (data, whole)
        assert (await router.status()).startswith("exact")


async def test_another_tenants_entry_under_the_name_of_this_one_is_a_miss(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with routers(1, redis_server, tmp_path) as (router,):
        await router.status()
        with redis.Redis.from_url(redis_server.url) as client:
            (name,) = client.keys(f"{redis_names.base('acme')}cache:*")
            checksum, _, body = client.get(name).partition(b"\n")
            entry = json.loads(body)
            forged = json.dumps({**entry, "tenant": "other"}).encode()
            client.set(name, checksum + b"\n" + forged)
        assert await router.status() == "miss; new"
