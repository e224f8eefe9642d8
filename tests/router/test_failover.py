"""An answer that another replica goes on with is that of an undisturbed run: every kind of request, cut at every step.

Two real engines stand for two replicas. Each attempt but the last is cut after a number of batches.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pytest

from engine import Engine
from engine.api import (
    BeamSearch,
    Conversation,
    Delta,
    FinishReason,
    GenerationRequest,
    Grammar,
    Message,
    Prompt,
    SamplingParams,
    TokenLogprobs,
    Usage,
)
from router.answer_events import AnswerEvent, Finished, PromptScored
from router.complete_answer import Answer
from router.config.failover import FailoverConfig
from router.errors import RefusalError, refusal_of
from router.generation.attempts import SETTLE_S
from router.generation.collect import Collector
from router.generation.generate import Generation, generate
from router.generation.sent_answer import SentAnswer, continuations
from router.inference_request import InferenceRequest, TextParsing
from router.openai.completions_writer import CompletionWriter
from router.ports.tier_backend import (
    ModelVersionError,
    OnPlaced,
    OnUsage,
    PoisonRequestError,
    ReplicaDrainedError,
    ReplicaError,
    ReplicaLostError,
    ReplicaOverloadedError,
    TierSnapshot,
)
from router.usage_meter import UsageMeter
from tests.router.backend import ReadyTiers, ScriptedBackend
from tests.router.conftest import FAST
from tests.router.served import Served

REPLICAS = ("a", "b", "c")
TOKENS = 10
FAILOVER = FailoverConfig(max_attempts=10, max_lost_replicas=10)
WILD = SamplingParams(temperature=1.3, seed=7, max_tokens=TOKENS, ignore_eos=True)
PLAIN = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}}, "required": ["name"]}
TALK = Conversation((Message("user", "Where is Paris?"),))
KINDS: dict[str, SamplingParams] = {
    "greedy": PLAIN,
    "seeded": WILD,
    "unseeded": replace(WILD, seed=None),
    "choices": replace(WILD, n=3),
    "choices of different lengths": replace(WILD, n=3, temperature=2.0, ignore_eos=False, stop=("e", "a")),
    "best of three": replace(WILD, n=2, best_of=3),
    "schema": replace(WILD, grammar=Grammar.json_schema(SCHEMA), ignore_eos=False, max_tokens=24),
    "choices of a schema": replace(WILD, n=2, grammar=Grammar.json_schema(SCHEMA), ignore_eos=False, max_tokens=24),
    "logprobs": replace(WILD, logprobs=2),
    "logprobs of choices": replace(WILD, n=2, logprobs=1, logprobs_mode="processed"),
    "prompt logprobs": replace(PLAIN, prompt_logprobs=1),
    "prompt logprobs of choices": replace(WILD, n=2, prompt_logprobs=0),
    "penalties": replace(PLAIN, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.5),
    "n-grams": replace(PLAIN, no_repeat_ngram_size=2),
    "bad words": replace(PLAIN, bad_words=("the", "is", "a")),
    "min_tokens": replace(WILD, min_tokens=6, ignore_eos=False, stop=("e",)),
    "bias": replace(WILD, logit_bias={5: 2.0}, top_k=20, top_p=0.9),
    "beams": SamplingParams(n=2, beam=BeamSearch(width=3), temperature=0, max_tokens=6),
}


@cache
def engines() -> tuple[Engine, ...]:
    """Two engines over the same model."""
    return tuple(Engine.from_pretrained(FAST, dtype="float32", threads=1, kv_cache_tokens=4096) for _ in range(2))


@pytest.fixture(scope="module", autouse=True)
def closed_engines() -> Iterator[None]:
    """Ends the processes that tried grammars out, which would outlive the tests."""
    yield
    if engines.cache_info().currsize:
        for engine in engines():
            engine.close()
        engines.cache_clear()


@dataclass
class Replicas(ReadyTiers):
    """Replicas that are lost as scripted: attempt i, if it is in ``cuts``, after as many batches."""

    cuts: Sequence[int] = ()
    fault: type[ReplicaError] = ReplicaLostError
    requests: list[GenerationRequest] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=lambda: dict.fromkeys(REPLICAS, "1"))
    full: int = 0  # attempts that are refused after the first one
    warm: frozenset[str] = frozenset()
    used: list[str] = field(default_factory=list)
    _deltas: dict[str, list[Delta]] = field(default_factory=lambda: defaultdict(list))

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [TierSnapshot("fast", frozenset(REPLICAS) - self.warm, warm=self.warm)]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        place = len(self.requests)
        self.requests.append(request)
        replica = next((name for name in REPLICAS if name not in avoid), REPLICAS[0])
        self.used.append(replica)
        if request.model_version not in ("", self.versions[replica]):
            raise ModelVersionError("another version", replica)
        if place and self.full:
            self.full -= 1
            raise ReplicaOverloadedError("full", replica, 0.01)
        engine = engines()[place % 2]
        left = self.cuts[place] if place < len(self.cuts) else -1
        engine.add(request)
        try:
            while left:
                await asyncio.sleep(0)
                while not self._deltas[request.request_id]:
                    for delta in engine.step():
                        self._deltas[delta.request_id].append(delta)
                batch = self._deltas.pop(request.request_id)
                yield batch
                if batch[-1].last:
                    return
                left -= 1
            raise self.fault("lost", replica, self.versions[replica])
        finally:
            engine.abort([request.request_id])


@dataclass
class Result:
    """What the client gets, and what it pays for."""

    answers: list[Answer]
    usage: Usage
    scored: list[tuple[TokenLogprobs, ...]]
    events: list[AnswerEvent]
    meter: UsageMeter
    backend: Replicas

    @property
    def paid(self) -> Usage:
        return self.meter.total.usage

    def same(self, other: Result) -> None:
        """Fails unless both are alike. How much of a prompt was cached depends on the replica alone."""
        assert [repr(answer) for answer in self.answers] == [repr(answer) for answer in other.answers]
        assert [repr(each) for each in self.scored] == [repr(each) for each in other.scored]  # nan equals nothing
        assert counted(self.usage) == counted(other.usage) == counted(self.paid) == counted(other.paid)
        assert self.meter.total.exact


def counted(usage: Usage) -> tuple[int, int]:
    return usage.prompt_tokens, usage.completion_tokens


def run(
    sampling: SamplingParams,
    cuts: Sequence[int] = (),
    prompt: Prompt = "naïve 🙂 day",
    parsing: TextParsing | None = None,
    failover: FailoverConfig = FAILOVER,
    deadline_s: float | None = None,
    **backend: object,
) -> Result:
    """What a request gets from replicas that are lost after ``cuts`` batches."""
    asked = InferenceRequest("fast", [prompt], sampling, "prompt", CompletionWriter, deadline_s=deadline_s)
    asked = asked if parsing is None else replace(asked, parsing=parsing)
    replicas, meter, collector = Replicas(cuts, **backend), UsageMeter(), Collector()  # type: ignore[arg-type]
    events: list[AnswerEvent] = []

    work = Generation(replicas, "fast", asked, "acme", failover, meter, lambda _: 5, "account", "")

    async def read() -> None:
        async for batch in generate(work):
            events.extend(batch)
            collector.push(batch)

    asyncio.run(read())
    assert isinstance(events[-1], Finished)
    scored = [event.logprobs for event in events if isinstance(event, PromptScored)]
    return Result(collector.answers(), collector.usage, scored, events, meter, replicas)


def steps(sampling: SamplingParams, prompt: Prompt = "naïve 🙂 day") -> int:
    """How many batches an undisturbed run has."""
    deltas = []
    engine = engines()[0]
    engine.add(GenerationRequest("steps", prompt, sampling))
    while engine.has_work:
        if found := engine.step():
            deltas.append(found)
    return len(deltas)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_the_answer_is_that_of_an_undisturbed_run(kind: str) -> None:
    sampling = KINDS[kind]
    for cut in range(steps(sampling) if sampling.seed is not None or sampling.temperature == 0 else TOKENS):
        disturbed = run(sampling, [cut])
        seed = disturbed.backend.requests[0].sampling.seed  # drawn by the router where the client has set none
        disturbed.same(run(replace(sampling, seed=seed)))
        assert disturbed.meter.failovers >= 1


@pytest.mark.parametrize("kind", ["greedy", "choices", "schema", "logprobs"])
def test_it_may_be_cut_again_and_again(kind: str) -> None:
    run(KINDS[kind], [2, 1, 2, 0, 1]).same(run(KINDS[kind]))


def test_a_stop_string_across_the_cut_is_found() -> None:
    whole = run(PLAIN).answers[0].text
    for start in range(len(whole) - 3):
        sampling = replace(PLAIN, stop=(whole[start : start + 3],))
        undisturbed = run(sampling)
        for cut in range(1, steps(sampling)):
            run(sampling, [cut]).same(undisturbed)


def test_tool_calls_and_reasoning_are_parsed_as_one_stream() -> None:
    pattern = r'<think>ab</think>x<tool_call>\n\{"name": "f", "arguments": \{"a": 1\}\}\n</tool_call>'
    sampling = replace(WILD, grammar=Grammar.regex(pattern), logprobs=0, ignore_eos=False, max_tokens=90)
    parsing = TextParsing(tool_calls=True)
    undisturbed = run(sampling, prompt=TALK, parsing=parsing)
    assert undisturbed.answers[0].tool_calls
    for cut in range(steps(sampling, TALK)):
        disturbed = run(sampling, [cut], prompt=TALK, parsing=parsing)
        assert [(call.name, call.arguments) for call in disturbed.answers[0].tool_calls] == [("f", '{"a": 1}')]
        assert disturbed.answers[0].text == undisturbed.answers[0].text
        assert counted(disturbed.paid) == counted(undisturbed.paid)


def test_a_planned_move_counts_as_no_loss() -> None:
    once = FailoverConfig(max_attempts=1, max_lost_replicas=1)
    moved = run(WILD, [2, 2, 2], failover=once, fault=ReplicaDrainedError)
    moved.same(run(WILD))
    assert moved.meter.failovers == 3


@pytest.mark.parametrize(
    ("cuts", "replicas"), [((0, 0), ("a", "b")), ((2, 0, 0), ("a", "b", "c")), ((2, 3, 1), ("a", "b", "c"))]
)
def test_a_request_that_loses_its_replicas_is_given_up(cuts: Sequence[int], replicas: Sequence[str]) -> None:
    with pytest.raises(PoisonRequestError) as given_up:
        run(WILD, cuts, failover=FailoverConfig())
    assert given_up.value.replica_ids == replicas
    refusal: RefusalError = refusal_of(given_up.value)
    assert (refusal.code, refusal.should_retry) == ("poison_request", False)


def test_full_replicas_are_waited_for_once_an_answer_has_begun() -> None:
    run(WILD, [2], full=5).same(run(WILD))


@pytest.mark.parametrize("policy", ["continue", "end"])
def test_another_version_of_the_model_continues_only_where_it_may(policy: str) -> None:
    failover = FailoverConfig(other_version=policy)
    versions = {"a": "1", "b": "2", "c": "2"}
    if policy == "end":
        with pytest.raises(ModelVersionError):
            run(WILD, [2], failover=failover, versions=versions)
        return
    result = run(WILD, [2], failover=failover, versions=versions)
    assert result.meter.other_version
    assert result.meter.failovers == 1


def test_what_every_serving_replica_refuses_is_tried_on_warm_ones() -> None:
    result = run(WILD, [0, 0], fault=ReplicaOverloadedError, warm=frozenset("c"))
    result.same(run(WILD))
    assert result.backend.used == ["a", "b", "c"]


def test_a_replica_with_the_same_version_is_found_among_others() -> None:
    result = run(WILD, [2], versions={"a": "1", "b": "2", "c": "1"})
    result.same(run(WILD))
    assert result.backend.used == ["a", "b", "c"]
    assert not result.meter.other_version


def test_an_answer_of_which_only_the_end_was_not_sent_is_ended() -> None:
    engine = engines()[0]
    whole = run(replace(WILD, logprobs=0))
    [answer] = engine.generate(["naïve 🙂 day"], replace(WILD, logprobs=0))
    engine.add(GenerationRequest("end", "naïve 🙂 day", replace(WILD, logprobs=0), resume=answer.token_ids))
    deltas: list[Delta] = []
    while engine.has_work:
        deltas += engine.step()
    assert [(delta.token_ids, delta.finish_reason) for delta in deltas] == [((), FinishReason.LENGTH)]
    assert deltas[0].usage is not None
    assert counted(deltas[0].usage) == counted(whole.usage)


def test_a_continuation_has_no_deadline_and_scores_no_prompt_again() -> None:
    asked = GenerationRequest("r", "p", replace(WILD, n=2, best_of=3, prompt_logprobs=1), deadline_s=1.0)
    sent = SentAnswer(3)
    sent.push([Delta("r", (4, 5), "a", choice=0), Delta("r", (6,), "b", FinishReason.STOP, choice=1)])
    first, third = continuations(asked, sent, "v")
    assert (first.choice, third.choice) == (0, 2)
    assert (first.request.resume, third.request.resume) == ((4, 5), ())
    for each in (first, third):
        assert each.request.deadline_s is None
        assert each.request.sampling.prompt_logprobs is None
        assert each.request.sampling.records_logprobs  # best_of ranks by them
        assert each.request.model_version == "v"
    assert sent.ended_tokens == 1


def test_a_deadline_does_not_begin_anew_with_another_replica() -> None:
    result = run(WILD, [0, 0], deadline_s=60.0)
    result.same(run(WILD))
    first, second, third = (request.deadline_s for request in result.backend.requests)
    assert first is not None
    assert second is not None
    assert third is not None
    assert 59.0 < first <= 60.0
    assert second <= first - SETTLE_S
    assert third <= second - SETTLE_S


class Moving(ScriptedBackend):
    """The replica of the first attempt is stopped before it has sent anything."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        self.fault = None if self.requests else ReplicaDrainedError("stops", "fast")
        async for deltas in super().generate(tier, request, avoid, on_usage, account, on_placed):
            yield deltas


@pytest.mark.parametrize("stream", [True, False])
def test_the_client_sees_that_another_replica_went_on(served: Served, stream: bool) -> None:
    served.backend = Moving()
    body = {"model": "fast", "prompt": "Hi", "stream": stream} | (
        {"stream_options": {"include_usage": True}} if stream else {}
    )
    response = served.http.post("/v1/completions", json=body)
    assert response.headers["x-manta-failovers"] == "1"
    assert '"failover_details": {"failovers": 1, "other_version": false}' in response.text
    assert [each.attempt for each in served.backend.requests] == [0, 1]


def test_an_undisturbed_answer_says_nothing_of_failovers(served: Served) -> None:
    response = served.http.post("/v1/completions", json={"model": "fast", "prompt": "Hi"})
    assert "x-manta-failovers" not in response.headers
    assert "failover" not in response.text
