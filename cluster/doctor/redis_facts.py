"""``redis_facts``: asks the Redis of a config, within a deadline. No message of the client is passed on: it may have
the address with its password."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from cluster.config import StateConfig
from cluster.doctor.facts import RedisFacts
from cluster.state.redis_client import Client, connect

ANSWER_S = 5.0


async def redis_facts(config: StateConfig) -> RedisFacts | None:
    """Returns the facts about the Redis of ``config``; None: it names none. If Redis does not answer within ANSWER_S
    seconds, the facts have the fault."""
    try:
        url = config.read_url()
    except ValueError as error:
        return RedisFacts(fault=str(error))
    if url is None:
        return None
    client = connect(config, url, 4)
    try:
        return await asyncio.wait_for(_ask(client), ANSWER_S)
    except TimeoutError:
        return RedisFacts(fault=f"no answer within {ANSWER_S:g} s")
    except (RedisError, RedisClusterException, OSError) as error:
        return RedisFacts(fault=f"cannot be reached or refuses the login: {type(error).__name__}")
    finally:
        await client.aclose()


async def _ask(client: Client) -> RedisFacts:
    """Asks. What the user may not run, or a managed Redis does not have, stays unknown."""
    await client.ping()
    began = time.time()
    offset_s: float | None
    try:
        seconds, microseconds = await client.time()
        ended = time.time()
        offset_s = seconds + microseconds / 1e6 - (began + ended) / 2
    except ResponseError:
        offset_s, ended = None, began
    try:
        info = await client.info("all")
    except ResponseError:
        info = {}
    try:
        saves: bool | None = any((await client.config_get("save")).values())
    except ResponseError:
        saves = None
    return facts_of(info, saves, offset_s, (ended - began) / 2)


def facts_of(info: Mapping[str, Any], saves: bool | None, offset_s: float | None, error_s: float) -> RedisFacts:
    """Returns the facts in the answer of INFO, which is empty for a user who may not run it. ``saves``: Redis is
    configured to make snapshots; None: not known. Its clock is ``offset_s`` seconds ahead of ours, give or take
    ``error_s``; None: not known."""
    policy, version = info.get("maxmemory_policy"), info.get("redis_version")
    append_only = info.get("aof_enabled")
    persistent: bool | None = None
    written: bool | None = None
    if append_only is not None:
        persistent = True if append_only else saves
        states = (info.get("aof_last_write_status"), info.get("aof_last_bgrewrite_status")) if append_only else ()
        written = all(each in ("ok", None) for each in (*states, info.get("rdb_last_bgsave_status")))
    return RedisFacts(
        version=None if version is None else str(version),
        policy=None if policy is None else str(policy),
        persistent=persistent,
        last_write_ok=written,
        clock_offset_s=offset_s,
        clock_error_s=error_s,
    )
