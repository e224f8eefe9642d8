"""Checks of a service and what it depends on: its config, Redis, its port, certificates, what Serve runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cluster.doctor.config_drift import drift
from cluster.doctor.facts import Facts, NodeFacts, RedisFacts, RunningFacts
from cluster.doctor.finding import Finding, error, ok, skipped, warning
from cluster.doctor.machine_checks import clock_findings

LEAST_REDIS = (6, 2)
EVICTING = ("allkeys-lru", "allkeys-lfu", "allkeys-random")
"""The policies by which Redis deletes keys that have no expiry, such as API keys and the ledger's sums."""
DAY_S = 86_400
SOON_DAYS = 14
SHOWN_PATHS = 8
GOOD_STATES = ("RUNNING", "DEPLOYING", "DELETING")


def service_findings(facts: Facts) -> Iterator[Finding]:
    """Yields the findings about the config, Redis, ports, certificates and the running service."""
    yield from _config(facts)
    yield from _redis(facts)
    yield from _port(facts)
    for node in facts.nodes or ():
        yield from _redis_from(node, facts.running)
        yield from _proxy(node, facts)
    yield from _certificates(facts)
    yield from _running(facts)


def _config(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        yield skipped("config", "no file was given: models, GPUs, Redis and ports were not looked at")
    elif facts.config.faults:
        for fault in facts.config.faults:
            yield error("config", f"{facts.config.path}: {fault}", "Correct the file: the service refuses it.")
    else:
        yield ok("config", f"{facts.config.path} is valid")


def _redis(facts: Facts) -> Iterator[Finding]:
    redis = facts.redis
    if redis is None:
        if facts.config is not None and not facts.config.faults:
            yield skipped("redis", "the config names none; `make serve` starts one of its own")
        return
    if redis.fault:
        yield error("redis", redis.fault, "Start Redis, open its port to the routers, or correct state.url.")
        return
    yield from _redis_version(redis)
    if redis.policy in EVICTING:
        seen = f"maxmemory-policy {redis.policy}: it deletes keys, limits and the ledger when memory is short"
        yield error("redis policy", seen, "Set maxmemory-policy to noeviction, or to volatile-lru.")
    elif redis.policy is not None:
        yield ok("redis policy", f"maxmemory-policy {redis.policy}")
    if redis.persistent is False:
        seen = "no append-only file and no snapshots: a restart loses keys and the ledger"
        yield error("redis persistence", seen, "Set appendonly yes, with appendfsync everysec.")
    elif redis.last_write_ok is False:
        yield error("redis persistence", "its last write to disk failed", "Look at Redis' log and its disk.")
    elif redis.persistent:
        yield ok("redis persistence", "on, and its last write succeeded")
    if redis.policy is None or redis.persistent is None:
        yield skipped("redis settings", "the user may not run INFO: policy and persistence are not known")
    if redis.clock_offset_s is not None:
        yield from clock_findings("clock of redis", redis.clock_offset_s, redis.clock_error_s)


def _redis_version(redis: RedisFacts) -> Iterator[Finding]:
    if redis.version is None:
        yield ok("redis", "answers")
        return
    parts = tuple(int(part) for part in redis.version.split(".")[:2] if part.isdigit())
    if parts < LEAST_REDIS:
        yield error("redis", f"version {redis.version}", "Use Redis 7 or later.")
    else:
        yield ok("redis", f"version {redis.version} answers")


def _port(facts: Facts) -> Iterator[Finding]:
    port = facts.port
    if port is None:
        return
    name = f"port {port.port}"
    if port.listening and not port.healthy:
        yield error(
            name, "something else listens there, or the service is not ready", "Free the port, or choose another."
        )
    elif port.listening:
        yield ok(name, "a service answers there")
    elif facts.running is not None and facts.running.states:
        yield error(name, "Serve runs, and nothing listens there", "Look at the proxies' logs in logs/serve.")
    else:
        yield ok(name, "free")


def _redis_from(node: NodeFacts, running: RunningFacts | None) -> Iterator[Finding]:
    """Whether a router on the node would reach Redis. A node on which none runs may never get one."""
    name = f"redis from {node.node}"
    if node.redis_fault:
        remedy = f"Open Redis' port to {node.node}, and put the file of state.url_file there, as on other nodes."
        if running is not None and running.states and node.node not in running.redis_users:
            yield warning(name, f"{node.redis_fault}; nothing that needs it runs there now", remedy)
        else:
            yield error(name, node.redis_fault, remedy)
    elif node.redis_fault is not None:
        yield ok(name, "answers")


def _proxy(node: NodeFacts, facts: Facts) -> Iterator[Finding]:
    """Whether the service answers at the proxy of the node, if there is one or has to be."""
    if node.listening is None or facts.config is None:
        return
    port, running = facts.config.port, facts.running or RunningFacts(fault="Serve was not asked")
    name = f"port {port} of {node.node}"
    state = running.proxies.get(node.node)
    log = f"Look at the proxy's log in logs/serve on {node.node}"
    if node.healthy:
        yield ok(name, "a service answers there")
    elif node.listening and state is None and not running.fault:
        yield error(name, "something listens there that is no proxy of Serve", f"Free the port on {node.node}.")
    elif node.listening:
        seen = "what listens there does not answer that the service is ready: clients sent there get errors"
        yield error(name, seen, f"{log}, and at `serve status`; or free the port, if it is something else.")
    elif state is not None:
        yield error(name, f"Serve has a proxy there ({state}), and nothing listens", f"{log}.")
    elif running.fault:
        yield skipped(name, "nothing listens; only with --dashboard it is known whether a proxy has to")
    else:
        yield ok(name, "no proxy is there, since no replica runs there")


def _certificates(facts: Facts) -> Iterator[Finding]:
    for each in facts.certificates:
        name = f"certificate {each.place}"
        if each.expires_at is None:
            yield error(name, each.fault, "Put a certificate there that can be read.")
            continue
        days = (each.expires_at - facts.now) / DAY_S
        if days < 0:
            yield error(name, f"expired {-days:.0f} days ago", "Renew it: clients refuse the connection.")
        elif days < SOON_DAYS:
            yield warning(name, f"expires in {days:.0f} days", "Renew it, and see why it was not renewed by itself.")
        else:
            yield ok(name, f"expires in {days:.0f} days")


def _running(facts: Facts) -> Iterator[Finding]:
    running = facts.running
    if running is None:
        return
    if running.fault:
        remedy = "Give the dashboard's address by --dashboard, and its token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
        yield error("serve", running.fault, remedy)
        return
    for name, state in running.states.items():
        if state in GOOD_STATES:
            yield ok(f"application {name}", state)
        else:
            yield error(f"application {name}", state, "`serve status` says why; so do the logs in logs/serve.")
    if facts.config is not None and facts.config.applications:
        yield from _drift(facts.config.applications, running.arguments)


def _drift(
    wanted: Mapping[str, Mapping[str, object]], running: Mapping[str, Mapping[str, object]]
) -> Iterator[Finding]:
    for name, arguments in wanted.items():
        if name not in running:
            yield error(f"config of {name}", "the file has it, and Serve does not run it", "Deploy the file.")
            continue
        paths = drift(arguments, running[name])
        if paths:
            remedy = "Deploy the file, or put into it what was changed in the cluster."
            yield warning(f"config of {name}", f"what runs differs from the file at {_listed(paths)}", remedy)
        else:
            yield ok(f"config of {name}", "what runs is the file")


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else ""
    return ", ".join(paths[:SHOWN_PATHS]) + more
