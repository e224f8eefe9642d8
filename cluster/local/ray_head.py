"""``RayHead``: a Ray head as a child process, with Serve controlled through Ray's REST interface."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.local.environment import LOOPBACK, LocalPorts
from cluster.local.process_tree import die_with_parent

# Messages of a few tensors at most pass through Ray's object store; the engines keep theirs to themselves.
OBJECT_STORE_BYTES = 128 * 1024 * 1024

_APPLICATIONS = "/api/serve/applications/"


class HeadUnavailableError(RuntimeError):
    """The head did not answer, as before it is up."""


class ConfigRefusedError(RuntimeError):
    """Serve does not take the config; the message says why."""


class RayHead:
    """One Ray head and its dashboard. Its caller ends it with ``process_tree.stop_descendants``."""

    def __init__(self, directory: Path, ports: LocalPorts, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._ports = ports
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        # No proxy: an http_proxy of the user must not see requests to this machine.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def log(self) -> Path:
        """What the head itself prints."""
        return self._directory / "head.log"

    @property
    def logs(self) -> Path:
        """Where Ray writes the logs of all actors."""
        return self._directory / "ray" / "session_latest" / "logs"

    @property
    def token(self) -> str:
        """What the dashboard and Ray's command line ask for."""
        return self._environment["RAY_AUTH_TOKEN"]

    def start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                _command(self._directory, self._ports),
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the launcher only, which then stops things in order
                preexec_fn=die_with_parent,  # the launcher has no threads, which is what makes this safe
            )

    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def details(self) -> dict[str, Any]:
        """What Serve runs and how it is: applications, their deployments, their replicas."""
        return dict(json.loads(self._call("GET", timeout_s=3.0) or b"{}"))

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Hands Serve the config; returns when it is accepted, long before it runs."""
        self._call("PUT", body=json.dumps(config).encode(), timeout_s=60.0)

    def shut_down_serve(self, timeout_s: float) -> None:
        """Drains and ends every application, and Serve itself."""
        self._call("DELETE", timeout_s=timeout_s)

    def _call(self, method: str, *, body: bytes | None = None, timeout_s: float) -> bytes:
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self._ports.dashboard}{_APPLICATIONS}",
            method=method,
            data=body,
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with self._http.open(request, timeout=timeout_s) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            message = error.read().decode(errors="replace")
            if method == "PUT" and error.code == 400:
                raise ConfigRefusedError(message) from error
            raise HeadUnavailableError(message) from error
        except OSError as error:
            raise HeadUnavailableError(str(error)) from error


def _command(directory: Path, ports: LocalPorts) -> list[str]:
    return [
        str(Path(sysconfig.get_path("scripts")) / "ray"),
        "start",
        "--head",
        "--block",  # stay in the foreground, and end what it started when it ends
        f"--temp-dir={directory / 'ray'}",
        f"--node-ip-address={LOOPBACK}",
        "--port=0",
        "--min-worker-port=0",  # whichever is free: two services on a machine never contend for Ray's default range
        "--max-worker-port=0",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent}",
        f"--metrics-export-port={ports.metrics}",
        f"--ray-client-server-port={ports.ray_client}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
        "--log-color=false",
    ]
