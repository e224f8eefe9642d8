"""The launcher behind ``make serve``: one whole service on this machine, in the foreground.

The launcher starts a Ray head of its own in a short-lived directory, hands it the Serve config over Ray's REST
interface, waits until ``/healthz`` answers 200 and then until it is stopped. It shares nothing with other Ray
clusters, and when it ends, every process that it started has ended, however it was stopped: Ctrl-C, SIGTERM, a failed
start. A second Ctrl-C skips the draining.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.local.environment import LOOPBACK, LocalPorts, is_free, local_environment, prepare_directory
from cluster.local.make_interrupt import MakeWatch
from cluster.local.process_tree import adopt_orphans, stop_descendants
from cluster.local.ray_head import ConfigRefusedError, HeadUnavailableError, RayHead
from cluster.local.serve_config import ConfigFileError, load

POLL_S = 0.25
DRAIN_S = 30.0
"""Longest wait for Serve to finish its streams and shut down, before the processes are ended anyway."""
TERM_S = 3.0
KILL_S = 10.0
ECHO_S = 1.0
"""A signal this soon after the first is the same one again: make passes on what the terminal has already sent."""
LOG_LINES = 15
REPORT_CHARACTERS = 1000


class LaunchError(RuntimeError):
    """The service cannot start; the message is for the person at the terminal."""


class StopRequested(BaseException):
    """SIGINT, SIGTERM or SIGHUP has arrived. Like KeyboardInterrupt no error, so that no handler of errors takes it."""


class StopSignals:
    """Turns signals into ``StopRequested``, raised wherever the launcher is at that moment."""

    def __init__(self) -> None:
        self._first_at: float | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._arrived)

    def ignore(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is not None and now - self._first_at < ECHO_S:
            return
        self._first_at = now
        raise StopRequested


class Phases:
    """What the launcher is at, with the seconds each phase took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        print(f"  {name} ...", flush=True)
        yield
        print(f"  {name}: {time.monotonic() - started:.1f} s", flush=True)

    @property
    def total_s(self) -> float:
        return time.monotonic() - self._start


class LocalService:
    """One service on this machine, from an empty directory to ready, and back."""

    def __init__(self, config: dict[str, Any], directory: Path, make: MakeWatch) -> None:
        self._config = config
        self._make = make
        self._last_refusal = ""
        self._reported: set[str] = set()
        self.ports = LocalPorts.free()
        prepare_directory(directory)
        self.head = RayHead(directory, self.ports, local_environment(directory, self.ports))
        self.url = f"http://{LOOPBACK}:{config['http_options']['port']}"

    def start(self, phases: Phases, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with phases.phase("Ray"):
            self.head.start()
            self._wait(self._head_answers, deadline)
        with phases.phase("Serve"):
            self.head.deploy(self._config)
        with phases.phase("application"):
            self._wait(self._is_ready, deadline)

    def watch(self) -> None:
        """Returns never: raises when the head ends by itself, or when someone wants the service to stop."""
        self._wait(lambda: False, float("inf"))

    def _wait(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            if self._make.wants_stop():
                raise StopRequested
            if self.head.has_ended():
                raise LaunchError(f"Ray has ended unexpectedly. Its last words:\n{tail(self.head.log)}")
            if time.monotonic() > deadline:
                raise LaunchError(f"not ready in time:\n{self._state()}")
            time.sleep(POLL_S)

    def _head_answers(self) -> bool:
        try:
            self.head.details()
        except HeadUnavailableError as error:
            self._last_refusal = str(error)
            return False
        return True

    def _is_ready(self) -> bool:
        if answers_ok(f"{self.url}/healthz"):
            return True
        for name, application in self._applications().items():
            if application["status"] == "DEPLOY_FAILED":
                raise LaunchError(f"application {name!r} does not start:\n{explain(application)}")
            self._report(application)
        return False

    def _report(self, application: dict[str, Any]) -> None:
        """Passes on what Serve says about deployments that are slow or fail: it tries again many times by itself."""
        for name, deployment in application.get("deployments", {}).items():
            lines = deployment.get("message", "").strip().splitlines() or [""]
            # A traceback lies between what happened, up to "Error:", and why, in the last line.
            text = f"    {name}: {' '.join(dict.fromkeys([lines[0].partition(' Error:')[0], lines[-1]]))}"
            if lines[0] and text not in self._reported:
                self._reported.add(text)
                print(text[:REPORT_CHARACTERS], flush=True)

    def _applications(self) -> dict[str, Any]:
        try:
            return dict(self.head.details().get("applications", {}))
        except HeadUnavailableError:
            return {}

    def _state(self) -> str:
        states = [f"{name}: {explain(application)}" for name, application in self._applications().items()]
        return "\n".join(states) or self._last_refusal


def explain(application: dict[str, Any]) -> str:
    """Why an application is not running: its own message, and those of its unhealthy deployments."""
    messages = [f"{application['status']} {application.get('message', '')}".rstrip()]
    messages += [
        f"{name}: {deployment['status']} {deployment.get('message', '')}".rstrip()
        for name, deployment in application.get("deployments", {}).items()
        if deployment["status"] != "HEALTHY"
    ]
    return "\n".join(messages)


def answers_ok(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def tail(path: Path, lines: int = LOG_LINES) -> str:
    if not path.exists():
        return "(nothing)"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def check_port(port: int) -> None:
    if not is_free(port):
        raise LaunchError(f"port {port} is in use; choose another with `make serve PORT=...` or --port")


def run(config_path: Path, port: int | None, timeout_s: float) -> int:
    """The launcher's whole life. Returns the exit code."""
    signals = StopSignals()
    directory: Path | None = None
    service: LocalService | None = None
    try:
        make = MakeWatch()
        config = load(config_path, port)
        check_port(config["http_options"]["port"])
        adopt_orphans()
        # Not where TMPDIR points: the paths of Ray's sockets must stay short.
        directory = Path(tempfile.mkdtemp(prefix="manta-", dir="/tmp"))
        print(f"Manta: starting {config_path}", flush=True)
        phases = Phases()
        service = LocalService(config, directory, make)
        service.start(phases, timeout_s)
        print(banner(service, phases.total_s), flush=True)
        service.watch()
        return 0
    except StopRequested:
        print("\nManta: stopping; once more to stop at once", flush=True)
        return 0
    except (LaunchError, ConfigFileError, ConfigRefusedError, HeadUnavailableError) as error:
        print(f"Manta: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        stop(service, directory, signals)


def stop(service: LocalService | None, directory: Path | None, signals: StopSignals) -> None:
    """Drains, ends every process, removes every file; says so if one resists."""
    started = time.monotonic()
    try:
        if service is not None and not service.head.has_ended():
            service.head.shut_down_serve(DRAIN_S)
    except HeadUnavailableError:
        pass  # nothing to drain: it is not up, or hangs; either way its processes end below
    except StopRequested:
        print("Manta: stopping at once", flush=True)
    signals.ignore()
    if directory is None:
        return
    for process in stop_descendants(grace_s=TERM_S, deadline_s=KILL_S):
        print(f"Manta: process {process.pid} does not end", file=sys.stderr, flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    print(f"Manta: stopped in {time.monotonic() - started:.1f} s", flush=True)


def banner(service: LocalService, seconds: float) -> str:
    body = '{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    return f"""Manta: ready after {seconds:.1f} s
  API        {service.url}/v1
  dashboard  http://{LOOPBACK}:{service.ports.dashboard}  (asks for a token: {service.head.token})
  logs       {service.head.logs}

  curl -N {service.url}/v1/chat/completions -H 'Authorization: Bearer sk-manta-dev' \\
    -H 'Content-Type: application/json' -d '{body}'

Ctrl-C stops everything."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.local.launch",
        description="Runs the whole service on this machine until Ctrl-C: Ray, Serve and every model.",
        epilog="Example: python -m cluster.local.launch --config deployments/dev.yaml --port 8001",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("deployments/dev.yaml"), help="a Serve config (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, help="the API's port, instead of the config's")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="give up after S seconds (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    return run(options.config, options.port, options.timeout)


if __name__ == "__main__":
    sys.exit(main())
