"""``LocalHandle``: a Serve handle to an actor in this process: calls leave the caller's context, and are pickled."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.exceptions import RayTaskError


class LocalHandle:
    """Calls the methods of ``actor`` as Serve does, also where they are not there or break. ``wraps``: an error comes
    as by Ray's own calls, else as by gRPC. ``calls`` has the names and the keyword arguments of all calls."""

    def __init__(self, actor: object, *, wraps: bool = True) -> None:
        self._actor = actor
        self._wraps = wraps
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def options(self, **_: object) -> LocalHandle:
        return self

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=self._remote(name))

    def _remote(self, name: str) -> Callable[..., asyncio.Task[Any]]:
        def remote(*arguments: object, **named: object) -> asyncio.Task[Any]:
            self.calls.append((name, named))
            return asyncio.ensure_future(self._answer(name, pickle.dumps((arguments, named))))

        return remote

    async def _answer(self, name: str, packed: bytes) -> Any:
        arguments, named = pickle.loads(packed)
        try:
            return pickle.loads(pickle.dumps(await getattr(self._actor, name)(*arguments, **named)))
        except Exception as error:
            if not self._wraps:
                raise
            raise RayTaskError(name, traceback.format_exc(), error, ip="127.0.0.1").as_instanceof_cause() from None
