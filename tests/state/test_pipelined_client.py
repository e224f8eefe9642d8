"""Many commands over one connection: order, callers that give up, and connections that end, stall or are no Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import redis
from redis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.pipelined_client import PipelinedClient
from cluster.state.redis_client import connect

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SCRIPT = "return {ARGV[1], redis.call('INCR', KEYS[1])}"


@asynccontextmanager
async def client_of(url: str, stalled_s: float = 5.0) -> AsyncIterator[PipelinedClient]:
    client = PipelinedClient(connect(StateConfig(), url, 2), stalled_s)
    yield client
    await client.aclose()


@asynccontextmanager
async def server_of(serve: Serve) -> AsyncIterator[str]:
    """The URL of a server without a password, which ``serve`` plays."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()
    await asyncio.sleep(0.02)  # the connections end with their clients


def connections(url: str) -> int:
    """The number of the server's clients, without this one."""
    with redis.Redis.from_url(url) as client:
        return len(client.client_list()) - 1


async def test_commands_of_many_callers_share_one_connection_and_each_gets_its_own_answer(
    redis_server: RedisServer,
) -> None:
    async with client_of(redis_server.url) as client:
        found = await asyncio.gather(*(client.eval(SCRIPT, 1, "count", f"é{n}") for n in range(500)))

        assert [answer[0].decode() for answer in found] == [f"é{n}" for n in range(500)]
        assert [answer[1] for answer in found] == list(range(1, 501))
        assert connections(redis_server.url) == 1
    await asyncio.sleep(0.05)
    assert connections(redis_server.url) == 0


async def test_an_error_is_that_of_its_command_alone(redis_server: RedisServer) -> None:
    async with client_of(redis_server.url) as client:
        calls = [client.evalsha("0" * 40, 0), client.ping(), client.execute_command("NONSENSE"), client.ping()]
        found = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(found[0], NoScriptError)
    assert isinstance(found[2], ResponseError)
    assert found[1::2] == [b"PONG", b"PONG"]


async def test_callers_that_give_up_take_no_answer_of_another(redis_server: RedisServer) -> None:
    async with client_of(redis_server.url) as client:
        await client.ping()
        calls = [asyncio.create_task(client.execute_command("ECHO", n)) for n in range(100)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)

    assert found[1::2] == [b"%d" % n for n in range(1, 100, 2)]


async def test_a_command_is_sent_again_if_its_connection_was_closed(redis_server: RedisServer) -> None:
    async with client_of(redis_server.url) as client:
        await client.ping()
        with redis.Redis.from_url(redis_server.url) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        assert await asyncio.gather(*(client.ping() for _ in range(20))) == [b"PONG"] * 20
        assert connections(redis_server.url) == 1


async def test_a_server_that_closes_each_time_is_given_up() -> None:
    asked = 0

    async def close_after_a_command(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += bool(await reader.read(100))

    async with server_of(close_after_a_command) as url, client_of(url) as client:
        with pytest.raises(RedisConnectionError):
            await client.ping()
    assert asked == 2


async def test_a_connection_without_answers_is_replaced() -> None:
    opened = 0

    async def first_is_dead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        dead = opened == 1
        while await reader.read(100):
            if not dead:
                writer.write(b"+PONG\r\n")

    async with server_of(first_is_dead) as url, client_of(url, stalled_s=0.05) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.ping()

        assert await client.ping() == b"PONG"
    assert opened == 2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+PONG\r\n+PONG\r\n"])
async def test_a_server_that_is_no_redis_is_an_error_and_no_later_command_hangs(answer: bytes) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(answer)

    async with server_of(nonsense) as url, client_of(url) as client:
        for _ in range(3):
            async with asyncio.timeout(5):
                try:
                    assert await client.ping() == b"PONG"
                except RedisError:
                    continue


@pytest.mark.parametrize(
    ("line", "kind"), [(b"-LOADING not yet\r\n", BusyLoadingError), (b"-READONLY a replica\r\n", ReadOnlyError)]
)
async def test_an_error_of_the_server_is_never_an_answer(line: bytes, kind: type[RedisError]) -> None:
    opened = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while await reader.read(100):
            writer.write(line)

    async with server_of(refuse) as url, client_of(url) as client:
        with pytest.raises(kind):
            await client.ping()
    assert opened == (2 if kind is ReadOnlyError else 1)  # Sentinel may know another master


async def test_a_client_that_cannot_connect_says_so(redis_server: RedisServer) -> None:
    wrong = redis_server.url.replace("redis://:", "redis://:wrong")
    async with client_of(wrong) as client:
        with pytest.raises(RedisError):
            await client.ping()
