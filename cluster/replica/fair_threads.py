"""``FairThreads``: a few threads for calls that may take seconds. Tenants take turns, so that the many calls of one do
not hold up those of others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engine.api import EngineDeadError

_Call = tuple[asyncio.Future[None], Callable[[], None]]


class FairThreads:
    """Threads of an event loop, whose names begin with ``name``. Of the calls that wait, the next one is of the tenant
    whose turn was longest ago; calls of one tenant run in their order."""

    def __init__(self, threads: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._closed = False
        self._waiting: OrderedDict[str, deque[_Call]] = OrderedDict()  # by tenant, in the order of their turns

    def run(self, tenant: str, call: Callable[[], None]) -> asyncio.Future[None]:
        """Runs ``call`` on a thread when it is the turn of ``tenant``. Returns the future of its end, which raises what
        the call raises."""
        ended = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append((ended, call))
        self._start()
        return ended

    def close(self) -> None:
        """Ends the threads after the calls that they run. Those that wait are not run then, and fail with
        EngineDeadError."""
        self._closed = True
        self._executor.shutdown(wait=False)

    def _start(self) -> None:
        """Begins calls as long as threads are free."""
        while self._free and self._waiting:
            tenant, calls = self._waiting.popitem(last=False)
            ended, call = calls.popleft()
            if calls:
                self._waiting[tenant] = calls  # behind all others
            if self._closed:
                ended.set_exception(EngineDeadError("The replica has ended."))
                continue
            self._free -= 1
            running = asyncio.get_running_loop().run_in_executor(self._executor, call)
            running.add_done_callback(partial(self._end, ended))

    def _end(self, ended: asyncio.Future[None], running: asyncio.Future[None]) -> None:
        """Passes the end of a call on, and begins the next one."""
        self._free += 1
        if ended.done() or running.cancelled():
            ended.cancel()  # the event loop ends
        elif (error := running.exception()) is not None:
            ended.set_exception(error)
        else:
            ended.set_result(None)
        self._start()
