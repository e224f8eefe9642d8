"""The work in a trace: what an operator measures of a sample, and the replicas that all of it keeps busy. Pure."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.observation import Tier
from load_tests.simulation.simulation import Settings
from load_tests.simulation.trace import BLOCK_TOKENS, Trace

START_S = 120.0  # of the trace, whose rate gives the replicas that serve when it starts


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


def tier_of(trace: Trace, settings: Settings) -> Tier:
    """Returns what policies know of the tier beforehand, with mean lengths of the trace."""
    cached = float(cached_tokens(trace).mean())
    return Tier(
        settings.profile,
        settings.slo,
        settings.replicas_min,
        settings.replicas_max,
        settings.cold_start_s,
        prompt=float(trace.prompt.mean()) - cached,
        output=float(trace.output.mean()),
        cached=cached,
    )


def start_replicas(trace: Trace, tier: Tier, weight: float = 1.0) -> int:
    """Returns the replicas that ``weight`` times the rate at the start of the trace needs at 80 % of their capacity."""
    seconds = min(START_S, trace.duration)
    rate = weight * int(np.searchsorted(trace.arrival, seconds)) / seconds
    return min(max(ceil(rate / (0.8 * tier.capacity_rps)), tier.replicas_min, 1), tier.replicas_max)


def busy_replicas(trace: Trace, tier: Tier, width: float) -> NDArray[np.float64]:
    """Returns the replicas that the arrivals of each ``width`` seconds keep busy, in shape [ceil(duration / width)].

    A request counts with its prefill and its part of decode steps, spread over the time that it decodes.
    """
    profile = tier.profile
    slots = max(ceil(trace.duration / width), 1)
    uncached = trace.prompt - cached_tokens(trace)
    context = trace.prompt + trace.output / 2
    place = np.minimum((trace.arrival / width).astype(np.int64), slots - 1)
    prefill = np.bincount(place, uncached / profile.prefill_tokens_s, slots)
    decode = np.bincount(place, trace.output * (profile.sequence_s + profile.kv_s * context), slots)
    lasts = max(round(float(trace.output.mean()) * tier.slo.itl_s / 2 / width), 1)
    spread = np.convolve(decode, np.ones(lasts) / lasts)[:slots]
    busy: NDArray[np.float64] = (prefill + spread) / width
    return busy
