"""The work in a trace: what prefix caches could hold, and the replicas that the rest keeps busy. Pure."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.trace import BLOCK_TOKENS, Trace


def cached_tokens(trace: Trace) -> NDArray[np.int64]:
    """Returns for each request the prompt tokens that one boundless prefix cache would have, in shape [requests]."""
    if not trace.blocks:
        return np.zeros(len(trace), dtype=np.int64)
    seen: set[int] = set()
    found = np.empty(len(trace), dtype=np.int64)
    for request in range(len(trace)):
        chain = trace.chain(request)
        known = 0
        while known < len(chain) and chain[known] in seen:
            known += 1
        seen.update(chain[known:])
        found[request] = known
    return np.minimum(found * BLOCK_TOKENS, trace.prompt - 1)


def busy_replicas(trace: Trace, profile: ReplicaProfile, width: float) -> NDArray[np.float64]:
    """Returns the replicas that the arrivals of each ``width`` seconds keep busy, in shape [ceil(duration / width)].

    A request counts with its prefill and its part of decode steps, spread over the time that it decodes.
    """
    slots = max(ceil(trace.duration / width), 1)
    uncached = trace.prompt - cached_tokens(trace)
    context = trace.prompt + trace.output / 2
    place = np.minimum((trace.arrival / width).astype(np.int64), slots - 1)
    prefill = np.bincount(place, uncached / profile.prefill_tokens_s, slots)
    decode = np.bincount(place, trace.output * (profile.sequence_s + profile.kv_s * context), slots)
    lasts = max(round(float(trace.output.mean()) * 2 * profile.step_s / width), 1)  # with steps twice as long as alone
    spread = np.convolve(decode, np.ones(lasts) / lasts)[:slots]
    busy: NDArray[np.float64] = (prefill + spread) / width
    return busy
