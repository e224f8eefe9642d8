"""``Watch``: watches the other ranks: a thread of rank 0 reads their messages and checks the time limit of a step."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

from engine.errors import EngineDeadError
from engine.parallel.launch import Worker
from engine.parallel.wire import Failed, Ready

_LOOK_S = 0.5  # between looks at the clock
_CAUSE_S = 1.0  # that a step which failed waits for a worker's own word of why
_DEATH_S = 0.3  # that a worker's word waits for another's death, which may be the cause of it
_DIED = "has died"


class Watch:
    """Watches the workers of an engine. ``connections`` and ``workers`` are those of ranks 1, 2, and so on.

    The first fault ends the crew: ``abort`` is called, which ends the operations between ranks, and the workers are
    killed. A step that takes more than ``limit_s`` seconds is a fault.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        workers: Sequence[Worker],
        abort: Callable[[], None],
        limit_s: float,
    ) -> None:
        self.fault: str | None = None
        self._connections = connections
        self._workers = workers
        self._abort = abort
        self._limit_s = limit_s
        self._deadline: float | None = None
        self._lock = threading.Lock()
        self._known = threading.Event()  # the fault is
        self._settled = threading.Event()  # all are ready, or there is a fault
        self._bell, self._ear = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="manta-ranks", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises EngineDeadError if there has been a fault."""
        if self.fault is not None:
            raise self._error()

    def await_ready(self, limit_s: float) -> None:
        """Waits until all workers are ready. Raises EngineDeadError after ``limit_s`` seconds, or if there is a
        fault."""
        if not self._settled.wait(limit_s):
            self.declare(f"not all have loaded the model within {limit_s:g} s")
        self.check()

    def began(self) -> None:
        """Records that a step begins. A step that takes longer than ``limit_s`` seconds is a fault."""
        self._deadline = time.monotonic() + self._limit_s

    def ended(self) -> None:
        """Records that the step has ended."""
        self._deadline = None

    def declare(self, fault: str) -> None:
        """Declares a fault and ends the crew. Only the first fault counts. May be called from any thread."""
        with self._lock:
            if self.fault is not None:
                return
            self.fault = fault
        self._known.set()
        self._settled.set()
        self._abort()
        for worker in self._workers:
            worker.kill()

    def explain(self, otherwise: str) -> EngineDeadError:
        """Returns (does not raise) the error for a failure on rank 0. It names the fault of a worker if there is one,
        since that is the likelier cause, else ``otherwise``."""
        self._known.wait(_CAUSE_S)
        self.declare(otherwise)
        return self._error()

    def close(self) -> None:
        """Ends the thread. The end of workers is no fault from now on."""
        self._bell.close()
        self._thread.join()
        self._ear.close()

    def _error(self) -> EngineDeadError:
        return EngineDeadError(f"The processes that share the model have ended: {self.fault}.")

    def _run(self) -> None:
        ranks = {connection: rank for rank, connection in enumerate(self._connections, 1)}
        loading = set(ranks.values())
        while True:
            heard = wait([self._ear, *ranks], timeout=_LOOK_S)
            if self._ear in heard:
                return
            faults: dict[int, str] = {}
            for connection in heard:
                assert isinstance(connection, Connection)
                fault = _fault(connection)
                if fault is None:
                    loading.discard(ranks[connection])
                else:
                    faults[ranks.pop(connection)] = fault
            if faults:
                self.declare(_cause(faults, ranks))
            if not loading:
                self._settled.set()
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self.declare(f"a step took more than {self._limit_s:g} s")


def _cause(faults: dict[int, str], others: dict[Connection, int]) -> str:
    """Returns the fault to tell. ``faults`` are by rank, the first that was heard first; ``others`` are the connections
    of the ranks without one. If a worker has died, the steps of the others fail for that reason, and their word of it
    may arrive first."""
    deadline = time.monotonic() + _DEATH_S
    while _DIED not in faults.values() and others and (left_s := deadline - time.monotonic()) > 0:
        for connection in wait(list(others), timeout=left_s):
            assert isinstance(connection, Connection)
            fault = _fault(connection)
            if fault is not None:
                faults[others.pop(connection)] = fault
    rank, fault = next((each for each in faults.items() if each[1] == _DIED), next(iter(faults.items())))
    return f"rank {rank} {fault}"


def last_words(connections: Sequence[Connection]) -> str | None:
    """Returns the fault of the first worker that reports one or has died, for failures before a ``Watch`` exists; None
    if no worker reports a fault. ``connections`` are those of ranks 1, 2, and so on."""
    for connection in wait(connections, timeout=_CAUSE_S):
        assert isinstance(connection, Connection)
        fault = _fault(connection)
        if fault is not None:
            return f"rank {connections.index(connection) + 1} {fault}"
    return None


def _fault(connection: Connection) -> str | None:
    """What the next message of a worker, or its end, says is wrong; None if it says that it is ready."""
    try:
        message = connection.recv()
    except (EOFError, OSError):
        return _DIED
    if isinstance(message, Ready):
        return None
    return f"has failed: {message.reason}" if isinstance(message, Failed) else "says what nobody asked for"
