"""Requests of all kinds at once, in an engine with little room: each gets what it gets alone, and leaves nothing.

Some are aborted, late or resumed, and steps of some fail. The seeds are fixed; ``MANTA_LONG_TESTS=1`` tries more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine import Completion, Delta, Engine, FinishReason, GenerationRequest, Grammar, SamplingParams
from engine.api import BeamSearch, OverloadedError, Priority, RequestError
from engine.completion import completions
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult
from tests.engine.families import CONFIGS
from tests.engine.models import VOCAB, save

FEW = range(8)  # which all run out of room at some time
SEEDS = range(200) if os.environ.get("MANTA_LONG_TESTS") else FEW
STEPS = 120
MOST = 12  # requests at once
TEXTS = ("The quick brown fox", "naïve café 你好 🙂", "a", "again and " * 8)
GRAMMARS = (
    Grammar.json_schema({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}),
    Grammar.regex("[a-c]{2,8}"),
    Grammar.choice(["yes", "no", "maybe not"]),
)

Alone = Callable[[GenerationRequest], list[Completion] | None]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with layers of two windows."""
    return save(CONFIGS["gemma3"], tmp_path_factory.mktemp("mixed") / "gemma3")


@pytest.fixture(scope="module")
def alone(windows: Path) -> Iterator[Alone]:
    """What a request gets from an engine that has nothing else to do; None: it is refused."""
    engine = Engine.from_pretrained(windows, kernels="compiled", threads=1, kv_cache_tokens=8192)
    known: dict[str, list[Completion] | None] = {}

    def answer(request: GenerationRequest) -> list[Completion] | None:
        key = repr((request.prompt, request.sampling))
        if key not in known:
            try:
                known[key] = engine.generate([request.prompt], request.sampling)
            except RequestError:
                known[key] = None
        return known[key]

    yield answer
    engine.close()


def settings(draw: random.Random) -> SamplingParams:
    """Parameters of which each is set now and then."""

    def maybe(share: float, **values: list[Any]) -> dict[str, Any]:
        return {name: draw.choice(some) for name, some in values.items()} if draw.random() < share else {}

    chosen: dict[str, Any] = {
        "max_tokens": draw.choice([1, 2, 5, 12, 25]),
        "seed": draw.randrange(100),
        "temperature": draw.choice([0, 0, 0.7, 1.5]),
        "ignore_eos": draw.random() < 0.5,
        **maybe(0.2, top_k=[1, 5, 100_000]),
        **maybe(0.2, top_p=[0.1, 0.9]),
        **maybe(0.1, min_p=[0.1]),
        **maybe(0.1, typical_p=[0.5]),
        **maybe(0.2, repetition_penalty=[0.8, 1.3], presence_penalty=[0.7]),
        **maybe(0.15, no_repeat_ngram_size=[1, 2, 3]),
        **maybe(0.15, bad_words=[("the", "a")]),
        **maybe(0.15, logit_bias=[{5: 3.0, 100: -100.0}]),
        **maybe(0.25, stop=[("e", "th"), (" a", "qqq")]),
        **maybe(0.15, stop_token_ids=[(7, 9)]),
        **maybe(0.25, logprobs=[0, 2], logprobs_mode=["raw", "processed"]),
        **maybe(0.2, prompt_logprobs=[0, 1]),
        **maybe(0.2, grammar=list(GRAMMARS)),
        **maybe(0.2, n=[2, 3]),
    }
    chosen |= maybe(0.2, min_tokens=[min(chosen["max_tokens"], 4)])
    if "n" not in chosen and draw.random() < 0.15:
        for name in ("top_k", "top_p", "min_p", "typical_p", "logprobs_mode"):
            chosen.pop(name, None)
        chosen |= {"temperature": 0, "beam": BeamSearch(width=3, early_stopping=draw.choice([True, False, "never"]))}
    return SamplingParams(**chosen)


@dataclass
class Mix:
    """A run: requests that come, and what becomes of them."""

    engine: Engine
    alone: Alone
    draw: random.Random
    running: dict[str, GenerationRequest] = field(default_factory=dict)
    deltas: dict[str, list[Delta]] = field(default_factory=dict)
    breaking: set[str] = field(default_factory=set)  # requests that steps fail with
    added: int = 0
    now: float = 0.0

    def __post_init__(self) -> None:
        run = self.engine._runner.run

        def breaking(chunks: Iterable[Chunk]) -> StepResult:
            planned = list(chunks)
            if any(chunk.sequence.request_id in self.breaking for chunk in planned) and self.draw.random() < 0.5:
                raise ArithmeticError("sabotage")
            return run(planned)

        self.engine._runner.run = breaking  # type: ignore[method-assign]
        self.engine._clock = self.clock
        self.engine.reset_counts()  # so that everything reads this clock

    def clock(self) -> float:
        self.now += 1e-5
        return self.now

    def arrive(self, name: str) -> None:
        """One more request, which may resume the answer that it would get alone."""
        draw, sampling = self.draw, settings(self.draw)
        ids = tuple(draw.randrange(3, VOCAB) for _ in range(draw.choice([1, 15, 16, 17, 33, 70])))
        asked: dict[str, Any] = {
            "cache_salt": draw.choice(["", "other"]),
            "tenant": draw.choice("abc"),
            "priority": draw.choice(list(Priority)),
            "deadline_s": draw.choice([None, None, 0.5, 20.0]),
            "ttft_slo_s": draw.choice([None, 1.0]),
            "reserve": sampling.beam is None and draw.random() < 0.2,
            "surplus": draw.random() < 0.15,
        }
        prompts: list[str | tuple[int, ...]] = [ids, *TEXTS]
        request = GenerationRequest(name, draw.choice(prompts), sampling, **asked)
        whole = self.alone(request)
        if whole is None:
            return
        if sampling.choices == 1 and sampling.beam is None and sampling.prompt_logprobs is None and draw.random() < 0.3:
            sent = whole[0].token_ids[: draw.randrange(len(whole[0].token_ids) + 1)]
            request = GenerationRequest(name, request.prompt, sampling, resume=sent, **asked)
        try:
            self.engine.add(request)
        except OverloadedError:
            return
        self.added += 1
        self.running[name], self.deltas[name] = request, []
        if draw.random() < 0.05:
            self.breaking.add(name)

    def take(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            self.deltas[delta.request_id].append(delta)
            if delta.last:
                self.check(self.running.pop(delta.request_id), self.deltas.pop(delta.request_id))

    def check(self, request: GenerationRequest, deltas: list[Delta]) -> None:
        """Fails unless the answer is the one that the request gets alone, as far as it goes."""
        reason, usage, whole = deltas[-1].finish_reason, deltas[-1].usage, self.alone(request)
        assert whole is not None
        assert usage is not None
        if reason is FinishReason.DEADLINE:
            assert request.deadline_s is not None
            assert not any(delta.token_ids for delta in deltas)
        elif reason is FinishReason.ERROR:
            assert request.request_id in self.breaking
        elif reason is FinishReason.ABORT or request.resume:
            for each in whole if request.sampling.beam is None else ():
                told = [delta for delta in deltas if delta.choice == each.choice]
                tokens = (*request.resume, *(token for delta in told for token in delta.token_ids))
                assert each.token_ids[: len(tokens)] == tokens
                if request.resume and reason is not FinishReason.ABORT:
                    assert (tokens, reason) == (each.token_ids, each.finish_reason)
                    assert each.text.endswith("".join(delta.text for delta in told))
                    assert usage.completion_tokens == len(tokens)
        else:
            assert [compared(one) for one in completions(deltas, request.sampling)] == [*map(compared, whole)]
            assert usage.prompt_tokens == whole[0].usage.prompt_tokens
            if reason is FinishReason.REFUSED and request.sampling.choices > 1:
                # One choice ends them all. How far the others came by then depends on who was beside them.
                assert usage.completion_tokens == sum(len(delta.token_ids) for delta in deltas)
            else:
                assert usage.completion_tokens == whole[0].usage.completion_tokens


def compared(one: Completion) -> tuple[object, ...]:
    """What is the same whatever else runs. Log probabilities may be NaN, which equals nothing."""
    scores = repr(one.logprobs), repr(one.prompt_logprobs)
    return one.text, one.token_ids, one.finish_reason, one.choice, one.score, one.error, *scores


@pytest.mark.parametrize("seed", SEEDS)
def test_each_request_gets_what_it_gets_alone_and_leaves_nothing(windows: Path, alone: Alone, seed: int) -> None:
    draw, names = random.Random(seed), count()
    engine = Engine.from_pretrained(
        windows,
        kernels="compiled",
        threads=1,
        kv_cache_tokens=draw.choice([256, 384, 640]),
        max_sequences=draw.choice([3, 6, 10]),
        max_batch_tokens=draw.choice([16, 48, 96]),
        prefill_chunk=draw.choice([8, 32]),
        preemption_cooldown=draw.choice([0, 4]),
        speculative_tokens=draw.choice([0, 4]),
        tenant_weights={"b": 2.0},
    )
    mix = Mix(engine, alone, draw)
    for step in range(4000):
        while step < STEPS and draw.random() < 0.35 and len(mix.running) < MOST:
            mix.arrive(f"{next(names)}")
        if mix.running and draw.random() < 0.04:
            mix.take(engine.abort([draw.choice(list(mix.running))]))
        mix.now += draw.choice([0.01, 0.1, 0.5])
        mix.take(engine.step())
        if step >= STEPS and not engine.has_work:
            break

    assert not mix.running
    assert engine._cache.used == 0
    engine.check_integrity()
    stats, scheduler = engine.stats(), engine._scheduler
    assert stats.finished + stats.aborted + stats.failed + stats.expired == mix.added > 20
    assert stats.preemptions > 0 or seed not in FEW
    assert scheduler.counters.active == scheduler.waiting.requests == scheduler.long_prompts == 0
    assert scheduler.queued_tokens() == ((0, 0, 0), (0, 0, 0))
    engine.close()
