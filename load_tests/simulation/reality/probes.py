"""``Probes``: what lone requests take on the real service before the load, and the profile that follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from engine.config import EngineConfig
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.replica import Replica

LENGTHS = (200, 350, 500)
"""Tokens of the prompts of lone requests. Each takes longer than a step that only decodes."""
CROWD = 4
"""Answers at once on one replica, by which a decode step of several sequences is measured."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Medians, in seconds: the TTFT of a lone request by the tokens of its prompt, and the time between two tokens by
    the number of answers at once on a replica."""

    ttft_s: Mapping[int, float]
    itl_s: Mapping[int, float]

    def profile(self, name: str) -> ReplicaProfile:
        """Returns the profile of the replicas: a line through the TTFTs has the time of a prompt token, and the steps
        of one and of several answers that of a decode. The rest is the engine's defaults, and a cache that nothing
        fills."""
        token_s = float(np.polyfit(list(self.ttft_s), list(self.ttft_s.values()), 1)[0])
        sequence_s = max(0.0, (self.itl_s[CROWD] - self.itl_s[1]) / (CROWD - 1))
        step_s = max(self.itl_s[1] - sequence_s, 1e-4)
        engine = EngineConfig(model=name)
        return ReplicaProfile(
            name,
            "lone requests to the real service",
            1,
            1 / token_s,
            step_s,
            sequence_s,
            0.0,
            engine.prefill_chunk,
            65_536,
            engine.max_sequences,
            engine.max_batch_tokens,
            engine.max_decode_slowdown,
        )

    def overhead_s(self, profile: ReplicaProfile) -> float:
        """Returns what a lone request takes beside the engine's steps, in seconds, on average over the lengths."""
        return max(0.0, fmean(ttft_s - lone_ttft_s(profile, prompt) for prompt, ttft_s in self.ttft_s.items()))


def lone_ttft_s(profile: ReplicaProfile, prompt: int) -> float:
    """Returns the TTFT of a request that is alone on a simulated replica."""
    replica = Replica(profile, 0, 0.0)
    replica.submit(0.0, 0, prompt, 2, prompt / profile.prefill_tokens_s)
    replica.fire()
    return replica.time
