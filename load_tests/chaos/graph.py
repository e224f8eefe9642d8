"""The graph of dev.yaml with several replicas of its tier ``fast``."""

from __future__ import annotations

import time
from typing import Any

import psutil
from ray.exceptions import RayError

from load_tests.chaos.engines import PacedFactory
from load_tests.local_graph import READY_S, LocalGraph, dev_arguments

KEY = "sk-manta-dev"
SETTLE_S = 1.0  # after the replicas answer, until the router has its lanes to them


class Graph(LocalGraph):
    """A running graph of ``replicas``, whose engine steps take at least ``step_s`` seconds. See LocalGraph."""

    def __init__(self, replicas: int, step_s: float) -> None:
        super().__init__(arguments(replicas), PacedFactory(step_s))
        self._replicas = replicas

    def wait_until_ready(self) -> list[int]:
        """Returns the process ids of the tier's replicas once all are there and the service says that it is ready.
        Raises TimeoutError after READY_S."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            pids = self.replica_pids()
            if len(pids) == self._replicas and self.healthy():
                time.sleep(SETTLE_S)
                return pids
            time.sleep(0.2)
        raise TimeoutError(f"the graph was not ready within {READY_S:g} s")

    def replica_pids(self) -> list[int]:
        """Returns the processes of the tier's replicas that answer; none while one of those that Serve lists does
        not. All are descendants of this process."""
        try:
            pids = [each.pid for each in self.describe()]
        except (RayError, TimeoutError):
            return []
        own = {child.pid for child in psutil.Process().children(recursive=True)}
        return sorted(pid for pid in pids if pid in own)


def arguments(replicas: int) -> dict[str, Any]:
    """Returns the arguments of the application: dev.yaml's, with one tier and nothing that gives or changes answers
    beside its engine."""
    found = dev_arguments()
    return {
        "router": {**found["router"], "cache": {"enabled": False}},
        "ingress": found["ingress"],
        "tiers": [{**found["tiers"][0], "replicas": replicas}],
    }
