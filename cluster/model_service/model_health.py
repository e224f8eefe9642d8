"""The health check of a replica's model."""

from __future__ import annotations

MAX_BUSY_S = 60.0
"""Seconds after which a batch is taken for stuck. The largest takes about one."""


class ModelStuckError(RuntimeError):
    """The present batch has taken too long: the model is stuck."""


def check_not_stuck(busy_s: float) -> None:
    """Raises ModelStuckError if the present batch has been computed for longer than MAX_BUSY_S. ``busy_s`` is the time
    for which it has been computed, in seconds."""
    if busy_s > MAX_BUSY_S:
        raise ModelStuckError(f"a batch has been computed for {busy_s:.0f} s")
