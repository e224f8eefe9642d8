"""Connections that a client keeps open and makes as much trouble with as it can. Each is one coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PATH = "/v1/chat/completions"
SMALL_BUFFER = 4096  # bytes of a slow reader's receive buffer, the least that the kernel gives


class Attack(StrEnum):
    """What a bad client does."""

    SLOW_READER = "slow-reader"  # asks for a stream and reads a byte now and then
    TRICKLE = "trickle"  # sends the body of its request a byte now and then
    HALF_OPEN = "half-open"  # connects and sends nothing
    HEADER_FLOOD = "header-flood"  # sends a header now and then, and never the last


@dataclass(slots=True)
class Outcome:
    """What became of one connection. ``status`` is the first answer's; None: none came. ``closed_s``: the seconds until
    the server closed it; None: it did not."""

    status: int | None = None
    closed_s: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a bad client connects, and its API key. ``interval_s``: the seconds between two of its bytes."""

    host: str
    port: int
    key: str
    interval_s: float = 1.0
    max_tokens: int = 64


async def attack(kind: Attack, target: Target, number: int, outcome: Outcome | None = None) -> Outcome:
    """Keeps one connection open in the way of ``kind`` until the server closes it, or the caller cancels it. Returns
    what became of it, which is written into ``outcome`` as it happens."""
    outcome = outcome or Outcome()
    began = asyncio.get_running_loop().time()
    try:
        async with _connected(target) as connection:
            await _RUNS[kind](connection, target, number, outcome)
    except (ConnectionError, asyncio.IncompleteReadError):
        outcome.closed_s = asyncio.get_running_loop().time() - began
    return outcome


class Connection:
    """A socket with the smallest receive buffer. Both calls raise ConnectionError when the server has closed it."""

    def __init__(self, endpoint: socket.socket) -> None:
        self._socket = endpoint
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Sends all of ``data``."""
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self, size: int) -> bytes:
        """Waits for bytes and returns up to ``size`` of them."""
        data = await self._loop.sock_recv(self._socket, size)
        if not data:
            raise ConnectionResetError
        return data


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[Connection]:
    with socket.socket() as endpoint:
        endpoint.setblocking(False)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        await asyncio.get_running_loop().sock_connect(endpoint, (target.host, target.port))
        yield Connection(endpoint)


async def _read_slowly(connection: Connection, target: Target, number: int, outcome: Outcome) -> None:
    body = _body(number, target.max_tokens, stream=True, logprobs=True, top_logprobs=20)
    await connection.send(_head(target, len(body)) + body)
    outcome.status = _status(await connection.receive(16))
    while True:
        await asyncio.sleep(target.interval_s)
        await connection.receive(1)


async def _trickle(connection: Connection, target: Target, number: int, outcome: Outcome) -> None:
    body = _body(number, target.max_tokens, padding="x" * 5000)
    await connection.send(_head(target, len(body)))
    await _despite_answers(connection, outcome, _slowly(connection, target, (body[i : i + 1] for i in range(5000))))


async def _send_nothing(connection: Connection, target: Target, number: int, outcome: Outcome) -> None:
    await _despite_answers(connection, outcome, asyncio.sleep(86_400))


async def _flood(connection: Connection, target: Target, number: int, outcome: Outcome) -> None:
    await connection.send(f"POST {PATH} HTTP/1.1\r\nhost: {target.host}\r\n".encode())
    headers = (f"x-{number}-{place}: {'y' * 100}\r\n".encode() for place in range(86_400))
    await _despite_answers(connection, outcome, _slowly(connection, target, headers))


_RUNS: dict[Attack, Callable[[Connection, Target, int, Outcome], Awaitable[None]]] = {
    Attack.SLOW_READER: _read_slowly,
    Attack.TRICKLE: _trickle,
    Attack.HALF_OPEN: _send_nothing,
    Attack.HEADER_FLOOD: _flood,
}


async def _slowly(connection: Connection, target: Target, pieces: Any) -> None:
    for piece in pieces:
        await connection.send(piece)
        await asyncio.sleep(target.interval_s)


async def _despite_answers(connection: Connection, outcome: Outcome, work: Awaitable[None]) -> None:
    """Runs ``work``, which goes on after the server has answered, until the server closes the connection. Raises
    ConnectionError then."""
    working = asyncio.ensure_future(work)
    try:
        outcome.status = _status(await connection.receive(4096))
        while True:
            await connection.receive(4096)
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await working


def _head(target: Target, length: int) -> bytes:
    lines = [
        f"POST {PATH} HTTP/1.1",
        f"host: {target.host}",
        f"authorization: Bearer {target.key}",
        "content-type: application/json",
        f"content-length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _body(number: int, max_tokens: int, padding: str = "", **fields: Any) -> bytes:
    content = f"Tell me about connection number {number}. {padding}"
    document = {
        "model": "fast",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        **fields,
    }
    return json.dumps(document).encode()


def _status(data: bytes) -> int | None:
    parts = data.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None
