"""The graph of dev.yaml with several replicas of its tier ``fast``, and the faults that it can suffer."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import serve
from ray._private.worker import global_worker
from ray.cluster_utils import Cluster
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from load_tests.local_graph import APP, READY_S, LocalGraph, actor_pids, dev_arguments, start_ray

KEY = "sk-manta-dev"
SETTLE_S = 0.5  # after all are there, until nothing is being started any more
SEAT = "chaos_seat"
"""A resource of which each worker node has one, and each replica needs one."""
ROUTER_DRAIN_S = 90.0
ROOMY = {"ttft_s": 86_400.0, "max_requests": 1_000_000, "max_tokens": 1_000_000_000}
"""The terms of a scheduling class whose requests are admitted and counted, and never refused."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a graph is started. ``step_s``: the shortest step of an engine, in seconds. ``drain_s``: the time of a
    replica to finish its streams when it is to stop. ``kills``: an empty directory, through which engines are killed;
    None: they are not. ``own_nodes``: each replica has a node of its own. ``gcs_redis``: the URL where the GCS keeps
    its state; None: in its memory. ``state_redis``: where the routers share theirs; None: there is one router.
    ``router``: settings of the routers beside those of ``arguments``."""

    replicas: int
    step_s: float
    drain_s: float
    kills: Path | None = None
    own_nodes: bool = False
    gcs_redis: str | None = None
    state_redis: str | None = None
    router: Mapping[str, Any] = field(default_factory=dict)


class Graph(LocalGraph):
    """A running graph. The tier's deployment can be changed while it runs. See LocalGraph."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._port = 0
        self._overrides: dict[str, dict[str, Any]] = {}  # of options of deployments, by their name
        self._cluster: Cluster | None = None
        self._arguments = arguments(setup)
        super().__init__(self._deploy, self._start)

    @property
    def replicas(self) -> int:
        """The number of replicas of the tier, unless it is scaled down at the moment."""
        return self._setup.replicas

    def wait_until_ready(self) -> list[int]:
        """Returns the process ids of the tier's replicas once all are there and the service says that it is ready.
        Raises TimeoutError after READY_S."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            pids = self.replica_pids()
            # Without lanes to all of them the victim might have no streams.
            if len(pids) == self.reached_replicas() == self._setup.replicas and self.running():
                time.sleep(SETTLE_S)
                return pids
            time.sleep(0.2)
        raise TimeoutError(f"the graph was not ready within {READY_S:g} s")

    def running(self) -> bool:
        """Returns whether Serve has brought about what was deployed."""
        try:
            status = serve.status().applications.get(APP)
        except RayError:  # the controller is being started again
            return False
        return status is not None and status.status is ApplicationStatus.RUNNING

    def replica_pids(self) -> list[int]:
        """Returns the processes of the tier's replicas that answer; none while one of those that Serve lists does
        not. All are descendants of this process."""
        try:
            pids = [each.pid for each in self.describe()]
        except (RayError, TimeoutError):
            return []
        own = {child.pid for child in psutil.Process().children(recursive=True)}
        return sorted(pid for pid in pids if pid in own)

    def unfinished(self) -> int:
        """Returns the number of sequences that the engines of the tier run or have in their queues. Raises as
        ``describe`` does."""
        return sum(each.stats.running + each.stats.waiting for each in self.describe())

    def controller_pid(self) -> int:
        """Returns the process of Serve's controller."""
        return actor_pids("ServeController")[0]

    def change(self, deployment: str, **options: Any) -> None:
        """Deploys the application again with other options of one deployment. Returns when Serve has accepted them."""
        self._overrides[deployment] = {**self._overrides.get(deployment, {}), **options}
        self._deploy(self._port)

    def kill_engine(self, pid: int) -> None:
        """Ends the thread of the engine in the process ``pid`` with its next step."""
        assert self._setup.kills is not None, "engines cannot be killed"
        (self._setup.kills / str(pid)).touch()

    def spare_engine(self, pid: int) -> None:
        """Lets the engine in the process ``pid`` live, if it has made no step since ``kill_engine``."""
        assert self._setup.kills is not None, "engines cannot be killed"
        (self._setup.kills / str(pid)).unlink()

    def kill_node(self, pid: int) -> None:
        """Kills the node of the process ``pid``. Raises ValueError if it is on no worker node."""
        assert self._cluster is not None, "the graph has one node"
        nodes = [node for node in self._cluster.worker_nodes if pid in _descendants(node)]
        if not nodes:
            raise ValueError(f"process {pid} is on no worker node")
        for each in _descendants(nodes[0]).values():
            each.kill()
        self._cluster.remove_node(nodes[0], allow_graceful=False)

    def add_node(self) -> None:
        """Adds a node for one replica. Must be called in the main thread, since Ray sets signal handlers."""
        assert self._cluster is not None, "the graph has several nodes"
        self._cluster.add_node(
            num_cpus=0,
            resources={SEAT: 1},
            node_ip_address="127.0.0.1",
            object_store_memory=80 * 2**20,
            include_dashboard=False,
        )

    def restart_gcs(self, down_s: float) -> None:
        """Kills the GCS, and starts another one ``down_s`` seconds later."""
        node = global_worker.node
        assert node is not None, "Ray runs"
        node.kill_gcs_server()
        time.sleep(down_s)

        async def start() -> None:
            node.start_gcs_server()

        # Linux ends it with the thread that has started it, and the caller's may be a short one.
        self._run(start())

    def reload_haproxy(self) -> None:
        """Has Serve reload HAProxy as it does when routers come and go. Returns when the new process has taken over."""
        node_id = next(node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
        manager = ray.get_actor(f"SERVE_PROXY_ACTOR-{node_id}", namespace="serve")
        ray.get(manager._reload_haproxy.remote())

    def stop(self) -> None:
        """Ends all processes of the graph."""
        super().stop()
        if self._cluster is not None:
            self._cluster.shutdown()

    def _start(self) -> None:
        if self._setup.own_nodes:
            head = {"num_cpus": 4, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
            self._cluster = Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": 100 * 2**20})
            ray.init(address=self._cluster.address, log_to_driver=False, configure_logging=False)
            for _ in range(self._setup.replicas):
                self.add_node()
        elif self._setup.gcs_redis is not None:
            credentials, _, address = self._setup.gcs_redis.removeprefix("redis://:").rpartition("@")
            os.environ["RAY_REDIS_ADDRESS"] = address.partition("/")[0]
            start_ray(_redis_password=credentials)
        else:
            start_ray()

    def _deploy(self, port: int) -> None:
        self._port = port
        application = {
            "name": APP,
            "route_prefix": "/",
            "import_path": "load_tests.chaos.application:build",
            "args": {"manta": self._arguments, "step_s": self._setup.step_s, "kills": str(self._setup.kills or "")},
            "deployments": [{"name": name, **options} for name, options in self._overrides.items()],
        }
        options = {"host": "127.0.0.1", "port": port}
        config = {"proxy_location": "HeadOnly", "http_options": options, "applications": [application]}
        client = _get_global_client()
        assert client is not None, "Serve runs"
        client.deploy_apps(ServeDeploySchema.model_validate(config))


def arguments(setup: Setup) -> dict[str, Any]:
    """Returns the arguments of the application: dev.yaml's, with one tier and nothing that gives, changes or refuses
    answers beside its engine. The admission has room for all, since the mix comes at once, but keeps its books."""
    found = dev_arguments()
    tier = {**found["tiers"][0], "replicas": setup.replicas, "drain_timeout_s": setup.drain_s}
    if setup.own_nodes:
        tier["resources"] = {SEAT: 1}
    shared = setup.state_redis is not None
    return {
        "router": {**found["router"], "cache": {"enabled": False}, "admission": {"standard": ROOMY}, **setup.router},
        "ingress": {
            **found["ingress"],
            "replicas": 2 if shared else 1,
            "num_cpus": int(setup.own_nodes),  # with a CPU it is on the head, which alone has some
            "drain_timeout_s": ROUTER_DRAIN_S,
        },
        "state": {"url": setup.state_redis, "journal": tempfile.mkdtemp()} if shared else {},
        "tiers": [tier],
    }


def _descendants(node: Any) -> dict[int, psutil.Process]:
    """Returns the processes of a node and their descendants, by process id."""
    found: dict[int, psutil.Process] = {}
    for _, started in node.live_processes():
        process = psutil.Process(started.pid)
        found |= {each.pid: each for each in [process, *process.children(recursive=True)]}
    return found
