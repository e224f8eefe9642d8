"""Requests that may have killed a replica: the one that did is found, and those beside it are not harmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest

from engine.api import Delta, FinishReason, GenerationRequest, SamplingParams, Usage
from router.config.failover import FailoverConfig
from router.generation import attempts
from router.generation.attempts import run_attempts
from router.generation.suspect_requests import FEW, SuspectRequests
from router.ports.tier_backend import (
    OnPlaced,
    OnUsage,
    PoisonRequestError,
    ReplicaLostError,
    TierSnapshot,
    TierUnavailableError,
)
from router.usage_meter import UsageMeter
from tests.router.backend import ReadyTiers

TOKENS = 6


@dataclass
class Fleet(ReadyTiers):
    """Replicas that step together. A request with the prompt "poison" kills its replica when it is to get its first
    token, one with "late poison" when it is to get its fourth, and so all others lose it that run there."""

    alive: list[str] = field(default_factory=lambda: list("abcd"))
    killed: list[str] = field(default_factory=list)
    deaths: dict[str, asyncio.Event] = field(default_factory=dict)

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [TierSnapshot("fast", frozenset(self.alive))]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        replica = next((name for name in self.alive if name not in avoid), None)
        if replica is None:
            raise TierUnavailableError("none")
        death = self.deaths.setdefault(replica, asyncio.Event())
        for place in range(len(request.resume), TOKENS):
            await asyncio.sleep(0)  # a step
            poisonous = request.prompt == "poison" or (request.prompt == "late poison" and place == 3)
            if poisonous and replica in self.alive:
                self.alive.remove(replica)
                self.killed.append(replica)
                death.set()
            if death.is_set():
                raise ReplicaLostError("lost", replica)
            last = place + 1 == TOKENS
            usage = Usage(1, TOKENS, 0) if last else None
            yield [Delta(request.request_id, (place,), str(place), FinishReason.LENGTH if last else None, usage)]


class OneReplica(Fleet):
    """A fleet of one replica, for which requests wait while it is being replaced."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        await self.until_ready()
        async for deltas in super().generate(tier, request, avoid):
            yield deltas

    async def until_ready(self, ready: bool = True) -> None:
        while bool(self.alive) is not ready:  # noqa: ASYNC110 - replicas are in a list
            await asyncio.sleep(0.001)

    async def replace(self, names: str, after_s: float) -> None:
        """Puts replicas with these names in the place of those that are killed, each after a while."""
        for name in names:
            await self.until_ready(False)
            await asyncio.sleep(after_s)
            self.alive.append(name)


async def text_of(fleet: Fleet, suspects: SuspectRequests, name: str, prompt: str, *, admitted: bool = False) -> str:
    request = GenerationRequest(name, prompt, SamplingParams(max_tokens=TOKENS))
    ignored = partial(UsageMeter().attempt, 1), lambda kind, other_version: None
    found = run_attempts(fleet, "fast", request, FailoverConfig(), list, *ignored, suspects=suspects, admitted=admitted)
    return "".join([delta.text async for deltas in found for delta in deltas])


@pytest.mark.parametrize("place", [0, 3, 7])
async def test_a_poison_request_kills_two_replicas_and_none_of_those_that_began_with_it(place: int) -> None:
    fleet, suspects = Fleet(), SuspectRequests()
    prompts = ["harmless"] * 7
    prompts.insert(place, "poison")
    results = await asyncio.gather(
        *(text_of(fleet, suspects, str(number), prompt) for number, prompt in enumerate(prompts)),
        return_exceptions=True,
    )
    assert fleet.killed == ["a", "b"]
    poison = results.pop(place)
    assert isinstance(poison, PoisonRequestError)
    assert poison.replica_ids == ("a", "b")
    assert results == ["012345"] * 7


@pytest.mark.parametrize("place", [0, 3, 7])
async def test_one_that_kills_in_the_middle_of_its_answer_kills_two_as_well_and_harms_no_other(place: int) -> None:
    fleet, suspects = Fleet(), SuspectRequests(apart_s=0.0)
    prompts = ["harmless"] * 7
    prompts.insert(place, "late poison")
    results = await asyncio.gather(
        *(text_of(fleet, suspects, str(number), prompt) for number, prompt in enumerate(prompts)),
        return_exceptions=True,
    )
    assert fleet.killed == ["a", "b"]
    assert isinstance(results.pop(place), PoisonRequestError)
    assert results == ["012345"] * 7


async def test_of_many_that_were_in_the_middle_of_their_answers_none_waits_for_the_others() -> None:
    fleet, suspects = Fleet(), SuspectRequests(turn_s=60.0, all_s=600.0, apart_s=0.0)
    prompts = ["late poison", *["harmless"] * FEW]
    results = await asyncio.gather(
        *(text_of(fleet, suspects, str(number), prompt) for number, prompt in enumerate(prompts)),
        return_exceptions=True,
    )
    assert fleet.killed == ["a", "b", "c"]
    assert isinstance(results.pop(0), PoisonRequestError)
    assert results == ["012345"] * FEW


async def test_one_that_stood_on_two_replicas_that_died_together_is_not_put_to_blame() -> None:
    fleet, suspects = Fleet(), SuspectRequests(apart_s=60.0)

    assert isinstance(
        (await asyncio.gather(text_of(fleet, suspects, "1", "late poison"), return_exceptions=True))[0],
        PoisonRequestError,
    )
    assert fleet.killed == ["a", "b", "c"], "only the third one shows it"


@pytest.mark.parametrize("place", [0, 3, 7])
async def test_without_another_replica_their_turns_begin_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(attempts, "MIN_PAUSE_S", 0.01)
    fleet, suspects = OneReplica(["a"]), SuspectRequests(turn_s=0.1, all_s=0.2, apart_s=0.05)
    prompts = ["harmless"] * 7
    prompts.insert(place, "poison")
    replacing = asyncio.create_task(fleet.replace("bc", after_s=0.6))  # longer than all their turns
    results = await asyncio.gather(
        *(text_of(fleet, suspects, str(number), prompt, admitted=True) for number, prompt in enumerate(prompts)),
        return_exceptions=True,
    )
    assert fleet.killed == ["a", "b"]
    assert isinstance(results.pop(place), PoisonRequestError)
    assert results == ["012345"] * 7
    await replacing


async def test_turns_come_one_after_the_other_and_end_by_themselves() -> None:
    suspects, order, loop = SuspectRequests(turn_s=0.05), [], asyncio.get_running_loop()

    async def take(number: int, hold: bool) -> None:
        turn = suspects.turn()
        await turn.__aenter__()
        order.append((number, loop.time()))
        if not hold:
            turn.end()
            turn.end()  # no effect

    began = loop.time()
    await asyncio.gather(take(0, True), take(1, False), take(2, False))
    assert [number for number, _ in order] == [0, 1, 2]
    assert order[1][1] - began >= 0.045


async def test_a_loss_is_not_put_down_to_one_that_began_while_another_was_still_suspect() -> None:
    suspects = SuspectRequests(turn_s=0.01)
    slow, then = suspects.turn(), suspects.turn()
    async with slow:
        await asyncio.sleep(0.03)
        with pytest.raises(ReplicaLostError):
            async with then:
                raise ReplicaLostError("lost", "a")
    assert not then.broken
    last = suspects.turn()
    with pytest.raises(ReplicaLostError):
        async with last:
            raise ReplicaLostError("lost", "b")
    assert last.broken


async def test_many_have_shorter_turns() -> None:
    suspects, loop = SuspectRequests(turn_s=10, all_s=0.1), asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(suspects.turn().__aenter__() for _ in range(40)))
    assert loop.time() - began < 5


async def test_a_request_that_is_cancelled_while_it_waits_takes_no_turn() -> None:
    suspects = SuspectRequests()
    async with suspects.turn():
        waiting = asyncio.create_task(suspects.turn().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
    async with asyncio.timeout(5), suspects.turn():
        pass


async def test_a_request_that_is_cancelled_while_its_turn_cannot_begin_holds_no_other_up() -> None:
    suspects = SuspectRequests()
    waiting = asyncio.create_task(suspects.turn(asyncio.Event().wait).__aenter__())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    async with asyncio.timeout(5), suspects.turn():
        pass
