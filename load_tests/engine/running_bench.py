"""The bench of one engine as a process that stays: it loads its model once and answers cases one by one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from load_tests.engine.cases import LINE, READY, Case

SETTLE_S = 0.5  # in which the threads of the bench before this one go to sleep
END_S = 30.0  # after its input has ended
LAST_WORDS = 2000  # characters of its log that an error shows


class BenchError(RuntimeError):
    """A bench has ended before it was asked to; the message has its last words."""


class RunningBench:
    """One engine's bench. What it writes to standard error goes to ``log``."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            while self._line().strip() != READY:
                pass
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def rate(self, case: Case) -> float:
        """Tokens a second of a case. Raises BenchError."""
        assert self._process.stdin is not None
        time.sleep(SETTLE_S)
        try:
            self._process.stdin.write(f"{case}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None
        while (found := LINE.search(self._line())) is None:
            pass
        if found[1] != str(case):
            raise BenchError(f"{found[0]!r} is no answer to {case}")
        return float(found[2])

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failed()
        return line

    def _failed(self) -> BenchError:
        return BenchError(f"{self._log}: {self._log.read_text('utf-8', errors='replace')[-LAST_WORDS:]}")

    def _end(self) -> None:
        """Its input ends, and so it does; it is killed if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
