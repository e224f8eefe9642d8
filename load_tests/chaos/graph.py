"""The graph of dev.yaml with several replicas of its tier ``fast``, on a Ray cluster of this process."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine
from typing import Any, TypeVar

import psutil
import ray
import yaml
from ray import serve
from ray.exceptions import RayError

from cluster.app import build_with
from cluster.config import MantaConfig
from load_tests.access.processes import ROOT, free_port
from load_tests.chaos.engines import PacedFactory

DEV = ROOT / "deployments" / "dev.yaml"
APP, TIER, KEY = "manta", "fast", "sk-manta-dev"
READY_S = 120.0
SETTLE_S = 1.0  # after the replicas answer, until the router has its lanes to them
CALL_S = 10.0  # of a call to all replicas, one of which may hang

T = TypeVar("T")


class Graph:
    """A running graph at ``url``. The caller has set the environment of ``cluster.local.environment`` before it imports
    this module, since Ray reads it then, and calls ``stop``. Raises TimeoutError if it does not start."""

    def __init__(self, replicas: int, step_s: float) -> None:
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
        )
        # Serve handles belong to one event loop, which must run for as long as they live.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._replicas = replicas
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        config = MantaConfig.model_validate(arguments(replicas))
        serve.run(build_with(config, PacedFactory(step_s)), name=APP, route_prefix="/")
        self.wait_until_ready()

    def wait_until_ready(self) -> list[int]:
        """Returns the process ids of the tier's replicas once all are there and the service says that it is ready.
        Raises TimeoutError after READY_S."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            pids = self.replica_pids()
            if len(pids) == self._replicas and self._healthy():
                time.sleep(SETTLE_S)
                return pids
            time.sleep(0.2)
        raise TimeoutError(f"the graph was not ready within {READY_S:g} s")

    def replica_pids(self) -> list[int]:
        """Returns the processes of the tier's replicas that answer; none while one of those that Serve lists does
        not. All are descendants of this process."""
        try:
            pids = [each.pid for each in self._run(self._describe())]
        except (RayError, TimeoutError):
            return []
        own = {child.pid for child in psutil.Process().children(recursive=True)}
        return sorted(pid for pid in pids if pid in own)

    def router_pids(self) -> list[int]:
        """Returns the processes of the routers, which are descendants of this process."""
        name = f"ray::ServeReplica:{APP}:Router"
        return [child.pid for child in psutil.Process().children(recursive=True) if _title(child).startswith(name)]

    def stop(self) -> None:
        """Ends all processes of the graph."""
        serve.shutdown()
        ray.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    async def _describe(self) -> list[Any]:
        handle = serve.get_deployment_handle(TIER, APP)
        return list(await asyncio.wait_for(handle.broadcast("describe").results_async(), CALL_S))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=2 * CALL_S)


def arguments(replicas: int) -> dict[str, Any]:
    """Returns the arguments of the application: dev.yaml's, with one tier and nothing that gives or changes answers
    beside its engine."""
    deployed = yaml.safe_load(DEV.read_text(encoding="utf-8"))
    found: dict[str, Any] = deployed["applications"][0]["args"]
    router = found["router"]
    fast = next(tier for tier in found["tiers"] if tier["name"] == TIER)
    prices = {**router["prices"], "tiers": {TIER: router["prices"]["tiers"][TIER]}}
    return {
        "router": {**router, "auto": None, "cache": {"enabled": False}, "prices": prices},
        "ingress": found["ingress"],
        "tiers": [{**fast, "replicas": replicas}],
    }


def _title(process: psutil.Process) -> str:
    """Returns what a process calls itself; nothing if it has ended since it was listed."""
    try:
        return next(iter(process.cmdline()), "")
    except psutil.NoSuchProcess:
        return ""
