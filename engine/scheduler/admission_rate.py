"""How fast the queue moves: what a refused client is told to wait."""

from __future__ import annotations

MIN_RETRY_S, MAX_RETRY_S = 1.0, 600.0
"""Bounds of an estimate, in seconds."""


class AdmissionRate:
    """Starts per second over the last ``half_life_s`` or so, counting only time in which somebody waited: an engine
    with nothing to do is not slow."""

    def __init__(self, half_life_s: float = 20.0) -> None:
        self._half_life_s = half_life_s
        self._starts = 0.0
        self._seconds = 0.0
        self._then: float | None = None  # instant up to which all is counted; None while nobody waits

    def observe(self, now: float, started: int, waiting: int) -> None:
        """``started`` sequences have left the queue at ``now``, where ``waiting`` still are."""
        if self._then is not None:
            elapsed = max(0.0, now - self._then)
            decay = 0.5 ** (elapsed / self._half_life_s)
            self._starts = self._starts * decay + started
            self._seconds = self._seconds * decay + elapsed
        self._then = now if waiting else None

    def wait_s(self, waiting: int) -> float:
        """Seconds until ``waiting`` sequences have been started; the least there is before anything was measured."""
        if not self._seconds or not waiting:
            return MIN_RETRY_S if waiting else 0.0
        if not self._starts:
            return min(MAX_RETRY_S, max(MIN_RETRY_S, self._seconds))
        return min(MAX_RETRY_S, max(MIN_RETRY_S, waiting * self._seconds / self._starts))
