"""``place``: chooses the replica for a request, by predicted TTFT. Pure.

The cost of a replica is the TTFT that ``predict_ttft`` says, plus ``affinity_weight`` times the seconds for which it
would compute the prompt, raised by its KV cache usage. Without that weight, each request would take the least TTFT
for itself, and prompts would be computed again on replicas that are idle for a moment, while those that come next
wait for that. Affinity alone would overload the replica that has a popular prefix. Load alone would compute every
prefix on every replica.

As long as no replica has measured its steps, the cost is the number of sequences on it, plus ``affinity_weight`` times
the part of the prompt that it would have to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple
from zlib import crc32

from engine.api import Priority
from router.latency_prediction import predict_ttft
from router.ports.replica_load import ReplicaLoad

NEAR = 1.05
"""Costs up to this multiple of the lowest one are equal: predictions are not more precise. Otherwise the replica that
seems fastest by a hair would get every request at light load."""


class Candidate(NamedTuple):
    """A replica that may get the request."""

    replica_id: str
    load: ReplicaLoad  # with what this router has sent since the replica reported
    outstanding: int  # estimated sequences that run or wait there (``Lane.outstanding``)
    matched_tokens: int = 0  # of the prompt's start that were sent there before


class Choice(NamedTuple):
    """The replica that a request is to go to."""

    candidate: Candidate
    ttft_s: float  # predicted from the candidate's load


def place(
    candidates: Sequence[Candidate],
    request_id: str,
    prompt_tokens: int,
    priority: Priority = Priority.STANDARD,
    affinity_weight: float = 2.0,
) -> Choice | None:
    """Returns the candidate with the lowest cost, and its TTFT; None if there is no candidate.

    Of replicas with nearly equal costs, the one with the longest matched prefix is taken. Of several with equal
    prefixes, a hash of request and replica chooses one. So equal replicas share the load, and the result is
    deterministic.
    """
    if not candidates:
        return None
    prompt_tokens = max(1, prompt_tokens)
    # Replicas that start side by side slow each other's warm-up down. One that seemed slow beside others that have
    # answered requests would never get those that show how fast it is.
    measured = [candidate.load for candidate in candidates if candidate.load.measured]
    known = [load for load in measured if load.output_tokens > 0] or measured
    answered = bool(known) and known[0].output_tokens > 0

    def cost(candidate: Candidate, ttft_s: float) -> float:
        load = candidate.load
        if not known:
            uncached = 1.0 - min(1.0, candidate.matched_tokens / prompt_tokens)
            return candidate.outstanding * (1.0 + load.kv_used) + affinity_weight * uncached
        if not load.measured or (answered and load.output_tokens <= 0):
            load = _as_fast_as(known, load, prompt_tokens)
            ttft_s = predict_ttft(load, prompt_tokens, candidate.matched_tokens, priority)
        own_s = max(0, prompt_tokens - candidate.matched_tokens) * load.prompt_token_s
        # An engine whose KV cache is nearly full preempts.
        return (ttft_s + affinity_weight * own_s) * (1.0 + load.kv_used)

    ttfts = [predict_ttft(each.load, prompt_tokens, each.matched_tokens, priority) for each in candidates]
    costs = list(map(cost, candidates, ttfts))
    limit = NEAR * min(costs)
    near = [at for at, each in enumerate(costs) if each <= limit]

    def order(at: int) -> tuple[int, int]:
        candidate = candidates[at]
        return -candidate.matched_tokens, crc32(f"{request_id}/{candidate.replica_id}".encode())

    chosen = near[0] if len(near) == 1 else min(near, key=order)
    return Choice(candidates[chosen], ttfts[chosen])


def _as_fast_as(peers: Sequence[ReplicaLoad], load: ReplicaLoad, prompt_tokens: int) -> ReplicaLoad:
    """Returns the load of a replica that has measured nothing of requests, with the mean speed of its peers: with its
    own, which is 0 or that of its warm-up, it would get every request, or none. Limits that it does not report are the
    highest of its peers, which differ in a rollout alone.

    If its release does not report queued tokens, its waiting sequences count as prompts of ``prompt_tokens``.
    """
    return replace(
        load,
        queued_short=load.queued_short or (0, load.waiting * prompt_tokens, 0),
        decoding=load.decoding or load.running,
        step_s=fmean(peer.step_s for peer in peers),
        prompt_token_s=fmean(peer.prompt_token_s for peer in peers),
        sequence_s=fmean(peer.sequence_s for peer in peers),
        free_prompt_tokens=round(fmean(peer.free_prompt_tokens for peer in peers)),
        step_tokens=load.step_tokens or max(peer.step_tokens for peer in peers),
        long_step_tokens=load.long_step_tokens or max(peer.long_step_tokens for peer in peers),
        long_beside_decodes=load.long_beside_decodes or max(peer.long_beside_decodes for peer in peers),
        prefill_chunk=load.prefill_chunk or max(peer.prefill_chunk for peer in peers),
        max_sequences=load.max_sequences or max(peer.max_sequences for peer in peers),
        output_tokens=load.output_tokens or fmean(peer.output_tokens for peer in peers),
        kv_capacity_tokens=load.kv_capacity_tokens or max(peer.kv_capacity_tokens for peer in peers),
        correction=fmean(peer.correction for peer in peers),
        overhead_s=fmean(peer.overhead_s for peer in peers),
    )
