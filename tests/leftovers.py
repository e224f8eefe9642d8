"""Processes that a test session has started and not ended, orphans included.

Children are known by their parent, and orphans by a variable in their environment that is this session's alone: so no
process of anybody else is ever counted. Adopting orphans instead (as ``cluster.local.process_tree`` does) would keep
each of them as a zombie, which tests that wait for the end of a process would take for alive.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
import uuid

import psutil
import pytest

GRACE_S = 5.0
"""How long processes that have been asked to end may take after the last test."""
_VARIABLE = "MANTA_TEST_SESSION"
_POLL_S = 0.05


def mark() -> None:
    """From now on whatever this process starts is known as of this session."""
    os.environ[_VARIABLE] = uuid.uuid4().hex


def left_over(grace_s: float) -> list[psutil.Process]:
    """The processes of this session that are still there after up to ``grace_s``, this one left out."""
    deadline = time.monotonic() + grace_s
    while found := [process for process in psutil.process_iter() if _is_of_session(process)]:
        if time.monotonic() > deadline:
            return found
        time.sleep(_POLL_S)
    return []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A session that leaves processes fails, and ends them."""
    # An engine that was not closed ends its processes when it is collected, which it had kept from the collector.
    gc.unfreeze()
    gc.collect()
    left = left_over(GRACE_S)
    for process in left:
        print(f"\nleft by the tests: {_described(process)}")  # noqa: T201
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _described(process: psutil.Process) -> str:
    """One line about it."""
    try:
        command = " ".join(process.cmdline())
        return f"{process.pid} (parent {process.ppid()}, {process.status()}): {command[:200]}"
    except psutil.NoSuchProcess:
        return f"{process.pid}, which has ended by now"


def _is_of_session(process: psutil.Process) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.ppid() == os.getpid() or process.environ().get(_VARIABLE) == os.environ[_VARIABLE])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False  # it has ended, or is another user's
