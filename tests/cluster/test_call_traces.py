"""Classifier, embedder and semantic cache have spans of their calls in the trace of the request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cluster.cache.config import SemanticCacheConfig
from cluster.cache.semantic_cache_replica import SemanticCacheReplica
from cluster.config import StateConfig
from cluster.embedder.batching_embedder import BatchingEmbedder
from cluster.embedder.embedder_replica import load_embedder
from cluster.safety.classifier_replica import ClassifierReplica
from cluster.small_models.small_models_replica import HostedModels, SmallModelsReplica
from cluster.telemetry import call_tracer as call_tracing
from cluster.telemetry.call_tracer import CallTracer
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.log_context import logged_request, request_fields, trace_headers
from cluster.telemetry.tracing import NoCallTraces, call_tracer
from router.ports.answer_cache import SemanticMatch, SemanticQuestion, SemanticUnavailableError
from router.ports.trace_names import Attribute, SpanName
from safety.api import ClassifierBusyError, ClassifierUnavailableError
from safety.classifier.batching_classifier import BatchingClassifier
from tests.cluster.otlp_receiver import attributes, failed, http_receiver
from tests.cluster.ray_metrics import record
from tests.cluster.small_models import settings
from tests.cluster.traced_actors import (
    CLASSIFIER,
    DROPPED,
    NOWHERE,
    QUESTION,
    SAMPLED,
    EmbeddingIndex,
    IndexParts,
    actors,
    child,
    traced_actors,
)
from tests.cluster.traced_classifier import classifier, directory, scripted
from tests.cluster.traced_service import CALLER, IN, KEY, PARENT, ROOMS, TRACE, service
from tests.embedder.models import embedder_config, write_model
from tests.safety.scripted_model import Scripted

__all__ = ["classifier", "directory", "scripted"]


async def test_one_request_has_one_trace_over_all_actors(tmp_path: Path) -> None:
    with traced_actors(tmp_path) as (received, running):
        async with service(received, setup=running.setup) as served:
            answer = await served.ask({**PARENT, "tracestate": "vendor=1"}, temperature=0, stream=True)
            assert answer.status_code == 200
            served.export()
        running.close()

        assert {span.trace_id.hex() for span in received.spans if span.name != SpanName.STEP} == {TRACE}
        assert {span.trace_state for span in received.spans if span.name != SpanName.STEP} == {"vendor=1"}
        root = received.named("chat fast")
        rooms = {name: child(received, root, name) for name in ROOMS}
        classified = child(received, rooms["safety"], "classify")
        looked_up = child(received, rooms["cache"], "lookup")
        embedded = child(received, looked_up, "embed")
        for span, role in ((classified, "classifier"), (looked_up, "cache"), (embedded, "embedder")):
            assert received.roles[span.span_id] == role
            assert span.kind == Span.SPAN_KIND_SERVER
            assert not failed(span)
            outer = next(each for each in received.spans if each.span_id == span.parent_span_id)
            assert outer.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= outer.end_time_unix_nano
        assert received.children(looked_up) == ["embed"]
        assert received.children(classified) == received.children(embedded) == ["queue", "batch"]
        assert attributes(child(received, embedded, "batch").attributes) == {
            Attribute.BATCH_MODEL: "embedder",
            Attribute.BATCH_COUNT: 1,
            Attribute.BATCH_SEQUENCES: 1,
            Attribute.CALL_SEQUENCES: 1,
        }
        assert "classify" in received.children(rooms["answer"])  # of what was generated
        for body in received.bodies:
            assert IN.encode() not in body
            assert KEY.encode() not in body


@pytest.mark.parametrize(
    ("path", "body", "stage", "name"),
    [
        ("/v1/embeddings", {"input": "hi"}, "answer", "embed"),
        ("/v1/moderations", {"input": "hi"}, "safety", "classify"),
    ],
)
async def test_embeddings_and_moderations_have_the_spans_of_their_actor(
    tmp_path: Path, path: str, body: dict[str, str], stage: str, name: str
) -> None:
    with traced_actors(tmp_path) as (received, running):
        model = {"model": running.setup.embedder.model} if name == "embed" and running.setup.embedder else {}
        async with service(received, setup=running.setup) as served:
            assert (await served.post(path, body | model, PARENT)).status_code == 200
            served.export()
        running.close()
        assert received.named(name).parent_span_id == received.named(stage).span_id


async def test_what_the_router_does_not_keep_the_actors_do_not(tmp_path: Path) -> None:
    with traced_actors(tmp_path) as (received, running):
        async with service(received, setup=running.setup, tenant_sample_ratios={"acme": 0.0}) as served:
            assert (await served.ask({"traceparent": SAMPLED["traceparent"]}, temperature=0)).status_code == 200
            served.export()
        running.close()
        sent = [named["trace"]["traceparent"] for _, named in running.classifier.calls]
        assert sent
        assert all(TRACE in each and each.endswith("-00") for each in sent)
        assert received.spans == []


async def test_without_traces_nothing_is_sent_along(tmp_path: Path) -> None:
    running = actors(TelemetryConfig(), tmp_path)
    assert all(isinstance(replica._traces, NoCallTraces) for replica in running.replicas)
    with logged_request("req_1"):
        assert running.setup.embedder is not None
        await running.setup.embedder.embed(["hi"])
    assert running.embedder.calls == [("embed", {"tenant": ""})]
    running.close()


async def test_slow_calls_are_kept_although_the_request_is_not_sampled() -> None:
    with http_receiver() as received:
        tracer = CallTracer(TelemetryConfig(endpoint=received.endpoint, slow_s=0.001), "classifier", SpanName.CLASSIFY)
        with tracer.call(DROPPED):
            await asyncio.sleep(0.002)
        with tracer.call(DROPPED):
            pass
        tracer.close()
    assert len(received.spans) == 1


@pytest.mark.parametrize("headers", [None, {}, {"traceparent": "garbage"}, {"other": "1"}])
def test_a_call_without_a_trace_has_none(headers: Mapping[str, str] | None) -> None:
    with http_receiver() as received:
        tracer = CallTracer(TelemetryConfig(endpoint=received.endpoint), "classifier", SpanName.CLASSIFY)
        with tracer.call(headers):
            assert trace_headers() == {}
        tracer.close()
    assert received.spans == []


@pytest.mark.parametrize(
    ("error", "code", "fault"),
    [
        (ClassifierUnavailableError(IN), "ClassifierUnavailableError", True),
        (RuntimeError(IN), "RuntimeError", True),
        (ClassifierBusyError(IN), "ClassifierBusyError", False),
        (asyncio.CancelledError(IN), "cancelled", False),
    ],
)
def test_a_call_has_failed_if_the_actor_is_at_fault_and_is_kept_then(
    error: BaseException, code: str, fault: bool
) -> None:
    for headers in (SAMPLED, DROPPED):
        with http_receiver() as received:
            config = TelemetryConfig(endpoint=received.endpoint)
            tracer = CallTracer(config, "classifier", SpanName.CLASSIFY, (ClassifierBusyError,))
            with pytest.raises(type(error)), tracer.call(headers):
                raise error
            tracer.close()
        if headers is DROPPED and not fault:
            assert received.spans == []
        else:
            span = received.named("classify")
            assert attributes(span.attributes) == {Attribute.ERROR: code}
            assert failed(span) is fault
            assert IN.encode() not in b"".join(received.bodies)


async def test_a_replica_answers_a_failure_and_its_span_has_failed() -> None:
    class Broken:
        version = "v1"

        def busy_s(self) -> float:
            return 0.0

        async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Any]:
            raise ClassifierUnavailableError("the classifier failed: RuntimeError")

    with http_receiver() as received:
        replica = ClassifierReplica(CLASSIFIER, lambda _: Broken(), TelemetryConfig(endpoint=received.endpoint))
        reply = await replica.classify(["a"], trace=DROPPED)
        replica.__del__()
    assert reply.failure == "the classifier failed: RuntimeError"
    assert failed(received.named("classify"))


async def test_a_look_up_has_the_batches_of_an_embedder_in_its_process(tmp_path: Path) -> None:
    embedder = load_embedder(embedder_config(write_model(tmp_path)))
    assert isinstance(embedder, BatchingEmbedder)
    with http_receiver() as received:
        telemetry = TelemetryConfig(endpoint=received.endpoint)
        config = SemanticCacheConfig(pair_model=tmp_path)
        replica = SemanticCacheReplica(config, lambda _: IndexParts(embedder), None, telemetry)
        await replica.lookup(QUESTION, SAMPLED)
        replica._following.cancel()
        replica.__del__()
    assert received.children(received.named("lookup")) == ["queue", "batch"]
    assert attributes(received.named("batch").attributes)[Attribute.BATCH_MODEL] == "embedder"


class NoIndex(IndexParts):
    """An index that cannot be searched."""

    def __init__(self, error: Exception) -> None:
        self.index = cast("EmbeddingIndex", self)
        self._error = error

    async def lookup(self, question: SemanticQuestion) -> SemanticMatch | None:
        raise self._error


@pytest.mark.parametrize("headers", [SAMPLED, DROPPED])
async def test_look_ups_of_an_index_that_cannot_be_searched_are_kept_by_their_share(headers: dict[str, str]) -> None:
    with http_receiver() as received:
        config, telemetry = SemanticCacheConfig(pair_model=Path()), TelemetryConfig(endpoint=received.endpoint)
        parts = NoIndex(SemanticUnavailableError("the semantic index is being built"))
        replica = SemanticCacheReplica(config, lambda _: parts, None, telemetry)
        for _ in range(20):  # as many as come until it is built: their requests go on without
            assert (await replica.lookup(QUESTION, headers)).failure is not None
        replica._following.cancel()
        replica.__del__()
    assert len(received.spans) == (20 if headers is SAMPLED else 0)
    for span in received.spans:
        assert attributes(span.attributes) == {Attribute.ERROR: "SemanticUnavailableError"}
        assert not failed(span)


async def test_a_look_up_that_breaks_is_always_kept() -> None:
    with http_receiver() as received:
        config, telemetry = SemanticCacheConfig(pair_model=Path()), TelemetryConfig(endpoint=received.endpoint)
        replica = SemanticCacheReplica(config, lambda _: NoIndex(RuntimeError("broken")), None, telemetry)
        with pytest.raises(RuntimeError):
            await replica.lookup(QUESTION, DROPPED)
        replica._following.cancel()
        replica.__del__()
    assert failed(received.named("lookup"))


class Fields(logging.Handler):
    """Keeps the fields of the current request of each line."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(request_fields())


async def test_log_lines_of_a_call_are_in_its_trace_and_those_of_batches_in_none(
    classifier: BatchingClassifier, scripted: Scripted
) -> None:
    handler = Fields()
    log = logging.getLogger("safety.encoder.batch_runner")
    log.addHandler(handler)
    try:
        tracer = CallTracer(TelemetryConfig(endpoint=NOWHERE), "classifier", SpanName.CLASSIFY)
        with tracer.call(SAMPLED):
            in_call = request_fields()
            with pytest.raises(ClassifierUnavailableError):
                await classifier.classify(["!"])
        tracer.close()
    finally:
        log.removeHandler(handler)
    assert in_call.keys() == {"trace_id", "span_id"}
    assert in_call["trace_id"] == TRACE
    assert in_call["span_id"] != CALLER
    assert handler.fields == [{}]


async def test_actors_in_one_process_have_their_own_roles(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with http_receiver() as received:
        hosted = HostedModels(config.safety.classifier, config.embedder, None, StateConfig())
        replica = SmallModelsReplica(hosted, TelemetryConfig(endpoint=received.endpoint))
        await replica.classify(["hi"], trace=SAMPLED)
        await replica.embed(["hi"], trace=SAMPLED)
        replica.__del__()
    roles = {span.name: received.roles[span.span_id] for span in received.spans if span.name in ("classify", "embed")}
    assert roles == {"classify": "classifier", "embed": "embedder"}
    assert len(received.spans) == 6


async def test_a_task_that_outlives_its_request_sends_no_trace_along() -> None:
    ended = asyncio.Event()

    async def later() -> dict[str, str]:
        await ended.wait()
        return trace_headers()

    with logged_request("req_1", lambda: SAMPLED["traceparent"]):
        assert trace_headers() == SAMPLED
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
    ended.set()
    assert await task == {}


async def test_a_fault_of_tracing_harms_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record(monkeypatch)
    tracer = call_tracer(TelemetryConfig(endpoint=NOWHERE, max_pending=1), "embedder", SpanName.EMBED)
    with monkeypatch.context() as patched:
        patched.setattr(call_tracing, "caller_of", lambda parent, state: 1 // 0)
        with tracer.call(SAMPLED):
            pass
    for _ in range(2):  # a lost trace takes up no room
        with monkeypatch.context() as patched:
            patched.setattr(cast("CallTracer", tracer)._export, "send", lambda record: 1 // 0)
            with tracer.call(SAMPLED):
                assert trace_headers() != {}
    with tracer.call(SAMPLED), tracer.call(SAMPLED):
        pass
    tracer.close()
    assert recorded.value("ray_manta_trace_faults_total", role="embedder") == 3
    assert recorded.value("ray_manta_untraced_requests_total", role="embedder") == 1
