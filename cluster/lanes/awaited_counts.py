"""``AwaitedCounts``: the token counts of requests whose readers have left, until their last rows have come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.api import Usage
from router.ports.tier_backend import OnUsage

LATE_S = 25.0
"""Seconds after the end of a request within which the counts of an abort must arrive. They are lost after that."""


class AwaitedCounts:
    """The requests of one lane whose counts are awaited. ``on_report`` is called after each report of counts, or of
    their loss after LATE_S, to the caller of a request."""

    def __init__(self, on_report: Callable[[], None]) -> None:
        self._on_report = on_report
        self._reports: dict[str, OnUsage] = {}

    def __len__(self) -> int:
        return len(self._reports)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._reports

    def add(self, request_id: str, on_usage: OnUsage) -> None:
        """Awaits the counts of a request. ``on_usage`` is called with them, or with None if they are lost."""
        late = asyncio.get_running_loop().call_later(LATE_S, self.report, request_id, None)

        def settle(usage: Usage | None) -> None:
            late.cancel()  # else it would hold the lane, and what the event loop has to do, for LATE_S
            on_usage(usage)

        self._reports[request_id] = settle

    def report(self, request_id: str, usage: Usage | None) -> None:
        """Reports the counts of a request; None: they are lost. Has no effect if they are not awaited."""
        if (on_usage := self._reports.pop(request_id, None)) is not None:
            on_usage(usage)
            self._on_report()

    def end(self) -> None:
        """Reports all counts as lost, because the lane has ended."""
        reports, self._reports = self._reports, {}
        for on_usage in reports.values():
            on_usage(None)
