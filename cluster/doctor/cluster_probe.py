"""``python -m cluster.doctor.cluster_probe``: looks at each node of a Ray cluster by a task on it.

A process of its own, since a connection to Ray cannot be given up in time, and logs as it likes. It reads what to look
for as JSON from stdin, and prints the nodes as JSON in the last line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.config import StateConfig
from cluster.doctor.node_facts import node_facts
from cluster.doctor.node_reach import node_reach

LOOK_S = 30.0  # for all nodes together


def probe(
    address: str, models: list[str], directories: list[str], state: StateConfig | None, port: int | None
) -> list[dict[str, Any]]:
    """Returns the facts of each node that answers within LOOK_S seconds, as fields of ``NodeFacts``. For any other
    node, returns its name as ``node`` and the reason as ``fault``."""
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    alive = [each for each in ray.nodes() if each["Alive"]]
    nodes = {each["NodeID"]: each["NodeManagerAddress"] for each in alive}
    # Where no replica can run, as on the head, none needs Redis.
    states = {each["NodeID"]: state if each["Resources"].get("CPU") else None for each in alive}
    look, tell = ray.remote(num_cpus=0)(_look), ray.remote(num_cpus=0)(_now)
    pinned = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes}
    running = {
        node: look.options(scheduling_strategy=pinned[node]).remote(name, models, directories, states[node], port)
        for node, name in nodes.items()
    }
    ray.wait(list(running.values()), num_returns=len(running), timeout=LOOK_S)
    found = []
    for node, name in nodes.items():
        try:
            facts: dict[str, Any] = ray.get(running[node], timeout=0.1)
            began = time.time()
            there = ray.get(tell.options(scheduling_strategy=pinned[node]).remote(), timeout=LOOK_S)
            ended = time.time()
        except ray.exceptions.RayError as error:
            found.append({"node": name, "fault": type(error).__name__})
            continue
        facts |= {"clock_offset_s": there - (began + ended) / 2, "clock_error_s": (ended - began) / 2}
        found.append(facts)
    return found


def _look(
    node: str, models: list[str], directories: list[str], state: StateConfig | None, port: int | None
) -> dict[str, Any]:
    """Returns the fields of ``NodeFacts`` of the node that it runs on."""
    return asdict(node_facts(node, models, directories)) | node_reach(state, port)


def _now() -> float:
    return time.time()  # Ray takes no function of C


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    if asked["state"] is not None:
        asked["state"] = StateConfig.model_validate(asked["state"])
    sys.stdout.write("\n" + json.dumps(probe(**asked)) + "\n")
