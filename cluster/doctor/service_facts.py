"""``port_facts`` and ``running_facts``: asks what listens, and what Serve runs, over HTTP and within deadlines."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from cluster.config import ROUTER
from cluster.doctor.facts import PortFacts, RunningFacts
from cluster.local.environment import LOOPBACK

ANSWER_S = 3.0
REDIS_USERS = (ROUTER, "SemanticCache", "SmallModels")
"""The deployments that ask Redis."""


def port_facts(port: int) -> PortFacts:
    """Returns whether a server listens on a port of loopback, and whether it is a healthy service."""
    with socket.socket() as probe:
        probe.settimeout(ANSWER_S)
        if probe.connect_ex((LOOPBACK, port)) != 0:
            return PortFacts(port, listening=False)
    try:
        with httpx.Client(trust_env=False, timeout=ANSWER_S) as http:
            answer = http.get(f"http://{LOOPBACK}:{port}/healthz")
    except httpx.HTTPError:
        return PortFacts(port, listening=True)
    return PortFacts(port, listening=True, healthy=answer.status_code == 200)


def running_facts(dashboard: str, token: str) -> RunningFacts:
    """Returns the applications that Serve runs, from the REST API of Ray's dashboard at the URL ``dashboard``.
    ``token`` is the cluster's; "": it has none. If the dashboard does not answer, the facts have the fault."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(trust_env=False, timeout=ANSWER_S, headers=headers) as http:
            answer = http.get(f"{dashboard.rstrip('/')}/api/serve/applications/")
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        applications: dict[str, Any] = document["applications"]
        proxies = {str(each["node_ip"]): str(each["status"]) for each in (document.get("proxies") or {}).values()}
        users = frozenset(_redis_users(applications))
    except httpx.HTTPStatusError as error:
        return RunningFacts(fault=f"Ray's dashboard answers {error.response.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return RunningFacts(fault=f"Ray's dashboard cannot be reached: {type(error).__name__}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return RunningFacts(fault="what answers there is not Ray's dashboard")
    return RunningFacts(
        arguments={
            name: ((each.get("deployed_app_config") or {}).get("args") or {}) for name, each in applications.items()
        },
        states={name: str(each.get("status")) for name, each in applications.items()},
        proxies=proxies,
        redis_users=users,
    )


def _redis_users(applications: Mapping[str, Any]) -> Iterator[str]:
    """Yields the address of the node of each replica that needs Redis."""
    for application in applications.values():
        deployments = application.get("deployments") or {}
        for name in REDIS_USERS:
            for replica in (deployments.get(name) or {}).get("replicas") or ():
                yield str(replica["node_ip"])
