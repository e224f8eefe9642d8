"""The ledger has one entry for each request, with the engine's own counts, whatever way it ends."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.api import FinishReason, SamplingParams, Usage
from router.config.prices import PricesConfig
from router.inference_request import Call, InferenceRequest
from router.ledger.ledger import Account, Ledger
from router.memory_store import MemoryStore
from router.ports.tier_backend import OrphanedAttempt, ReplicaLostError
from router.principal import Principal
from tests.access.service import Service
from tests.router.backend import ScriptedBackend
from tests.router.engines import EngineBackend
from tests.state.clock import VirtualClock

FAST = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"


def entries(service: Service) -> list[dict[str, Any]]:
    return [json.loads(entry.document) for entry in service.store._entries.values()]


@pytest.mark.parametrize(
    ("backend", "outcome", "counts", "exact"),
    [
        (ScriptedBackend(), "finished", (3, 1, 5), True),
        (ScriptedBackend(outcome=FinishReason.ERROR), "failed", (3, 1, 5), True),
        (ScriptedBackend(fault=ReplicaLostError("gone"), fault_at=3), "failed", (1, 0, 3), False),
    ],
    ids=["finished", "engine error", "replica lost"],
)
async def test_every_end_has_an_entry(
    backend: ScriptedBackend, outcome: str, counts: tuple[int, int, int], exact: bool
) -> None:
    service = Service(backend=backend)
    await service.ask("sk-user", user="ada")
    (entry,) = entries(service)
    assert entry["outcome"] == outcome
    assert (entry["input_tokens"], entry["cached_input_tokens"], entry["output_tokens"]) == counts
    assert entry["exact"] is exact
    assert (entry["tenant"], entry["tier"], entry["version"], entry["user"]) == ("acme", "fast", "fast-model", "ada")
    assert entry["price_version"] == "2026-11"
    assert "Hi" not in json.dumps(entry)


def test_an_entry_names_the_variant_and_what_the_cache_answered() -> None:
    request = InferenceRequest("fast", ["Hi"], SamplingParams(), "prompt", writer=lambda stamp: NotImplemented)
    call = Call("r", None, read=lambda size: NotImplemented)
    account = Account(call, Principal("acme", "core", "k"), request, "fast", "fast-model", 0.0)
    account.variant, account.cache = "candidate", "semantic"
    store = MemoryStore(VirtualClock())
    with Ledger(store, PricesConfig(), VirtualClock()).open(account):
        pass
    (entry,) = (json.loads(each.document) for each in store._entries.values())
    assert (entry["variant"], entry["cache"]) == ("candidate", "semantic")


async def test_a_refused_request_has_no_entry() -> None:
    service = Service()
    for key, fields in (("sk-nobody", {}), ("sk-user", {"model": "none"}), ("sk-user", {"n": 0})):
        assert (await service.ask(key, **fields)).status_code >= 400
    assert not entries(service)


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"user": "ada"}, "ada"),
        ({"safety_identifier": "ada"}, "ada"),
        ({"user": "ada", "safety_identifier": "b"}, "ada"),
    ],
    ids=str,
)
async def test_the_clients_name_for_its_user_is_in_the_entry_by_either_name(fields: dict[str, str], user: str) -> None:
    service = Service()
    messages = [{"role": "user", "content": "Hi"}]
    await service.ask("sk-user", "/v1/chat/completions", prompt=None, messages=messages, **fields)
    (entry,) = entries(service)
    assert entry["user"] == user


async def test_reasoning_is_counted_within_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.router.backend.WORDS", ("<think>", "why", "</think>", "so", "."))
    service = Service()
    await service.ask("sk-user", "/v1/chat/completions", prompt=None, messages=[{"role": "user", "content": "Hi"}])
    (entry,) = entries(service)
    assert (entry["reasoning_tokens"], entry["output_tokens"]) == (1, 5)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineBackend]:
    made = EngineBackend(FAST)
    yield made
    made.stop()


async def leave(service: Service, after: int, n: int) -> None:
    """Begins a stream of ``n`` answers and disconnects after some messages."""
    body = {"model": "fast", "prompt": f"Count up from {after}", "max_tokens": 200, "ignore_eos": True}
    gone, sent = asyncio.Event(), 0
    request = [{"type": "http.request", "body": json.dumps(body | {"n": n, "stream": True}).encode()}]

    async def receive() -> dict[str, Any]:
        if request:
            return request.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent > after:
            gone.set()

    headers = [(b"authorization", b"Bearer sk-user")]
    path = "/v1/completions"
    scope = {"type": "http", "path": path, "method": "POST", "headers": headers, "query_string": b""}
    await service.app(scope, receive, send)


async def test_streams_whose_clients_leave_cost_what_the_engine_has_generated(engine: EngineBackend) -> None:
    service, draw = Service(backend=engine), random.Random(7)
    before = engine.engine.stats()
    async with asyncio.timeout(60):
        await asyncio.gather(*(leave(service, draw.randrange(12), draw.choice((1, 1, 4))) for _ in range(60)))
        while len(entries(service)) < 60:  # noqa: ASYNC110 - the entries are written by the router's own tasks
            await asyncio.sleep(0.01)
    after, found = engine.engine.stats(), entries(service)
    assert {entry["outcome"] for entry in found} == {"cancelled"}
    assert all(entry["exact"] for entry in found)
    assert sum(entry["output_tokens"] for entry in found) == after.generated_tokens - before.generated_tokens > 0
    computed = after.prompt_tokens - before.prompt_tokens + after.cached_tokens - before.cached_tokens
    assert sum(entry["input_tokens"] for entry in found) == computed
    assert sum(entry["cached_input_tokens"] for entry in found) == after.cached_tokens - before.cached_tokens


async def draft_of_a_request() -> str:
    """The account that a router gives to the replica."""
    backend = ScriptedBackend()
    await Service(backend=backend).ask("sk-user", user="ada")
    return backend.accounts[0]


async def adopted(draft: str, *ends: tuple[str, Usage]) -> Service:
    """A router to which a replica has reported ``ends``: parts of ``draft``'s request, with their counts."""
    backend = ScriptedBackend()
    living = Service(backend=backend)
    async with living.running():
        for part, usage in ends:
            backend.on_orphans([OrphanedAttempt(part, draft, usage)])
    return living


async def test_another_router_writes_what_a_dead_one_has_left() -> None:
    draft = await draft_of_a_request()
    (entry,) = entries(await adopted(draft, *[(json.loads(draft)["id"] + "-0", Usage(30, 7, 10))] * 2))
    assert (entry["outcome"], entry["error"], entry["exact"]) == ("failed", "router_lost", True)
    assert (entry["input_tokens"], entry["cached_input_tokens"], entry["output_tokens"]) == (30, 10, 7)
    assert entry["cost"] == 20 * 1000 + 10 * 250 + 7 * 4000
    assert (entry["tenant"], entry["tier"], entry["version"], entry["user"]) == ("acme", "fast", "fast-model", "ada")
    assert "Hi" not in draft


async def test_a_draft_of_a_newer_release_is_read() -> None:
    draft = json.dumps({**json.loads(await draft_of_a_request()), "mood": "cheerful"})
    assert len(entries(await adopted(draft, ("x-0", Usage(1, 1, 0))))) == 1


async def test_a_draft_that_lacks_a_member_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    members = json.loads(await draft_of_a_request())
    del members["tenant"]
    for draft in (json.dumps(members), "no JSON", "[]"):
        caplog.clear()
        assert not entries(await adopted(draft, ("x-0", Usage(1, 1, 0))))
        assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("ends", "parts"), [(("0", "1", "1-1"), ("0", "1")), (("0-1", "0", "0.2-2"), ("0",)), (("1-1", "0"), ("1", "0"))]
)
async def test_each_prompt_is_a_part_however_many_its_attempts_and_the_first_to_come_counts_the_request(
    ends: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    draft = await draft_of_a_request()
    name = json.loads(draft)["id"]
    living = await adopted(draft, *((f"{name}-{part}", Usage(3, 2, 0)) for part in ends))

    stored = list(living.store._entries.values())
    assert [(each.id, each.part_of) for each in stored] == [(f"{name}-{part}", name) for part in parts]
    assert sum(each.amounts["output_tokens"] for each in stored) == 2 * len(parts)
    assert [each.amounts["requests"] for each in stored] == [1, 0][: len(parts)]
