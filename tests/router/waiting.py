"""Waits for what a server on another thread does."""

from __future__ import annotations

import threading
from collections.abc import Callable


def wait_for(condition: Callable[[], bool]) -> None:
    """The server runs on a thread of its own; look until it has got there."""
    patience = threading.Event()
    for _ in range(2000):
        if condition():
            return
        patience.wait(0.005)
    raise AssertionError("never happened")
