"""A request has one trace over router and replica, received by real receivers, and nothing of its texts is in it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import grpc
import pytest
from pydantic import ValidationError
from starlette.types import Message

from cluster.telemetry import trace_sampling
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.otel_tracer import OtelTracer
from cluster.telemetry.otlp_exporters import exporter_of
from cluster.telemetry.replica_tracer import ReplicaTracer
from cluster.telemetry.trace_faults import TraceFaults
from cluster.telemetry.trace_record import caller_of
from engine.api import Delta, FinishReason, GenerationRequest, RequestError, StepFacts, Usage
from router.ports.trace_names import Attribute, SpanName
from tests.cluster.lanes import settle
from tests.cluster.otlp_receiver import Received, attributes, failed, grpc_receiver, http_receiver
from tests.cluster.ray_metrics import record
from tests.cluster.traced_service import CALLER, IN, KEY, OF_CALLS, OUT, PARENT, ROOMS, TRACE, service, text_of
from tests.embedder.fake_embedder import FakeEmbedder


@pytest.fixture
def caplog_of_all(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("DEBUG")
    return caplog


async def test_a_streamed_request_has_one_trace_over_router_and_replica(
    caplog_of_all: pytest.LogCaptureFixture,
) -> None:
    with http_receiver() as received:
        async with service(received, headers={"x-token": "secret"}) as running:
            answer = await running.ask(PARENT, stream=True, temperature=0)
            assert text_of(answer) == OUT
            running.export()
    root = received.named("chat fast")

    assert {span.trace_id.hex() for span in received.spans if span.name != SpanName.STEP} == {TRACE}
    assert root.parent_span_id.hex() == CALLER
    assert received.children(root) == ROOMS
    answered, generate = received.named("answer"), received.named("generate")
    assert sorted(received.children(answered)) == ["generate", "moderate"]
    assert received.children(generate) == ["queue", "prefill", "decode"]
    assert {span.name for span in received.spans} == {"chat fast", *(set(SpanName) - OF_CALLS)}
    roles = {name: received.roles[received.named(name).span_id] for name in ("answer", "generate", "decode")}
    assert roles == {"answer": "router", "generate": "replica", "decode": "replica"}
    assert received.headers[0]["x-token"] == "secret"
    for span in received.spans:
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        assert not failed(span)

    found = attributes(root.attributes)
    assert found[Attribute.OPERATION] == "chat"
    assert found[Attribute.TENANT] == "acme"
    assert found[Attribute.REQUEST_STREAM] is True
    assert found[Attribute.OUTPUT_TOKENS] == attributes(generate.attributes)[Attribute.OUTPUT_TOKENS]
    assert found[Attribute.CACHE] == "miss"
    assert found[Attribute.SAFETY] == "allowed"
    names = {pair.key for span in received.spans for pair in span.attributes}
    assert names <= {each.value for each in Attribute}
    for text in (*received.bodies, caplog_of_all.text.encode()):
        assert IN.encode() not in text
        assert OUT.encode() not in text
        assert KEY.encode() not in text


@pytest.mark.parametrize(
    ("path", "operation", "rooms"),
    [
        ("/v1/embeddings", "embeddings", ["access", "limits", "safety", "answer"]),
        ("/v1/moderations", "moderation", ["access", "limits", "safety"]),
    ],
)
async def test_embeddings_and_moderations_are_traced_as_answers_are(
    path: str, operation: str, rooms: list[str]
) -> None:
    with http_receiver() as received:
        async with service(received) as running:
            names = [] if operation == "moderation" else [FakeEmbedder().model]
            body = {"input": [f"Say {IN}."], **({"model": names[0]} if names else {})}
            assert (await running.post(path, body, PARENT)).status_code == 200
            running.export()
    (root,) = [span for span in received.spans if span.name.startswith(f"{operation} ")]
    assert received.children(root) == rooms
    assert root.trace_id.hex() == TRACE
    assert root.parent_span_id.hex() == CALLER
    found = attributes(root.attributes)
    assert found[Attribute.OPERATION] == operation
    assert found[Attribute.TENANT] == "acme"
    assert Attribute.ERROR not in found
    assert (Attribute.INPUT_TOKENS in found) is True
    assert not any(failed(span) for span in received.spans)
    assert not any(IN.encode() in body for body in received.bodies)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/moderations"])
async def test_a_refused_embedding_or_moderation_has_the_code_in_its_trace_and_has_not_failed(path: str) -> None:
    with http_receiver() as received:
        async with service(received) as running:
            assert (await running.post(path, {"input": [], "model": "none"}, PARENT)).status_code in (400, 404)
            running.export()
    codes = {attributes(span.attributes).get(Attribute.ERROR) for span in received.spans}
    assert None not in codes
    assert not any(failed(span) for span in received.spans)


async def test_a_hit_of_the_cache_reaches_no_replica() -> None:
    with http_receiver() as received:
        async with service(received) as running:
            await running.ask(temperature=0)
            await running.ask(PARENT, temperature=0)
            running.export()
    spans = [span for span in received.spans if span.trace_id.hex() == TRACE]

    assert sorted(span.name for span in spans) == sorted(["chat fast", *ROOMS])
    (root,) = [span for span in spans if span.name == "chat fast"]
    assert attributes(root.attributes)[Attribute.CACHE] == "exact"


async def test_a_failover_is_in_the_trace_with_both_replicas() -> None:
    with http_receiver() as received:
        async with service(received, "ab") as running:
            running.client.losing = True
            answer = await running.ask(
                PARENT, stream=True, guided_choice=None, max_tokens=30, temperature=0, ignore_eos=True
            )
            assert answer.text.rstrip().endswith("[DONE]")
            assert not running.client.losing
            for replica in running.replicas.values():  # the lost one is in this process, where it aborts what it ran
                replica.dead = False
            await settle()
            running.export()
    (event,) = received.named("answer").events

    assert event.name == "manta.failover"
    assert attributes(event.attributes) == {Attribute.FAILOVER_KIND: "resumed"}
    assert attributes(received.named("chat fast").attributes)[Attribute.FAILOVERS] == 1
    second = [span for span in received.spans if attributes(span.attributes).get(Attribute.RESUMED_TOKENS)]
    assert [span.name for span in second] == ["generate"]
    assert second[0].parent_span_id == received.named("answer").span_id


async def test_a_refusal_is_traced_without_its_message_and_is_no_failure() -> None:
    with http_receiver() as received:
        async with service(received) as running:
            assert (await running.ask(model=IN)).status_code == 404
            running.export()

    assert {span.name for span in received.spans} == {"request", "access", "prompt", "route"}
    assert not [span for span in received.spans if failed(span)]
    assert attributes(received.named("request").attributes) == {
        Attribute.TENANT: "acme",
        Attribute.ERROR: "model_not_found",
        Attribute.STATUS: 404,
    }
    assert IN.encode() not in b"".join(received.bodies)


async def test_failures_are_kept_although_no_request_is_sampled_and_refusals_are_not() -> None:
    """Else anybody could have all requests traced: by refusals, or by the choice of a trace id."""
    lowest_id = {"traceparent": f"00-{'a' * 16}{1:016x}-{'b' * 16}-01"}
    with http_receiver() as received:
        async with service(received, sample_ratio=0.0) as running:
            assert (await running.ask(lowest_id)).status_code == 200
            assert (await running.ask(model=IN)).status_code == 404
            running.export()
        assert received.spans == []
        async with service(received, sample_ratio=0.0) as running:
            for replica in running.replicas.values():
                replica.dead = True
            assert (await running.ask()).status_code >= 500
            for replica in running.replicas.values():
                replica.dead = False
            await settle()
            running.export()

    assert failed(received.named("chat fast"))


async def test_a_client_that_leaves_ends_the_trace_and_nothing_has_failed() -> None:
    with http_receiver() as received:
        async with service(received) as running:
            gone = asyncio.Event()
            asked: list[None] = []
            sent: list[Message] = []

            async def receive() -> Message:
                asked.append(None)
                if len(asked) == 1:
                    body = {"model": "fast", "stream": True, "ignore_eos": True, "max_tokens": 400}
                    text = json.dumps({**body, "messages": [{"role": "user", "content": IN}]})
                    return {"type": "http.request", "body": text.encode()}
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                sent.append(message)
                if len(sent) == 3:
                    gone.set()
                await asyncio.sleep(0)

            headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"traceparent", PARENT["traceparent"].encode())]
            scope = {"type": "http", "path": "/v1/chat/completions", "method": "POST", "headers": headers}
            await running.app(scope, receive, send)
            await settle()
            running.export()
    root = received.named("chat fast")

    assert attributes(root.attributes)[Attribute.ERROR] == "cancelled"
    assert not [span for span in received.spans if failed(span)]


async def test_a_client_that_leaves_while_its_body_is_read_has_no_trace_kept() -> None:
    with http_receiver() as received:
        async with service(received, sample_ratio=0.0) as running:

            async def receive() -> Message:
                return {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                raise AssertionError(message)

            headers = [(b"authorization", f"Bearer {KEY}".encode())]
            for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/moderations"):
                scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
                await running.app(scope, receive, send)
            running.export()
    assert not received.spans


async def test_slow_requests_are_kept_although_none_is_sampled() -> None:
    with http_receiver() as received:
        async with service(received, sample_ratio=0.0, slow_s=0.001) as running:
            await running.ask(PARENT)
            running.export()
    assert {"chat fast", "generate"} <= {span.name for span in received.spans}


async def test_traces_are_received_by_grpc() -> None:
    with grpc_receiver() as received:
        async with service(received, protocol="grpc", headers={"x-token": "secret"}) as running:
            await running.ask(PARENT)
            running.export()
    assert received.children(received.named("chat fast")) == ROOMS
    assert received.headers[0]["x-token"] == "secret"


async def test_requests_go_on_while_there_is_no_receiver(caplog: pytest.LogCaptureFixture) -> None:
    async with service(Received("http://127.0.0.1:9/v1/traces")) as running:
        assert (await running.ask()).status_code == 200
        running.export()
    assert len([record for record in caplog.records if "traces are lost" in record.message]) == 2  # router and replica


def test_a_receiver_that_does_not_answer_does_not_hold_a_replica_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_sampling, "CLOSE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = TelemetryConfig(endpoint=f"http://127.0.0.1:{port}/v1/traces", sample_ratio=1.0, timeout_s=5.0)
        tracer = OtelTracer(config)
        with tracer.request(None):
            pass
        began = time.monotonic()
        tracer.close()
        took_s = time.monotonic() - began
    for thread in threading.enumerate():
        if thread.name == "manta-last-traces":
            thread.join()
    assert took_s < 2.0


async def test_more_requests_than_may_wait_are_not_traced() -> None:
    with http_receiver() as received:
        config = TelemetryConfig(endpoint=received.endpoint, sample_ratio=1.0, max_pending=1)
        tracer = OtelTracer(config)
        with tracer.request(None) as first, tracer.request(None) as second:
            assert first.context
            assert second.context == ""
        with tracer.request(None) as third:
            assert third.context
        tracer.close()
    assert len(received.spans) == 2


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{TRACE}-{CALLER}-01-more",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{TRACE}-{CALLER}-01\n",
    ],
)
def test_a_malformed_traceparent_is_none(traceparent: str) -> None:
    assert caller_of(traceparent) is None


def test_a_traceparent_of_a_later_version_is_read() -> None:
    assert caller_of(f"01-{TRACE}-{CALLER}-01-more") is not None


def test_nothing_that_traces_is_loaded_at_rest() -> None:
    names = ("otel_", "trace_", "span_", "otlp_", "replica_tracer", "call_tracer")
    code = (
        "import sys, cluster.app, cluster.ingress, cluster.replica.tier_replica\n"
        "from cluster.small_models.small_models_replica import HostedModels, SmallModelsReplica\n"
        "from cluster.config import StateConfig\n"
        "SmallModelsReplica(HostedModels(None, None, None, StateConfig()))\n"
        f"prefixes = tuple('cluster.telemetry.' + name for name in {names}) + ('opentelemetry.proto',)\n"
        "found = [name for name in sys.modules if name.startswith(prefixes)]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_requests_without_a_trace_are_counted_and_the_first_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = record(monkeypatch)
    tracer = OtelTracer(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces", max_pending=1), "manta")
    for _ in range(2):
        with tracer.request(None), tracer.request(None), tracer.request(None):
            pass
    tracer.close()
    assert recorded.value("ray_manta_untraced_requests_total", role="router") == 4
    assert recorded.applications["ray_manta_untraced_requests_total"] == "manta"
    assert len([each for each in caplog.records if "telemetry.max_pending" in each.message]) == 1


def test_a_request_with_the_id_of_a_running_one_does_not_end_its_span() -> None:
    with http_receiver() as received:
        tracer = ReplicaTracer(TelemetryConfig(endpoint=received.endpoint), "fast")
        first = GenerationRequest("same", "hi", trace_context=f"00-{TRACE}-{CALLER}-01")
        tracer.came(first)
        tracer.refused(tracer.came(first), RequestError("request_id 'same' is in use", "request_id"))
        tracer.stepped([Delta("same", (1,), "a", FinishReason.STOP, Usage(1, 1, 0), waited_s=0.0)], StepFacts())
        tracer.close()
    span = received.named("generate")
    assert attributes(span.attributes)[Attribute.OUTPUT_TOKENS] == 1
    assert not failed(span)


@pytest.mark.parametrize("endpoint", ["http://collector:4318/v1/traces", "http://10.0.0.7:4317", "http://u:p@host/v1"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_credentials_are_not_sent_in_clear_to_another_machine(endpoint: str, protocol: str) -> None:
    with pytest.raises(ValidationError, match="headers"):
        TelemetryConfig.model_validate(
            {"endpoint": endpoint, "protocol": protocol, "headers": {"authorization": "Bearer secret"}}
        )


@pytest.mark.parametrize("endpoint", ["https://collector/v1/traces", "http://127.0.0.1:4318", "http://[::1]:4318"])
def test_credentials_are_sent_by_tls_and_to_this_machine(endpoint: str) -> None:
    config = TelemetryConfig.model_validate({"endpoint": endpoint, "headers": {"authorization": "Bearer secret"}})
    assert config.endpoint == endpoint
    TelemetryConfig(endpoint="http://collector:4318/v1/traces")  # no credentials


def test_an_endpoint_of_grpc_without_a_scheme_has_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def channel(kind: str, target: str, *credentials: object) -> grpc.Channel:
        made.append(f"{kind} {target}")
        return real(target)

    real = grpc.insecure_channel
    monkeypatch.setattr(grpc, "insecure_channel", partial(channel, "clear"))
    monkeypatch.setattr(grpc, "secure_channel", partial(channel, "tls"))
    for endpoint in ("collector:4317", "https://collector:4317", "http://collector:4317"):
        exporter_of(
            TelemetryConfig(endpoint=endpoint, protocol="grpc"), {}, TraceFaults(RayInstruments(), "router")
        ).shutdown()
    assert made == ["tls collector:4317", "tls collector:4317", "clear collector:4317"]
