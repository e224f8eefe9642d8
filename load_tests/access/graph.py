"""The graph of dev.yaml with its tier ``fast``, several routers and a Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.api import EngineStats
from load_tests.access.engines import FailingFactory
from load_tests.local_graph import TIER, LocalGraph, dev_arguments, run_application


class Graph(LocalGraph):
    """A running graph with one replica, which fails requests as asked. See LocalGraph."""

    def __init__(self, routers: int, redis_url: str, journal: Path) -> None:
        arguments = _arguments(routers, redis_url, journal)
        super().__init__(lambda port: run_application(arguments, FailingFactory()))

    def stats(self) -> EngineStats:
        """Returns the statistics of the engine of the one replica."""
        (replica,) = self.describe()
        return replica.stats


def _arguments(routers: int, redis_url: str, journal: Path) -> dict[str, Any]:
    arguments = dev_arguments()
    prices = {**arguments["router"]["prices"], "tiers": {TIER: {"input": 1, "output": 1}}}
    return {
        **arguments,
        "router": {**arguments["router"], "prices": prices, "cache": {}},  # each answer is to be generated
        "embedder": None,
        "safety": {},  # which would hold the text until the engine has finished
        "cache": None,
        "small_models": None,
        "ingress": {**arguments["ingress"], "replicas": routers},
        "state": {"url": redis_url, "journal": str(journal)},
    }
