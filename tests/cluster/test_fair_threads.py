"""The threads of calls that take long, of which tenants take turns."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from cluster.replica.fair_threads import FairThreads
from engine.api import EngineDeadError


async def test_tenants_take_turns_and_the_calls_of_one_run_in_their_order() -> None:
    threads, gate, ran = FairThreads(1, "test"), threading.Event(), list[str]()
    ended = [threads.run("a", partial(_wait, gate))]
    ended += [threads.run(name[0], partial(ran.append, name)) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
    gate.set()
    await asyncio.wait_for(asyncio.gather(*ended), 5)
    assert ran == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not threads._waiting
    threads.close()


async def test_the_error_of_a_call_is_its_own() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    threads = FairThreads(1, "test")
    failing, other = threads.run("a", fail), threads.run("a", lambda: None)
    with pytest.raises(ZeroDivisionError):
        await failing
    await asyncio.wait_for(other, 5)
    threads.close()


async def test_calls_that_wait_at_the_end_fail_and_none_waits_for_ever() -> None:
    threads, gate, ran = FairThreads(1, "test"), threading.Event(), list[str]()
    running = threads.run("a", partial(_wait, gate))
    waiting = [threads.run(tenant, partial(ran.append, tenant)) for tenant in "aab"]
    threads.close()
    late = threads.run("c", partial(ran.append, "c"))
    gate.set()
    await asyncio.wait_for(running, 5)
    for each in (*waiting, late):
        with pytest.raises(EngineDeadError):
            await asyncio.wait_for(each, 5)
    assert not ran


def _wait(gate: threading.Event) -> None:
    assert gate.wait(10)
