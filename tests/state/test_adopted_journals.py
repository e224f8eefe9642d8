"""Routers of several pods have one directory for their journals: what one leaves, another writes, each entry once.

The routers are processes, the directory is a real one, and Redis a real server, which may be away.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.local.redis_server import RedisServer
from tests.state.conftest import acknowledge_what_is_written, wait_until_ready
from tests.state.opened_store import counted, opened, recovered

ROUTER = """
import asyncio, sys
from pathlib import Path
from tests.state.opened_store import entry, opened

async def main(url, journal, first):
    async with opened(url, Path(journal)) as store:
        for number in range(int(first), int(first) + 100_000):
            store.record(entry(number))
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()
            await asyncio.sleep(0.001)

asyncio.run(main(*sys.argv[1:]))
"""
FIRST = (0, 1_000_000, 2_000_000)
"""The first number of the entries of each router."""


class Router:
    """A process that records an entry a millisecond, and says so."""

    def __init__(self, url: str, journal: Path, first: int) -> None:
        self._first = first
        command = [sys.executable, "-c", ROUTER, url, str(journal), str(first)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}, text=True)

    def recorded(self, count: int) -> None:
        """Returns when it has recorded ``count`` entries since the last call."""
        assert self._process.stdout is not None
        for _ in range(count):
            self._last = int(self._process.stdout.readline())

    def kill(self) -> int:
        """Kills it, and returns the number of entries that it has recorded and said so. It may have recorded one
        more."""
        self._process.send_signal(signal.SIGKILL)
        rest, _ = self._process.communicate()
        numbers = [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        return (numbers[-1] if numbers else self._last) - self._first + 1

    def stop(self) -> None:
        """Ends it, if it still runs."""
        if self._process.poll() is None:
            self.kill()


def left(journal: Path) -> list[Path]:
    """The files of a journal that have something in them."""
    return [path for path in journal.glob("*.journal") if path.stat().st_size]


@contextmanager
def routers(url: str, journal: Path) -> Iterator[list[Router]]:
    made = [Router(url, journal, first) for first in FIRST]
    try:
        yield made
    finally:
        for router in made:
            router.stop()


@pytest.mark.parametrize("redis_is", ["there", "away", "away from the middle on"])
async def test_entries_of_routers_that_are_killed_are_written_once_by_another(
    redis_server: RedisServer, tmp_path: Path, redis_is: str
) -> None:
    acknowledge_what_is_written(redis_server)
    if redis_is == "away":
        redis_server.kill()
    with routers(redis_server.url, tmp_path) as running:
        said = 0
        for place, router in enumerate(running):
            router.recorded(100 + 37 * place)
            if redis_is == "away from the middle on" and place == 1:
                redis_server.kill()
            said += router.kill()
        if redis_is != "there":
            assert left(tmp_path)
            assert redis_server.keep_running()
            wait_until_ready(redis_server)

    async with opened(redis_server.url, tmp_path) as store:
        await recovered(store)
    assert os.listdir(tmp_path) == []
    async with opened(redis_server.url, tmp_path) as store:
        assert said <= await counted(store) <= said + len(FIRST)


async def test_a_router_adopts_while_it_works_and_never_what_a_living_one_has(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.state.write_behind.ADOPT_S", 0.05)
    acknowledge_what_is_written(redis_server)
    with routers(redis_server.url, tmp_path) as running:
        async with opened(redis_server.url, tmp_path) as store:
            said = 0
            for router in running:
                await asyncio.to_thread(router.recorded, 100)
                said += await asyncio.to_thread(router.kill)
            for _ in range(1000):
                if left(tmp_path) == []:
                    break
                await asyncio.sleep(0.02)
            assert said <= await counted(store) <= said + len(FIRST)
    assert left(tmp_path) == []
