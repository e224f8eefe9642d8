"""A request that takes longer than it may has failed, and one whose client leaves was cancelled."""

from __future__ import annotations

import asyncio

import pytest

from tests.router.backend import ScriptedBackend
from tests.router.cached import Cached


async def ledger_of(cached: Cached) -> tuple[str, str | None]:
    """The outcome and the error of the only request."""
    await asyncio.sleep(0.05)  # the engine's counts
    (document,) = cached.documents()
    return document["outcome"], document["error"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_over_its_time_has_failed_in_the_ledger(stream: bool) -> None:
    cached = Cached(backend=ScriptedBackend(stall_at=1), request_timeout_s=0.1)
    answer = await cached.ask(stream=stream)
    assert '"request_timeout"' in answer.text
    assert await ledger_of(cached) == ("failed", "request_timeout")


async def test_a_request_whose_client_leaves_in_time_is_cancelled() -> None:
    cached = Cached(backend=ScriptedBackend(stall_at=1), request_timeout_s=60)
    asking = asyncio.create_task(cached.ask())
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await ledger_of(cached) == ("cancelled", None)
