"""``StretchedEngine``: the real engine, whose forward passes take as long as those of a larger model.

On a machine that others use too, steps of a few milliseconds take three times as long now and then, and so do TTFTs.
A pass that sleeps until its time is over is late only if the machine takes longer than the larger model would.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from engine.engine import Engine
from engine.scheduler.step_plan import Chunk

WEIGHTS_S = 0.025  # to read the weights
TOKEN_S = 0.6e-3  # to compute a token
PAIR_S = 0.4e-6  # for a token and one before it, in attention


def pass_s(chunks: Sequence[Chunk]) -> float:
    """Returns the seconds of a forward pass: the longer of reading the weights and computing the tokens, and attention.

    That is no linear function of prompt tokens and decodes, which is what the engine fits to its steps.
    """
    tokens = sum(chunk.length for chunk in chunks)
    pairs = sum(chunk.length * (chunk.start + chunk.length / 2) for chunk in chunks)
    return max(WEIGHTS_S, TOKEN_S * tokens) + PAIR_S * pairs


class _StretchedForward:
    """Forward passes that take at least ``pass_s``."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward

    def compute(self, chunks: list[Chunk]) -> Any:
        began = time.monotonic()
        seconds = pass_s(chunks)
        computed = self._forward.compute(chunks)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        return computed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forward, name)


class StretchedEngine(Engine):
    """The engine, all of whose forward passes are stretched, also after the warm-up, which begins new counts."""

    def _new_counts(self) -> None:
        super()._new_counts()
        self._forward: Any = _StretchedForward(self._forward)
