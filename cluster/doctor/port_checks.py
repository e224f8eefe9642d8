"""Checks of ports that should not be open: to the network without a token, or to a machine outside. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.doctor.facts import Facts, HostFacts, NodeFacts
from cluster.doctor.finding import Finding, error, ok, warning
from cluster.doctor.port_facts import DASHBOARD, GCS, WATCHED

RUNS_CODE = frozenset({DASHBOARD, GCS, 10001, 52365})
"""Ports by which any client that reaches them can run code, unless the cluster has a token."""
TOKEN_REMEDY = "Start all nodes with RAY_AUTH_MODE=token and a token."
OPEN_REDIS = "takes commands without a password: who reaches it reads keys and answers, and changes limits"
REDIS_REMEDY = "Set requirepass or an ACL, and bind it to an address that only the nodes reach."


def port_findings(facts: Facts) -> Iterator[Finding]:
    """Yields the findings about ports of each machine that listen for the network, and about hosts that should have
    none open to this machine."""
    for node in [facts.here] if facts.nodes is None else facts.nodes:
        if node.listeners is not None:
            yield from _listening(node)
    if facts.redis_open is not None:
        name, is_open = "password of redis", facts.redis_open
        yield error(name, f"Redis {OPEN_REDIS}", REDIS_REMEDY) if is_open else ok(name, "Redis asks for one")
    for host in facts.hosts:
        yield from _closed(host)


def _listening(node: NodeFacts) -> Iterator[Finding]:
    """Yields what is wrong with the ports of a node, or that nothing is."""
    has_token = node.variables.get("RAY_AUTH_MODE") == "token" if node.jobs_open is None else not node.jobs_open
    found = [_listener(node, port, address, has_token=has_token) for port, address in (node.listeners or {}).items()]
    wrong = [each for each in found if each is not None]
    if node.jobs_open and not wrong:
        seen = "Ray's API of jobs answers without a token: every process of this machine can run code"
        wrong.append(warning(f"port {DASHBOARD} of {node.node}", seen, TOKEN_REMEDY))
    yield from wrong or [ok(f"listeners of {node.node}", "no port is open to the network that should not be")]


def _listener(node: NodeFacts, port: str, address: str, *, has_token: bool) -> Finding | None:
    """Returns what is wrong with a port that listens for the network; None: nothing, or a NetworkPolicy's matter."""
    if int(port) not in RUNS_CODE:
        return None  # Prometheus and HAProxy of other nodes need it
    name, what = f"port {port} of {node.node}", WATCHED[int(port)]
    if int(port) == GCS and node.redis_open is not None:
        return error(name, f"Redis listens on {address}, and {OPEN_REDIS}", REDIS_REMEDY) if node.redis_open else None
    if not has_token:
        seen = f"{what} listens on {address} without a token: any client that reaches it can run code"
        return error(name, seen, f"{TOKEN_REMEDY} {_closing(int(port))}")
    if int(port) == DASHBOARD and not node.in_pod:
        seen = f"{what} listens on {address}: the token alone protects it"
        return warning(name, seen, _closing(DASHBOARD))
    return None


def _closing(port: int) -> str:
    if port == DASHBOARD:
        return "Start the head with --dashboard-host=127.0.0.1, and reach it by an SSH tunnel or port-forward."
    return "Let only the cluster's nodes reach it, by a firewall or a NetworkPolicy."


def _closed(host: HostFacts) -> Iterator[Finding]:
    """Yields the ports of a host that this machine reaches and should not."""
    for port in host.ports:
        name = f"closed port {port} of {host.host}"
        if host.redis_open.get(port):
            yield error(name, f"Redis {OPEN_REDIS}", REDIS_REMEDY)
        elif port in host.redis_open:
            yield error(name, "Redis can be reached from here: its password alone protects it", REDIS_REMEDY)
        elif port == DASHBOARD and host.jobs_open:
            seen = "Ray's API of jobs answers without a token: anyone there can run code on every node"
            yield error(name, seen, f"{TOKEN_REMEDY} {_closing(port)}")
        else:
            seen = f"{WATCHED.get(port, 'Redis')} can be reached from here"
            yield error(name, seen, _closing(port) if port in RUNS_CODE else _only_for(port))
    if not host.ports:
        yield ok(f"closed ports of {host.host}", "none can be reached from here")


def _only_for(port: int) -> str:
    who = "HAProxy on the cluster's nodes" if port == 8500 else "Prometheus" if port in WATCHED else "the nodes"
    return f"Let only {who} reach it, by a firewall or a NetworkPolicy."
