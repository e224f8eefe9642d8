"""``StageClock``: measures how long a request is in each of its stages, whether it is traced or not."""

from __future__ import annotations

from collections.abc import Callable

from router.ports.stage_metrics import Took


class StageClock:
    """The stages of one request, each of which ends where the next one begins. ``now`` returns an instant in seconds.

    After ``end`` nothing has an effect.
    """

    __slots__ = ("_now", "_since", "_stage", "_took")

    def __init__(self, took: Took, now: Callable[[], float]) -> None:
        self._took = took
        self._now = now
        self._stage = ""
        self._since = 0.0

    def enter(self, stage: str) -> None:
        """Ends the current stage, if there is one, and begins ``stage``."""
        now = self._now()
        if self._stage:
            self._took(self._stage, now - self._since)
        self._stage, self._since = stage, now

    def end(self) -> None:
        """Ends the current stage with the request."""
        self.enter("")
        self._took = _ignore


def _ignore(_: str, __: float) -> None:
    pass
