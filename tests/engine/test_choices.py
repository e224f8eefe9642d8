"""Several choices of one prompt: computed once, each as if it were alone, all of them ended together if one breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Engine, SamplingParams
from engine.api import Delta, FinishReason, GenerationRequest, RequestError
from engine.seeds import choice_seed
from tests.engine.margins import MIN_MARGIN
from tests.engine.models import VOCAB, ragged_prompts

MakeEngine = Callable[..., Engine]
PROMPT = tuple(ragged_prompts(VOCAB)[-1])  # 90 tokens: not whole blocks
EIGHT = SamplingParams(n=8, temperature=1.0, seed=11, max_tokens=12, ignore_eos=True)


def run(engine: Engine, *requests: GenerationRequest) -> dict[str, list[Delta]]:
    for request in requests:
        engine.add(request)
    deltas: dict[str, list[Delta]] = {request.request_id: [] for request in requests}
    while engine.has_work:
        for delta in engine.step():
            deltas[delta.request_id].append(delta)
        engine.check_integrity()
    return deltas


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("kernels", ["torch", "auto"])
def test_the_prompt_is_computed_once_and_each_choice_is_its_own(make_engine: MakeEngine, kernels: Any) -> None:
    engine = make_engine("qwen3", kernels=kernels, prefix_caching=False)

    answers = engine.generate([PROMPT], EIGHT)

    assert engine.stats().prompt_tokens == len(PROMPT)
    assert [answer.choice for answer in answers] == list(range(8))
    assert len({answer.token_ids for answer in answers}) > 4
    assert {answer.usage.completion_tokens for answer in answers} == {8 * 12}
    for choice, answer in enumerate(answers):
        alone = replace(EIGHT, n=1, seed=choice_seed(11, choice))
        [expected] = make_engine("qwen3", kernels=kernels).generate([PROMPT], alone)
        assert answer.token_ids == expected.token_ids
    engine.check_integrity()
    assert engine.stats().blocks_used == 0


def test_choices_share_the_blocks_of_their_prompt(make_engine: MakeEngine) -> None:
    engine = make_engine(prefix_caching=False)
    engine.add(GenerationRequest("a", PROMPT, EIGHT))
    engine.step()
    engine.step()

    whole, rest = divmod(len(PROMPT), 16)
    assert engine.stats().running == 8
    assert engine.stats().blocks_used <= whole + 8 * (1 + (rest == 0))


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize(
    "config",
    [
        {"kv_cache_tokens": 160, "prefix_caching": False},
        {"kv_cache_tokens": 160},
        {"max_sequences": 3},
        {"max_sequences": 1},
        {"reserve_answers": True},
        {"reserve_answers": True, "kv_cache_tokens": 256},
    ],
    ids=str,
)
def test_without_room_for_all_they_answer_the_same_one_after_another(
    make_engine: MakeEngine, config: dict[str, Any]
) -> None:
    expected = [answer.token_ids for answer in make_engine().generate([PROMPT], EIGHT)]
    engine = make_engine(**config)

    deltas = run(engine, GenerationRequest("a", PROMPT, EIGHT), GenerationRequest("b", (1, 2, 3), SamplingParams(n=2)))

    for choice, tokens in enumerate(expected):
        assert tuple(t for delta in deltas["a"] if delta.choice == choice for t in delta.token_ids) == tokens
    assert engine.stats().blocks_used == 0
    assert engine.stats().finished == 2


def test_each_choice_ends_by_itself_and_the_request_with_the_last(make_engine: MakeEngine) -> None:
    engine = make_engine()
    params = replace(EIGHT, ignore_eos=False, stop_token_ids=tuple(range(0, VOCAB, 3)), max_tokens=30)

    deltas = run(engine, GenerationRequest("a", PROMPT, params))["a"]

    ends = {delta.choice: place for place, delta in enumerate(deltas) if delta.finish_reason is not None}
    assert sorted(ends) == list(range(8))
    assert [delta.last for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    for choice, place in ends.items():
        assert not [delta for delta in deltas[place + 1 :] if delta.choice == choice]
    usage = deltas[-1].usage
    assert usage is not None
    assert usage.completion_tokens == sum(len(delta.token_ids) for delta in deltas)
    assert usage.prompt_tokens == len(PROMPT)


def test_aborting_a_request_ends_all_its_choices(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=192)
    engine.add(GenerationRequest("a", PROMPT, EIGHT))
    engine.step()
    engine.step()

    engine.abort(["a"])

    assert not engine.has_work
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.blocks_used, stats.aborted) == (0, 0, 0, 1)


def test_a_choice_that_breaks_ends_its_request_and_no_other(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    engine.add(GenerationRequest("a", PROMPT, EIGHT))
    engine.add(GenerationRequest("b", (1, 2, 3), EIGHT))
    engine.step()
    job = engine._output_processor._groups["a"].live[5]

    def fail(token: int, last: bool, complete: bool) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(job.output, "push", fail)
    deltas = [delta for _ in range(14) for delta in engine.step()]

    mine = [delta for delta in deltas if delta.request_id == "a"]
    assert mine[-1].finish_reason is FinishReason.ERROR
    assert [delta.last for delta in mine].count(True) == 1
    assert {d.choice for d in deltas if d.request_id == "b" and d.finish_reason is FinishReason.LENGTH} == set(range(8))
    assert engine.stats().blocks_used == 0
    engine.check_integrity()


@pytest.mark.usefixtures("clear_choices")
def test_the_best_are_those_of_the_highest_mean_log_probability(make_engine: MakeEngine) -> None:
    params = replace(EIGHT, logprobs=0)
    every = make_engine().generate([PROMPT], params)
    every.sort(key=lambda one: -one.mean_logprob)
    wanted = every[:2]
    gaps = [one.mean_logprob - other.mean_logprob for one, other in pairwise(every[:3])]
    assert min(gaps) >= MIN_MARGIN

    found = make_engine().generate([PROMPT], replace(EIGHT, n=2, best_of=8))

    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    assert all(one.logprobs is None for one in found)


@pytest.mark.usefixtures("clear_choices")
def test_rules_are_kept_for_each_choice(make_engine: MakeEngine) -> None:
    params = replace(EIGHT, no_repeat_ngram_size=2, frequency_penalty=0.5)
    answers = make_engine().generate([PROMPT], params)

    for choice, answer in enumerate(answers):
        [alone] = make_engine().generate([PROMPT], replace(params, n=1, seed=choice_seed(11, choice)))
        assert answer.token_ids == alone.token_ids


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 127), st.integers(0, 127))
def test_choices_have_seeds_of_their_own(seed: int, one: int, other: int) -> None:
    assert (choice_seed(seed, one) == choice_seed(seed, other)) == (one == other)
    assert choice_seed(seed, 0) == seed
    assert -(2**63) <= choice_seed(seed, one) < 2**63


@pytest.mark.parametrize("field", [{"n": 0}, {"n": 129}, {"best_of": 0}, {"best_of": 129}])
def test_values_out_of_range_are_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        SamplingParams(**field)

    assert refusal.value.param == next(iter(field))


def test_fewer_to_choose_from_than_wanted_are_refused() -> None:
    with pytest.raises(RequestError, match="best_of"):
        SamplingParams(n=4, best_of=3)


def test_choices_that_overflow_together_leave_no_numbers_behind(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to be told ends the others; what those wrote must be scrubbed before."""
    engine = make_engine(kernels="torch", prefix_caching=False)
    engine.add(GenerationRequest("a", PROMPT, EIGHT))
    engine.step()
    scrubbed: list[int] = []
    run, scrub = engine._runner.run, engine._runner.scrub

    def overflowing(chunks: Any) -> Any:
        result = run(chunks)
        return result._replace(unsound=list(result.sampled))

    def counted(blocks: Any) -> None:
        scrubbed.extend(block for group in blocks for block in group)
        scrub(blocks)

    monkeypatch.setattr(engine._runner, "run", overflowing)
    monkeypatch.setattr(engine._runner, "scrub", counted)
    own = [
        table.held[-1] for job in engine._output_processor._groups["a"].live.values() for table in job.sequence.tables
    ]

    deltas = engine.step()

    assert [delta.finish_reason for delta in deltas] == [FinishReason.ERROR]
    assert len(set(own)) == 1  # of all, until they write: then each has a copy
    assert len(set(scrubbed)) >= 8
    assert not engine.has_work
    engine.check_integrity()


def test_several_choices_that_cannot_be_admitted_end_their_request_once(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(max_sequences=2)
    engine.add(GenerationRequest("a", PROMPT, EIGHT))
    engine.add(GenerationRequest("b", (1, 2, 3), SamplingParams(max_tokens=40, ignore_eos=True)))
    admit = engine._scheduler.cache.admit

    def fail(sequence: Any, spare: int) -> bool:
        if sequence.request_id == "a" and sequence.choice > 1:
            raise RuntimeError("broken")
        return admit(sequence, spare)

    monkeypatch.setattr(engine._scheduler.cache, "admit", fail)
    deltas = [delta for _ in range(120) if engine.has_work for delta in engine.step()]

    ends = [delta for delta in deltas if delta.last]
    assert [(delta.request_id, delta.finish_reason) for delta in ends] == [
        ("a", FinishReason.ERROR),
        ("b", FinishReason.LENGTH),
    ]
    assert engine.stats().blocks_used == 0
    engine.check_integrity()


def test_a_branch_that_cannot_begin_ends_its_request_alone(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    engine.add(GenerationRequest("a", PROMPT, EIGHT))
    engine.add(GenerationRequest("b", (1, 2, 3), replace(EIGHT, n=1)))
    fork = engine._scheduler.fork

    def fail(parent: Any, child: Any) -> bool:
        if child.choice == 3:
            raise RuntimeError("broken")
        return fork(parent, child)

    monkeypatch.setattr(engine._scheduler, "fork", fail)
    ends = [delta for _ in range(60) if engine.has_work for delta in engine.step() if delta.last]

    assert {(delta.request_id, delta.finish_reason) for delta in ends} == {
        ("a", FinishReason.ERROR),
        ("b", FinishReason.LENGTH),
    }
    assert engine.stats().blocks_used == 0
    engine.check_integrity()


def test_choices_that_wait_keep_nobody_out(make_engine: MakeEngine) -> None:
    engine = make_engine(max_sequences=2, max_waiting=4)
    engine.add(GenerationRequest("a", PROMPT, EIGHT))
    engine.step()

    assert engine.stats().waiting > 4
    for number in range(4):
        engine.add(GenerationRequest(str(number), (1, 2, 3), SamplingParams(max_tokens=1)))
