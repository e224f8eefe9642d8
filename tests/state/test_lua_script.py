"""The Lua script and the pure functions decide alike, step by step, on one virtual clock."""

from __future__ import annotations

import json
import random

import pytest
import redis

from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.lua_script import LuaScript
from router.limits import limit_transitions
from router.limits.limit_transitions import LimitState
from router.ports.limit_store import Charge, LimitName, LimitUse, Renewal, Reservation, Scope

STEPS = 2_500  # of each seed; 25,000 agree too, in a minute
START_MS = 1_792_368_000_000 - 40_000_000  # the drawn steps pass midnights and ends of months
TENANT_NAME = "acme"
SCOPES = (
    Scope("key:1", ((LimitName.REQUESTS_PER_MINUTE, 8), (LimitName.TOKENS_PER_MINUTE, 300))),
    Scope("key:2", ((LimitName.CONCURRENT_REQUESTS, 2), (LimitName.TOKENS_PER_DAY, 2000))),
    Scope("key:3", ()),
)
TENANT = Scope("tenant", ((LimitName.TOKENS_PER_MINUTE, 500), (LimitName.MONEY_PER_MONTH, 10**13)))
WAITS_MS = [0] * 6 + [1, 7, 250, 999, 1000, 2000, 5000, 30_000, 61_000, 3_700_000, 20_000_000, 9 * 86_400_000]


def scopes_json(scopes: tuple[Scope, ...]) -> str:
    return json.dumps([[scope.name, [[name.value, limit] for name, limit in scope.limits]] for scope in scopes])


def numbers(uses: tuple[LimitUse, ...]) -> list[int]:
    """The uses as the script writes them."""
    return [part for use in uses for part in (use.used, use.reset_ms, -1 if use.wait_ms is None else use.wait_ms)]


class Steps:
    """Drawn steps: the arguments of each call of the script, with what the pure functions answer."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._state = LimitState()
        self._now_ms = START_MS
        self._ids = [f"r{n}" for n in range(12)]
        self._made = 0
        self.calls: list[tuple[list[str | int], object]] = []

    def step(self) -> None:
        """Draws one step and a look at everything after it."""
        draw = self._draw
        self._now_ms += draw.choice(WAITS_MS)
        place, lease_ms = draw.randrange(len(self._ids)), draw.choice([1, 4000, 15_000])
        charge = Charge(draw.choice([0, 1, 30, 100, 301, 600]), draw.choice([0, 1, 10**12, 10**13 + 1]))
        match draw.choices(["reserve", "renew", "settle", "count"], [5, 2, 3, 1])[0]:
            case "reserve":
                self._reserve(place, (draw.choice(SCOPES), TENANT), charge, lease_ms)
            case "count":
                self._count(place, (draw.choice(SCOPES), TENANT), charge)
            case "renew":
                self._renew(sorted({self._ids[place], draw.choice(self._ids)}), charge, lease_ms)
            case "settle":
                key, now_ms = self._ids[place], self._now_ms
                self._state, known = limit_transitions.settle(self._state, key, charge, now_ms)
                self._call(int(known), "settle", key, charge.tokens, charge.money)
        uses = limit_transitions.limit_uses(self._state, (*SCOPES, TENANT), self._now_ms)
        self._call([1, *numbers(uses)], "uses", scopes_json((*SCOPES, TENANT)))
        self._state = limit_transitions.expire(self._state, self._now_ms)
        self._call(sum(held.leased for held in self._state.held.values()), "open")

    def _reserve(self, place: int, scopes: tuple[Scope, ...], charge: Charge, lease_ms: int) -> None:
        if self._draw.random() < 0.75:  # otherwise the id may be that of an open reservation
            self._made += 1
            self._ids[place] = f"r{self._made}"
        request = Reservation(self._ids[place], TENANT_NAME, scopes, charge)
        self._state, decision = limit_transitions.reserve(self._state, request, lease_ms, self._now_ms)
        answer = [int(decision.admitted), *numbers(decision.uses)]
        self._call(answer, "reserve", request.id, lease_ms, charge.tokens, charge.money, scopes_json(scopes))

    def _count(self, place: int, scopes: tuple[Scope, ...], charge: Charge) -> None:
        if self._draw.random() < 0.5:  # otherwise the id may be that of an open reservation
            self._made += 1
            self._ids[place] = f"r{self._made}"
        ran = Reservation(self._ids[place], TENANT_NAME, scopes, charge)
        self._state = limit_transitions.count(self._state, ran, self._now_ms)
        self._call(0, "count", ran.id, charge.tokens, charge.money, scopes_json(scopes))

    def _renew(self, ids: list[str], charge: Charge, lease_ms: int) -> None:
        renewals = [Renewal(each, TENANT_NAME, charge) for each in ids]
        self._state = limit_transitions.renew(self._state, renewals, lease_ms, self._now_ms)
        self._call(0, "renew", lease_ms, json.dumps([[each, charge.tokens, charge.money] for each in ids]))

    def _call(self, answer: object, operation: str, *arguments: str | int) -> None:
        self.calls.append(([operation, redis_names.base(TENANT_NAME), self._now_ms, *arguments], answer))


@pytest.mark.parametrize("seed", range(4))
async def test_the_script_decides_as_the_pure_functions_do(redis_server: RedisServer, seed: int) -> None:
    steps = Steps(seed)
    for _ in range(STEPS):
        steps.step()
    script = LuaScript("limits")
    async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as client:
        digest = await client.script_load(script.text)
        for first in range(0, len(steps.calls), 1000):
            calls = steps.calls[first : first + 1000]
            pipeline = client.pipeline(transaction=False)
            for arguments, _ in calls:
                pipeline.evalsha(digest, 1, redis_names.leases(TENANT_NAME), *arguments)
            for (arguments, expected), answer in zip(calls, await pipeline.execute(), strict=True):
                found = list(map(int, answer.split())) if isinstance(answer, bytes) else answer
                assert found == expected, arguments


async def test_everything_of_a_tenant_shares_a_slot_and_has_a_time_to_live(redis_server: RedisServer) -> None:
    tenant = "a{b}:c"
    scopes = (Scope("key:1", ((LimitName.CONCURRENT_REQUESTS, 2), (LimitName.TOKENS_PER_DAY, 9))), TENANT)
    async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as client:
        arguments: list[str | int] = [
            "reserve",
            redis_names.base(tenant),
            "",
            "id",
            5000,
            1,
            1,
            scopes_json(scopes),
        ]
        await LuaScript("limits").run(client, [redis_names.leases(tenant)], arguments)

        names = [name.decode() async for name in client.scan_iter()]
        assert {name.split("{")[1].split("}")[0] for name in names} == {"a%7Bb%7D%3Ac"}
        forever = [name for name in names if await client.pttl(name) < 0]
    assert sorted(name.rpartition("}:")[2] for name in forever) == ["active:key:1", "active:tenant", "leases"]
