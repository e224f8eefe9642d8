"""``PipelinedClient``: sends many commands at a time over one connection to Redis.

All commands of one turn of the event loop are one write. redis-py's own client takes a connection for each command, and
0.3 ms of the event loop, which is more than Redis takes for the command. redis-py still makes the connection: address,
TLS, login and Sentinel.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, ReadOnlyError, RedisError

from cluster.state.redis_client import Client
from cluster.state.resp import answer_at, packed

MAX_UNANSWERED = 4096
"""Commands whose answer has not come, also of callers that have given up. Beyond, a command fails."""


class Unanswered(NamedTuple):
    """A command whose answer has not arrived. ``sent_at`` is in seconds of the event loop's clock."""

    answer: asyncio.Future[Any]
    sent_at: float


class Link(asyncio.Protocol):
    """One connection. Answers come in the order of the commands. ``below`` is the protocol that it replaces, which is
    notified when the connection ends. ``lost``: the connection is closed."""

    def __init__(self, transport: asyncio.Transport, below: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._below = below
        self._loop = asyncio.get_running_loop()
        self._unanswered: deque[Unanswered] = deque()
        self._unsent: list[bytes] = []
        self._rest = b""
        self.lost = transport.is_closing()
        transport.set_protocol(self)

    def send(self, parts: Sequence[str | int | bytes]) -> asyncio.Future[Any]:
        """Sends a command with the others of this turn of the event loop. Returns a future of the answer, which fails
        with Redis' error or with ConnectionError. Raises MaxConnectionsError if too many are unanswered."""
        if len(self._unanswered) >= MAX_UNANSWERED:
            raise MaxConnectionsError(f"{MAX_UNANSWERED} commands are unanswered")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._unanswered.append(Unanswered(answer, self._loop.time()))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(packed(parts))
        return answer

    def stalled(self, after_s: float) -> bool:
        """Returns whether a command has had no answer for ``after_s`` seconds."""
        return bool(self._unanswered) and self._loop.time() - self._unanswered[0].sent_at > after_s

    def abort(self) -> None:
        """Closes the connection. All unanswered commands fail with ConnectionError."""
        self._transport.abort()
        self._lose()

    def data_received(self, data: bytes) -> None:
        data, place = self._rest + data, 0
        try:
            while (found := answer_at(data, place)) is not None:
                value, place = found
                self._resolve(value)
        except (RedisError, IndexError):  # not the answers of a Redis
            self.abort()
            return
        self._rest = data[place:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose()
        self._below.connection_lost(exc)

    def _resolve(self, value: Any) -> None:
        answer = self._unanswered.popleft().answer
        if answer.done():  # its caller has given up
            return
        if isinstance(value, RedisError):
            answer.set_exception(value)
        else:
            answer.set_result(value)

    def _flush(self) -> None:
        if not self.lost:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _lose(self) -> None:
        self.lost = True
        while self._unanswered:
            answer = self._unanswered.popleft().answer
            if not answer.done():
                answer.set_exception(RedisConnectionError("the connection was closed"))


class PipelinedClient:
    """Implements the part of redis-py's client that scripts need. ``client`` makes the connections: to one Redis, or to
    the master that Sentinel reports. A connection that has not answered for ``stalled_s`` seconds is replaced.

    A command is sent once more at once if its connection turns out to be closed: each command that Manta sends is safe
    to repeat.
    """

    def __init__(self, client: Client, stalled_s: float) -> None:
        self._client = client
        self._stalled_s = stalled_s
        self._link: Link | None = None
        self._connection: Any = None
        self._connecting: asyncio.Task[Link] | None = None

    async def execute_command(self, *parts: str | int | bytes) -> Any:
        """Returns Redis' answer to a command. If the connection is lost meanwhile, or leads to a former master, the
        command is sent once more on a new one. Raises RedisError if Redis answers with an error or the connection is
        lost again, and OSError if it cannot be made."""
        link = self._live() or await self._connected()
        try:
            return await link.send(parts)
        except RedisConnectionError:
            if not link.lost:
                raise  # too many are unanswered, or Redis is loading its data
        except ReadOnlyError:  # it was the master: Sentinel knows the present one
            link.abort()
        return await (self._live() or await self._connected()).send(parts)

    async def evalsha(self, digest: str, key_count: int, *parts: str | int | bytes) -> Any:
        """Runs the script with the SHA-1 ``digest`` and returns its answer. The first ``key_count`` of ``parts`` are
        its KEYS, the others its ARGV. Raises NoScriptError if the server does not know it, and RedisError or OSError,
        as ``execute_command``."""
        return await self.execute_command("EVALSHA", digest, key_count, *parts)

    async def eval(self, text: str, key_count: int, *parts: str | int | bytes) -> Any:
        """Runs the script ``text`` and returns its answer. The first ``key_count`` of ``parts`` are its KEYS, the
        others its ARGV. Raises RedisError or OSError, as ``execute_command``."""
        return await self.execute_command("EVAL", text, key_count, *parts)

    async def ping(self) -> Any:
        """Sends PING and returns Redis' answer. It makes the connection if there is none. Raises RedisError or OSError,
        as ``execute_command``."""
        return await self.execute_command("PING")

    async def aclose(self) -> None:
        """Closes the connection. Commands that have no answer yet fail with ConnectionError."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        await self._disconnect()
        await self._client.aclose()

    def _live(self) -> Link | None:
        """Returns the connection, unless it has ended or stalled."""
        if self._link is not None and not self._link.lost and self._link.stalled(self._stalled_s):
            self._link.abort()
        return None if self._link is None or self._link.lost else self._link

    async def _connected(self) -> Link:
        """Returns a new connection, the same one to all that wait for it. Raises RedisError and OSError."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._has_connected)
        return await asyncio.shield(self._connecting)

    def _has_connected(self, task: asyncio.Task[Link]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it; a command that waits has it too

    async def _connect(self) -> Link:
        await self._disconnect()
        connection = self._client.connection_pool.make_connection()
        try:
            await connection.connect()
        except BaseException:  # also a cancellation, which leaves it half open
            await connection.disconnect(nowait=True)
            raise
        # redis-py has no name for it; the connection is idle, so that nothing is in its reader.
        transport = connection._writer.transport
        self._connection, self._link = connection, Link(transport, transport.get_protocol())
        return self._link

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if self._link is not None:
            self._link.abort()
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
