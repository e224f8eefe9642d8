"""The real HAProxy in front of routers of this process, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from tests.cluster.graph import eventually, free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class HeldFor:
    """The seconds for which HAProxy holds a client that does not finish its headers, and one that is idle."""

    header_s: int
    client_s: int


@contextmanager
def haproxy(directory: Path, backends: Sequence[int], held: HeldFor) -> Iterator[str]:
    """Yields the URL of an HAProxy with the config that Ray writes and our wrapper mends, in front of the routers at
    the ports ``backends`` of this machine."""
    port = free_port()
    settings = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        socket_path=str(directory / "admin.sock"),
        server_state_base=str(directory),
        server_state_file=str(directory / "state"),
        stats_port=free_port(),
        metrics_port=free_port(),
        metrics_enabled=False,
        timeout_client_s=held.client_s,
        is_head=True,
        has_received_routes=True,
        has_received_servers=True,
    )
    servers = [ServerConfig(f"router-{place}", "127.0.0.1", each) for place, each in enumerate(backends)]
    app = BackendConfig("http-manta", "/", http_health_check_path="/v1/models", servers=servers, app_name="manta")
    path = directory / "haproxy.cfg"
    HAProxyApi(settings, {"http-manta": app}, str(path))._generate_config_file_internal()
    # The router asks for a key, so that its answer to a health check is not 200.
    path.write_text(path.read_text().replace("http-check expect status 200", "http-check expect status 401"))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MANTA_HAPROXY_HEADER_TIMEOUT_S": str(held.header_s),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(held.client_s),
    }
    command = [str(ROOT / "deployments" / "haproxy"), "-db", "-f", str(path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: _answers(url), "HAProxy answers")
            yield url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models", timeout=1).status_code == 401
    except httpx.TransportError:
        return False
