"""``ColdStartRoom``: a router's waiting room of a tier that has no replica, since it is at zero while no request comes.

No replica of the tier can tell the autoscaler that it is wanted, so the room does, through ``ReportRoom``: at once when
a first request waits, and every REPORT_S while one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass

from cluster.autoscaling.config import WaitingRoomConfig
from cluster.autoscaling.snapshot import WaitingRoom
from cluster.autoscaling.zero_replica_admission import Refused, admit
from engine.api import Conversation, GenerationRequest, Priority
from router.ports.tier_backend import TierStartingError

REPORT_S = 1.0
READ_S = 1.0
"""Seconds that a request waits at most to learn how long a cold start takes. Without an answer it keeps its seat."""
CHARACTERS_PER_TOKEN = 4.0
"""Of a prompt that no replica has tokenised yet, for the autoscaler's estimate of its work."""

ReportRoom = Callable[[WaitingRoom], Awaitable[None]]
"""Tells the autoscaler what waits at this router; nothing waits any more if there are no requests. Must not raise."""

ReadColdStart = Callable[[], Awaitable[float]]
"""Returns the seconds of the tier's cold starts, as last measured; 0: unknown. Must not raise."""


@dataclass(slots=True)
class _Seat:
    since_s: float
    prompt_tokens: float


class ColdStartRoom:
    """The requests of one router that wait for a first replica of ``tier``. It belongs to one event loop."""

    def __init__(
        self, tier: str, config: WaitingRoomConfig, report: ReportRoom, read_cold_start: ReadColdStart
    ) -> None:
        self._tier = tier
        self._config = config
        self._report = report
        self._read_cold_start = read_cold_start
        self._seats: list[_Seat] = []  # oldest first
        self._since_s = 0.0  # since when the tier has been wanted, by the monotonic clock
        self._wanted_until_s = 0.0  # by clients that were refused and should find the tier started
        self._cold_start_s = 0.0
        self._changed = asyncio.Event()
        self._reporting: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def seat(self, request: GenerationRequest) -> AsyncIterator[float]:
        """Adds a request to the room while the context is open, and yields the seconds that it may wait.

        Raises TierStartingError if the room is full, or a cold start takes longer than a request may wait. In any case
        the room reports to the autoscaler that the tier is wanted.
        """
        now_s = time.monotonic()
        if not self._seats and now_s >= self._wanted_until_s:
            self._since_s = now_s
        mine = _Seat(now_s, _waited_tokens(request))
        self._seats.append(mine)
        self._report_soon()
        try:
            if len(self._seats) == 1:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READ_S):
                        self._cold_start_s = await self._read_cold_start()
            if (refused := self._refusal()) is not None:
                self._wanted_until_s = time.monotonic() + refused.retry_after_s
                raise TierStartingError(
                    f"The tier '{self._tier}' has no replica: {refused.why}.", refused.retry_after_s
                )
            yield self._config.ttl_s
        finally:
            self._seats.remove(mine)
            self._changed.set()

    def expired(self) -> TierStartingError:
        """Returns (does not raise) the error of a request that has waited for as long as it may. The tier is reported
        as wanted until its client should try again."""
        now_s = time.monotonic()
        left_s = max(1.0, self._cold_start_s - (now_s - self._since_s))
        self._wanted_until_s = now_s + left_s
        self._report_soon()
        return TierStartingError(
            f"The tier '{self._tier}' has started no replica within {self._config.ttl_s:g} s.", left_s
        )

    def started(self) -> None:
        """Notes that the tier has a replica."""
        self._wanted_until_s = 0.0
        self._changed.set()

    def close(self) -> None:
        """Stops reporting to the autoscaler. There is no report that the room is empty: the last one becomes stale."""
        if self._reporting is not None:
            self._reporting.cancel()

    def _refusal(self) -> Refused | None:
        """Returns why the request that came last must not wait; None: it may."""
        now_s = time.monotonic()
        return admit(self._config, WaitingRoom(len(self._seats) - 1), self._cold_start_s, now_s - self._since_s)

    def _report_soon(self) -> None:
        """Reports the room at once, and while it is wanted."""
        self._changed.set()
        if self._reporting is None or self._reporting.done():
            # Outside the context of the HTTP request that came first.
            self._reporting = asyncio.get_running_loop().create_task(self._keep_reporting(), context=Context())

    async def _keep_reporting(self) -> None:
        """Reports what waits every REPORT_S, until nothing is wanted."""
        while True:
            room = self._room()
            await self._report(room)
            if not room.requests and not self._room().requests:
                return
            if room.requests:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_S):
                        await self._emptied()

    async def _emptied(self) -> None:
        """Waits until nothing is wanted."""
        while self._room().requests:
            self._changed.clear()
            await self._changed.wait()

    def _room(self) -> WaitingRoom:
        """Returns what waits. Clients that were refused count as one request for the time after which they try
        again."""
        now_s = time.monotonic()
        if not self._seats:
            return WaitingRoom(int(now_s < self._wanted_until_s))
        tokens = sum(each.prompt_tokens for each in self._seats)
        return WaitingRoom(len(self._seats), tokens, now_s - self._seats[0].since_s)


def _waited_tokens(request: GenerationRequest) -> float:
    """Returns the tokens of the prompt that the tier is started for. Those of batch work count for none: it gets a
    first replica, and waits for what that one leaves."""
    return 0.0 if request.priority is Priority.BATCH else prompt_tokens(request)


def prompt_tokens(request: GenerationRequest) -> float:
    """Returns the estimated number of tokens of the prompt. For token ids it is exact."""
    if isinstance(request.prompt, tuple):
        return float(len(request.prompt))
    characters = request.prompt.characters if isinstance(request.prompt, Conversation) else len(request.prompt)
    return characters / CHARACTERS_PER_TOKEN
