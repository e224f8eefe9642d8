"""The implementations of the store, on a virtual clock, and a real Redis server."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_store import RedisStore
from router.memory_store import MemoryStore
from router.ports.state_store import StateStore
from tests.state.clock import VirtualClock


def free_port() -> int:
    """A port of loopback where no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: RedisServer) -> None:
    """Returns when the server answers."""
    with redis.Redis.from_url(server.url) as client:
        for _ in range(500):
            try:
                client.ping()
            except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                time.sleep(0.01)
            else:
                return
    raise AssertionError("Redis does not start")


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), free_port())
    server.start()
    wait_until_ready(server)
    yield server
    server.stop()


@pytest.fixture
def redis_server(_redis_server: RedisServer) -> RedisServer:
    """The session's Redis, empty and running."""
    _redis_server.keep_running()
    wait_until_ready(_redis_server)
    with redis.Redis.from_url(_redis_server.url) as client:
        client.flushall()
    return _redis_server


def acknowledge_what_is_written(server: RedisServer) -> None:
    """Has Redis write each command to its file before it answers. By ``appendfsync everysec`` it answers while the disk
    is busy, for up to two seconds, and loses that if it is killed."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendfsync", "always")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[StateStore]:
    """A store that holds nothing yet."""
    made: StateStore = MemoryStore(clock)
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
        made = RedisStore(config, server.url, script_clock=clock)
    await made.start()
    yield made
    await made.close()
