"""A clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass

MONDAY = 1_792_368_000.0
"""2026-10-19, 00:00 UTC."""


@dataclass
class VirtualClock:
    """Stands still until ``advance``. Implements ``Clock``."""

    seconds: float = MONDAY

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
