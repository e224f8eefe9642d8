"""``ReplicaLoad``: what a replica has to do and how fast it does it, as the router knows it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.api import EngineLoad, EngineStats


@dataclass(slots=True)  # not frozen: it is made for each step of a replica, and again for each request
class ReplicaLoad:
    """The load of a replica's engine. Each item of a lane carries it. Nothing changes one that is made: parts of the
    router compare by identity, and ``dataclasses.replace`` makes others.

    ``router.latency_prediction`` predicts a request's TTFT from it. The fields from ``decoding`` on have their
    defaults if the replica's release does not report them, and those that are measured until they are.
    """

    running: int = 0  # sequences
    waiting: int = 0  # sequences
    blocks_used: int = 0  # KV blocks
    blocks_total: int = 0  # KV blocks
    wait_s: float = 0.0  # estimated seconds until one more sequence starts
    decoding: int = 0  # of ``running``: sequences that are not in prefill
    # Prompt tokens to be computed, without those in the prefix cache, by class in the order of ``Priority``:
    queued_short: tuple[int, ...] = ()  # of prompts of at most ``prefill_chunk`` tokens
    queued_long: tuple[int, ...] = ()  # of longer ones
    step_s: float = 0.0  # seconds of a step, before its tokens
    prompt_token_s: float = 0.0  # seconds that a prompt token adds to a step; its inverse is the prefill rate
    sequence_s: float = 0.0  # seconds that a decoding sequence adds to a step
    step_tokens: int = 0  # most tokens of a step
    long_step_tokens: int = 0  # most tokens of a step for prompts of several chunks
    long_beside_decodes: int = 0  # the same in a step with decodes, at present
    prefill_chunk: int = 0  # most tokens of one prompt in a step
    max_sequences: int = 0  # most that run at once
    output_tokens: float = 0.0  # mean length of an answer
    kv_demand_tokens: float = 0.0  # of running and waiting sequences at their expected ends
    kv_capacity_tokens: float = 0.0  # that the KV cache holds
    long_prompts: int = 0  # of ``queued_long``
    long_at_once: int = 1  # prompts of several chunks that share a step
    lanes: int = 1  # routers that send requests to the replica
    free_prompt_tokens: int = 0  # of each step, which add nothing to it: they are computed while the weights are read
    # What the router has learnt and heard; replicas send the defaults:
    correction: float = 1.0  # factor of predicted TTFTs
    overhead_s: float = 0.0  # of each request, beside what the replica's steps take
    step_age_s: float = -1.0  # seconds since the end of a step that the router has heard of; -1: unknown

    @classmethod
    def of(cls, stats: EngineStats, load: EngineLoad, lanes: int = 1) -> ReplicaLoad:
        """Returns the load in ``stats`` and ``load`` of an engine whose replica has ``lanes`` lanes."""
        return cls(
            stats.running,
            stats.waiting,
            stats.blocks_used,
            stats.blocks_total,
            stats.wait_s,
            stats.decoding,
            stats.queued_short,
            stats.queued_long,
            load.step_s,
            load.prompt_token_s,
            load.sequence_s,
            load.step_tokens,
            load.long_step_tokens,
            load.long_beside_decodes,
            load.prefill_chunk,
            load.max_sequences,
            load.output_tokens,
            load.kv_demand_tokens,
            load.kv_capacity_tokens,
            stats.long_prompts,
            load.long_at_once,
            lanes,
            load.free_prompt_tokens,
        )

    @property
    def measured(self) -> bool:
        """Whether the replica has measured its steps. Otherwise ``wait_s`` is all that is known."""
        return self.prompt_token_s > 0 or self.step_s > 0

    @property
    def kv_used(self) -> float:
        """The share of KV blocks in use, 0 to 1."""
        return self.blocks_used / self.blocks_total if self.blocks_total else 0.0
