"""``RequestsOutlivingClient``: requests that go on when their client has left, since others wait for the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)


class RequestsOutlivingClient:
    """The requests of one router without a client. Each keeps its place in the router's concurrency limit, so there are
    at most as many as that allows, and its time-out."""

    def __init__(self) -> None:
        self._watching: set[asyncio.Task[None]] = set()

    def keep(self, working: asyncio.Future[Any], unwanted: Callable[[], Awaitable[None]], request_id: str) -> None:
        """Lets ``working`` go on until it is done. It is cancelled when ``unwanted`` returns before, at once if none
        waits. ``request_id`` is for the log."""
        task = asyncio.create_task(_watch(working, unwanted, request_id))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def close(self) -> None:
        """Cancels all requests that ``keep`` was given and that still run, and waits until they have ended."""
        tasks = set(self._watching)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _watch(working: asyncio.Future[Any], unwanted: Callable[[], Awaitable[None]], request_id: str) -> None:
    leaving = asyncio.ensure_future(unwanted())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
        if not working.cancelled() and (error := working.exception()) is not None:
            logger.info("request %s, whose client has left, failed: %s", request_id, type(error).__name__)
