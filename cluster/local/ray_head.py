"""``RayHead``: a Ray head as a child process. Serve is controlled through Ray's REST API."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.local.environment import LOOPBACK, LocalPorts
from cluster.local.process_tree import die_with_parent

# Only small messages pass through Ray's object store; the tensors stay within the engines.
OBJECT_STORE_BYTES = 128 * 1024 * 1024

_APPLICATIONS = "/api/serve/applications/"


class HeadUnavailableError(RuntimeError):
    """The head's REST API did not answer, for example because the head is still starting, or answered with an error."""


class ConfigRefusedError(RuntimeError):
    """Serve refused the config; the message says why."""


class RayHead:
    """A Ray head with its dashboard, which serves the REST API.

    ``environment`` comes from ``local_environment`` with the same ``directory`` and ``ports``. The caller ends the
    process with ``process_tree.stop_descendants``.
    """

    def __init__(self, directory: Path, ports: LocalPorts, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._ports = ports
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        # Without proxies: requests to this machine must not go through the user's http_proxy.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def log(self) -> Path:
        """The file with the output of the head process."""
        return self._directory / "head.log"

    @property
    def logs(self) -> Path:
        """The directory with Ray's logs, those of all actors included."""
        return self._directory / "ray" / "session_latest" / "logs"

    @property
    def token(self) -> str:
        """The token for the dashboard, the REST API and Ray's command line."""
        return self._environment["RAY_AUTH_TOKEN"]

    def start(self) -> None:
        """Starts the process and returns at once, before the head answers. Called once. Raises OSError if it cannot be
        started."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                _command(self._directory, self._ports),
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches only the launcher, which stops all in order
                preexec_fn=die_with_parent,  # safe, because the launcher has no threads
            )

    def has_ended(self) -> bool:
        """Returns whether the process was started and has ended. False before ``start``."""
        return self._process is not None and self._process.poll() is not None

    def details(self) -> dict[str, Any]:
        """Returns Serve's status: applications, their deployments and replicas. Raises HeadUnavailableError if the REST
        API does not answer."""
        return dict(json.loads(self._call("GET", timeout_s=3.0) or b"{}"))

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Deploys a Serve config. Returns when Serve has accepted it, long before the application runs.

        Raises ConfigRefusedError if Serve refuses the config, and HeadUnavailableError if the REST API does not answer.
        """
        self._call("PUT", body=json.dumps(config).encode(), timeout_s=60.0)

    def shut_down_serve(self, timeout_s: float) -> None:
        """Drains and ends all applications, then Serve. Raises HeadUnavailableError if the REST API does not answer
        within ``timeout_s`` seconds."""
        self._call("DELETE", timeout_s=timeout_s)

    def _call(self, method: str, *, body: bytes | None = None, timeout_s: float) -> bytes:
        """Sends a request for Serve's applications to the REST API. Returns the body of the response."""
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
    """Returns the command line of ``ray start``, in the process that waits in its place."""
    return [
        sys.executable,
        "-m",
        "cluster.local.ray_head_process",
        sys.executable,
        "-m",
        "cluster.local.ray_start",
        "start",
        "--head",
        f"--temp-dir={directory / 'ray'}",
        f"--node-ip-address={LOOPBACK}",
        "--port=0",
        "--min-worker-port=0",  # any free ports, so that two services do not compete for Ray's default range
        "--max-worker-port=0",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent}",
        f"--metrics-export-port={ports.metrics}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
        "--include-log-monitor=false",  # it sends logs to the drivers that connect; there are none here
        "--no-monitor",  # of the autoscaler, which has no other nodes to start
        "--log-color=false",
    ]
