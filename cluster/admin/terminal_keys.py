"""``TerminalKeys``: reads single keys from a terminal while something else is drawn."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from types import TracebackType
from typing import Any, Self

QUIT = "q"


class TerminalKeys:
    """Reads keys without Enter. It is a context manager: it puts the terminal into cbreak mode, and restores its mode
    at the end. Ctrl-C still interrupts. If stdin is no terminal, there are no keys."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if self._descriptor is not None:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None and self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    @property
    def available(self) -> bool:
        """Whether stdin is a terminal, so that there may be keys."""
        return self._descriptor is not None

    def read(self, timeout_s: float) -> str:
        """Returns the keys that are pressed within ``timeout_s`` seconds, as soon as there are any; "": none; QUIT if
        the terminal is gone."""
        if self._descriptor is None:
            time.sleep(timeout_s)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
        return (os.read(self._descriptor, 64).decode("utf-8", "replace") or QUIT) if ready else ""
