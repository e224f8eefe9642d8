"""The rate at which sequences are admitted, from which the wait of a refused client is estimated."""

from __future__ import annotations

MIN_RETRY_S, MAX_RETRY_S = 1.0, 600.0
"""Bounds of the estimated wait, in seconds."""


class AdmissionRate:
    """Admissions per second as an exponential average with a half-life of ``half_life_s`` seconds. Only counts time in
    which sequences waited: an idle engine is not slow. ``now`` is in seconds of the engine's clock."""

    def __init__(self, half_life_s: float = 20.0) -> None:
        self._half_life_s = half_life_s
        self._starts = 0.0
        self._seconds = 0.0
        self._then: float | None = None  # instant of the last observation; None if no sequence waited then

    def observe(self, now: float, started: int, waiting: int) -> None:
        """Records that ``started`` sequences left the queue at the instant ``now``, and ``waiting`` are still in it."""
        if self._then is not None:
            elapsed = max(0.0, now - self._then)
            decay = 0.5 ** (elapsed / self._half_life_s)
            self._starts = self._starts * decay + started
            self._seconds = self._seconds * decay + elapsed
        self._then = now if waiting else None

    def wait_s(self, waiting: int) -> float:
        """Returns the estimated seconds until ``waiting`` sequences have been admitted. 0 if there are none.
        MIN_RETRY_S before anything was measured."""
        if not self._seconds or not waiting:
            return MIN_RETRY_S if waiting else 0.0
        if not self._starts:
            return min(MAX_RETRY_S, max(MIN_RETRY_S, self._seconds))
        return min(MAX_RETRY_S, max(MIN_RETRY_S, waiting * self._seconds / self._starts))
