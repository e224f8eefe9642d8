"""Readers are woken at once while the event loop keeps up, and together after a pause while it does not."""

from __future__ import annotations

import asyncio

import pytest

from cluster.lanes.delta_stream import DeltaStream
from cluster.lanes.reader_wakeups import MAX_PAUSE_S, MIN_TURN_S, ReaderWakeups
from engine.api import Delta


class Readers:
    """Readers of streams that share their wakeups. Each write takes ``write_s`` of a clock that only writes move."""

    def __init__(self, count: int, write_s: float) -> None:
        self.now = 0.0
        self._write_s = write_s
        wakeups = ReaderWakeups(lambda: self.now)
        self.streams = [DeltaStream(1000, wakeups) for _ in range(count)]
        self.writes: list[list[str]] = [[] for _ in range(count)]
        self.tasks = [asyncio.ensure_future(self._read(index)) for index in range(count)]

    async def _read(self, index: int) -> None:
        while True:
            deltas = await self.streams[index].take()
            self.now += self._write_s
            self.writes[index].append("".join(delta.text for delta in deltas))
            if deltas[-1].last:
                return

    def step(self, text: str) -> None:
        """Pushes a token to each stream."""
        for index, stream in enumerate(self.streams):
            stream.push(Delta(str(index), (1,), text))

    def fail(self, error: Exception) -> None:
        for stream in self.streams:
            stream.fail(error)  # type: ignore[arg-type]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_each_token_is_written_as_it_arrives_while_the_loop_keeps_up() -> None:
    readers = Readers(4, MIN_TURN_S / 8)
    await turns(1)
    for text in "abc":
        readers.step(text)
        await turns(3)
    assert readers.writes == [["a", "b", "c"]] * 4
    await cancelled(readers)


async def test_what_arrives_in_the_pause_after_a_long_turn_is_written_together() -> None:
    readers = Readers(8, MIN_TURN_S)
    await turns(1)
    readers.step("a")
    await turns(3)  # a turn of 8 x MIN_TURN_S
    assert readers.writes == [["a"]] * 8
    for text in "bcd":
        readers.step(text)
        await turns(3)
    assert readers.writes == [["a"]] * 8, "no reader is woken during the pause"
    await asyncio.sleep(8 * MIN_TURN_S + 0.02)
    assert readers.writes == [["a", "bcd"]] * 8
    await cancelled(readers)


async def test_the_pause_has_a_longest_length() -> None:
    readers = Readers(2, 60.0)
    await turns(1)
    readers.step("a")
    await turns(3)
    readers.step("b")
    await asyncio.sleep(MAX_PAUSE_S + 0.05)
    assert readers.writes == [["a", "b"]] * 2
    await cancelled(readers)


async def test_a_reader_that_has_left_in_the_pause_is_left_alone_and_the_others_are_woken() -> None:
    readers = Readers(3, MIN_TURN_S)
    await turns(1)
    readers.step("a")
    await turns(3)
    readers.step("b")
    readers.tasks[1].cancel()
    await asyncio.sleep(4 * MIN_TURN_S + 0.02)
    assert readers.writes == [["a", "b"], ["a"], ["a", "b"]]
    await cancelled(readers)


async def test_a_failure_reaches_the_readers_after_the_pause() -> None:
    readers = Readers(2, MIN_TURN_S)
    await turns(1)
    readers.step("a")
    await turns(3)
    readers.step("b")
    readers.fail(OSError("lost"))
    for task in readers.tasks:
        with pytest.raises(OSError, match="lost"):
            await task
    assert readers.writes == [["a", "b"]] * 2


async def cancelled(readers: Readers) -> None:
    for task in readers.tasks:
        task.cancel()
    await asyncio.wait(readers.tasks)
