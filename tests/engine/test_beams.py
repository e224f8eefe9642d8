"""Beam search and beam sampling: transformers' sequences and scores, within the batch of everybody else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, SamplingParams
from engine.api import BeamSearch, Delta, FinishReason, GenerationRequest, Grammar, RequestError, Usage
from engine.completion import Completion, completions
from tests.engine.beam_oracle import BeamOracle
from tests.engine.margins import MIN_MARGIN
from tests.engine.models import VOCAB, ragged_prompts

MakeEngine = Callable[..., Engine]
EOS = 0
NEW = 12
LATER_ENDS = tuple(range(3, VOCAB, 9))[:12]  # so that random models end answers at all lengths
EACH = 16  # prompts of each kind of search, which has prompts of its own: 288 for all 18 kinds
OTHERS = SamplingParams(temperature=1.0, seed=5, max_tokens=40, ignore_eos=True)


def prompts(kind: object = 3) -> Iterator[tuple[int, ...]]:
    """As many as a test wants, but not for ever: most should be clear. Each ``kind`` has others."""
    numbers = random.Random(repr(kind))
    for _ in range(120):
        yield tuple(numbers.randrange(1, VOCAB) for _ in range(numbers.randrange(1, 40)))


@pytest.fixture(scope="session")
def oracle(model_path: Callable[[str], Path]) -> BeamOracle:
    """transformers' search on the model that ``make_engine`` makes by default."""
    return BeamOracle(model_path("llama-tied"), (EOS, *LATER_ENDS), NEW)


def params(beam: BeamSearch, **settings: Any) -> SamplingParams:
    return SamplingParams(n=beam.width, beam=beam, max_tokens=NEW, stop_token_ids=LATER_ENDS, **settings)


def serve(engine: Engine, requests: dict[str, GenerationRequest]) -> dict[str, list[Completion]]:
    for request in requests.values():
        engine.add(request)
    deltas: dict[str, list[Delta]] = {name: [] for name in requests}
    while engine.has_work:
        for delta in engine.step():
            deltas[delta.request_id].append(delta)
        engine.check_integrity()
    assert engine.stats().blocks_used == 0
    return {name: completions(deltas[name], request.sampling) for name, request in requests.items()}


def among_others(engine: Engine, asked: list[tuple[tuple[int, ...], SamplingParams]]) -> list[list[Completion]]:
    """The answers to what is asked, while other requests share the batch."""
    requests = {str(n): GenerationRequest(str(n), *one) for n, one in enumerate(asked)}
    others = {f"x{n}": GenerationRequest(f"x{n}", tuple(p), OTHERS) for n, p in enumerate(ragged_prompts(VOCAB))}
    answers = serve(engine, others | requests)
    return [answers[name] for name in requests]


def same(mine: list[Completion], theirs: list[tuple[tuple[int, ...], float]]) -> None:
    assert [answer.token_ids for answer in mine] == [tokens for tokens, _ in theirs]
    assert [answer.score for answer in mine] == pytest.approx([score for _, score in theirs], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, -0.7])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_beam_search_is_that_of_transformers(
    make_engine: MakeEngine, oracle: BeamOracle, width: int, length_penalty: float, early_stopping: Any
) -> None:
    beam = BeamSearch(width, length_penalty, early_stopping)
    asked = list(oracle.clear_answers(prompts(beam), EACH, beam))

    answers = among_others(make_engine(max_sequences=24), [(one, params(beam)) for one, _, _ in asked])

    for (_, _, theirs), mine in zip(asked, answers, strict=True):
        same(mine, theirs.answers)
    assert len({len(answer.token_ids) for mine in answers for answer in mine}) > 3


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [0.8, -0.7])
@pytest.mark.parametrize(("width", "cuts"), [(2, {}), (4, {"top_k": 30, "temperature": 2.0}), (8, {"top_p": 0.9})])
def test_beam_sampling_is_that_of_transformers(
    make_engine: MakeEngine,
    oracle: BeamOracle,
    width: int,
    cuts: dict[str, Any],
    length_penalty: float,
    early_stopping: Any,
) -> None:
    beam = BeamSearch(width, length_penalty, early_stopping, do_sample=True)
    clear = list(oracle.clear_answers(prompts(beam), EACH, beam, **cuts))
    asked = [(prompt, params(beam, seed=seed, **cuts)) for prompt, seed, _ in clear]

    answers = among_others(make_engine(max_sequences=24), asked)

    for (_, _, theirs), mine in zip(clear, answers, strict=True):
        same(mine, theirs.answers)


def test_rules_change_what_beams_are_made_of(make_engine: MakeEngine, oracle: BeamOracle) -> None:
    beam = BeamSearch(4)
    rules = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    asked = list(oracle.clear_answers(prompts(), 12, beam, **rules))

    answers = among_others(make_engine(max_sequences=64), [(prompt, params(beam, **rules)) for prompt, _, _ in asked])

    for (_, _, theirs), mine in zip(asked, answers, strict=True):
        same(mine, theirs.answers)


@pytest.mark.parametrize(
    "config",
    [
        {"kv_cache_tokens": 160},
        {"kv_cache_tokens": 160, "prefix_caching": False},
        {"kv_cache_tokens": 144},
        {"max_sequences": 3},
        {"max_sequences": 1},
        {"reserve_answers": True},
        {"prefill_chunk": 7, "max_batch_tokens": 9, "max_sequences": 9},
        {"kernels": "torch"},
    ],
    ids=str,
)
@pytest.mark.parametrize("do_sample", [False, True])
def test_beams_without_room_find_the_same(
    make_engine: MakeEngine, oracle: BeamOracle, config: dict[str, Any], do_sample: bool
) -> None:
    beam = BeamSearch(8, do_sample=do_sample)
    clear = list(oracle.clear_answers(chain(map(tuple, ragged_prompts(VOCAB)), prompts()), 8, beam))
    asked = [(prompt, params(beam, seed=seed)) for prompt, seed, _ in clear]

    answers = among_others(make_engine(**config), asked)

    for (_, _, theirs), mine in zip(clear, answers, strict=True):
        same(mine, theirs.answers)


def test_four_beams_need_little_more_memory_than_one_answer(make_engine: MakeEngine) -> None:
    prompt = tuple(1 + n % (VOCAB - 1) for n in range(512))
    settings = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    peaks = []
    for beam in (None, BeamSearch(4)):
        engine = make_engine("llama-long", prefix_caching=False)
        engine.add(GenerationRequest("a", prompt, replace(settings, beam=beam)))
        peak = 0
        while engine.has_work:
            engine.step()
            peak = max(peak, engine.stats().blocks_used)
        assert engine.stats().prompt_tokens == 512
        peaks.append(peak)

    assert peaks[1] < 1.6 * peaks[0]


def test_answers_come_whole_at_the_end_and_are_counted_once(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.add(GenerationRequest("a", (1, 2, 3), replace(params(BeamSearch(4)), n=3, logprobs=2, prompt_logprobs=1)))
    deltas = [delta for _ in range(NEW + 4) for delta in engine.step()]

    assert [delta.choice for delta in deltas] == [0, 1, 2]
    assert [delta.last for delta in deltas] == [False, False, True]
    assert deltas[0].prompt_logprobs is not None
    assert len(deltas[0].prompt_logprobs) == 3
    usage, stats = deltas[-1].usage, engine.stats()
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, sum(len(delta.token_ids) for delta in deltas))
    assert (stats.generated_tokens, stats.finished, stats.running) == (usage.completion_tokens, 1, 0)
    [use] = engine.metrics().tenants.values()
    assert (use.prompt_tokens, use.generated_tokens, use.finished) == (3, usage.completion_tokens, 1)
    for delta in deltas:
        assert delta.score is not None
        assert delta.logprobs is not None
        shown = len(delta.token_ids) - (delta.finish_reason is FinishReason.STOP)
        assert len(delta.logprobs) == shown
        if delta.finish_reason is FinishReason.LENGTH:
            total = sum(one.chosen.logprob for one in delta.logprobs)
            assert total / len(delta.token_ids) == pytest.approx(delta.score, abs=1e-4)


@pytest.mark.parametrize("stop", ["a", "ab", "xyz", "0", "1"])
def test_no_answer_holds_a_stop_string(make_engine: MakeEngine, stop: str) -> None:
    settings = SamplingParams(n=6, beam=BeamSearch(6), max_tokens=30, stop=(stop,), ignore_eos=True)

    answers = make_engine().generate(["The quick"], settings)

    assert not [answer for answer in answers if stop in answer.text]
    for answer in answers:
        assert (answer.finish_reason is FinishReason.LENGTH) == (len(answer.token_ids) == 30)


def test_all_answers_follow_the_grammar(make_engine: MakeEngine) -> None:
    settings = SamplingParams(n=4, beam=BeamSearch(4), max_tokens=20, grammar=Grammar.choice(["cat", "cow", "dog"]))

    answers = make_engine().generate(["x"], settings)

    assert {answer.text for answer in answers} <= {"cat", "cow", "dog"}
    assert len({answer.token_ids for answer in answers}) == len(answers)  # some may be one text in other tokens
    assert {answer.finish_reason for answer in answers} == {FinishReason.STOP}
    assert [answer.score for answer in answers] == sorted([a.score or 0 for a in answers], reverse=True)


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_a_beam_that_cannot_go_on_leaves_the_others(make_engine: MakeEngine, width: int) -> None:
    engine = make_engine()
    ids = {text: engine._admission.tokenizer.encode(text) for text in "abcdef"}
    assert all(len(tokens) == 1 for tokens in ids.values())
    allowed = tuple(ids[text][0] for text in "ace")
    dead_end = Grammar.regex("(a[bd]|c[ef])")  # after "a" nothing of it is allowed
    settings = SamplingParams(beam=BeamSearch(width), max_tokens=5, grammar=dead_end, allowed_token_ids=allowed)

    found = engine.generate(["x"], settings)[0]

    if width > 1:
        assert found.text == "ce"
    else:
        assert found.text == "ce" or found.finish_reason is FinishReason.REFUSED


def test_scores_are_those_of_the_tokens_under_a_grammar_too(make_engine: MakeEngine) -> None:
    beam = BeamSearch(4, length_penalty=0.0)
    settings = SamplingParams(n=4, beam=beam, max_tokens=20, logprobs=0, grammar=Grammar.choice(["cat", "cow", "dog"]))

    for answer in make_engine().generate(["x"], settings):
        assert answer.logprobs is not None
        assert answer.score == pytest.approx(sum(one.chosen.logprob for one in answer.logprobs), abs=1e-3)


def test_forks_without_room_begin_to_wait_when_they_are_made(make_engine: MakeEngine) -> None:
    now = [0.0]
    engine = make_engine(max_sequences=2, prefix_caching=False)
    engine._output_processor._clock = lambda: now[0]
    engine.add(GenerationRequest("a", tuple(range(1, 50)), params(BeamSearch(4))))
    now[0] = 1e6
    engine.step()

    waiting = [one for one in engine._scheduler.waiting if one.choice]
    assert waiting
    assert all(one.queued_at == now[0] for one in waiting)
    while engine.has_work:
        engine.step()
    assert engine.stats().cached_tokens == 0


def test_where_no_answer_can_be_found_the_request_is_refused_and_no_other(make_engine: MakeEngine) -> None:
    nothing = SamplingParams(beam=BeamSearch(2), max_tokens=5, grammar=Grammar.regex("é+"), allowed_token_ids=(7,))
    requests = {"bad": GenerationRequest("bad", (1,), nothing), "good": GenerationRequest("good", (1, 2), OTHERS)}

    answers = serve(make_engine(), requests)

    assert answers["bad"][0].finish_reason is FinishReason.REFUSED
    assert len(answers["good"][0].token_ids) == 40


def test_aborting_a_search_gives_all_its_blocks_back(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=160)
    engine.add(GenerationRequest("a", tuple(range(1, 60)), params(BeamSearch(8))))
    for _ in range(5):
        engine.step()

    engine.abort(["a"])

    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.blocks_used, stats.aborted) == (0, 0, 0, 1)
    assert not engine.has_work
    assert engine.generate([[1, 2]], replace(OTHERS, max_tokens=3))[0].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("steps", range(2, 12))
def test_a_search_that_is_cut_off_costs_its_prompt(make_engine: MakeEngine, steps: int) -> None:
    """Also if its first beam has been dropped since, or has no blocks at the moment."""
    engine = make_engine(kv_cache_tokens=160)
    prompt = tuple(range(1, 60))
    engine.add(GenerationRequest("a", prompt, params(BeamSearch(8))))
    for _ in range(steps):
        assert engine.step() == []

    (last,) = engine.abort(["a"])

    assert last.usage == Usage(len(prompt), 0, 0)


def test_a_beam_that_breaks_ends_its_request_and_no_other(
    make_engine: MakeEngine, oracle: BeamOracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert oracle.answers((1, 2, 3), BeamSearch(3)).margin >= MIN_MARGIN
    expected = serve(make_engine(), {"b": GenerationRequest("b", (1, 2, 3), params(BeamSearch(3)))})
    engine = make_engine()
    deltas: list[Delta] = []
    for name in "ab":
        engine.add(GenerationRequest(name, (1, 2, 3), params(BeamSearch(3))))
    for _ in range(3):
        deltas += engine.step()

    def fail(token: int) -> Any:
        raise RuntimeError("broken")

    search = engine._output_processor._searches["a"]
    monkeypatch.setattr(search.jobs[0].output, "is_end", fail)
    while engine.has_work:
        deltas += engine.step()
        engine.check_integrity()

    by_name = {name: [delta for delta in deltas if delta.request_id == name] for name in "ab"}
    assert [delta.finish_reason for delta in by_name["a"]] == [FinishReason.ERROR]
    assert [delta.token_ids for delta in by_name["b"]] == [answer.token_ids for answer in expected["b"]]
    assert engine.stats().blocks_used == 0


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"n": 3}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"temperature": 0.5}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.5}, "top_p"),
        ({"min_p": 0.1}, "min_p"),
        ({"typical_p": 0.9}, "typical_p"),
        ({"logprobs_mode": "processed"}, "logprobs_mode"),
        ({"beam": BeamSearch(2, do_sample=True), "temperature": 0.0}, "temperature"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refusal:
        SamplingParams(**{"beam": BeamSearch(2), **settings})

    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"width": 0}, "beam"),
        ({"width": 33}, "beam"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"early_stopping": "always"}, "early_stopping"),
    ],
    ids=str,
)
def test_a_bad_search_is_refused(settings: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refusal:
        BeamSearch(**settings)

    assert refusal.value.param == param


def test_too_many_tokens_that_end_a_search_are_refused(make_engine: MakeEngine) -> None:
    settings = SamplingParams(beam=BeamSearch(2), stop_token_ids=tuple(range(1, 30)))

    with pytest.raises(RequestError) as refusal:
        make_engine().generate([[1]], settings)

    assert refusal.value.param == "stop_token_ids"
