"""The router's application over a real engine, each in a process of its own: ``python -m load_tests.overload.server``.

Prints its port on a line when it listens. Ends with its standard input, so that it never outlives its parent.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from cluster.process_memory import spare_collector
from load_tests.engine_process_backend import EngineProcessBackend
from load_tests.overload.traffic import CLASSES, TENANTS, key_of
from load_tests.simulation.profile import PROFILES
from router.app_factory import build_app
from router.config.admission import AdmissionConfig, ClassAdmission
from router.config.keys import KeyConfig
from router.config.router import RouterConfig

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "deployments" / "models" / "fast"
ROWS = 8
"""Sequences that run at once. Few, so that ten times the engine's capacity is a load that the router can receive."""


def router_config(*, admission: bool) -> RouterConfig:
    """Returns the settings: the objectives of CLASSES, and nothing else that takes time."""
    classes = {
        each.name: ClassAdmission(ttft_s=each.objective_s if each.refuses else None, max_requests=each.queue)
        for each in CLASSES
    }
    return RouterConfig(
        keys=tuple(KeyConfig(key=key_of(tenant), tenant=tenant, team="load") for tenant in TENANTS),
        auto=None,
        admission=AdmissionConfig(enabled=admission, **classes),
    )


@contextmanager
def serving(*, admission: bool, rows: int = ROWS, stretched: str | None = None) -> Iterator[str]:
    """Starts the server, and yields its address, such as http://127.0.0.1:1234/v1. Stops it at the end. ``stretched``
    is the profile (``PROFILES``) whose times its forward passes take; None: their own. Raises RuntimeError if it does
    not start."""
    command = [sys.executable, "-m", "load_tests.overload.server", "--rows", str(rows)]
    command += [] if admission else ["--without"]
    command += [] if stretched is None else ["--stretched", stretched]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise RuntimeError("the server did not start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", action="store_true", help="without admission")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--stretched", choices=PROFILES, help="the profile whose times forward passes take")
    options = parser.parse_args()
    backend = EngineProcessBackend(
        str(MODEL),
        PROFILES.get(options.stretched),
        dtype="float32",
        threads=1,
        max_sequences=options.rows,
        max_waiting=100_000,
    )
    app = build_app(router_config(admission=not options.without), backend)
    # asyncio sends small writes at once (TCP_NODELAY) only on sockets that name their protocol.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    settings = uvicorn.Config(app, log_level="error", lifespan="on", access_log=False, timeout_keep_alive=120)
    server = uvicorn.Server(settings)

    def end() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    spare_collector()  # as the deployment Router does
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])  # on uvloop where it is installed, as Ray's workers


if __name__ == "__main__":
    main()
