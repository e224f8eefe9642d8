"""``keep_running``: restarts an endless coroutine when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


async def keep_running(name: str, function: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Calls ``function`` again and again until this task is cancelled, and pauses ``pause_s`` seconds after each
    failure.

    An unexpected fault then costs one round, with its traceback in the log, and does not end the task. ``name`` is for
    the log.
    """
    while True:
        try:
            await function()
        except Exception:
            logger.exception("%s failed and starts again in %g s", name, pause_s)
            await asyncio.sleep(pause_s)
