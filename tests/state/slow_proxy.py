"""``SlowProxy``: a slow connection to Redis."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


class SlowProxy:
    """Passes bytes on to Redis, ``delay_s`` late."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.delay_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"redis://:{self._target.password}@127.0.0.1:{port}/0"

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        below, above = await asyncio.open_connection(self._target.hostname, self._target.port)
        for ends in ((reader, above, self), (below, writer, None)):
            task = asyncio.create_task(self._pass(*ends))
            self._tasks.add(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: SlowProxy | None) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(slow.delay_s if slow else 0)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
