"""What the slow operations of one request's grammar cost, on the CPU clock of the thread that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from engine.decode.budget import MAX_OPERATION_S, MAX_SLOW_S, SLOW_OPERATION_S

_Result = TypeVar("_Result")


class Meter:
    """For one request; its branches and beams share it. Not for several threads at once.

    The clock counts CPU time of this thread alone, so that a machine whose cores are busy raises no false alarm.
    """

    def __init__(self) -> None:
        self.slow_s = 0.0  # CPU seconds of all slow operations
        self._longest_s = 0.0

    def __call__(self, operation: Callable[[], _Result], tokens: int = 1) -> _Result:
        """Runs an operation that reads, or answers for, ``tokens`` tokens."""
        began = time.thread_time()
        result = operation()
        self.add(time.thread_time() - began, tokens)
        return result

    def add(self, seconds: float, tokens: int = 1) -> None:
        """Takes note of an operation on ``tokens`` tokens that took ``seconds`` of CPU time."""
        each = seconds / max(1, tokens)
        if each > SLOW_OPERATION_S:
            self.slow_s += seconds
            self._longest_s = max(self._longest_s, each)

    @property
    def exhausted(self) -> bool:
        """Whether the request has used up what its grammar may cost."""
        return self.slow_s > MAX_SLOW_S or self._longest_s > MAX_OPERATION_S


class CallClock:
    """Whether a call that ran on several threads may have been slow.

    Neither of its two clocks suffices: wall time also passes while the machine does other work, and the process's CPU
    time also counts its other threads. The work takes no longer than the smaller of the two.
    """

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def exceeds(self, seconds: float) -> bool:
        """Whether more than ``seconds`` may have gone into the call since this clock was made."""
        return time.monotonic() - self._wall > seconds and time.process_time() - self._cpu > seconds
