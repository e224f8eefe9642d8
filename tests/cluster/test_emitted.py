"""All that a whole service emits: one trace over its actors, every metric that is looked at, and no text of a request.

The service is real: routers, replicas and classifier are actors of a Ray cluster, with a Redis and a receiver of OTLP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
import redis
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from cluster.local.redis_server import RedisServer
from k8s.monitoring.alerts import PROCESS
from k8s.monitoring.metric_names import RUNNING
from load_tests.chaos.engines import PacedFactory
from router.ports.trace_names import Attribute, EventName, SpanName
from tests.cluster.graph import Graph, eventually
from tests.cluster.otlp_receiver import Received, attributes, failed, http_receiver
from tests.cluster.seen_service import (
    ANSWER,
    CALLER,
    KEYS,
    MARKERS,
    SCALED,
    STEP_S,
    SYSTEM,
    TRACE,
    TRACEPARENT,
    Seen,
    arguments,
    load,
)
from tests.k8s.expressions import METRIC, expressions
from tests.state.conftest import free_port, wait_until_ready

pytestmark = pytest.mark.slow

OPERATIONS = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
ROOMS = ["access", "prompt", "route", "limits", "safety", "cache", "answer"]
CACHE = re.compile(rb"^manta:1:(\{[^}]*\}:cache(:|-questions$)|\{cache-feed\}:changes$)")
"""The only keys of Redis that may have texts: stored answers, their questions for the semantic index, and the feed of
these. Nothing waits for review, and no stream is detached."""

WITH_TEXTS = {"texts", "redis/appendonly"}
"""What may have texts of all that is written below the directory of the service: the log of a tenant that asks for it,
and the file in which Redis keeps the keys above."""

EVENTS = {
    "ray_manta_engine_repairs_total": "a bug of the engine",
    "ray_manta_replica_start_failures_total": "a replica does not start (tests/cluster/test_start_failures.py)",
    "ray_manta_lost_records_total": "a journal was full",
    "ray_manta_lost_texts_total": "texts find no room, or cannot be redacted",
    "ray_manta_trace_faults_total": "a fault of tracing (tests/cluster/test_trace_faults.py)",
    "ray_manta_untraced_requests_total": "telemetry.max_pending requests are being traced",
}
"""The metrics that this load does not touch, and what makes them appear. All others are there."""


@pytest.fixture(scope="module")
def seen(serve_port: int, graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    del serve_port
    directory = tmp_path_factory.mktemp("seen")
    state = RedisServer(directory / "redis", free_port())
    state.start()
    wait_until_ready(state)
    with http_receiver() as received:
        config = arguments(state, directory, received.endpoint, received.metrics_endpoint)
        application = build_with(MantaConfig.model_validate(config), PacedFactory(STEP_S))
        serve.run(application, name="seen", route_prefix="/seen")
        made = Seen(graph, received, state, directory)
        eventually(made.ready, "both replicas are ready", 120)
        load(made)
        yield made
        serve.delete("seen")
    state.stop()


def roots_of(seen: Seen) -> list[Any]:
    """The spans of whole requests."""
    return [span for span in seen.received.spans if span.name not in {each.value for each in SpanName}]


def test_one_request_with_a_miss_safety_and_a_failover_has_one_trace_over_its_actors(seen: Seen) -> None:
    def spans() -> Received:
        found = Received()
        found.spans = [span for span in seen.received.spans if span.trace_id.hex() == TRACE]
        found.roles = seen.received.roles
        return found

    expected = {"chat fast", *(each.value for each in SpanName if each is not SpanName.STEP)}
    with suppress(AssertionError):  # what is missing says more
        eventually(lambda: {span.name for span in spans().spans} == expected, "all spans have arrived", 30)
    trace = spans()
    assert {span.name for span in trace.spans} == expected
    root, answered, generate = trace.named("chat fast"), trace.named("answer"), trace.named("generate")
    assert root.parent_span_id.hex() == CALLER
    assert trace.children(root) == ROOMS
    # The replica that was killed has sent nothing. The one that went on has its spans below the same room.
    assert sorted({*trace.children(answered)} - {"classify"}) == ["generate", "moderate"]
    assert trace.children(generate) == ["queue", "prefill", "decode"]
    assert {trace.roles[span.span_id] for span in trace.spans if span.name in (*ROOMS, "moderate")} == {"router"}
    roles = {"generate": "replica", "classify": "classifier", "lookup": "cache", "embed": "embedder"}
    for name, role in roles.items():
        assert {trace.roles[span.span_id] for span in trace.spans if span.name == name} == {role}
    looked_up, embedded = trace.named("lookup"), trace.named("embed")
    assert looked_up.parent_span_id == trace.named("cache").span_id
    assert trace.children(looked_up) == ["embed"]
    assert trace.children(embedded) == ["queue", "batch"]
    assert {span.trace_state for span in trace.spans} == {TRACEPARENT["tracestate"]}
    found = attributes(root.attributes)
    assert found[Attribute.CACHE] == "miss"
    assert found[Attribute.SAFETY] == "allowed"
    assert found[Attribute.FAILOVERS] == 1
    assert int(str(attributes(generate.attributes)[Attribute.RESUMED_TOKENS])) > 0
    assert [event.name for event in answered.events] == [EventName.FAILOVER]
    (look_up,) = trace.named("cache").events
    assert attributes(look_up.attributes) == {Attribute.CACHE: "miss", Attribute.CACHE_REASON: "score"}
    assert found[Attribute.STATUS] == 200
    steps = {span.span_id: span for span in seen.received.spans if span.name == SpanName.STEP}
    for phase in ("prefill", "decode"):
        (link,) = trace.named(phase).links
        assert steps[link.span_id].trace_id == link.trace_id
    assert not any(failed(span) for span in trace.spans)


def test_a_tenant_without_a_share_has_no_trace_in_any_actor(seen: Seen) -> None:
    tenants = {attributes(span.attributes).get(Attribute.TENANT) for span in seen.received.spans}
    assert {"acme", "logged"} <= tenants
    assert "narrow" not in tenants


def test_each_request_has_a_trace_of_its_own_in_which_every_span_has_its_parent(seen: Seen) -> None:
    """Also those without a traceparent, and those that run at once (vllm#33272, #38672, #39905)."""
    eventually(lambda: any(span.name.startswith("moderation") for span in seen.received.spans), "the last has come", 30)

    def orphans() -> list[str]:
        ids = {span.span_id for span in seen.received.spans} | {b"", bytes.fromhex(CALLER)}
        return [span.name for span in seen.received.spans if span.parent_span_id not in ids]

    eventually(lambda: len(roots_of(seen)) >= len(seen.traced), "all requests have come", 30)
    with suppress(AssertionError):  # which ones says more
        eventually(lambda: not orphans(), "all parents have come", 30)
    assert orphans() == []
    begun = {span.span_id for span in seen.received.spans if span.name in (SpanName.ANSWER, SpanName.SAFETY)}
    roots = roots_of(seen)
    assert len({root.trace_id for root in roots}) == len(roots)
    trace_of = {span.span_id: span.trace_id for span in seen.received.spans}
    for span in seen.received.spans:
        if span.parent_span_id and span.parent_span_id.hex() != CALLER:
            assert trace_of[span.parent_span_id] == span.trace_id
        if span.name == SpanName.GENERATE:
            assert span.parent_span_id in begun


def documented_parents() -> dict[str, set[str]]:
    """The parents of each span by the table of docs/operations.md; "": it is the first of its trace."""
    section = OPERATIONS.partition("### The tree of spans\n")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        names, parents = (re.findall(r"`([a-z_]+)", cell) for cell in row)
        for name in names:
            found.setdefault(name, set()).update(parents or ({"request"} if row[1] == "the request" else {""}))
    return found


def test_every_span_is_in_the_documented_tree_below_its_parent(seen: Seen) -> None:
    parents = documented_parents()
    assert {each.value for each in SpanName} <= parents.keys()
    names = {span.span_id: span.name.partition(" ")[0] for span in seen.received.spans}
    roots = {name for name, above in parents.items() if above == {""}} - {SpanName.STEP.value}
    for span in seen.received.spans:
        above = names.get(span.parent_span_id, "")
        expected = parents[span.name.partition(" ")[0]]
        assert above in expected or (above in roots and "request" in expected), (span.name, above)
    assert len(names) > 50


def test_names_of_spans_attributes_and_events_are_those_of_the_frozen_table(seen: Seen) -> None:
    names = {pair.key for span in seen.received.spans for pair in span.attributes}
    names |= {pair.key for span in seen.received.spans for event in span.events for pair in event.attributes}
    assert names <= {each.value for each in Attribute}
    assert {event.name for span in seen.received.spans for event in span.events} <= {each.value for each in EventName}
    eventually(lambda: len(roots_of(seen)) >= len(seen.traced), "all requests have come", 30)
    assert {root.name.partition(" ")[0] for root in roots_of(seen)} == {"chat", "moderation", "request"}


def test_every_metric_of_every_panel_and_rule_is_scraped_or_is_known_to_need_an_event(seen: Seen) -> None:
    used = {name for _, text in expressions() for name, _ in METRIC.findall(text) if name.startswith("ray_")}
    scraped: set[str] = set()

    def missing() -> set[str]:
        scraped.update(line.partition("{")[0] for line in seen.metrics().splitlines())  # a gauge may skip a report
        return used - scraped - EVENTS.keys()

    with suppress(AssertionError):  # what is missing says more
        eventually(lambda: not missing(), "every metric is exported", 60)
    assert missing() == set()
    running = [line for line in seen.metrics().splitlines() if line.startswith(f"{RUNNING}{{")]
    assert running
    assert all(f'{PROCESS}="' in line for line in running), "rules tell replicas apart by it"
    assert scraped & EVENTS.keys() == set(), "it is there after all"
    assert used >= EVENTS.keys()


def test_the_autoscaler_in_serves_controller_sends_its_decisions_too(seen: Seen) -> None:
    eventually(lambda: "manta_autoscaling_decisions" in seen.received.metrics, "its metrics arrive", 30)
    assert seen.received.number("manta_autoscaling_target_replicas", tier=SCALED).as_double == 1
    senders = {(each["manta.role"], each["manta.application"]) for each in seen.received.resources}
    assert senders == {(role, "seen") for role in ("router", "replica", "autoscaler")}


def test_no_text_is_in_any_span_metric_log_or_key_but_those_of_the_cache(seen: Seen) -> None:
    markers = [each.encode() for each in (*MARKERS, *KEYS)]
    assert seen.received.bodies
    for body in seen.received.bodies:
        assert not [each for each in markers if each in body]
    assert not [each for each in MARKERS if each in seen.metrics()]
    with redis.Redis.from_url(seen.state.url) as client:
        plain = {key: b"".join(_strings(client, key)) + key for key in map(bytes, client.scan_iter())}
    with_texts = {key for key, value in plain.items() if any(each in value for each in markers)}
    assert with_texts
    assert {key for key in with_texts if not CACHE.match(key)} == set()


def test_texts_of_a_tenant_that_has_asked_for_it_are_in_a_file_of_their_own_redacted(seen: Seen) -> None:
    def records() -> list[dict[str, Any]]:
        return [json.loads(line) for path in seen.texts.glob("*.jsonl") for line in path.read_bytes().splitlines()]

    eventually(lambda: len(records()) >= 2, "both requests are written", 30)
    for record in records():
        assert record["tenant"] == "logged"
        assert record["redacted"] == {"AWS_ACCESS_KEY": 1, "CREDIT_CARD": 1, "EMAIL_ADDRESS": 1}
        system, question = [each["text"] for each in record["prompt"]]
        assert SYSTEM in system
        assert question.startswith("I am <EMAIL_ADDRESS>, my card is <CREDIT_CARD>")
        assert [each["text"] for each in record["answers"]] == [ANSWER]
        assert bytes.fromhex(record["trace_id"]) in {span.trace_id for span in seen.received.spans}
    assert len(records()) == 2, "no other tenant's"


def journals(seen: Seen) -> bytes:
    """What waits for Redis on the router's disk."""
    return b"".join(path.read_bytes() for path in seen.journal.rglob("*") if path.is_file())


def test_no_text_is_in_any_file_but_those_that_are_for_texts(seen: Seen) -> None:
    """Also in the journals, which have the entries of the ledger and the audit log that wait for Redis."""
    seen.state.kill()
    try:
        asked = [seen.ask(f"Without Redis {number}", max_tokens=4).status_code for number in range(2)]
        assert asked == [200, 200]
        mine = "My card is 4111 1111 1111 1111"  # the audit log has a record of it
        assert seen.ask(mine, max_tokens=4).status_code in (200, 400, 503)
        eventually(lambda: b'"acme"' in journals(seen), "entries wait on the disk", 30)
        node: Any = ray._private.worker._global_node
        found = [path for root in (seen.directory, Path(node.get_session_dir_path())) for path in files_below(root)]
        assert any("seen" in path.name for path in found), "logs of its actors"
        assert any(path.is_relative_to(seen.journal) and path.stat().st_size for path in found)
        with_texts = {place(path, seen.directory) for path in found if contains(path, MARKERS)}
        assert with_texts == WITH_TEXTS, "each of them has texts, and no other"
        assert [path for path in found if contains(path, KEYS)] == []
    finally:
        seen.state.start()
        wait_until_ready(seen.state)
    eventually(lambda: b'"acme"' not in journals(seen), "Redis has the entries", 60)


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def place(path: Path, directory: Path) -> str:
    """The part of the service that a file belongs to; its own path, if it has no business with texts."""
    if not path.is_relative_to(directory):
        return str(path)
    name = str(path.relative_to(directory))
    return next((part for part in WITH_TEXTS if name.startswith(part)), name)


def contains(path: Path, texts: tuple[str, ...]) -> bool:
    try:
        found = path.read_bytes()
    except FileNotFoundError:  # a log that was rotated, a journal that is empty again
        return False
    return any(each.encode() in found for each in texts)


def _strings(client: Any, key: bytes) -> Iterator[bytes]:
    """All strings within a value of Redis, as they were written."""
    kind = client.type(key)
    if kind == b"string":
        yield client.get(key) or b""
    elif kind == b"hash":
        for name, value in client.hgetall(key).items():
            yield from (name, value)
    elif kind == b"list":
        yield from client.lrange(key, 0, -1)
    elif kind == b"set":
        yield from client.smembers(key)
    elif kind == b"zset":
        yield from client.zrange(key, 0, -1)
    elif kind == b"stream":
        for number, fields in client.xrange(key):
            yield number
            for name, value in fields.items():
                yield from (name, value)
    else:
        raise AssertionError(f"a key of the type {kind!r}")
