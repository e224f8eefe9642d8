"""The implementations of the store, on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from router.memory_store import MemoryStore
from router.ports.state_store import StateStore
from tests.state.clock import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory"])
async def store(request: pytest.FixtureRequest, clock: VirtualClock) -> AsyncIterator[StateStore]:
    """A store that holds nothing yet."""
    made = MemoryStore(clock)
    await made.start()
    yield made
    await made.close()
