"""Work that must not be left half done goes on to its end when its caller is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from router.cancellation_shield import finished


async def test_the_result_and_the_error_are_those_of_the_work() -> None:
    async def fails() -> None:
        raise KeyError("x")

    assert await finished(asyncio.sleep(0, 7)) == 7
    with pytest.raises(KeyError):
        await finished(fails())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_lock_is_held_until_the_work_of_a_cancelled_caller_has_ended(fails: bool) -> None:
    lock, go_on, steps = asyncio.Lock(), asyncio.Event(), list[str]()

    async def work() -> None:
        steps.append("begun")
        await go_on.wait()
        steps.append("ended")
        if fails:
            raise ValueError

    async def caller() -> None:
        async with lock:
            await finished(work())

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert (steps, lock.locked()) == (["begun"], True)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (steps, lock.locked()) == (["begun", "ended"], False)
