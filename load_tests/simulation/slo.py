"""``Slo``: what a request must keep to count as served in time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Slo:
    """A time to the first token and a mean time between tokens, in seconds.

    No replica answers a prompt of 100,000 tokens as soon as one of 100, so the first token may come later by
    ``ttft_s_per_token`` for each token of the prompt. Policies see latencies as they are.
    """

    ttft_s: float = 2.0
    itl_s: float = 0.1
    ttft_s_per_token: float = 0.25e-3

    def kept(self, ttft: NDArray[np.float64], itl: NDArray[np.float64], prompt: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which requests kept both objectives. NaN, for a request that was not served, is not kept."""
        result: NDArray[np.bool_] = (ttft <= self.ttft_s + self.ttft_s_per_token * prompt) & (itl <= self.itl_s)
        return result
