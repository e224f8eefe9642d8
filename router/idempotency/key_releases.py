"""``KeyReleases``: releases of idempotency keys in the background, so that a refusal does not wait for Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any


class KeyReleases:
    """The releases of keys that no request waits for, by tenant and key, except for the next one with the key."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}

    def begin(self, tenant: str, key: str, release: Coroutine[Any, Any, None]) -> None:
        """Runs ``release`` in the background. It ends within the time limit of the store."""
        # Outside the context of the HTTP request: Serve cancels what belongs to a request when its client leaves.
        task = asyncio.get_running_loop().create_task(release, context=Context())
        self._running[tenant, key] = task
        task.add_done_callback(lambda _: self._end(tenant, key, task))

    async def wait(self, tenant: str, key: str) -> None:
        """Returns when no release of the key runs."""
        if (task := self._running.get((tenant, key))) is not None:
            await asyncio.wait({task})

    async def finish(self) -> None:
        """Returns when all have ended."""
        while self._running:
            await asyncio.wait(self._running.values())

    def _end(self, tenant: str, key: str, task: asyncio.Task[None]) -> None:
        if self._running.get((tenant, key)) is task:
            del self._running[tenant, key]
