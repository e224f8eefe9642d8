"""Workers for tests: real processes, forked from one that has imported everything, so that each starts at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from engine import Engine
from engine.config import EngineConfig
from engine.parallel.launch import Invitation, Worker
from engine.parallel.worker import serve

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["engine.parallel.worker"])


def stop_fork_server() -> None:
    """Ends the process that workers are forked from, and the one that multiprocessing starts beside it. Both would end
    by themselves, but only some seconds after this process."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


class Forked:
    """Implements ``Launcher``; ``target`` is what a worker does."""

    def __init__(self, target: Callable[[Invitation, int], object] = serve) -> None:
        self.processes: list[BaseProcess] = []
        self._target = target

    @property
    def pids(self) -> list[int]:
        """Of ranks 1, 2, and so on."""
        return [process.pid for process in self.processes if process.pid is not None]

    def launch(self, invitation: Invitation) -> Worker:
        process = _CONTEXT.Process(target=self._target, args=(invitation, 0), daemon=True)
        process.start()
        self.processes.append(process)
        return _ForkedWorker(process)


class _ForkedWorker:
    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    def ended(self) -> bool:
        return not self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def split_engine(directory: Path, ranks: int, launcher: Forked | None = None, **settings: Any) -> Engine:
    """An engine over so many processes; it must be closed."""
    config = EngineConfig(
        model=str(directory), tensor_parallel=ranks, threads=1, **{"kv_cache_tokens": 4096, **settings}
    )
    return Engine.from_config(config, launcher or Forked())


def whole_engine(directory: Path, **settings: Any) -> Engine:
    """The same in this process alone, with the same kernels."""
    return Engine.from_pretrained(directory, kernels="torch", threads=1, **{"kv_cache_tokens": 4096, **settings})


def eventually(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Waits until ``condition`` holds; another process decides when, so this one has to look."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether that process runs, or hangs; a zombie does neither."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Sends a signal to processes that may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
