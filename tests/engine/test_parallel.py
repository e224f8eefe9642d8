"""An engine over several processes gives the answers of an engine in one, whatever happens to its requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import BeamSearch, Engine, FinishReason, SamplingParams
from engine.runner import Runner
from tests.engine.beam_oracle import BeamOracle
from tests.engine.families import record
from tests.engine.margins import MIN_MARGIN, Choices
from tests.engine.models import VOCAB, ragged_prompts
from tests.engine.ranks import split_engine, whole_engine

pytestmark = pytest.mark.usefixtures("clear_choices")

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
SAMPLED = SamplingParams(temperature=0.8, top_p=0.9, seed=5, max_tokens=24, ignore_eos=True)
FORKED = SamplingParams(temperature=0.9, seed=3, n=3, max_tokens=12, ignore_eos=True)
BEAMS = SamplingParams(max_tokens=8, beam=BeamSearch(3))
SCORED = SamplingParams(temperature=0, max_tokens=4, prompt_logprobs=1, logprobs=2, ignore_eos=True)

CASES: dict[str, tuple[SamplingParams, dict[str, Any]]] = {
    "greedy": (GREEDY, {}),
    "sampled": (SAMPLED, {}),
    "forked": (FORKED, {}),
    "beams": (BEAMS, {}),
    "scored": (SCORED, {}),
    "chunked": (GREEDY, {"prefill_chunk": 7}),
    "preempted": (GREEDY, {"kv_cache_tokens": 160, "prefix_caching": False}),
    "guessed": (GREEDY, {"speculative_tokens": 3}),
    "drafted": (GREEDY, {"speculative_tokens": 3, "draft_model": "llama-tied"}),
    "int8": (GREEDY, {"kv_dtype": "int8"}),
}


PROMPTS = [prompt for prompt in ragged_prompts(VOCAB) if len(prompt) < 60]


def answers(engine: Engine, params: SamplingParams) -> list[tuple[int, ...]]:
    found = engine.generate(PROMPTS, params)
    assert {answer.finish_reason for answer in found} <= {FinishReason.LENGTH, FinishReason.STOP}
    return [answer.token_ids for answer in found]


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_one_process(model_path: Callable[[str], Path], choices: Choices, case: str) -> None:
    params, settings = CASES[case]
    directory = model_path("llama-untied")
    if "draft_model" in settings:
        settings = settings | {"draft_model": str(model_path(settings["draft_model"]))}
    if params.beam is not None:
        oracle = BeamOracle(directory, [0], max_tokens=8)
        assert all(oracle.answers(prompt, params.beam).margin >= MIN_MARGIN for prompt in PROMPTS)
    whole = whole_engine(directory, **settings)
    split = split_engine(directory, 2, **settings)
    try:
        for _ in range(2):  # the second from the prefix cache
            found, expected = answers(split, params), answers(whole, params)
            if case == "int8":
                choices.same(PROMPTS, found, expected, share=0.5)
            else:
                assert found == expected
        split.check_health()
    finally:
        split.close()

    mine, theirs = split.stats(), whole.stats()
    assert (mine.steps, mine.preemptions, mine.cached_tokens) == (
        theirs.steps,
        theirs.preemptions,
        theirs.cached_tokens,
    )
    assert (mine.preemptions > 0) == (case == "preempted")
    assert (mine.cached_tokens > 0) == (case not in ("preempted", "scored"))
    split.check_integrity()


def test_a_sequence_that_overflows_harms_no_other(
    model_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks are scrubbed on every rank: the next to get them must not find what is no number."""
    directory = model_path("llama-untied")
    engine = split_engine(directory, 2, kv_cache_tokens=288, prefix_caching=False)
    recorded = record(monkeypatch, Runner)
    try:
        expected = answers(engine, GREEDY)
        weight = engine._runner._own.model.weights.embedding  # type: ignore[attr-defined]
        kept = weight[1].clone()
        weight[1] = float("inf")
        failed = engine.generate([[1] * 40], GREEDY)[0]
        weight[1] = kept
        assert failed.finish_reason == "error"

        again = answers(engine, GREEDY)
    finally:
        engine.close()

    assert again == expected
    assert all(row.isfinite().all() for (_, position), row in recorded.items() if position != 40)
