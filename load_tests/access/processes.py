"""The processes of a measurement: a Redis, and routers that share it. All listen on 127.0.0.1 and end with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from cluster.local.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0
STOP_S = 10.0
ADMIN_KEY = "sk-manta-admin"
CONFIG: dict[str, Any] = {
    "keys": [{"key": ADMIN_KEY, "tenant": "admin", "team": "core", "role": "admin"}],
    "auto": None,
    "prices": {"version": "measured", "tiers": {"fast": {"input": 1.0, "output": 1.0}}},
}
"""The router's settings: one tier, at one unit of money for a million tokens either way."""


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A Redis that answers. Raises TimeoutError if it does not start."""
    server = RedisServer(directory, free_port())
    server.start()
    try:
        wait_for_redis(server.url)
        yield server
    finally:
        server.stop()


def wait_for_redis(url: str) -> None:
    """Returns when the server answers. Raises TimeoutError after READY_S."""
    deadline = time.monotonic() + READY_S
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
            except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Redis did not answer within {READY_S:g} s") from None
                time.sleep(0.02)
            else:
                return


@contextmanager
def routers(
    count: int,
    directory: Path,
    state: Mapping[str, Any] | None,
    config: Mapping[str, Any] = CONFIG,
    step_ms: float = 10,
    stop: bool = False,
    model: str | None = None,
) -> Iterator[Sequence[str]]:
    """The base URLs of ``count`` routers, each a process of its own. ``state`` are the settings of the shared state
    without a journal; None: each has its own in memory. ``stop``: answers end by themselves. ``model``: the directory
    of a model whose engine answers, in the router's process.

    Raises RuntimeError if one does not start.
    """
    files = directory / "config.json", directory / "state.json"
    files[0].write_text(json.dumps(config), encoding="utf-8")
    started: list[subprocess.Popen[bytes]] = []
    urls = []
    try:
        for number in range(count):
            port, command = free_port(), [sys.executable, "-m", "load_tests.access.router_process"]
            command += ["--port", str(port), "--config", str(files[0]), "--step-ms", str(step_ms)]
            command += ["--stop"] if stop else []
            command += [] if model is None else ["--model", model]
            if state is not None:
                path = directory / f"state-{number}.json"
                path.write_text(
                    json.dumps({**state, "journal": str(directory / f"journal-{number}")}), encoding="utf-8"
                )
                command += ["--state", str(path)]
            started.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT))
            urls.append(f"http://127.0.0.1:{port}")
        for process, url in zip(started, urls, strict=True):
            _wait_until_ready(process, url)
        yield urls
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"a router ended with code {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer within {READY_S:g} s")
