"""``examine``: gathers all facts at once, each within its own deadline, and judges them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cluster.config import MantaConfig, StateConfig
from cluster.doctor.certificate_facts import file_certificate, served_certificate
from cluster.doctor.cluster_facts import cluster_facts
from cluster.doctor.config_facts import read_config
from cluster.doctor.facts import CertificateFacts, Facts, RedisFacts
from cluster.doctor.finding import Finding
from cluster.doctor.machine_checks import machine_findings
from cluster.doctor.node_facts import constraints, node_facts
from cluster.doctor.port_checks import port_findings
from cluster.doctor.port_facts import host_facts, redis_without_password
from cluster.doctor.redis_facts import redis_facts
from cluster.doctor.service_checks import service_findings
from cluster.doctor.service_facts import port_facts, running_facts

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
REDIS_PORT = 6379


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of the service to examine. None and () are left out. ``ray_address`` is the address of a Ray cluster,
    ``dashboard`` the URL of its dashboard, and ``token`` its auth token. ``tls`` are hosts and ports of TLS servers,
    ``certificates`` paths of certificate files. ``closed`` are hosts of which this machine should reach no inner
    port."""

    config: Path | None = None
    ray_address: str | None = None
    dashboard: str | None = None
    token: str = ""
    tls: Sequence[tuple[str, int]] = ()
    certificates: Sequence[str] = ()
    closed: Sequence[str] = ()


def examine(asked: Asked) -> list[Finding]:
    """Returns the findings about the parts that are ``asked`` for. It takes as long as ``gather``."""
    facts = gather(asked)
    return [*machine_findings(facts), *service_findings(facts), *port_findings(facts)]


def gather(asked: Asked) -> Facts:
    """Collects the facts about the parts that are ``asked`` for, side by side. Each source has a deadline of its own,
    and a source that fails becomes a fact with a fault."""
    config, settings = (None, None) if asked.config is None else read_config(asked.config)
    models = [] if config is None else list(config.models)
    directories = [] if settings is None or settings.state.journal is None else [str(settings.state.journal)]
    served = [*asked.tls, *_tls_of(settings)]
    with ThreadPoolExecutor() as threads:
        here = threads.submit(node_facts, "this machine", models, directories)
        state, service = None if settings is None else settings.state, None if config is None else config.port
        nodes = (
            None
            if asked.ray_address is None
            else threads.submit(cluster_facts, asked.ray_address, models, directories, state, service)
        )
        redis = None if settings is None else threads.submit(_redis, settings.state)
        port = None if config is None or config.port is None else threads.submit(port_facts, config.port)
        running = None if asked.dashboard is None else threads.submit(running_facts, asked.dashboard, asked.token)
        certificates = [threads.submit(served_certificate, host, number) for host, number in served]
        address = None if settings is None else _redis_address(settings)
        unlocked = None if address is None else threads.submit(redis_without_password, *address)
        hosts = [threads.submit(host_facts, host, None if address is None else address[1]) for host in asked.closed]
        files: list[CertificateFacts] = [file_certificate(path) for path in asked.certificates]
        found, fault = (None, "") if nodes is None else nodes.result()
        return Facts(
            time.time(),
            here.result(),
            constraints(CONSTRAINTS),
            found,
            fault,
            config,
            None if redis is None else redis.result(),
            None if port is None else port.result(),
            [*files, *(each.result() for each in certificates)],
            None if running is None else running.result(),
            None if unlocked is None else unlocked.result(),
            [each.result() for each in hosts],
        )


def _redis(config: StateConfig) -> RedisFacts | None:
    return asyncio.run(redis_facts(config))


def _tls_of(settings: MantaConfig | None) -> list[tuple[str, int]]:
    """Returns the address of the Redis of ``settings``, if it speaks TLS."""
    address = None if settings is None else _redis_address(settings, "rediss")
    return [] if address is None else [address]


def _redis_address(settings: MantaConfig, scheme: str = "redis") -> tuple[str, int] | None:
    """Returns the address of the Redis of ``settings``, if its URL has ``scheme``."""
    try:
        parts = urlsplit(settings.state.read_url() or "")
    except ValueError:
        return None  # the check of Redis says so
    return (parts.hostname, parts.port or REDIS_PORT) if parts.scheme == scheme and parts.hostname else None
