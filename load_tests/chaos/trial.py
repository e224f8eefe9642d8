"""One repetition: the mix under a fault, and each of its answers beside the undisturbed one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from load_tests.chaos.client import send_all
from load_tests.chaos.mix import Request
from load_tests.chaos.transcript import Transcript, difference, longest_pause

GIVE_UP_S = 10.0  # without an event, after which the fault comes all the same


@dataclass(slots=True)
class Trial:
    """What came of one repetition. ``problems`` and ``differences`` are by the kind of request, with the number of the
    stream. ``pauses_s`` are those of streams that were moved or, if none tells so, of all that went on after the
    fault. ``aborted_s``: the time from the death of a router until the engines had no work of it left; None: none died.
    """

    streams: int
    problems: list[tuple[str, str]] = field(default_factory=list)
    differences: list[tuple[str, str]] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)
    moved: int = 0
    open_at_fault: int = 0
    aborted_s: float | None = None


class Trigger:
    """Counts events, and is set when ``after`` of them have come."""

    def __init__(self, after: int) -> None:
        self._left = after
        self._last = time.perf_counter()
        self._reached = asyncio.Event()

    def count(self) -> None:
        """Counts one event."""
        self._left -= 1
        self._last = time.perf_counter()
        if self._left <= 0:
            self._reached.set()

    async def wait(self) -> None:
        """Returns when the events have come, or none has for GIVE_UP_S seconds."""
        while not self._reached.is_set() and time.perf_counter() - self._last < GIVE_UP_S:
            try:
                await asyncio.wait_for(self._reached.wait(), 0.5)
            except TimeoutError:
                continue


async def disturbed(
    url: str,
    key: str,
    requests: Sequence[Request],
    after_events: int,
    inject: Callable[[], None],
    timeout_s: float,
) -> tuple[list[Transcript], float]:
    """Sends the requests, and calls ``inject`` in a thread once they have received ``after_events`` events in all.

    While ``inject`` goes on, the requests are sent again whenever all have been answered. Returns the transcripts, each
    time in the order of the requests, and the time of the fault in seconds of ``time.perf_counter``. If all requests
    end before that many events, the fault comes after them and hits none.
    """
    trigger = Trigger(after_events)
    sending = asyncio.create_task(send_all(url, key, requests, timeout_s, trigger.count))
    waiting = asyncio.create_task(trigger.wait())
    await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    at = time.perf_counter()
    injecting = asyncio.create_task(asyncio.to_thread(inject))
    got = await sending
    while not injecting.done():
        got += await send_all(url, key, requests, timeout_s)
    await injecting
    return got, at


def judge(
    requests: Sequence[Request], expected: Sequence[Transcript], got: Sequence[Transcript], fault_at: float
) -> Trial:
    """Compares the transcripts of a repetition, in which the requests were sent once or more, with those of the
    undisturbed run. Pure."""
    trial = Trial(len(got))
    pauses: list[tuple[bool, float]] = []
    for number, (request, one, other) in enumerate(zip(cycle(requests), cycle(expected), got, strict=False)):
        if other.problem is not None:
            trial.problems.append((request.kind, f"stream {number}: {other.problem}"))
        elif (found := difference(one, other)) is not None:
            trial.differences.append((request.kind, f"stream {number}: {found}"))
        moved = other.failovers > 0
        trial.moved += moved
        trial.open_at_fault += bool(other.times) and other.times[-1] > fault_at
        if (pause := longest_pause(other.times, fault_at)) is not None and other.problem is None:
            pauses.append((moved, pause))
    trial.pauses_s = [pause for moved, pause in pauses if moved or not trial.moved]
    return trial
