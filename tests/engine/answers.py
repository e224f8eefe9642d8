"""Answers of an engine that holds no block after them."""

from __future__ import annotations

from collections.abc import Sequence

from engine import Engine, SamplingParams


def tokens_of(engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[tuple[int, ...]]:
    answers = [answer.token_ids for answer in engine.generate(prompts, params)]
    engine.check_integrity()
    assert engine.stats().blocks_used == 0
    return answers
