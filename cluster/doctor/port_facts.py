"""``network_listeners``, ``open_ports`` and what answers there: ports that the network may reach and should not.

They run here, and as a Ray task on each node. Nothing is sent but what any client may send, within deadlines.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import httpx

from cluster.doctor.facts import HostFacts
from cluster.local.environment import LOOPBACK

ANSWER_S = 3.0
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTEN = "0A"  # the state of a socket that listens
DASHBOARD, GCS = 8265, 6379
WATCHED = {
    DASHBOARD: "Ray's dashboard and its API of jobs",
    GCS: "Ray's GCS",
    10001: "Ray Client",
    52365: "Ray's dashboard agent",
    8080: "Ray's metrics",
    44217: "the autoscaler's metrics",
    44227: "the dashboard's metrics",
    9101: "HAProxy's metrics",
    8404: "HAProxy's statistics",
    8500: "the proxy behind HAProxy",
}
"""The ports that no client of the service needs, and what listens there by default."""


def network_listeners(ports: Iterable[int] = WATCHED, tables: Iterable[Path] = TABLES) -> dict[str, str]:
    """Returns those of ``ports`` on which a server of this machine listens for more than this machine, and the widest
    address of each. The keys are texts, since they go as JSON."""
    found: dict[str, str] = {}
    for address, port in _listeners(tables):
        if port in ports and not address.is_loopback and (address.is_unspecified or str(port) not in found):
            found[str(port)] = str(address)
    return found


def _listeners(tables: Iterable[Path]) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    for table in tables:
        try:
            rows = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue  # a kernel without IPv6, or another system
        for row in rows:
            _, local, _, state, *_ = row.split()
            if state == LISTEN:
                address, port = local.split(":")
                yield _address(address), int(port, 16)


def _address(text: str) -> IPv4Address | IPv6Address:
    """Returns an address of the kernel's table: words of four bytes in hexadecimal, each in the machine's order."""
    words = bytes.fromhex(text)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    if len(packed) == 4:
        return IPv4Address(packed)
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def answers_without_token(host: str = LOOPBACK, port: int = DASHBOARD) -> bool | None:
    """Returns whether Ray's API of jobs answers a request without a token; None: it is not there."""
    try:
        with httpx.Client(trust_env=False, timeout=ANSWER_S) as http:
            status = http.get(f"http://{host}:{port}/api/jobs/").status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    if status == httpx.codes.OK:
        return True
    return False if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN) else None


def redis_without_password(host: str, port: int) -> bool | None:
    """Returns whether the Redis at an address takes commands without a password; None: there is no Redis that answers
    in clear."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
            connection.settimeout(ANSWER_S)
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError:
        return None
    return True if answer.startswith(b"+PONG") else False if answer.startswith(b"-NOAUTH") else None


def host_facts(host: str, redis_port: int | None = None) -> HostFacts:
    """Returns which ports of ``host`` are open to this machine. ``redis_port`` is looked at, too."""
    ports = dict.fromkeys([*WATCHED, *([] if redis_port is None else [redis_port])])
    with ThreadPoolExecutor(len(ports)) as threads:
        answers = threads.map(lambda port: _is_open(host, port), ports)
        found = [port for port, is_open in zip(ports, answers, strict=True) if is_open]
    jobs = answers_without_token(host) if DASHBOARD in found else None
    redis = {port: redis_without_password(host, port) for port in found if port in (GCS, redis_port)}
    return HostFacts(host, found, jobs, {port: is_open for port, is_open in redis.items() if is_open is not None})


def _is_open(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S):
            return True
    except OSError:
        return False
