"""Traces say by events and links what happened to a request: cache, verdicts, preemptions, and the steps it ran in."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.otel_tracer import OtelTrace
from cluster.telemetry.trace_record import MAX_OF_NAME, TraceRecord
from cluster.telemetry.trace_sampling import TraceSampler
from router.ledger.ledger_entry import MAX_VERDICTS
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.tracer import Value
from router.trace_attributes import note_verdicts
from safety.api import Action, Stage, Verdict
from tests.cluster.lanes import settle
from tests.cluster.otlp_receiver import Received, attributes, failed, http_receiver
from tests.cluster.traced_service import IN, OUT, PARENT, TRACE, Service, Setup, service

REFUSED = 400


def events(received: Received, name: EventName) -> list[tuple[str, dict[str, object]]]:
    """The events of this name: the span of each, and its attributes."""
    found = [
        (each.time_unix_nano, span.name, attributes(each.attributes))
        for span in received.spans
        for each in span.events
        if each.name == name
    ]
    return [(span, facts) for _, span, facts in sorted(found, key=lambda each: each[0])]


def root_of(received: Received) -> dict[str, object]:
    """The attributes of the span of the only request with TRACE."""
    (root,) = [
        span
        for span in received.spans
        if span.trace_id.hex() == TRACE
        and span.kind == Span.SPAN_KIND_SERVER
        and received.roles[span.span_id] == "router"
    ]
    return attributes(root.attributes) | {"failed": failed(root)}


async def test_a_look_up_in_the_cache_is_an_event_that_says_how_it_hit_and_why_it_missed() -> None:
    other = {"messages": [{"role": "user", "content": f"Please say {IN}."}]}
    negated = {"messages": [{"role": "user", "content": f"Never say {IN}."}]}
    with http_receiver() as received:
        async with service(received) as running:
            running.index.same(f"Please say {IN}.", f"Say {IN}.", 0.97)
            running.index.same(f"Never say {IN}.", f"Say {IN}.", 0.99, refused_by="negation")
            for fields in ({}, {}, other, negated, {"cache": {"mode": "no-cache"}}):
                await running.ask(temperature=0, **fields)
                await settle()
            running.export()
    found = events(received, EventName.CACHE)
    assert {span for span, _ in found} == {SpanName.CACHE}
    told = [(facts[Attribute.CACHE], facts.get(Attribute.CACHE_REASON)) for _, facts in found]
    assert told == [("miss", "new"), ("exact", None), ("semantic", None), ("miss", "negation"), ("bypass", "no-cache")]
    ages = [facts.get(Attribute.CACHE_AGE_S) for _, facts in found]
    assert [age is not None for age in ages] == [False, True, True, False, False]
    assert [facts.get(Attribute.CACHE_SCORE) for _, facts in found] == [None, None, 0.97, None, None]


@pytest.mark.parametrize(
    ("word", "policy", "status", "action", "category", "check"),
    [
        ("HARM", {}, REFUSED, "block", "violence", "classifier"),
        ("DOUBT", {}, REFUSED, "review", "violence", "classifier"),
        ("ATTACK", {}, REFUSED, "block", "injection", "classifier"),
        ("ada@example.org", {"pii": {"requests": "redact"}}, 200, "redact", "pii", "pii"),
    ],
)
async def test_a_verdict_on_a_request_is_an_event_of_the_safety_room(
    word: str, policy: dict[str, Any], status: int, action: str, category: str, check: str
) -> None:
    with http_receiver() as received:
        async with service(received, setup=Setup(policy=policy)) as running:
            message = {"role": "user", "content": f"{IN} {word}"}
            assert (await running.ask(PARENT, messages=[message])).status_code == status
            running.export()
    ((span, facts),) = events(received, EventName.VERDICT)
    assert span == SpanName.SAFETY
    assert facts.pop(Attribute.CHECK_VERSION)
    assert facts.pop(Attribute.POLICY_VERSION)
    assert facts == {
        Attribute.STAGE: "before",
        Attribute.ACTION: action,
        Attribute.CATEGORY: category,
        Attribute.CHECK: check,
    }
    root = root_of(received)
    assert root[Attribute.STATUS] == status
    assert root[Attribute.SAFETY] == {"block": "blocked", "redact": "redacted"}.get(action, action)
    assert root["failed"] is False
    assert not [body for body in received.bodies if IN.encode() in body or word.encode() in body]


async def test_many_mild_verdicts_push_out_neither_the_one_that_blocks_nor_a_failover() -> None:
    setup = Setup(policy={"pii": {"requests": "redact"}})
    texts = [f"{IN} {number}@example.org" for number in range(40)]
    messages = [{"role": "user", "content": text} for text in texts]
    with http_receiver() as received:
        async with service(received, "ab", setup) as running:
            running.client.losing = True
            fields: dict[str, Any] = {"guided_choice": None, "max_tokens": 30, "ignore_eos": True, "temperature": 0}
            assert (await running.ask(messages=messages, stream=True, **fields)).status_code == 200
            blocked = [*messages, {"role": "user", "content": f"{IN} HARM"}]
            assert (await running.ask(messages=blocked)).status_code == REFUSED
            running.export()
    actions = [facts[Attribute.ACTION] for _, facts in events(received, EventName.VERDICT)]
    assert len(actions) == 2 * MAX_VERDICTS
    assert actions.count("block") == 1
    assert len(events(received, EventName.FAILOVER)) == 1


def test_a_severe_verdict_takes_the_place_of_a_mild_one_of_an_earlier_ruling() -> None:
    record = TraceRecord(1, sampled=True)
    span = record.begin("safety", 0)
    trace = OtelTrace(record, lambda _, __: None)
    for text in range(40):
        note_verdicts(trace, [Verdict("pii", str(text), Action.REDACT)], Stage.DURING, "1")
    note_verdicts(trace, [Verdict("classifier", "1", Action.BLOCK)], Stage.DURING, "1")
    trace.event(EventName.FAILOVER, dict)
    record.settle()
    told = [(name, facts.get(Attribute.ACTION)) for name, _, facts in span.events]
    redacted, blocked = (EventName.VERDICT, "redact"), (EventName.VERDICT, "block")
    assert told == [*[redacted] * (MAX_OF_NAME - 1), blocked, (EventName.FAILOVER, None)]


def test_a_trace_that_is_not_kept_holds_nothing_of_its_request() -> None:
    class Stored:
        """What an event holds until its attributes are computed."""

    def attributes_of(held: Stored) -> dict[Attribute, Value | None]:
        return {}

    stored = Stored()
    watched = weakref.ref(stored)
    config = TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=0.0)
    sampler = TraceSampler(config, "router", follows=False)
    record = sampler.begin("chat fast", None)
    assert record is not None
    record.event(record.spans[0], EventName.CACHE, partial(attributes_of, stored))
    record.spans[0].end()
    del stored
    assert not sampler.end(record)
    assert watched() is None
    sampler.close()


@pytest.mark.parametrize(("stream", "stage"), [(True, "during"), (False, "after")])
async def test_a_verdict_on_an_answer_is_an_event_and_decides_what_the_trace_says(stream: bool, stage: str) -> None:
    setup = Setup(policy={"phrases": {"block": [OUT]}})
    with http_receiver() as received:
        async with service(received, setup=setup) as running:
            answer = await running.ask(PARENT, stream=stream)
            assert OUT not in answer.text
            running.export()
    ((span, facts),) = events(received, EventName.VERDICT)
    assert span == SpanName.ANSWER
    assert (facts[Attribute.STAGE], facts[Attribute.ACTION]) == (stage, "block")
    root = root_of(received)
    assert (root[Attribute.SAFETY], root[Attribute.STATUS]) == ("blocked", 200)


async def test_a_check_that_fails_is_an_event_without_the_words_of_its_error() -> None:
    with http_receiver() as received:
        async with service(received) as running:
            running.classifier.mode = "broken"  # its error quotes the prompt
            await running.ask(PARENT)
            running.export()
    found = events(received, EventName.VERDICT)
    assert found
    assert {facts[Attribute.ERROR] for _, facts in found} == {"unscanned"}
    assert not [body for body in received.bodies if IN.encode() in body]


async def test_a_preemption_is_an_event_of_the_request_that_gave_up_its_blocks() -> None:
    """Two answers outgrow a KV cache in which either fits alone."""
    setup = Setup(engine={"kv_cache_tokens": 384, "block_size": 16, "prefix_caching": False})
    fields: dict[str, Any] = {"guided_choice": None, "max_tokens": 200, "ignore_eos": True, "temperature": 0}
    with http_receiver() as received:
        async with service(received, setup=setup) as running:
            texts = [[{"role": "user", "content": f"{IN} {number}"}] for number in range(2)]
            answers = await asyncio.gather(*(running.ask(messages=text, **fields) for text in texts))
            assert [answer.status_code for answer in answers] == [200, 200]
            stats = [replica.actor._engine.stats() for replica in running.replicas.values()]
            running.export()
    preempted = [span for span in received.spans if span.events and span.name == SpanName.GENERATE]
    assert sum(len(span.events) for span in preempted) == stats[0].preemptions > 0
    for span in preempted:
        assert {event.name for event in span.events} == {EventName.PREEMPTION}
        assert attributes(span.attributes)[Attribute.PREEMPTIONS] == len(span.events)
        (decode,) = [
            one for one in received.spans if one.parent_span_id == span.span_id and one.name == SpanName.DECODE
        ]
        (queue,) = [one for one in received.spans if one.parent_span_id == span.span_id and one.name == SpanName.QUEUE]
        for event in span.events:
            assert decode.start_time_unix_nano < event.time_unix_nano < span.end_time_unix_nano
        assert queue.end_time_unix_nano < decode.start_time_unix_nano  # the second wait is not a part of the first


async def test_phases_have_links_to_the_steps_that_served_them_which_many_requests_share() -> None:
    fields: dict[str, Any] = {"guided_choice": None, "max_tokens": 8, "ignore_eos": True, "cache": {"mode": "no-store"}}
    with http_receiver() as received:
        async with service(received) as running:
            await asyncio.gather(*(running.ask(seed=seed, **fields) for seed in range(8)))
            running.export()
    steps = {span.span_id: span for span in received.spans if span.name == SpanName.STEP}
    linked = [span for span in received.spans if span.links]
    assert len(linked) == 16
    assert {span.name for span in linked} == {SpanName.PREFILL, SpanName.DECODE}
    assert {link.span_id for span in linked for link in span.links} == steps.keys()
    assert len(steps) < 16
    for span in linked:
        (link,) = span.links
        step = steps[link.span_id]
        assert link.trace_id == step.trace_id != span.trace_id
        assert step.start_time_unix_nano < step.end_time_unix_nano == span.end_time_unix_nano
        facts = attributes(step.attributes)
        assert int(str(facts[Attribute.STEP_SEQUENCES])) >= 1
        assert (int(str(facts[Attribute.STEP_PROMPT_TOKENS])) > 0) is (span.name == SpanName.PREFILL)
    assert len({attributes(step.attributes)[Attribute.STEP] for step in steps.values()}) == len(steps)


async def test_a_trace_that_is_not_kept_has_no_step_and_computes_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[object] = []

    def of_look_up(found: object) -> dict[Attribute, object]:
        computed.append(found)
        return {}

    monkeypatch.setattr("router.trace_attributes._of_look_up", of_look_up)
    with http_receiver() as received:
        async with service(received, sample_ratio=0.0) as running:
            assert (await running.ask()).status_code == 200
            running.export()
    assert (received.spans, computed) == ([], [])


async def status_of(running: Service, how: str) -> int | None:
    """The status that the client got of the request with TRACE, which ends as ``how`` says."""
    if how in ("exact hit", "limit"):
        await running.ask(temperature=0)
    replicas = running.replicas.values()
    for replica in replicas:
        replica.dead = how == "lost"
    answer = await running.ask(PARENT, temperature=0, stream=how == "stream")
    for replica in replicas:
        replica.dead = False
    await settle()
    return answer.status_code


@pytest.mark.parametrize(
    ("how", "router", "status", "error", "fault"),
    [
        ("stream", {}, 200, None, False),
        ("exact hit", {}, 200, None, False),
        ("limit", {"tenants": {"acme": {"limits": {"requests_per_minute": 1}}}}, 429, "rate_limit_exceeded", False),
        ("lost", {}, 500, "poison_request", True),
        ("late", {"request_timeout_s": 0.001}, 408, "request_timeout", True),
    ],
)
async def test_a_trace_has_the_status_of_the_response_and_fails_by_a_fault_of_the_service_alone(
    how: str, router: dict[str, Any], status: int, error: str | None, fault: bool
) -> None:
    with http_receiver() as received:
        async with service(received, setup=Setup(router=router)) as running:
            assert await status_of(running, how) == status
            running.export()
    root = root_of(received)
    assert root[Attribute.STATUS] == status
    assert root.get(Attribute.ERROR) == error
    assert root["failed"] is fault


async def test_a_stream_that_breaks_keeps_the_status_that_was_sent() -> None:
    with http_receiver() as received:
        async with service(received, setup=Setup(router={"request_timeout_s": 0.3})) as running:
            fields: dict[str, Any] = {"guided_choice": None, "ignore_eos": True, "max_tokens": 400}
            answer = await running.ask(PARENT, stream=True, n=8, **fields)
            assert answer.status_code == 200
            assert '"request_timeout"' in answer.text
            await settle()
            running.export()
    root = root_of(received)
    assert (root[Attribute.STATUS], root[Attribute.ERROR], root["failed"]) == (200, "request_timeout", True)


async def test_a_stored_answer_is_a_success_in_its_trace() -> None:
    key = {"idempotency-key": "k"}
    with http_receiver() as received:
        async with service(received) as running:
            await running.ask(key)
            answer = await running.ask({**key, **PARENT})
            assert answer.headers["idempotent-replayed"] == "true"
            running.export()
    root = root_of(received)
    assert (root[Attribute.STATUS], root.get(Attribute.ERROR), root["failed"]) == (200, None, False)
