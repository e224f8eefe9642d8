"""``LocalGraph``: the service on a Ray cluster of this process, for benchmarks that look into its replicas."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import psutil
import ray
import yaml
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from cluster.replica.tier_replica import EngineFactory, ReplicaDescription
from load_tests.access.processes import ROOT, free_port

DEV = ROOT / "deployments" / "dev.yaml"
APP, TIER = "manta", "fast"
READY_S = 180.0
CALL_S = 10.0  # of a call to all replicas, one of which may hang

T = TypeVar("T")


class LocalGraph:
    """A running graph at ``url``.

    ``deploy`` gets the HTTP port, where Serve runs already, and deploys the application. ``start`` starts Ray.

    The caller has set the environment of ``cluster.local.environment`` before it imports this module, since Ray reads
    it then, and calls ``stop``. Raises TimeoutError if the graph does not start within READY_S.
    """

    def __init__(self, deploy: Callable[[int], None], start: Callable[[], None] | None = None) -> None:
        (start or start_ray)()
        # Serve handles belong to one event loop, which must run for as long as they live.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        deploy(port)
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Returns when the service says that it is ready. Raises TimeoutError after READY_S."""
        deadline = time.monotonic() + READY_S
        while not self.healthy():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the graph was not ready within {READY_S:g} s")
            time.sleep(0.2)

    def healthy(self) -> bool:
        """Returns whether the service says that it is ready."""
        return self.reached_replicas() > 0

    def reached_replicas(self) -> int:
        """Returns the number of the tier's replicas that a router has lanes to; 0 if the service is not ready."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as response:
                return int(json.load(response)["tiers"][TIER]["replicas"])
        except (urllib.error.URLError, OSError):
            return 0

    def describe(self) -> list[ReplicaDescription]:
        """Returns what each replica of the tier says of itself. Raises what Ray raises for a replica that is lost, and
        TimeoutError after CALL_S."""

        async def calls() -> list[ReplicaDescription]:
            handle = serve.get_deployment_handle(TIER, APP)
            return list(await asyncio.wait_for(handle.broadcast("describe").results_async(), CALL_S))

        return self._run(calls())

    def router_pids(self) -> list[int]:
        """Returns the processes of the routers."""
        return actor_pids(f"ServeReplica:{APP}:Router")

    def stop(self) -> None:
        """Ends all processes of the graph."""
        serve.shutdown()
        ray.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=2 * CALL_S)


def start_ray(**more: Any) -> None:
    """Starts a Ray cluster of one node. ``more`` are further arguments of ``ray.init``."""
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
        **more,
    )


def run_application(arguments: dict[str, Any], make_engine: EngineFactory) -> None:
    """Deploys the application of ``cluster.app`` with the engines of ``make_engine``. Returns when it runs."""
    serve.run(build_with(MantaConfig.model_validate(arguments), make_engine), name=APP, route_prefix="/")


def actor_pids(name: str) -> list[int]:
    """Returns the processes of the actors whose name begins with ``name``, which are descendants of this process."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if _title(child).startswith(f"ray::{name}")]


def dev_arguments() -> dict[str, Any]:
    """Returns the arguments of the application in deployments/dev.yaml, with the tier TIER alone and without ``auto``,
    which needs several."""
    deployed = yaml.safe_load(DEV.read_text(encoding="utf-8"))
    arguments: dict[str, Any] = deployed["applications"][0]["args"]
    router = arguments["router"]
    prices = {**router["prices"], "tiers": {TIER: router["prices"]["tiers"][TIER]}}
    return {
        **arguments,
        "router": {**router, "auto": None, "prices": prices},
        "tiers": [tier for tier in arguments["tiers"] if tier["name"] == TIER],
    }


def _title(process: psutil.Process) -> str:
    """Returns what a process calls itself; nothing if it has ended since it was listed."""
    try:
        return next(iter(process.cmdline()), "")
    except psutil.NoSuchProcess:
        return ""
