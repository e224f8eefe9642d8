"""Faults that users of other gateways have reported of limits, budgets, keys and the ledger; each is tried here."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any

import pytest

from engine.api import Usage
from router.config.access import AccessConfig, JwtConfig
from router.memory_store import MemoryStore
from router.ports.limit_store import Charge, LimitName, Reservation, Scope
from router.usage_meter import AttemptMeter
from tests.access.service import Service, config
from tests.access.tokens import SIGNING, Published, token
from tests.router.backend import ScriptedBackend
from tests.state.clock import VirtualClock

JWT = JwtConfig(issuer="https://issuer", audience="manta", algorithms=("RS256",), jwks_file="jwks.json")
FREE = {"version": "1", "tiers": {"fast": {"input": 0, "output": 0}, "balanced": {"input": 2.0, "output": 8.0}}}
FREE["tiers"]["frontier"] = FREE["tiers"]["balanced"]  # type: ignore[index]


async def used(service: Service, key_id: str, limit: str) -> float:
    """What a key has used of one of its limits."""
    async with service.client() as http:
        rows = (await http.get(f"/admin/v1/keys/{key_id}/limits")).json()["data"]
    return next(float(row["used"]) for row in rows if row["limit"] == limit)


# BerriAI/litellm 39309: what was refused for one limit was counted in another one
async def test_a_request_that_is_refused_by_one_limit_uses_none_of_the_others() -> None:
    scopes = (Scope("key:k", ((LimitName.REQUESTS_PER_MINUTE, 2), (LimitName.CONCURRENT_REQUESTS, 1))),)
    store = MemoryStore(VirtualClock())
    assert (await store.reserve(Reservation("a", "acme", scopes, Charge(1)), 1000)).admitted
    for number in range(5):
        assert not (await store.reserve(Reservation(f"b{number}", "acme", scopes, Charge(1)), 1000)).admitted
    await store.settle("acme", "a", Charge(1))
    assert (await store.reserve(Reservation("c", "acme", scopes, Charge(1)), 1000)).admitted


# BerriAI/litellm 10973: a budget that is used up blocked models that cost nothing
async def test_a_model_that_costs_nothing_answers_when_the_budget_is_used_up() -> None:
    service = Service(config(prices=FREE))
    key = (await service.create(limits={"money_per_month": 0.00004}))["key"]
    first = await service.ask(key, model="balanced", max_tokens=1)  # and answers with more than it had reserved
    assert first.status_code == 200, first.text
    await asyncio.sleep(0)
    assert (await service.ask(key, model="balanced", max_tokens=1)).status_code == 429
    assert (await service.ask(key, model="fast", max_tokens=1)).status_code == 200


# BerriAI/litellm 20256, 28160, 27955, 17323: places of requests at once that never came back
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/chat/completions", {"prompt": None, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi", "stream": True}),
        ("/v1/completions", {"prompt": "Hi", "model": "none"}),
        ("/v1/completions", {"prompt": "Hi", "n": 0}),
        ("/v1/completions", {"prompt": "Hi", "max_cost": 1e-12}),
        ("/v1/embeddings", {"prompt": None, "input": "Hi"}),
        ("/v1/moderations", {"prompt": None, "model": None, "input": "Hi"}),
        ("/v1/collections", {"prompt": None, "model": None, "name": "books"}),
    ],
)
async def test_a_place_of_requests_at_once_comes_back_on_every_endpoint(path: str, body: dict[str, Any]) -> None:
    service = Service()
    key = (await service.create(limits={"concurrent_requests": 1}))["key"]
    for _ in range(4):
        answer = await service.ask(key, path, **body)
        assert answer.status_code != 429, answer.text
        await asyncio.sleep(0)
    assert await service.store.open_reservations("acme") == 0


class Hanging(ScriptedBackend):
    """Never answers."""

    stall_at: int | None = 0


async def test_places_come_back_from_clients_that_leave_and_from_requests_that_run_out_of_time() -> None:
    service = Service(config(request_timeout_s=0.05), backend=Hanging())
    key = (await service.create(limits={"concurrent_requests": 2}))["key"]
    for _ in range(3):
        answers = await asyncio.gather(*(service.ask(key, stream=stream) for stream in (False, True)))
        assert 429 not in [answer.status_code for answer in answers]
        leaving = [asyncio.ensure_future(service.ask(key)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for each in leaving:
            each.cancel()
        await asyncio.wait(leaving)
        await asyncio.sleep(0.01)
    assert await service.store.open_reservations("acme") == 0


# BerriAI/litellm 31079: the budget of a key began anew when it was rotated
async def test_a_rotated_key_keeps_what_it_has_used() -> None:
    service = Service()
    made = await service.create(limits={"requests_per_minute": 1, "money_per_month": 1.0})
    assert (await service.ask(made["key"])).status_code == 200
    async with service.client() as http:
        rotated = (await http.post(f"/admin/v1/keys/{made['id']}/rotate", json={})).json()
    assert (await service.ask(rotated["key"])).status_code == 429
    assert await used(service, made["id"], "money_per_month") > 0


# BerriAI/litellm 18731, 25203: the whole key was in the error that refused it
@pytest.mark.parametrize("shown", [lambda key: key, lambda key: key[9:], lambda key: key[:-1], lambda key: f"{key}x"])
async def test_an_error_never_repeats_the_key(shown: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service = Service()
    key = (await service.create(expires_in_s=60))["key"]
    service.virtual.advance(61)
    answer = await service.ask(shown(key))
    assert answer.status_code == 401
    secret = key.rpartition("-")[2]
    assert secret not in answer.text + str(answer.headers) + caplog.text


# BerriAI/litellm 6633, 39455: entries of one id took each other's place; attempts were counted as requests
async def test_requests_with_the_same_id_are_two_entries_and_two_requests() -> None:
    service = Service()
    for _ in range(3):
        async with service.client("sk-user", **{"x-request-id": "the-same"}) as http:
            body = {"model": "fast", "prompt": "Hi", "stream": True, "stream_options": {"include_usage": True}}
            assert (await http.post("/v1/completions", json=body)).status_code == 200
    async with service.client("sk-user") as http:
        (row,) = (await http.get("/v1/usage")).json()["data"]
    assert (row["requests"], row["output_tokens"]) == (3, 15)


# BerriAI/litellm 37992: counts of zero were taken for missing ones, and estimates were billed
def test_counts_of_zero_are_counts() -> None:
    meter = AttemptMeter(prompt_tokens=100, seen=7)
    meter.report(Usage(0, 0, 0))
    assert meter.counts == Usage(0, 0, 0)


# BerriAI/litellm 24225, 25710: what a deleted key had used was in no report, or belonged to no team
async def test_a_deleted_key_stays_in_the_reports_with_its_team() -> None:
    service = Service()
    made = await service.create(team="search", feature="chat")
    await service.ask(made["key"])
    async with service.client() as http:
        await http.delete(f"/admin/v1/keys/{made['id']}")
        (row,) = (await http.get("/admin/v1/usage", params={"group_by": "key,team,feature"})).json()["data"]
    assert (row["key"], row["team"], row["feature"], row["requests"]) == (made["id"], "search", "chat", 1)


# BerriAI/litellm 17814: looking at a stored answer again was billed again
async def test_a_repeated_answer_is_billed_once() -> None:
    service = Service()
    for _ in range(2):
        async with service.client("sk-user", **{"idempotency-key": "once"}) as http:
            assert (await http.post("/v1/completions", json={"model": "fast", "prompt": "Hi"})).status_code == 200
    async with service.client("sk-user") as http:
        (row,) = (await http.get("/v1/usage")).json()["data"]
    assert row["requests"] == 1


# zmartzone/lua-resty-openidc 468: each token with an unknown key id had the key set read again
async def test_many_unknown_key_ids_cost_one_reading_of_the_key_set() -> None:
    clock, source = VirtualClock(), Published(SIGNING)
    service = Service(config(access=AccessConfig(jwt=JWT)), clock=clock, jwks=source)
    async with service.running():
        for number in range(50):
            forged = token(clock.now(), header={"alg": "RS256", "kid": f"unknown-{number}"})
            assert (await service.ask(forged)).status_code == 401
        await asyncio.sleep(0)
        assert source.reads <= 2


def crafted(header: bytes) -> str:
    """A token with a header of any bytes."""
    return f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.e30.c2ln"


# tokens that made verifiers of other services fail instead of refuse
@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":' + b"[" * 8000,
        b'{"alg":"RS256","kid":' + b'{"a":' * 1500 + b"1" + b"}" * 1500 + b"}",
        b'{"alg":["RS256"],"kid":"k1"}',
        b'{"alg":{"RS256":1},"kid":"k1"}',
        b'{"alg":"RS256","kid":["k1"]}',
        b'{"alg":"RS256","kid":{"k1":1}}',
        b'{"alg":"RS256","kid":1e400}',
        b'{"alg":"RS256","kid":null}',
        b'{"alg":"RS256","kid":"k1","crit":["exp"]}',
        b'{"alg":"RS256","kid":"k1","crit":"x","b64":false}',
        b'{"alg":"RS256","kid":"\\ud800"}',
        b'{"alg":null}',
        b'{"alg":"RS256","alg":"none","kid":"k1"}',
    ],
    ids=range(13),
)
async def test_a_token_with_an_odd_header_is_a_401(header: bytes) -> None:
    service = Service(config(access=AccessConfig(jwt=JWT)), jwks=Published(SIGNING))
    async with service.running():
        assert crafted(header).startswith("eyJ")
        assert (await service.ask(crafted(header))).status_code == 401
