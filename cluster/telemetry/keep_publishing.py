"""``keep_publishing``: publishes the metrics of a process once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.keep_running import keep_running

PUBLISH_S = 1.0
"""Seconds between publications. Ray sends metrics on every few seconds."""


async def keep_publishing(name: str, publish: Callable[[], None]) -> None:
    """Calls ``publish`` every PUBLISH_S, until this task is cancelled. A fault is logged, with ``name``, and costs one
    publication."""

    async def run() -> None:
        while True:
            publish()
            await asyncio.sleep(PUBLISH_S)

    await keep_running(name, run, PUBLISH_S)
