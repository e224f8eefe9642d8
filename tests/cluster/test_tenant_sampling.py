"""Traces are kept by the share of their tenant, in router and replica alike, and faults and slow ones always."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.otel_tracer import OtelTracer
from cluster.telemetry.trace_sampling import TraceSampler
from router.config.keys import KeyConfig
from router.ports.trace_names import Attribute, SpanName
from tests.cluster.lanes import settle
from tests.cluster.otlp_receiver import Received, attributes, http_receiver
from tests.cluster.traced_service import CALLER, KEY, TRACE, Setup, listening, service
from tests.embedder.fake_embedder import FakeEmbedder

QUIET_KEY = "sk-quiet"
KEYS = [KeyConfig(key=KEY, tenant="acme", team="core"), KeyConfig(key=QUIET_KEY, tenant="quiet", team="core")]
CHAT = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/embeddings", {"model": FakeEmbedder().model, "input": "hi"}),
    ("/v1/moderations", {"input": "hi"}),
]


def setup() -> Setup:
    return Setup(router={"keys": KEYS})


def tenants(received: Received) -> set[object]:
    """The tenants whose requests have spans."""
    named = [attributes(span.attributes).get(Attribute.TENANT) for span in received.spans]
    return {name for name in named if name is not None}


@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_each_route_keeps_the_traces_of_a_tenant_by_its_share_over_http(path: str, body: dict[str, Any]) -> None:
    with http_receiver() as received:
        shares = {"acme": 1.0, "quiet": 0.0}
        async with (
            service(received, setup=setup(), sample_ratio=0.5, tenant_sample_ratios=shares) as running,
            listening(running) as http,
        ):
            for number in range(8):
                for key in (KEY, QUIET_KEY):
                    headers = {"authorization": f"Bearer {key}", "x-request-id": f"{key[3:]}-{number}"}
                    assert (await http.post(path, json=body, headers=headers)).status_code == 200
            running.export()
    assert tenants(received) == {"acme"}
    ids = [attributes(span.attributes).get(Attribute.REQUEST_ID) for span in received.spans]
    assert sorted(str(each) for each in ids if each) == [f"traces-{number}" for number in range(8)]
    generated = [span for span in received.spans if span.name == SpanName.GENERATE]
    assert len(generated) == (path == "/v1/chat/completions")  # the other answers are the cache's


async def test_the_replica_follows_what_was_drawn_for_the_tenant() -> None:
    with http_receiver() as received:
        async with service(received, setup=setup(), sample_ratio=1.0, tenant_sample_ratios={"quiet": 0.0}) as running:
            for key, text in ((KEY, "one"), (QUIET_KEY, "two"), (KEY, "three"), (QUIET_KEY, "four")):
                message = [{"role": "user", "content": text}]
                await running.ask({"authorization": f"Bearer {key}"}, messages=message)
            running.export()
    kept = {span.trace_id for span in received.spans if span.name == SpanName.ACCESS}
    assert len(kept) == 2
    assert {span.trace_id for span in received.spans if span.name == SpanName.GENERATE} == kept


async def test_faults_and_slow_requests_of_a_tenant_without_a_share_are_kept() -> None:
    with http_receiver() as received:
        async with service(received, tenant_sample_ratios={"acme": 0.0}) as running:
            assert (await running.ask()).status_code == 200
            for replica in running.replicas.values():
                replica.dead = True
            assert (await running.ask(max_tokens=3)).status_code >= 500
            for replica in running.replicas.values():
                replica.dead = False
            await settle()
            running.export()
        roots = [attributes(span.attributes) for span in received.spans if span.name == "chat fast"]
        assert [each[Attribute.STATUS] for each in roots] == [500]
        received.spans.clear()
        async with service(received, tenant_sample_ratios={"acme": 0.0}, slow_s=0.001) as running:
            assert (await running.ask()).status_code == 200
            running.export()
    assert {"chat fast", "generate"} <= {span.name for span in received.spans}


async def test_a_request_that_is_refused_before_its_tenant_is_known_is_kept_by_the_general_share() -> None:
    for general in (0.0, 1.0):
        with http_receiver() as received:
            shares = {"acme": 1.0 - general}
            async with service(received, sample_ratio=general, tenant_sample_ratios=shares) as running:
                assert (await running.ask({"authorization": "Bearer sk-none"})).status_code == 401
                assert (await running.ask(model="none")).status_code == 404
                running.export()
        codes = {attributes(span.attributes).get(Attribute.STATUS) for span in received.spans} - {None}
        assert codes == ({401} if general else {404})


@pytest.mark.parametrize("follows", [True, False])
async def test_a_caller_that_is_followed_stays_followed(follows: bool) -> None:
    sampled = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    with http_receiver() as received:
        shares = {"acme": 0.0}
        async with service(received, follow_caller=follows, tenant_sample_ratios=shares) as running:
            await running.ask(sampled)
            running.export()
    assert {span.name for span in received.spans if span.trace_id.hex() == TRACE} >= (
        {"chat fast", "generate"} if follows else set()
    )
    assert bool(received.spans) is follows


async def test_a_tenant_that_is_not_named_keeps_what_was_drawn() -> None:
    with http_receiver() as received:
        async with service(received, sample_ratio=1.0, tenant_sample_ratios={"other": 0.0}) as running:
            await running.ask()
            running.export()
    assert tenants(received) == {"acme"}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_as_many_are_kept_as_the_share_says_whatever_was_drawn_before(share: float) -> None:
    ratios = {"acme": share}
    config = TelemetryConfig(
        endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=0.5, max_pending=4000, tenant_sample_ratios=ratios
    )
    sampler = TraceSampler(config, "router", follows=False)
    random.seed(1)
    records = [sampler.begin("request", None) for _ in range(4000)]
    for record in records:
        assert record is not None
        sampler.draw(record, "acme")
    sampler.close()
    kept = sum(record.sampled for record in records if record is not None)
    assert abs(kept - 4000 * share) <= (0 if share in (0.0, 1.0) else 110)  # four standard deviations


def test_the_context_says_what_was_drawn_for_the_tenant() -> None:
    ratios = {"acme": 1.0, "quiet": 0.0}
    tracer = OtelTracer(
        TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=0.0, tenant_sample_ratios=ratios)
    )
    with tracer.request(None) as trace:
        assert trace.context.endswith("-00")
        trace.belongs_to("acme")
        assert trace.context.endswith("-01")
        trace.belongs_to("quiet")
        assert trace.context.endswith("-00")
    tracer.close()


@pytest.mark.parametrize("ratios", [{"acme": 1.5}, {"acme": -0.1}, {"acme": float("nan")}, {"acme": "all"}, ["acme"]])
def test_a_share_that_is_none_is_refused_by_the_name_of_its_tenant(ratios: object) -> None:
    with pytest.raises(ValidationError, match="tenant_sample_ratios"):
        TelemetryConfig.model_validate({"tenant_sample_ratios": ratios})
