"""Streams that are resumed on another router: real HTTP servers that share a real Redis."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_stream_store import RedisStreamStore
from engine.api import Delta, FinishReason, GenerationRequest, Usage
from load_tests.chaos.client import send_all
from load_tests.chaos.mix import KINDS, mix
from load_tests.chaos.transcript import difference
from load_tests.resume.client import run_cut
from load_tests.resume.cuts import cut_streams
from router.config.resume import ResumeConfig
from router.config.router import RouterConfig
from router.config.tenants import TenantConfig
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.ledger_store import LedgerQuery, Resolution
from router.ports.tier_backend import OnPlaced, OnUsage
from router.resume.stream_readers import MAX_READERS
from tests.router.backend import ScriptedBackend
from tests.router.conftest import FAST
from tests.router.engines import EngineBackend
from tests.router.served import CONFIG, KEY, OTHER_KEY, Served

CHAT = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "detach": True}
WORDS = 40
WINDOW_S = 1.5


@dataclass
class PacedBackend(ScriptedBackend):
    """A word every ``pause_s`` seconds. ``ended``: answers that came to their end, ``aborted``: those that did not."""

    pause_s: float = 0.01
    ended: int = 0
    aborted: int = 0

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        done = 0
        try:
            for number in range(WORDS):
                await asyncio.sleep(self.pause_s)
                if self.fault is not None and number == self.fault_at:
                    raise self.fault
                yield [Delta(request.request_id, (number,), f"{request.request_id}:{number} ")]
                done += 1
            self.ended += 1
            yield [Delta(request.request_id, (), "", FinishReason.STOP, Usage(3, WORDS, 1))]
        except (GeneratorExit, asyncio.CancelledError):
            self.aborted += 1
            if on_usage is not None:
                on_usage(Usage(3, done, 1))
            raise


class Fleet:
    """Two routers on one Redis, with a ledger in memory each."""

    def __init__(self, url: str, journal: Path, config: RouterConfig) -> None:
        self.ledgers = [MemoryStore(SystemClock()) for _ in range(2)]
        self.routers = []
        for number, ledger in enumerate(self.ledgers):
            state = StateConfig(journal=journal / str(number), timeout_s=10, background_timeout_s=10)
            served = Served(config, store=ledger, streams=RedisStreamStore(state, url))
            served.backend = PacedBackend()
            self.routers.append(served)

    def backend(self, router: int = 0) -> PacedBackend:
        backend = self.routers[router].backend
        assert isinstance(backend, PacedBackend)
        return backend

    def open(self, router: int = 0, **fields: Any) -> Any:
        return self.routers[router].http.stream("POST", "/v1/chat/completions", json=CHAT | fields)

    def read(self, router: int, stream: str, after: int | None = None, key: str | None = None) -> httpx.Response:
        headers = {} if after is None else {"last-event-id": str(after)}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return self.routers[router].http.get(f"/v1/streams/{stream}", headers=headers)

    def billed(self, router: int = 0) -> dict[str, int]:
        """What the ledger of a router has summed up."""
        query = LedgerQuery(0, 2**62, Resolution.DAY)
        sums = asyncio.run(_sums(self.ledgers[router], query))
        return dict(sums)


async def _sums(store: MemoryStore, query: LedgerQuery) -> dict[str, int]:
    found = await store.sums(query)
    return dict(found[0].amounts) if found else {}


@pytest.fixture
def engine() -> Iterator[EngineBackend]:
    """A real engine, with a pause after each step, so that answers last."""
    made = EngineBackend(FAST)
    made.pause_s = 0.01
    yield made
    made.stop()


@pytest.fixture
def fleet(redis_server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    resume = ResumeConfig(window_s=WINDOW_S)
    made = Fleet(
        redis_server.url,
        tmp_path,
        CONFIG.model_copy(update={"resume": resume, "tenants": {"other": TenantConfig(resume=False)}}),
    )
    yield made
    for router in made.routers:
        router.stop()


def events_of(text: str) -> list[tuple[int, str]]:
    """The number and the data of each whole event."""
    found = []
    for frame in text.split("\n\n")[:-1]:
        first, data = frame.split("\n")
        assert first.startswith("id: ")
        assert data.startswith("data: ")
        found.append((int(first[4:]), data[6:]))
    return found


def text_of(events: list[tuple[int, str]]) -> str:
    assert events[-1][1] == "[DONE]", events[-1]
    chunks = [json.loads(data) for _, data in events[:-1]]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def cut(fleet: Fleet, after: int, router: int = 0, **fields: Any) -> tuple[str, list[tuple[int, str]]]:
    """Opens a stream and drops the connection after some events. Returns its id and the events."""
    text = ""
    with fleet.open(router, **fields) as response:
        assert response.status_code == 200, response.read()
        if after:
            for piece in response.iter_text():
                text += piece
                if len(events_of(text)) >= after:
                    break
        return response.headers["x-manta-stream"], events_of(text)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to that within 10 s")


def test_200_streams_cut_at_random_are_resumed_on_the_other_router_with_the_same_text(fleet: Fleet) -> None:
    chance = random.Random(21)
    cuts = [chance.randrange(WORDS - 1) for _ in range(200)]

    def one(place: int) -> None:
        router = place % 2
        stream, seen = cut(fleet, cuts[place], router)
        answer = fleet.read(1 - router, stream, seen[-1][0] if seen else None)
        assert answer.status_code == 200
        seen += events_of(answer.text)
        assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
        request = text_of(seen).split(":")[0]
        assert text_of(seen) == "".join(f"{request}:{number} " for number in range(WORDS))

    with ThreadPoolExecutor(20) as clients:
        list(clients.map(one, range(200)))
    for router in range(2):
        assert fleet.backend(router).ended == 100
        assert fleet.backend(router).aborted == 0
        billed = fleet.billed(router)
        assert billed["requests"] == 100
        assert billed["output_tokens"] == 100 * WORDS


RESUMED = ("greedy", "seeded", "choices", "schema", "tools", "stops", "logprobs")


async def test_answers_of_a_real_engine_of_all_kinds_are_joined_unchanged_from_both_routers(
    fleet: Fleet, engine: EngineBackend
) -> None:
    for router in fleet.routers:
        router.backend = engine  # type: ignore[assignment]
    requests = mix(2 * len(RESUMED), 40, {kind: KINDS[kind] for kind in RESUMED})
    one, other = (router.url for router in fleet.routers)
    expected = await send_all(one, KEY, requests, 60)
    assert [each.problem for each in expected] == [None] * len(requests)
    streams = cut_streams(requests, expected, random.Random(21))
    switched = asyncio.Event()
    switched.set()
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        httpx.AsyncClient(base_url=one, headers=headers, timeout=60) as first,
        httpx.AsyncClient(base_url=other, headers=headers, timeout=60) as second,
    ):
        ways = [(first, second) if place % 2 else (second, first) for place in range(len(streams))]
        await asyncio.gather(*(run_cut(stream, *way, switched, 60) for stream, way in zip(streams, ways, strict=True)))
    for request, stream, each in zip(requests, streams, expected, strict=True):
        assert stream.transcript.problem is None, (request.kind, stream.after)
        assert difference(each, stream.transcript) is None, (request.kind, stream.after)
        assert stream.waited_s is not None, "it was cut, and the rest came from the other router"


def test_a_stream_without_detach_has_no_ids_and_ends_with_its_connection(fleet: Fleet) -> None:
    with fleet.open(detach=False) as response:
        assert "x-manta-stream" not in response.headers
        assert next(response.iter_text()).startswith("data: ")
    until(lambda: fleet.backend().aborted == 1)


def test_a_client_that_stays_gets_the_whole_stream_with_ids(fleet: Fleet) -> None:
    with fleet.open() as response:
        stream, events = response.headers["x-manta-stream"], events_of(response.read().decode())
    assert text_of(events)
    assert json.loads(events[0][1])["id"] == f"chatcmpl-{stream}"
    assert events_of(fleet.read(1, f"chatcmpl-{stream}").text) == events


def test_a_foreign_key_gets_404_and_so_does_an_unknown_stream(fleet: Fleet) -> None:
    stream, _ = cut(fleet, 3)
    assert fleet.read(1, stream, 3, OTHER_KEY).status_code == 404
    assert fleet.read(1, stream, 3, "sk-none").status_code == 401
    unknown = fleet.read(1, "0" * 32)
    assert unknown.status_code == 404
    assert unknown.json()["error"] == {
        "message": "There is no such stream.",
        "type": "invalid_request_error",
        "param": None,
        "code": "stream_not_found",
    }


def test_a_reader_too_many_ends_the_oldest_and_the_others_read_on(fleet: Fleet) -> None:
    fleet.backend().pause_s = 0.2
    stream, _ = cut(fleet, 3)
    http = fleet.routers[1].http
    with ExitStack() as stack:
        readers = [
            stack.enter_context(http.stream("GET", f"/v1/streams/{stream}", headers={"last-event-id": "3"}))
            for _ in range(MAX_READERS)
        ]
        assert fleet.read(1, stream, 3).text.endswith("data: [DONE]\n\n")
        oldest, *others = (each.read().decode() for each in readers)
        assert '"code":"stream_read_elsewhere"' in oldest.replace(" ", "")
        for text in others:
            assert text.endswith("data: [DONE]\n\n")


def test_a_stream_is_gone_after_the_window(fleet: Fleet) -> None:
    fleet.backend().pause_s = 0
    stream, _ = cut(fleet, 3)
    assert fleet.read(1, stream, 3).status_code == 200
    time.sleep(WINDOW_S + 0.2)
    answer = fleet.read(1, stream, 3)
    assert answer.status_code == 410
    assert answer.json()["error"]["code"] == "stream_expired"


def test_an_answer_without_a_reader_is_aborted_after_the_window_and_billed_as_far_as_it_came(fleet: Fleet) -> None:
    fleet.backend().pause_s = 0.2
    stream, seen = cut(fleet, 3)
    until(lambda: fleet.backend().aborted == 1)
    *_, (_, last) = events_of(fleet.read(1, stream, len(seen)).text)
    assert json.loads(last)["error"]["code"] == "request_cancelled"
    until(lambda: fleet.billed() != {})
    assert 3 <= fleet.billed()["output_tokens"] < WORDS


def test_a_reader_on_another_router_keeps_the_answer_alive(fleet: Fleet) -> None:
    fleet.backend().pause_s = 0.1  # 4 s in all, with a window of 1.5 s
    stream, seen = cut(fleet, 3)
    assert text_of(seen + events_of(fleet.read(1, stream, len(seen)).text))
    assert fleet.backend().aborted == 0


def test_an_error_is_the_last_event_for_those_who_resume_too(fleet: Fleet) -> None:
    fleet.backend().fault, fleet.backend().fault_at = RuntimeError("boom"), 20
    stream, seen = cut(fleet, 3)
    seen += events_of(fleet.read(1, stream, len(seen)).text)
    assert json.loads(seen[-1][1])["error"]["code"] == "internal_error"
    assert len([data for _, data in seen if '"content":"' in data]) >= 20


def test_an_error_before_the_first_event_has_its_status(fleet: Fleet) -> None:
    fleet.backend().fault, fleet.backend().fault_at = RuntimeError("boom"), 0
    with fleet.open() as response:
        assert response.status_code == 500


def test_a_tenant_without_resume_gets_an_ordinary_stream(fleet: Fleet) -> None:
    http = fleet.routers[0].http
    headers = {"authorization": f"Bearer {OTHER_KEY}"}
    answer = http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 200
    assert "x-manta-stream" not in answer.headers
    assert answer.headers["x-manta-ignored"] == "detach"
    assert "id: " not in answer.text


def test_a_wrong_event_id_is_refused(fleet: Fleet) -> None:
    stream, _ = cut(fleet, 3)
    answer = fleet.routers[0].http.get(f"/v1/streams/{stream}", headers={"last-event-id": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "last-event-id"


def test_a_router_that_stops_ends_its_detached_streams_with_an_error(fleet: Fleet) -> None:
    fleet.backend().pause_s = 0.1
    stream, seen = cut(fleet, 3)
    fleet.routers[0].stop()
    answer = fleet.read(1, stream, len(seen))
    *_, (_, last) = events_of(answer.text)
    assert json.loads(last)["error"]["code"] == "request_cancelled"


def test_a_redis_that_is_down_slows_no_stream(fleet: Fleet, redis_server: RedisServer) -> None:
    redis_server.kill()
    started = time.monotonic()
    with fleet.open() as response:
        assert text_of(events_of(response.read().decode()))
    assert time.monotonic() - started < 5
    assert fleet.read(1, response.headers["x-manta-stream"]).status_code == 503
