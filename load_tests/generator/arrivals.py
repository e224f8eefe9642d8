"""When requests arrive in an open loop: a Poisson process, which does not wait for answers as a closed loop does."""

from __future__ import annotations

import random
from collections.abc import Iterator


def poisson(rate: float, duration: float, seed: int) -> Iterator[float]:
    """Arrival times in seconds from 0 to ``duration`` at ``rate`` per second; the same ones for the same seed.

    Raises ValueError for a rate that is not positive.
    """
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate}")
    draw = random.Random(seed)
    time = draw.expovariate(rate)
    while time < duration:
        yield time
        time += draw.expovariate(rate)
