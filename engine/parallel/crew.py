"""``Crew``: the worker processes of one engine. Rank 0 starts them, sends them commands, watches them, and ends
them."""

from __future__ import annotations

import pickle
import socket
import struct
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import torch

from engine.config import EngineConfig
from engine.errors import EngineDeadError
from engine.parallel.collectives import ProcessGroup
from engine.parallel.launch import Invitation, Launcher, Worker
from engine.parallel.watch import Watch, last_words
from engine.parallel.wire import Command, Meet, Orders

START_LIMIT_S = 300.0
"""Until a worker's process has been placed, has imported what it needs and says hello."""
LOAD_LIMIT_S = 1_800.0
"""Until it has loaded its share, from a slow disk."""
_LOOK_S = 0.2  # between looks at whether a worker that is awaited has ended
_FAREWELL_S = 2.0  # in which workers that see their connection closed may end by themselves


class Crew:
    """The ranks of an engine from 1 up. ``exchange`` has rank 0's collective operations. ``connections`` and
    ``workers`` are those of ranks 1, 2, and so on. A step may take ``limit_s`` seconds; ``directory`` has their
    socket."""

    def __init__(
        self,
        connections: Sequence[Connection],
        workers: Sequence[Worker],
        exchange: ProcessGroup,
        limit_s: float,
        directory: tempfile.TemporaryDirectory[str],
    ) -> None:
        self.exchange = exchange
        self._connections = connections
        self._watch = Watch(connections, workers, exchange.abort, limit_s)
        # The watch's thread knows nothing of the crew, which so ends with the last who uses it, or with the process.
        self._end = weakref.finalize(self, _end, self._watch, exchange.abort, connections, workers, directory)

    @classmethod
    def start(cls, config: EngineConfig, launcher: Launcher) -> Self:
        """Starts the workers and returns the crew. They load their shares while this process loads its own;
        ``await_ready`` waits for them.

        Raises EngineDeadError if a worker does not start or fails.
        """
        directory = tempfile.TemporaryDirectory(prefix="manta-")  # only this user may enter it, and so connect
        workers: list[Worker] = []
        connections: list[Connection] = []
        limit_s = config.rank_timeout_s
        try:
            address, meeting = (Path(directory.name) / name for name in ("rank0", "meeting"))
            with socket.socket(socket.AF_UNIX) as door:
                door.bind(str(address))
                door.listen()
                workers += (launcher.launch(Invitation(str(address), r)) for r in range(1, config.tensor_parallel))
                connections += _welcome(door, workers, limit_s)
            for connection in connections:
                connection.send(Orders(config, str(meeting), limit_s))
            device = torch.device(config.device)
            exchange = ProcessGroup.join(meeting, 0, config.tensor_parallel, device, limit_s)
        except BaseException as error:
            expected = isinstance(error, RuntimeError | OSError | EOFError)
            # A worker that could not load may have left while this rank was still looking for it.
            reason = (last_words(connections) if expected else None) or str(error)
            _dismiss(connections, workers, directory)
            if expected:
                raise EngineDeadError(f"The ranks of the model did not meet: {reason}") from error
            raise
        return cls(connections, workers, exchange, limit_s, directory)

    def await_ready(self) -> None:
        """Waits until all workers have loaded their shares and reach each other. Raises EngineDeadError, with the
        worker's error, if one fails or takes too long."""
        self._watch.await_ready(LOAD_LIMIT_S)
        self.tell(Meet())
        with self.together():
            self.exchange.meet()

    def check_health(self) -> None:
        """Raises EngineDeadError if a rank has died, has failed, or has exceeded the time limit of a step. May be
        called from any thread."""
        self._watch.check()

    def tell(self, command: Command) -> None:
        """Sends ``command`` to all workers, which carry out commands in order. Raises EngineDeadError if a rank has
        failed."""
        self._watch.check()
        message = pickle.dumps(command, pickle.HIGHEST_PROTOCOL)
        with self.together():
            for connection in self._connections:
                connection.send_bytes(message)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Returns a context for work in which all ranks take part. An exception in it ends the crew, because the state
        of the other ranks is then unknown; the context raises EngineDeadError."""
        self._watch.began()
        try:
            yield
        except Exception as error:
            raise self._watch.explain(f"rank 0 has failed: {type(error).__name__}") from error
        except BaseException:
            self._watch.declare("rank 0 was interrupted")
            raise
        finally:
            self._watch.ended()
        self._watch.check()

    def close(self) -> None:
        """Ends the workers; may be called again."""
        self._end()


def _welcome(door: socket.socket, workers: Sequence[Worker], limit_s: float) -> list[Connection]:
    """Returns the connections of all workers, in the order of their ranks. Raises OSError if one does not connect in
    time, or has ended."""
    guests: dict[int, Connection] = {}
    deadline = time.monotonic() + START_LIMIT_S
    door.settimeout(_LOOK_S)
    while len(guests) < len(workers):
        try:
            guest, _ = door.accept()
        except TimeoutError:
            awaited = [rank for rank in range(1, len(workers) + 1) if rank not in guests]
            if time.monotonic() > deadline or any(workers[rank - 1].ended() for rank in awaited):
                raise TimeoutError(f"no word of rank {awaited[0]}") from None
            continue
        guest.setblocking(True)
        # A worker that is stopped does not read: what is sent to it must not wait for ever.
        timeout = struct.pack("ll", int(limit_s), int(limit_s % 1 * 1e6))
        guest.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        connection = Connection(guest.detach())
        if not connection.poll(limit_s):
            raise TimeoutError("a worker came and said nothing")
        guests[int(connection.recv())] = connection
    return [guests[rank] for rank in sorted(guests)]


def _end(
    watch: Watch,
    abort: Callable[[], None],
    connections: Sequence[Connection],
    workers: Sequence[Worker],
    directory: tempfile.TemporaryDirectory[str],
) -> None:
    watch.close()
    abort()  # before the others go: nothing is to be ended in order with those who are gone
    _dismiss(connections, workers, directory)


def _dismiss(
    connections: Sequence[Connection], workers: Sequence[Worker], directory: tempfile.TemporaryDirectory[str]
) -> None:
    """Ends the workers: closes their connections, upon which they end by themselves, and kills those that have not
    after _FAREWELL_S. Deletes ``directory``."""
    for connection in connections:
        connection.close()
    deadline = time.monotonic() + _FAREWELL_S
    while connections and time.monotonic() < deadline and not all(worker.ended() for worker in workers):
        time.sleep(0.01)
    for worker in workers:
        worker.kill()
    directory.cleanup()
