"""A real Redis, and the stores of answers and questions: in memory, and in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_questions import RedisQuestions
from router.memory_entry_store import MemoryEntryStore
from tests.cache_index.memory_questions import MemoryQuestions
from tests.state.clock import VirtualClock
from tests.state.conftest import _redis_server, redis_server

__all__ = ["_redis_server", "redis_server"]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> RedisServer | None:
    """The Redis behind the stores; None for those in memory."""
    if request.param == "memory":
        return None
    made: RedisServer = request.getfixturevalue("redis_server")
    return made


@pytest.fixture
def state(tmp_path: Path) -> StateConfig:
    return StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)


@pytest.fixture
async def entries(
    server: RedisServer | None, state: StateConfig, clock: VirtualClock
) -> AsyncIterator[MemoryEntryStore | RedisEntryStore]:
    """The stored answers, and their feed, which keeps a hundred changes."""
    made: MemoryEntryStore | RedisEntryStore = MemoryEntryStore(clock, max_changes=100)
    if server is not None:
        made = RedisEntryStore(state, server.url, script_clock=clock, max_changes=100)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def questions(server: RedisServer | None, state: StateConfig) -> AsyncIterator[MemoryQuestions | RedisQuestions]:
    """The stored questions."""
    if server is None:
        yield MemoryQuestions()
        return
    made = RedisQuestions(state, server.url)
    await made.start()
    yield made
    await made.close()
