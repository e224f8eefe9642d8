"""``keep_running``: a task without an end, which is started again if it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


async def keep_running(name: str, function: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Calls ``function`` again and again, ``pause_s`` seconds after it has failed, until this task is cancelled.

    An unexpected fault then costs one round, with its traceback in the log, and does not end the task. ``name`` is for
    the log.
    """
    while True:
        try:
            await function()
        except Exception:
            logger.exception("%s failed and starts again in %g s", name, pause_s)
            await asyncio.sleep(pause_s)
