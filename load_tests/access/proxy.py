"""``SlowProxy``: a TCP proxy in front of Redis, which can hold requests back."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit


class SlowProxy:
    """Passes bytes on to the Redis at ``url``, those of requests ``delay_s`` late. Closes connections whose Redis is
    gone."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.delay_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listens on a free port of 127.0.0.1. Returns the URL of Redis by way of the proxy."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"redis://:{self._target.password}@127.0.0.1:{port}/0"

    async def stop(self) -> None:
        """Closes all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            below, above = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.close()
            return
        self._spawn(reader, above, slow=True)
        self._spawn(below, writer, slow=False)

    def _spawn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        task = asyncio.create_task(self._pass(reader, writer, slow=slow))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if slow and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()
