"""The process from which workers are forked: ``python -m cluster.local.worker_forks SOCKET``.

It has imported what workers need, and waits for orders of ``worker_start``. A fork shares the memory of these modules
with all others until it writes to it. The process has one thread, so that a fork finds no lock taken. It ends when the
raylet ends. Workers live on without it; the next one that is wanted starts another. It sees the code as it was when it
was imported: whatever is edited later, forks run the old code until the service is started again.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What Serve's own actors, replicas and routers import. Importing must start no threads and open no connections.
MODULES = (
    "ray.serve._private.controller",
    "ray.serve._private.replica",
    "ray.serve._private.proxy",
    "ray.serve._private.haproxy",
    "uvicorn",
    "uvloop",
    "cluster.app",
    "cluster.ingress",
    "cluster.replica.tier_engine",
    "engine.engine",
    "cluster.small_models.small_models_replica",
)
MAX_ORDER = 1 << 20  # bytes
DESCRIPTORS = 3  # standard input, output and errors
RECEIVE_S = 5.0  # longest wait for an order of a client that has connected


@dataclass(frozen=True, slots=True)
class Order:
    """A worker that is to be forked: the path of its script with arguments, its environment and directory, and its
    standard descriptors."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str
    descriptors: tuple[int, ...]


def import_all(names: Sequence[str]) -> None:
    """Imports modules. Those that cannot be imported (an optional package is not installed) are left to the workers, of
    which those that need them report the error."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever a module raises, workers that do not need it can be forked
            print(f"worker_forks: {name} is left to workers: {type(error).__name__}: {error}", flush=True)


def keep_random_ids_apart() -> None:
    """Has classes of actors take their ids from the kernel. Ray's own generator of ids is seeded at its first use,
    which would be the import of such a class: all forks would then draw the same ids for objects, tasks and actors."""
    from ray import actor

    class KernelRandom(actor.ActorClassID):
        @classmethod
        def from_random(cls) -> Any:
            return actor.ActorClassID(os.urandom(actor.ActorClassID.size()))

    actor.ActorClassID = KernelRandom  # type: ignore[misc]


def forks_draw_different_ids() -> bool:
    """Returns whether Ray's generator of ids has no seed yet, so that each fork gets one of its own."""
    return _id_of_a_fork() != _id_of_a_fork()


def _id_of_a_fork() -> bytes:
    from ray import ObjectRef

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ObjectRef.from_random().binary())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        drawn = pipe.read()
    os.waitpid(child, 0)
    return drawn


def listen(path: Path) -> socket.socket:
    """Returns a socket that listens at ``path``; others see the file when it does. Raises OSError."""
    server = socket.socket(socket.AF_UNIX)
    scratch = path.with_suffix(".new")
    scratch.unlink(missing_ok=True)
    server.bind(str(scratch))
    server.listen(64)
    scratch.rename(path)
    return server


def fork_workers(server: socket.socket, watch: int) -> Order | None:
    """Forks a worker for each order that arrives, until the raylet, whose pidfd is ``watch``, has ended: then returns
    None. In a worker returns its order."""
    while True:
        ready, _, _ = select.select([server.fileno(), watch], [], [])
        if watch in ready:
            return None
        connection, _ = server.accept()
        with connection:
            connection.settimeout(RECEIVE_S)
            order = answer(connection)
        if order is not None:
            os.setpgid(0, 0)  # the raylet ends what is left of a worker by its process group
            server.close()
            os.close(watch)
            return order


def answer(connection: socket.socket) -> Order | None:
    """Forks a worker for the order of a client, and sends its process id to the client. Returns the order in the
    worker, and None in this process. A connection that breaks, or a fork that fails, is printed; a client that gets no
    answer starts its worker by itself."""
    try:
        order = receive(connection)
    except OSError as error:
        print(f"worker_forks: an order is lost: {error}", flush=True)
        return None
    if order is None:
        return None
    try:
        child = os.fork()
    except OSError as error:  # too many processes, or too little memory
        print(f"worker_forks: no fork: {error}", flush=True)
        _close(order.descriptors)
        return None
    if child == 0:
        return order
    _close(order.descriptors)
    with suppress(OSError):  # the client has ended meanwhile
        connection.sendall(b"%d\n" % child)
    return None


def receive(connection: socket.socket) -> Order | None:
    """Returns the order that a client sends, or None if it sends none or only a part of it, or waits no longer. Raises
    OSError if the connection breaks, and TimeoutError if nothing arrives."""
    data, descriptors, _, _ = socket.recv_fds(connection, MAX_ORDER, DESCRIPTORS)
    try:
        while not data.endswith(b"\n") and len(data) < MAX_ORDER:
            more = connection.recv(MAX_ORDER)
            if not more:
                break
            data += more
    except OSError:
        _close(descriptors)
        raise
    if not data.endswith(b"\n") or len(descriptors) != DESCRIPTORS or _has_gone(connection):
        _close(descriptors)
        return None
    given: dict[str, Any] = json.loads(data)
    return Order(given["arguments"], given["environment"], given["directory"], tuple(descriptors))


def _has_gone(connection: socket.socket) -> bool:
    """Whether a client that has sent its order has closed the connection: it has started the worker by itself, or was
    killed with it."""
    ready, _, _ = select.select([connection], [], [], 0)
    return bool(ready)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def become(order: Order) -> None:
    """Runs the script of a worker in this process, which is a fork, as Python would run it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, descriptor in enumerate(order.descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.directory)
    sys.argv = list(order.arguments)
    sys.path.insert(0, str(Path(order.arguments[0]).parent))
    runpy.run_path(order.arguments[0], run_name="__main__")


def main(path: Path) -> None:
    """Imports, listens at ``path`` and forks workers. Returns when the raylet has ended; in a worker, when it ends.

    Raises OSError if the raylet has ended before, or nothing can listen at ``path``, and RuntimeError if forks would
    draw the same random ids."""
    watch = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))  # before workers find the socket
    os.environ.pop("LD_PRELOAD", None)  # is loaded into this process, and so into its forks; not into what they start
    keep_random_ids_apart()
    import_all(MODULES)
    if not forks_draw_different_ids():
        raise RuntimeError("a module draws random ids of Ray when it is imported")
    gc.collect()
    gc.freeze()  # else the first collection of each worker writes to every object, and shares nothing after it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for the workers
    order = fork_workers(listen(path), watch)
    if order is not None:
        become(order)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
