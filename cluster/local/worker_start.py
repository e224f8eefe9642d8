"""What the raylet runs for a new worker: ``python cluster/local/worker_start.py ARGUMENTS...``.

By itself Ray starts Python twice for each worker and imports itself both times, and a replica of a tier imports torch
as well: about 2.5 s of CPU, and 83 to 220 MB that every worker has for itself. Instead the worker is forked from one
process that has imported all of it (``worker_forks``). This file asks for the fork. It imports only a little of
the standard library. The first of these processes starts the fork server; if there is none to be had, or the worker
needs another interpreter or variables of its own, Ray's own script starts the worker. A fork server that has once not
started, or not answered, is not asked again: Ray kills a worker that does not register within 60 s.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

START_S = 20.0  # longest wait for the fork server, which imports for 3 to 10 s on a busy machine
ANSWER_S = 10.0  # longest wait for a fork, which takes some 20 ms
POLL_S = 0.02
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONTEXT, LANGUAGE, DIRECTORY = "--serialized-runtime-env-context", "--language", "--temp-dir"


def order_of(arguments: Sequence[str], environment: dict[str, str]) -> dict[str, object] | None:
    """Returns what the fork server is asked for: the worker's arguments and environment. None if the worker cannot be
    forked, since it is not Python or its runtime environment has an interpreter or variables of its own. Libraries read
    variables such as OMP_NUM_THREADS when they are imported, which a fork has behind it. Serve sets none by itself."""
    options = dict(each.partition("=")[::2] for each in arguments if each.startswith("--"))
    context = json.loads(options.get(CONTEXT) or "{}")
    usual = context.get("py_executable", sys.executable) == sys.executable
    if options.get(LANGUAGE) != "PYTHON" or not usual or context.get("command_prefix") or context.get("env_vars"):
        return None
    kept = [each for each in arguments if each.partition("=")[0] not in (CONTEXT, LANGUAGE)]
    script = next((place for place, each in enumerate(kept) if not each.startswith("-")), None)  # after flags of Python
    if script is None or context.get("override_worker_entrypoint"):
        return None
    return {"arguments": kept[script:], "environment": environment, "directory": os.getcwd()}


def service_directory(arguments: Sequence[str]) -> str | None:
    """Returns the directory of the local service, in which Ray's own is. None if ``arguments`` do not tell."""
    given = next((each.partition("=")[2] for each in arguments if each.startswith(f"{DIRECTORY}=")), None)
    return os.path.dirname(given) if given else None


def forked(order: dict[str, object], directory: str) -> bool:
    """Asks for a worker, whose output goes where that of this process goes. Returns whether it runs. Starts the fork
    server of ``directory`` if it does not run. Raises OSError if it cannot be started or reached, TimeoutError if it
    does not answer within ANSWER_S, and ConnectionError if a fork server has not started or answered before."""
    with _connected(directory) as connection:
        try:
            socket.send_fds(connection, [json.dumps(order).encode() + b"\n"], [0, 1, 2])
            return bool(connection.recv(32))  # the worker's process id
        except TimeoutError:
            _remember_failure(directory)
            raise


def _connected(directory: str) -> socket.socket:
    """Returns a connection to the fork server. Raises OSError."""
    path = os.path.join(directory, "workers.sock")
    with open(os.path.join(directory, "workers.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers that start together start one server
        if os.path.exists(_failure(directory)):
            raise ConnectionError("the fork server has failed before")
        try:
            return _connection(path)
        except (FileNotFoundError, ConnectionRefusedError):  # there is none yet, or it has died
            pass
        try:
            _start(path, os.path.join(directory, "slow_timers.so"))
        except OSError:
            _remember_failure(directory)
            raise
        return _connection(path)


def _failure(directory: str) -> str:
    """The path of the file that is there once a fork server has not started or not answered."""
    return os.path.join(directory, "workers.failed")


def _remember_failure(directory: str) -> None:
    with open(_failure(directory), "w", encoding="ascii"):
        pass


def _connection(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_S)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _start(path: str, timers: str) -> None:
    """Starts the fork server and waits until it listens. Raises OSError if it ends, or takes longer than START_S: then
    it is ended."""
    if os.path.exists(path):
        os.unlink(path)  # of a server that has died
    preloaded = {"LD_PRELOAD": timers} if os.path.exists(timers) else {}
    path_of_imports = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.local.worker_forks", path],
        env={**os.environ, **preloaded, "PYTHONPATH": path_of_imports},
        stdin=subprocess.DEVNULL,
        process_group=0,  # the raylet ends that of this process with its worker
    )
    deadline = time.monotonic() + START_S
    while not os.path.exists(path):
        if server.poll() is not None:
            raise ConnectionError(f"the fork server ends with status {server.returncode} before it listens")
        if time.monotonic() > deadline:
            server.kill()
            server.wait()
            raise TimeoutError(f"the fork server does not listen after {START_S:.0f} s")
        time.sleep(POLL_S)


def main(arguments: Sequence[str]) -> None:
    """Has the worker forked and returns, or becomes Ray's script that starts it."""
    order, directory = order_of(arguments, dict(os.environ)), service_directory(arguments)
    if order is not None and directory is not None:
        try:
            if forked(order, directory):
                return
        except OSError as error:
            print(f"worker_start: {error}; the worker is started by itself", file=sys.stderr, flush=True)
    import ray._private.workers.setup_worker as own  # only here, since it imports Ray

    os.execv(sys.executable, [sys.executable, own.__file__, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
