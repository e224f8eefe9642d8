"""Starts the graph with the launcher of ``make serve``, waits until it answers, and stops it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from load_tests.access.processes import redis_server
from load_tests.overhead.graph import stub_config

ROOT = Path(__file__).resolve().parents[2]
READY_S = 120.0
STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running graph; ``pid`` is the root of all its processes. ``redis_pid`` is its Redis; 0: it has none."""

    url: str
    pid: int
    redis_pid: int = 0

    @property
    def pids(self) -> tuple[int, ...]:
        """The roots of all processes that are known."""
        return tuple(pid for pid in (self.pid, self.redis_pid) if pid)


@contextmanager
def stub_server(
    step_s: float,
    *,
    safety: bool = False,
    varied: bool = False,
    redis: bool = False,
    telemetry: Mapping[str, Any] | None = None,
) -> Iterator[Server]:
    """The graph around stub engines on a free port, stopped at the end; with ``safety``, the checks of dev.yaml; with
    ``varied``, no two answers are equal; with ``redis``, limits and the ledger in a Redis and not in memory.
    ``telemetry`` replaces the settings of that name.

    Raises RuntimeError if it does not start.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        document, redis_pid = stub_config(step_s, safety=safety, varied=varied, telemetry=telemetry), 0
        if redis:  # the launcher starts one for the service's own builder alone
            store = stack.enter_context(redis_server(directory / "redis"))
            state = {"url_file": str(store.url_file), "journal": str(directory / "journal")}
            document["applications"][0]["args"]["state"] = state
            redis_pid = store.pid or 0
        config = directory / "stub.yaml"
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        yield replace(stack.enter_context(started(config)), redis_pid=redis_pid)


@contextmanager
def started(config: Path) -> Iterator[Server]:
    """The graph of a config file on a free port, stopped at the end. Raises RuntimeError if it does not start."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.local.launch", "--config", str(config), "--port", str(port)],
        # The replicas import load_tests, which is not installed. Servers to be compared have sets of the same order.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        cwd=ROOT,
    )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}/healthz")
        yield Server(f"http://127.0.0.1:{port}/v1", process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Waits until ``url`` answers 200. Raises RuntimeError if ``process`` ends, or after READY_S seconds."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer 200 within {READY_S:g} s")
