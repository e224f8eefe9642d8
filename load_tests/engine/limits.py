"""What the machine itself can do, measured here and now: reading memory, and multiplying bfloat16 matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes a second that all cores read together, and floating-point operations a second of large bfloat16
    products."""

    read_bytes: float
    bf16_flops: float

    def tokens_per_s(self, parameters: int, embedding: int, requests: int, prompt: int, answer: int) -> float:
        """Output tokens a second of ``requests`` at once, were nothing but weights read and multiplied.

        A step takes the longer of reading all weights and multiplying them with its rows; the head's ``embedding``
        parameters work for one row of a prompt only.
        """
        body = parameters - embedding
        prefill = max(
            2 * (body * requests * prompt + embedding * requests) / self.bf16_flops, 2 * parameters / self.read_bytes
        )
        step = max(2 * parameters * requests / self.bf16_flops, 2 * parameters / self.read_bytes)
        return requests * answer / (prefill + (answer - 1) * step)


def measure(size_mb: int = 512, side: int = 2048, rounds: int = 5) -> Limits:
    """The best of ``rounds``: what disturbs makes slower, never faster."""
    memory = torch.zeros(size_mb * 2**20 // 4)
    a = torch.randn(side, side).bfloat16()
    read = memory.nbytes / _best(memory.sum, rounds)
    flops = 2 * side**3 / _best(lambda: a @ a, rounds)
    return Limits(read, flops)


def _best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of ``rounds``."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
