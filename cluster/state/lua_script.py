"""``LuaScript``: a Lua script in Redis, run with EVALSHA."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from cluster.state.redis_client import Client


class LuaScript:
    """The script ``cluster/state/scripts/NAME.lua``. Redis runs it atomically. ``text`` is its source."""

    def __init__(self, name: str) -> None:
        self.text = files("cluster.state").joinpath("scripts", f"{name}.lua").read_text(encoding="utf-8")
        self._digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Client, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Runs the script with KEYS and ARGV and returns its answer. Sends the script's source if the server does not
        know it.

        Raises RedisError as redis-py does.
        """
        try:
            return await client.evalsha(self._digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(self.text, len(keys), *keys, *arguments)
