"""``node_reach``: what the machine that it runs on reaches of the service. It runs as a Ray task on each node."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.config import StateConfig
from cluster.doctor.redis_facts import redis_facts
from cluster.doctor.service_facts import port_facts


def node_reach(state: StateConfig | None, port: int | None) -> dict[str, Any]:
    """Returns the members of ``NodeFacts`` that say whether Redis and the service are reached from this machine: the
    Redis of ``state``, as a router here would, and the proxy on this machine's ``port``. None: not asked for."""
    reach: dict[str, Any] = {}
    if state is not None and (redis := asyncio.run(redis_facts(state))) is not None:
        reach["redis_fault"] = redis.fault
    if port is not None:
        found = port_facts(port)
        reach |= {"listening": found.listening, "healthy": found.healthy}
    return reach
