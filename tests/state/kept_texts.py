"""Whether a store still has a text, found without a call of the store, which would delete what is over."""

from __future__ import annotations

from collections.abc import Callable

import redis

from router.memory_idempotency_store import MemoryIdempotencyStore
from router.memory_stream_store import MemoryStreamStore


def keeps(text: str, store: object, url: str | None) -> bool:
    """Returns whether ``store`` has ``text``: in its memory, or in any value of the Redis at ``url``."""
    if isinstance(store, MemoryStreamStore | MemoryIdempotencyStore):
        return text in repr(store._tenants)
    assert url is not None
    with redis.Redis.from_url(url, decode_responses=True) as client:
        values: dict[str, Callable[[str], object]] = {
            "string": client.get,
            "list": lambda name: client.lrange(name, 0, -1),
            "hash": client.hgetall,
            "zset": lambda name: client.zrange(name, 0, -1),
            "none": lambda name: None,  # it has expired since
        }
        return any(text in repr(values[client.type(name)](name)) for name in client.scan_iter())
