"""``EngineLoad``: the work and the speed of one engine, as routers and autoscaling see them. ``report`` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.priority import Priority

LATENCY_BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
"""Upper bounds, inclusive, of the engine's histogram buckets for latencies, in seconds. One more bucket has what is
above all of them."""


class TtftObjective(NamedTuple):
    """The seconds within which the first token of a request should come, and those that each 1,000 prompt tokens add
    that are not in the prefix cache."""

    ttft_s: float
    ttft_s_per_1k_tokens: float = 0.0

    def allowed_s(self, uncached_tokens: float) -> float:
        """Returns the seconds from arrival by which a request with that number of uncached prompt tokens is in time."""
        return self.ttft_s + self.ttft_s_per_1k_tokens * uncached_tokens / 1000


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """Counts of one scheduling class since the start.

    ``arrivals`` include refused requests, and leave out those that another replica had before
    (``GenerationRequest.continues``). ``finished`` includes those that ended before their answer was complete. Of
    ``prompt_tokens`` those are left out that the prefix cache was expected to have. ``ttft`` counts the first tokens by
    LATENCY_BOUNDS_S. ``late`` counts the requests among the arrivals whose first token came later than their
    ``TtftObjective`` allows, or that ended after that time without one; None: it is not counted.
    """

    arrivals: int = 0
    refusals: int = 0  # because the queue was full
    prompt_tokens: float = 0.0  # of the arrivals that were not refused
    finished: int = 0
    output_tokens: int = 0
    ttft: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_S) + 1)
    late: int | None = None


@dataclass(frozen=True, slots=True)
class DueWork:
    """The work of the class BATCH whose first tokens are due ``left_s`` seconds from now, or somewhat later: the last
    ones ``latest_left_s`` seconds from now."""

    left_s: float
    prompt_tokens: float = 0.0  # not yet computed
    output_tokens: float = 0.0  # expected
    latest_left_s: float = 0.0  # 0: unknown


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """The work and the speed of one engine, for autoscaling. Fields that begin with ``batch`` are those of the class
    BATCH, which is in the totals too. Rates and durations are recent means, 0 until measured."""

    running: int = 0  # sequences
    waiting: int = 0  # sequences
    queued_prompt_tokens: float = 0.0  # not yet computed, without those that the prefix cache is expected to have
    kv_used_tokens: float = 0.0
    kv_demand_tokens: float = 0.0  # of running and waiting sequences at their expected ends
    kv_capacity_tokens: float = 0.0
    prefill_tokens_per_s: float = 0.0  # of the time that goes into prefill
    decode_step_s: float = 0.0  # of steps without prefill
    decode_batch: float = 0.0  # sequences of those steps
    chunk_tokens: float = 0.0  # prompt tokens of a step that has some
    batch_prompt_tokens: float = 0.0  # of queued_prompt_tokens
    batch_sequences: int = 0  # of running and waiting
    batch_kv_tokens: float = 0.0  # of kv_demand_tokens
    batch_due: tuple[DueWork, ...] = ()  # of BATCH, with a deadline that is still to be kept; earliest first
    step_s: float = 0.0  # of a step, before its tokens: least squares fit, as the next three
    prompt_token_s: float = 0.0  # that a prompt token adds to a step
    sequence_s: float = 0.0  # that a decoding sequence adds to a step
    free_prompt_tokens: int = 0  # of each step, which add nothing: they are computed while the weights are read
    step_tokens: int = 0  # most tokens of a step
    long_step_tokens: int = 0  # most tokens of a step for prompts of several chunks
    long_beside_decodes: int = 0  # the same in a step with decodes, at present
    long_at_once: int = 1  # prompts of several chunks that share a step, at present
    prefill_chunk: int = 0  # most tokens of one prompt in a step
    max_sequences: int = 0  # most that run at once
    output_tokens: float = 0.0  # mean length of an answer; 0: none has ended
    classes: Mapping[Priority, ClassLoad] = field(default_factory=dict)
    itl: tuple[int, ...] = (0,) * (
        len(LATENCY_BOUNDS_S) + 1
    )  # times between tokens by LATENCY_BOUNDS_S, since the start
    itl_s: float = 0.0  # their sum
    age_s: float = 0.0  # seconds since the engine looked; 0 while it has nothing to do
