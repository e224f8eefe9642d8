"""Sends one request over a pool of connections and reads its answer. Failures become problems, never exceptions."""

from __future__ import annotations

import asyncio
import time

from load_tests.generator.answer import Answer, Problem, read_stream, read_whole
from load_tests.generator.target import Target
from load_tests.generator.wire import BrokenResponseError, Connection, Response


class Client:
    """Connections are kept and used again. ``origin`` is the zero of all times, on time.perf_counter's clock."""

    def __init__(self, target: Target, *, timeout_s: float, stream: bool) -> None:
        self.origin = time.perf_counter()
        self._target = target
        self._timeout_s = timeout_s
        self._read = read_stream if stream else read_whole
        self._idle: list[Connection] = []

    async def ask(self, prompt: int, request: bytes) -> Answer:
        """The answer to ``request``, which asks prompt number ``prompt``."""
        answer = Answer(prompt, self.now())
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._exchange(request)
        except TimeoutError:
            answer.fail(Problem.TIMEOUT, f"nothing complete within {self._timeout_s:g} s")
        except BrokenResponseError as error:
            answer.fail(Problem.TRUNCATED, str(error))
        except OSError as error:
            answer.fail(Problem.CONNECT, str(error))
        else:
            answer.ended = self.now()
            self._read(answer, response, self.origin)
        answer.ended = answer.ended or self.now()
        return answer

    def now(self) -> float:
        """Seconds since ``origin``."""
        return time.perf_counter() - self.origin

    def close(self) -> None:
        """Hangs up every idle connection."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, request: bytes) -> Response:
        while self._idle:
            connection = self._idle.pop()
            if not connection.usable:
                continue
            try:
                return await self._use(connection, request)
            except BrokenResponseError as error:
                if error.started:
                    raise
                # The server may close an idle connection at any time, also as a request is on its way: try a new one.
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._target.host, self._target.port)
        return await self._use(connection, request)

    async def _use(self, connection: Connection, request: bytes) -> Response:
        try:
            response = await connection.exchange(request)
        except BaseException:  # a timeout too: the rest of that response must not be taken for the next one
            connection.close()
            raise
        if connection.usable:
            self._idle.append(connection)
        return response
