"""Stops the processes of a server while another one is measured, so that it costs the other nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from load_tests.cpu import process_tree
from load_tests.overhead.server import Server

SETTLE_S = 0.5  # after the processes go on: what their timers have missed is over then


@contextmanager
def paused(server: Server) -> Iterator[None]:
    """Stops all processes of a server until the end of the block. ``running`` lets them go on for a while."""
    _signal(server, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(server, signal.SIGCONT)


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Lets the processes of a paused server run during the block."""
    _signal(server, signal.SIGCONT)
    time.sleep(SETTLE_S)
    try:
        yield
    finally:
        _signal(server, signal.SIGSTOP)


def _signal(server: Server, number: signal.Signals) -> None:
    for pid in process_tree(server.pids):
        with suppress(ProcessLookupError):  # it has ended since the tree was read
            os.kill(pid, number)
