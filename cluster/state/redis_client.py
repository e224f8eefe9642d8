"""``connect``: makes the client of one Redis, of a Redis Cluster, or of the master that Sentinel reports."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from cluster.config import StateConfig

# The type parameters of redis-py's clients are not stable between its releases.
Client = Any


def connect(config: StateConfig, url: str, max_connections: int) -> Client:
    """Returns a client, which connects with its first command. All answers are bytes.

    A command that needs more than ``max_connections`` connections to a node fails, so the caller bounds the commands in
    flight.

    A command is sent once more at once if its connection turns out to be closed: each command that Manta sends is safe
    to repeat. The deadlines are the caller's (``CallGuard``).
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 1, (RedisConnectionError,)),
        "socket_connect_timeout": config.background_timeout_s,
        "socket_timeout": config.background_timeout_s,
        "max_connections": max_connections,
        "driver_info": None,  # one round trip less to connect
    }
    if config.cluster:
        return RedisCluster.from_url(url, **options)
    if config.sentinels:
        hosts = [(host, int(port)) for host, _, port in (each.rpartition(":") for each in config.sentinels)]
        parsed = parse_url(url)
        login = {name: parsed[name] for name in ("username", "password", "db") if name in parsed}
        sentinel = Sentinel(hosts, ssl=url.startswith("rediss://"), **options, **login)
        return sentinel.master_for(config.sentinel_service)
    return Redis.from_url(url, **options)
