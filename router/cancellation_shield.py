"""``finished``: runs work that must not be interrupted by a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work`` to its end, and returns its result or raises its error. If the caller is cancelled meanwhile, still
    waits for the end before it raises CancelledError, so that a lock around the call is held for as long as the work
    runs."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise asyncio.CancelledError from error
        raise
