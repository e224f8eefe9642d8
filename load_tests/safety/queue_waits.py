"""``python -m load_tests.safety.queue_waits``: how long the first checks of short prompts wait in the classifier.

It runs the queue of a replica, and nothing else, on a virtual clock with made times. So the figures are those of the
order alone, the same on every machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np

from safety.encoder.batch_runner import MAX_BATCH_TOKENS
from safety.encoder.sequence_queue import SequenceQueue
from safety.encoder.tenant_calls import QueuedSequence

DESCRIPTION = """\
One replica of the classifier, whose batches take a fixed time and a time for each token, padding included. A tenant
sends short prompts at random; beside it run streams, whose checks rest as those of the service do, or long documents,
each of which is followed by another. A wait ends when the batch begins that has the last of a call.
"""

BATCH_S, TOKEN_S = 0.0025, 0.00011
"""The made times, near those of int8 on a Xeon: 5.8 ms for 30 tokens, 31 ms for a full batch."""

SHORT, CHECK, WINDOW = (12, 40), (60, 128), 128
"""Tokens of a short prompt, of a check of an answer, and of a window of a long document."""

REST, MAX_REST_S, MIN_REST_S = 8.0, 1.0, 0.25
"""After a check, a stream waits this many times the check's duration before the next one, as the service does."""


@dataclass(slots=True)
class Call:
    """A call of the classifier. ``kind`` is the name under which its wait is counted."""

    kind: str
    tenant: str
    windows: Sequence[int]
    urgent: bool
    again: Callable[[float], tuple[float, Call]] | None = None
    """Returns when the next call of this caller comes, from the seconds that this one took."""
    came_s: float = 0.0
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.windows)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What runs beside ``prompts`` short prompts a second of the tenant ``small``: ``streams`` streams of each of the
    tenants ``stream_tenants``, and ``documents`` callers with long documents of ``document_windows`` windows."""

    name: str
    prompts: float = 4.0
    streams: int = 0
    stream_tenants: Sequence[str] = ("small",)
    documents: int = 0
    document_tenant: str = "large"
    document_windows: int = 50


SCENARIOS = (
    Scenario("nothing else"),
    Scenario("32 streams of the same tenant", streams=32),
    Scenario("32 streams of 32 other tenants", streams=1, stream_tenants=[f"t{each}" for each in range(32)]),
    Scenario("20 long documents of another tenant", documents=20),
    Scenario("20 long documents of the same tenant", documents=20, document_tenant="small"),
    Scenario("both of the same tenant", streams=32, documents=20, document_tenant="small"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    rows = []
    for scenario in SCENARIOS:
        waits = quantiles(waits_of(scenario, SequenceQueue(MAX_BATCH_TOKENS), options.seconds, options.seed))
        rows.append({"scenario": scenario.name, "waits_ms": waits})
        _print(scenario.name, waits)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.safety.queue_waits",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=float, default=300.0, help="of the virtual clock, for each scenario (default: %(default)s)")
    add("--seed", type=int, default=0, help="of arrivals and lengths (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


def waits_of(scenario: Scenario, queue: SequenceQueue[Call], seconds: float, seed: int = 0) -> dict[str, list[float]]:
    """Returns the waits in seconds, by kind of call, of those that ``queue`` has served within ``seconds`` of the
    virtual clock."""
    rng, order = random.Random(seed), count()
    coming = [(at_s, next(order), call) for at_s, call in first_calls(scenario, rng, seconds)]
    heapq.heapify(coming)
    waits: dict[str, list[float]] = defaultdict(list)
    now_s = 0.0
    while now_s < seconds and (coming or len(queue)):
        if not len(queue):
            now_s = max(now_s, coming[0][0])
        while coming and coming[0][0] <= now_s:
            at_s, _, call = heapq.heappop(coming)
            call.came_s = at_s
            queue.add(call, [[0] * length for length in call.windows], call.tenant, urgent=call.urgent)
        batch = queue.next_batch()
        begun_s, now_s = now_s, now_s + seconds_of(batch)
        for call in (each.owner for each in batch):
            call.left -= 1
            if not call.left:
                waits[call.kind].append(begun_s - call.came_s)
                if call.again is not None:
                    after_s, following = call.again(now_s - call.came_s)
                    heapq.heappush(coming, (now_s + after_s, next(order), following))
    return waits


def seconds_of(batch: Sequence[QueuedSequence[Call]]) -> float:
    """Returns how long a batch takes."""
    return BATCH_S + TOKEN_S * len(batch) * max(len(each.tokens) for each in batch)


def first_calls(scenario: Scenario, rng: random.Random, seconds: float) -> Iterator[tuple[float, Call]]:
    """Yields the short prompts, and the first calls of streams and of callers with documents, each with its time."""
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(scenario.prompts)) < seconds:
        yield at_s, Call("first checks of short prompts", "small", [rng.randint(*SHORT)], urgent=True)
    for tenant in scenario.stream_tenants:
        for _ in range(scenario.streams):
            yield rng.random(), stream_check(tenant, rng)
    for _ in range(scenario.documents):
        yield rng.random(), document(scenario.document_tenant, scenario.document_windows)


def stream_check(tenant: str, rng: random.Random) -> Call:
    """Returns a check of a stream, which is followed by the next one after a rest."""

    def again(took_s: float) -> tuple[float, Call]:
        return max(MIN_REST_S, min(REST * took_s, MAX_REST_S)), stream_check(tenant, rng)

    return Call("checks beside streams", tenant, [rng.randint(*CHECK)], urgent=False, again=again)


def document(tenant: str, windows: int) -> Call:
    """Returns the first check of a request with a long document, which is followed by the next one."""

    def again(_: float) -> tuple[float, Call]:
        return 0.0, document(tenant, windows)

    return Call("long documents", tenant, [WINDOW] * windows, urgent=True, again=again)


def quantiles(waits: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Returns the number of calls of each kind, and the median and the 99th percentile of their waits in ms."""
    found = {}
    for kind, each in sorted(waits.items()):
        p50, p99 = 1000 * np.percentile(each, [50, 99])
        found[kind] = {"calls": len(each), "p50": round(float(p50), 1), "p99": round(float(p99), 1)}
    return found


def _print(name: str, waits: dict[str, dict[str, float]]) -> None:
    print(name, flush=True)
    for kind, each in waits.items():
        print(f"    {kind:30} p50 {each['p50']:9.1f}  p99 {each['p99']:9.1f} ms  {each['calls']:7} calls", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
