"""What travels through a lane: plain tuples, so that pickling a step's deltas costs next to nothing.

A replica yields one LaneItem per engine step (or per heartbeat when idle); the router turns its rows back into Deltas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.api import Delta, EngineStats, FinishReason, ModelInfo, TokenLogprobs, Usage

DeltaRow = tuple[
    str,
    tuple[int, ...],
    str,
    str | None,
    tuple[int, int, int] | None,
    str | None,
    tuple[TokenLogprobs, ...] | None,
    int,
    tuple[TokenLogprobs, ...] | None,
    bool,
]
"""request id, token ids, text, finish reason, usage (prompt, completion, cached), error, logprobs, choice, logprobs of
the prompt, whether the request has ended."""


class ReplicaLoad(NamedTuple):
    """How busy a replica's engine is, as of the step that carries it."""

    running: int  # sequences
    waiting: int  # sequences
    blocks_used: int
    blocks_total: int

    @classmethod
    def of(cls, stats: EngineStats) -> ReplicaLoad:
        return cls(stats.running, stats.waiting, stats.blocks_used, stats.blocks_total)


class LaneItem(NamedTuple):
    """One item of a lane. ``model`` is set on the first item of a lane and only there."""

    load: ReplicaLoad
    rows: list[DeltaRow]
    model: ModelInfo | None = None


def pack(deltas: Iterable[Delta]) -> list[DeltaRow]:
    """Deltas as rows, in order."""
    return [
        (
            d.request_id,
            d.token_ids,
            d.text,
            None if d.finish_reason is None else d.finish_reason.value,
            None if d.usage is None else (d.usage.prompt_tokens, d.usage.completion_tokens, d.usage.cached_tokens),
            d.error,
            d.logprobs,
            d.choice,
            d.prompt_logprobs,
            d.last,
        )
        for d in deltas
    ]


def unpack(row: DeltaRow) -> Delta:
    """The Delta that ``row`` was packed from."""
    request_id, token_ids, text, reason, usage, error, logprobs, choice, of_prompt, _ = row
    if reason is None:
        return Delta(request_id, token_ids, text, logprobs=logprobs, choice=choice, prompt_logprobs=of_prompt)
    counts = None if usage is None else Usage(*usage)
    return Delta(request_id, token_ids, text, FinishReason(reason), counts, error, logprobs, choice, of_prompt)
