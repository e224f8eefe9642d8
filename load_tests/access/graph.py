"""The graph of dev.yaml with its tier ``fast``, several routers and a Redis, on a Ray cluster of this process."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from engine.api import EngineStats
from load_tests.access.engines import FailingFactory
from load_tests.access.processes import ROOT, free_port

DEV = ROOT / "deployments" / "dev.yaml"
APP = "manta"
PRICE = {"input": 1.0, "output": 1.0}
READY_S = 180.0


class Graph:
    """A running graph at ``url``. The caller has set the environment of ``cluster.local.environment`` before it imports
    this module, since Ray reads it then, and calls ``stop``. Raises TimeoutError if it does not start."""

    def __init__(self, routers: int, redis_url: str, journal: Path) -> None:
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
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        config = MantaConfig.model_validate(_arguments(routers, redis_url, journal))
        serve.run(build_with(config, FailingFactory()), name=APP, route_prefix="/")
        self._wait_until_ready()

    def router_pids(self) -> list[int]:
        """Returns the processes of the routers."""
        name = f"ray::ServeReplica:{APP}:Router"
        return [child.pid for child in psutil.Process().children(recursive=True) if _title(child).startswith(name)]

    def stats(self) -> EngineStats:
        """Returns the statistics of the engine of the one replica."""
        handle = serve.get_deployment_handle("fast", APP)

        async def describe() -> list[Any]:
            return list(await handle.broadcast("describe").results_async())

        (replica,) = asyncio.run_coroutine_threadsafe(describe(), self._loop).result(timeout=60)
        stats: EngineStats = replica.stats
        return stats

    def stop(self) -> None:
        """Ends all processes of the graph."""
        serve.shutdown()
        ray.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise TimeoutError(f"the graph was not ready within {READY_S:g} s")


def _arguments(routers: int, redis_url: str, journal: Path) -> dict[str, Any]:
    """Returns the arguments of the application."""
    deployed = yaml.safe_load(DEV.read_text(encoding="utf-8"))
    arguments: dict[str, Any] = deployed["applications"][0]["args"]
    router = arguments["router"]
    fast = next(tier for tier in arguments["tiers"] if tier["name"] == "fast")
    return {
        **arguments,
        "router": {
            **router,
            "auto": None,
            "prices": {**router["prices"], "tiers": {"fast": {"input": 1, "output": 1}}},
        },
        "embedder": None,
        "tiers": [fast],
        "ingress": {**arguments["ingress"], "replicas": routers},
        "state": {"url": redis_url, "journal": str(journal)},
    }


def _title(process: psutil.Process) -> str:
    try:
        return next(iter(process.cmdline()), "")
    except psutil.NoSuchProcess:
        return ""
