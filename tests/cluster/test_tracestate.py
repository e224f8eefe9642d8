"""The caller's tracestate goes unchanged into all spans of its trace, over router and replica, as W3C asks."""

from __future__ import annotations

import pytest
from opentelemetry.trace.span import TraceState

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.otel_tracer import OtelTracer
from cluster.telemetry.trace_record import MAX_STATE, valid_state
from router.ports.trace_names import SpanName
from tests.cluster.otlp_receiver import http_receiver
from tests.cluster.traced_service import CALLER, KEY, PARENT, TRACE, listening, service

STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,tenant@vendor=a b/c~"
CHAT = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
AUTHORIZED = ("authorization", f"Bearer {KEY}")


async def states(*headers: tuple[str, str]) -> dict[str, str]:
    """The tracestate of each span of a request with ``headers``, by name, over a real HTTP server."""
    with http_receiver() as received:
        async with service(received) as running, listening(running) as http:
            answer = await http.post("/v1/chat/completions", json=CHAT, headers=[AUTHORIZED, *headers])
            assert answer.status_code == 200
            running.export()
    assert {span.name for span in received.spans} >= {"chat fast", "answer", "generate", "decode", "step"}
    return {span.name: span.trace_state for span in received.spans}


async def test_it_is_in_each_span_of_the_trace_and_in_no_other() -> None:
    found = await states(("traceparent", PARENT["traceparent"]), ("tracestate", STATE))
    assert found.pop(SpanName.STEP) == ""  # a step is in a trace of its own
    assert set(found.values()) == {STATE}


async def test_several_headers_are_one_list_in_their_order() -> None:
    parts = STATE.split(",")
    parts[2] = parts[0].replace("rojo=0", "rojo=1")  # a key may come again (opentelemetry-python#5314)
    headers = [("tracestate", parts[0]), ("x-other", "1"), ("TraceState", ""), ("tracestate", ",".join(parts[1:]))]
    found = await states(("traceparent", PARENT["traceparent"]), *headers)
    assert found["chat fast"] == found["generate"] == f"{parts[0]},,{parts[1]},{parts[2]}"


@pytest.mark.parametrize("parent", [None, "garbage", f"00-{TRACE}-{CALLER}-01-more"])
async def test_without_a_valid_traceparent_it_is_dropped(parent: str | None) -> None:
    headers = [] if parent is None else [("traceparent", parent)]
    found = await states(*headers, ("tracestate", STATE))
    assert set(found.values()) == {""}


@pytest.mark.parametrize("state", ["malformed", "a=1," + "b" * MAX_STATE + "=2"])
async def test_one_that_is_malformed_or_too_long_is_dropped_and_the_trace_goes_on(state: str) -> None:
    found = await states(("traceparent", PARENT["traceparent"]), ("tracestate", state))
    assert set(found.values()) == {""}


ALLOWED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")


@pytest.mark.parametrize(
    "state",
    [
        "foo=1",
        "foo=1,bar=2",
        "foo=1 \t , \tbar=2, \t baz=3",
        "foo=1,,bar=2,",
        "z0_-*/=1",
        "t-0@v=1",
        "1digit=2",
        "a" * 256 + "=1",
        f"a={ALLOWED}!",
        "a= leading and inner spaces",
        "a=" + "v" * 256,
        ",".join(f"bar{number:02}=0" for number in range(1, 33)),
        "foo=1,foo=1",  # may be kept as it is
        "a=" + "b" * 253 + ",c=" + "d" * 254,
    ],
)
def test_what_w3c_allows_is_passed_on_unchanged(state: str) -> None:
    assert valid_state(state) == state


@pytest.mark.parametrize(
    "state",
    [
        "",
        " , ,\t,",
        "foo",
        "foo=",
        "=1",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "föo=1",
        "foo=bar=baz",
        "foo=\x01",
        "foo=b\u00e9",
        "foo=1\n",
        "foo=1;bar=2",
        "a" * 257 + "=1",
        "a=" + "v" * 257,
        ",".join(f"bar{number:02}=0" for number in range(1, 34)),
        "a=" + "b" * 253 + ",c=" + "d" * 255,
    ],
)
def test_what_w3c_does_not_allow_is_dropped_whole(state: str) -> None:
    assert valid_state(state) == ""


@pytest.mark.parametrize("members", [1, 3, 32])
def test_opentelemetry_reads_what_is_passed_on(members: int) -> None:
    state = ",".join(f"key{number}=v-{number}" for number in range(members))
    assert TraceState.from_header([valid_state(state)]).to_header() == state


def test_a_trace_that_begins_here_has_none() -> None:
    tracer = OtelTracer(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces"))
    with tracer.request(None, STATE) as begun, tracer.request(PARENT["traceparent"], STATE) as continued:
        assert (begun.state, continued.state) == ("", STATE)
    tracer.close()
