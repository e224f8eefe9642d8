"""The launcher behind ``make serve``: runs a whole service on this machine, in the foreground.

It starts a Ray head in a temporary directory, deploys the Serve config through Ray's REST API, waits until ``/healthz``
answers 200, and then waits until it is stopped. It shares nothing with other Ray clusters. When it ends, all processes
that it started have ended, whether it was stopped by Ctrl-C or SIGTERM, or the start failed. A second Ctrl-C skips the
draining.
"""

from __future__ import annotations

import argparse
import json
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

from cluster.local.admin_key import with_admin_key
from cluster.local.environment import (
    LOOPBACK,
    LocalPorts,
    NoFreePortsError,
    is_free,
    local_environment,
    prepare_directory,
)
from cluster.local.make_interrupt import MakeWatch
from cluster.local.process_tree import adopt_orphans, stop_descendants
from cluster.local.ray_head import ConfigRefusedError, HeadUnavailableError, RayHead
from cluster.local.redis_server import RedisMissingError, RedisServer
from cluster.local.serve_config_loader import (
    ConfigFileError,
    example_model,
    load,
    needs_state,
    optional_models,
    with_state,
)
from engine.model.location import ModelNotFoundError, locate

POLL_S = 0.25  # between two checks of a condition
DRAIN_S = 30.0
"""Seconds that Serve may take to finish its streams and shut down. Then the processes are ended."""
TERM_S = 3.0  # after SIGTERM, until SIGKILL
KILL_S = 10.0  # after SIGTERM, until a process counts as unkillable
ECHO_S = 1.0
"""Seconds after the first signal in which others are ignored: make repeats a signal that the terminal has sent."""
LOG_LINES = 15  # of the head's log that an error shows
REPORT_CHARACTERS = 1000  # of a deployment's message that are printed


class LaunchError(RuntimeError):
    """The service cannot start, or has ended. The message is printed at the terminal."""


REPORTED = (
    LaunchError,
    ConfigFileError,
    ConfigRefusedError,
    HeadUnavailableError,
    NoFreePortsError,
    RedisMissingError,
)
"""Errors whose message says enough; they are printed without a traceback."""


class StopRequested(BaseException):
    """SIGINT, SIGTERM or SIGHUP has arrived. A BaseException, so that no ``except Exception`` catches it."""


class StopSignals:
    """The handler of SIGINT, SIGTERM and SIGHUP. It raises StopRequested, wherever the main thread is at that moment.

    Creating it installs it.
    """

    def __init__(self) -> None:
        self._first_at: float | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._arrived)

    def ignore(self) -> None:
        """Ignores SIGINT, SIGTERM and SIGHUP from now on."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is not None and now - self._first_at < ECHO_S:
            return
        self._first_at = now
        raise StopRequested


class Phases:
    """The phases of the start. Each is printed when it begins, and with its seconds when it has ended."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Prints and times the phase ``name``, which lasts as long as the context is open."""
        started = time.monotonic()
        print(f"  {name} ...", flush=True)
        yield
        print(f"  {name}: {time.monotonic() - started:.1f} s", flush=True)

    @property
    def total_s(self) -> float:
        """The seconds since the first phase began."""
        return time.monotonic() - self._start


class LocalService:
    """One service on this machine: a Ray head with one Serve application, and a Redis if the config names none.

    ``config`` is a complete Serve config. ``directory`` is empty; the service keeps all its files there. Creating the
    object chooses free ports and writes files, but starts no process; it raises NoFreePortsError if there are no free
    ports. The function ``stop`` ends the processes.
    """

    def __init__(self, config: dict[str, Any], directory: Path, make: MakeWatch) -> None:
        self._make = make
        self._last_refusal = ""
        self._reported: set[str] = set()
        self.ports = LocalPorts.free(api=config["http_options"]["port"])
        prepare_directory(directory)
        self.head = RayHead(directory, self.ports, local_environment(directory, self.ports))
        self.redis: RedisServer | None = None
        self.config = config
        if any(needs_state(application) for application in config["applications"]):
            self.redis = RedisServer(directory / "redis", self.ports.redis)
            self.config = with_state(config, self.redis.url_file, directory / "journal")
        self.url = f"http://{LOOPBACK}:{config['http_options']['port']}"

    def start(self, phases: Phases, timeout_s: float) -> None:
        """Starts Ray, deploys the config and waits until the service is ready.

        Raises LaunchError if that fails or takes longer than ``timeout_s``, StopRequested, and what ``RayHead`` raises.
        """
        deadline = time.monotonic() + timeout_s
        if self.redis is not None:
            self.redis.start()
        with phases.phase("Ray"):
            self.head.start()
            self._wait(self._head_answers, deadline)
        with phases.phase("Serve"):
            self.head.deploy(self.config)
        with phases.phase("application"):
            self._wait(self._is_ready, deadline)

    def missing_models(self) -> dict[str, str]:
        """Returns each optional model that is not on this machine, by what the service has started without."""
        return {name: model for name, model in optional_models(self.config).items() if not is_here(model)}

    def watch(self) -> None:
        """Waits for the end of the service and never returns.

        Raises LaunchError if the Ray head ends by itself, and StopRequested if make is interrupted or a signal arrives.
        """
        self._wait(lambda: False, float("inf"))

    def _wait(self, condition: Callable[[], bool], deadline: float) -> None:
        """Waits until ``condition`` is true. Raises LaunchError after ``deadline``, in monotonic seconds."""
        while not condition():
            if self._make.wants_stop():
                raise StopRequested
            if self.redis is not None and self.redis.keep_running():
                print(f"Manta: Redis has ended and is started again; see {self.redis.log}", flush=True)
            if self.head.has_ended():
                raise LaunchError(f"Ray has ended unexpectedly. Its last words:\n{tail(self.head.log)}")
            if time.monotonic() > deadline:
                raise LaunchError(f"not ready in time:\n{self._state()}")
            time.sleep(POLL_S)

    def _head_answers(self) -> bool:
        """Whether Ray's REST API answers."""
        try:
            self.head.details()
        except HeadUnavailableError as error:
            self._last_refusal = str(error)
            return False
        return True

    def _is_ready(self) -> bool:
        """Whether /healthz answers 200. Raises LaunchError if Serve has given up on the application."""
        if answers_ok(f"{self.url}/healthz"):
            return True
        for name, application in self._applications().items():
            if application["status"] == "DEPLOY_FAILED":
                raise LaunchError(f"application {name!r} does not start:\n{explain(application)}")
            self._report(application)
        return False

    def _report(self, application: dict[str, Any]) -> None:
        """Prints Serve's messages about deployments that are slow or fail, each once. Serve retries them by itself."""
        for name, deployment in application.get("deployments", {}).items():
            lines = deployment.get("message", "").strip().splitlines() or [""]
            # The first line, up to "Error:", says what failed. The last one says why. Between them is a traceback.
            text = f"    {name}: {' '.join(dict.fromkeys([lines[0].partition(' Error:')[0], lines[-1]]))}"
            if lines[0] and text not in self._reported:
                self._reported.add(text)
                print(text[:REPORT_CHARACTERS], flush=True)

    def _applications(self) -> dict[str, Any]:
        """Returns Serve's status of each application, by name; nothing if the head does not answer."""
        try:
            return dict(self.head.details().get("applications", {}))
        except HeadUnavailableError:
            return {}

    def _state(self) -> str:
        """Returns why the service is not ready, for an error message."""
        states = [f"{name}: {explain(application)}" for name, application in self._applications().items()]
        return "\n".join(states) or self._last_refusal


def explain(application: dict[str, Any]) -> str:
    """Returns the reason why an application is not running: its status and message, and those of its unhealthy
    deployments. ``application`` is its description from Serve's REST API."""
    messages = [f"{application['status']} {application.get('message', '')}".rstrip()]
    messages += [
        f"{name}: {deployment['status']} {deployment.get('message', '')}".rstrip()
        for name, deployment in application.get("deployments", {}).items()
        if deployment["status"] != "HEALTHY"
    ]
    return "\n".join(messages)


def is_here(model: str) -> bool:
    """Returns whether the files of ``model`` are on this machine, as the application looks for them."""
    try:
        locate(model)
    except ModelNotFoundError:
        return False
    return True


def answers_ok(url: str) -> bool:
    """Returns whether a GET of ``url`` answers 200 within 2 seconds. Proxy settings in the environment are ignored."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def tail(path: Path, lines: int = LOG_LINES) -> str:
    """Returns the last lines of a text file; "(nothing)" if it does not exist."""
    if not path.exists():
        return "(nothing)"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def check_port(port: int) -> None:
    """Raises LaunchError if no server can bind ``port`` on loopback."""
    if not is_free(port):
        raise LaunchError(f"port {port} is in use; choose another with `make serve PORT=...` or --port")


def run(config_path: Path, port: int | None, timeout_s: float) -> int:
    """Starts the service, waits until it is stopped, and ends all its processes. Returns the exit code: 0 after a
    signal, 1 after an error.

    ``port`` None: the config's. ``timeout_s`` is the longest time in seconds that the start may take. Raises OSError as
    ``adopt_orphans`` does.
    """
    signals = StopSignals()
    directory: Path | None = None
    service: LocalService | None = None
    try:
        make = MakeWatch()
        config, admin_key = with_admin_key(load(config_path, port))
        check_port(config["http_options"]["port"])
        adopt_orphans()
        # Not in TMPDIR, since the paths of Ray's sockets must be short.
        directory = Path(tempfile.mkdtemp(prefix="manta-", dir="/tmp"))
        print(f"Manta: starting {config_path}", flush=True)
        phases = Phases()
        service = LocalService(config, directory, make)
        service.start(phases, timeout_s)
        print(banner(service, phases.total_s), flush=True)
        if admin_key is not None:
            print(f"\nThe config has no admin key. Until the end, this one is: {admin_key}", flush=True)
        service.watch()
        return 0
    except StopRequested:
        print("\nManta: stopping; once more to stop at once", flush=True)
        return 0
    except REPORTED as error:
        print(f"Manta: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        stop(service, directory, signals)


def stop(service: LocalService | None, directory: Path | None, signals: StopSignals) -> None:
    """Drains the service, ends all its processes and removes its directory. Prints the processes that do not end.
    ``service`` or ``directory`` None: it was not made yet.

    StopRequested ends the draining early. Afterwards signals are ignored.
    """
    started = time.monotonic()
    try:
        if service is not None and not service.head.has_ended():
            service.head.shut_down_serve(DRAIN_S)
    except HeadUnavailableError:
        pass  # the head does not run yet, or hangs: nothing is drained, and its processes end below
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
    """Returns the message for a service that is ready after ``seconds``: its addresses and an example request."""
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    model = example_model(service.config)
    body = json.dumps({"model": model, "stream": True, "temperature": 0, "messages": messages})
    missing = "".join(
        f"\n  without {name}: {model} is not there; `make install` brings it where it can be had"
        for name, model in service.missing_models().items()
    )
    return f"""Manta: ready after {seconds:.1f} s
  API        {service.url}/v1
  dashboard  http://{LOOPBACK}:{service.ports.dashboard}  (asks for a token: {service.head.token})
  logs       {service.head.logs}{missing}

  curl -N {service.url}/v1/chat/completions -H 'Authorization: Bearer sk-manta-dev' \\
    -H 'Content-Type: application/json' -d '{body}'

Ctrl-C stops everything."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the launcher with command line ``arguments``; None: those of the process. Returns the exit code."""
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
