"""``StretchedEngine``: the real engine, whose forward passes take as long as those of a larger model.

On a machine that others use too, steps of a few milliseconds take three times as long now and then, and so do TTFTs.
A pass that sleeps until its time is over is late only if the machine takes longer than the larger model would. And it
leaves its core to others meanwhile, as a model on an accelerator does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.engine import Engine
from engine.scheduler.step_plan import Chunk
from load_tests.simulation.profile import ReplicaProfile


@dataclass(frozen=True, slots=True)
class PassTimes:
    """What the forward passes of a model take, in seconds."""

    weights_s: float  # to read the weights
    token_s: float  # to compute a token
    pair_s: float  # for a token and one before it, in attention

    @classmethod
    def of(cls, profile: ReplicaProfile) -> PassTimes:
        """Returns the times of a replica on accelerators."""
        return cls(profile.step_s, 1 / profile.prefill_tokens_s, profile.kv_s)

    def pass_s(self, chunks: Sequence[Chunk]) -> float:
        """Returns the seconds of a forward pass: the longer of reading the weights and computing the tokens, and
        attention."""
        tokens = sum(chunk.length for chunk in chunks)
        pairs = sum(chunk.length * (chunk.start + chunk.length / 2) for chunk in chunks)
        return max(self.weights_s, self.token_s * tokens) + self.pair_s * pairs


class _StretchedForward:
    """Forward passes that take at least ``times``."""

    def __init__(self, forward: Any, times: PassTimes) -> None:
        self._forward = forward
        self._times = times

    def compute(self, chunks: list[Chunk]) -> Any:
        began = time.monotonic()
        seconds = self._times.pass_s(chunks)
        computed = self._forward.compute(chunks)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        return computed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forward, name)


class StretchedEngine(Engine):
    """The engine, all of whose forward passes are stretched, also after the warm-up, which begins new counts."""

    pass_times: ClassVar[PassTimes] = PassTimes(0.025, 0.6e-3, 0.4e-6)
    """Long enough that the machine computes a pass of the tier ``fast`` meanwhile, beside other work."""

    def _new_counts(self) -> None:
        super()._new_counts()
        self._forward: Any = _StretchedForward(self._forward, self.pass_times)


def stretched_to(times: PassTimes) -> type[StretchedEngine]:
    """Returns the class of engines whose passes take ``times``."""

    class Stretched(StretchedEngine):
        pass_times = times

    return Stretched
