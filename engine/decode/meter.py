"""Measures the CPU time of slow grammar operations, per request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from engine.decode.budget import MAX_OPERATION_S, MAX_SLOW_S, SLOW_OPERATION_S

_Result = TypeVar("_Result")


class Meter:
    """The time that one request's grammar has used; its choices and beams share it. Not thread-safe.

    It counts CPU time of the calling thread alone, so that a busy machine does not make a grammar look slow.
    """

    def __init__(self) -> None:
        self.slow_s = 0.0  # CPU seconds of all slow operations
        self._longest_s = 0.0

    def __call__(self, operation: Callable[[], _Result], tokens: int = 1) -> _Result:
        """Runs an operation on ``tokens`` tokens and records its time. Returns its result."""
        began = time.thread_time()
        result = operation()
        self.add(time.thread_time() - began, tokens)
        return result

    def add(self, seconds: float, tokens: int = 1) -> None:
        """Records an operation on ``tokens`` tokens that took ``seconds`` of CPU time."""
        each = seconds / max(1, tokens)
        if each > SLOW_OPERATION_S:
            self.slow_s += seconds
            self._longest_s = max(self._longest_s, each)

    @property
    def exhausted(self) -> bool:
        """Whether the request has used up the time limits of its grammar."""
        return self.slow_s > MAX_SLOW_S or self._longest_s > MAX_OPERATION_S


class CallClock:
    """Tells whether a call that used several threads may have been slow.

    It uses the smaller of two times, since each alone is too large: wall time includes the machine's other work, and
    CPU time of the process includes its other threads.
    """

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def exceeds(self, seconds: float) -> bool:
        """Returns whether the call may have taken more than ``seconds`` since this clock was made."""
        return time.monotonic() - self._wall > seconds and time.process_time() - self._cpu > seconds
