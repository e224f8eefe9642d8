"""What follows a failed attempt: another replica or a clear error, never a second start of an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Delta, FinishReason, GenerationRequest, Usage
from router.generation.attempts import run_attempts
from router.generation.retry_policy import Attempt, GiveUp, next_attempt
from router.ports.tier_backend import (
    BackendError,
    OnUsage,
    ReplicaError,
    ReplicaLostError,
    ReplicaOverloadedError,
    ReplicaVersionError,
    TierSnapshot,
    TierUnavailableError,
)
from router.usage_meter import UsageMeter
from tests.router.backend import ReadyTiers

LOST, FULL = ReplicaLostError("lost", "a"), ReplicaOverloadedError("full", "a", 3.0)
OLD = ReplicaVersionError("old", "a")
REPLICAS = ["a", "b", "c"]


@pytest.mark.parametrize("failure", [LOST, FULL, OLD])
def test_another_ready_replica_is_tried(failure: ReplicaError) -> None:
    assert next_attempt([failure], 0, REPLICAS, max_lost=2) == Attempt(frozenset({"a"}))


def test_a_full_replica_is_a_refusal_only_when_every_replica_is_full() -> None:
    waits = {"a": 9.0, "b": 2.0, "c": 5.0}
    failures = [ReplicaOverloadedError("full", name, wait) for name, wait in waits.items()]
    assert isinstance(next_attempt(failures[:2], 0, REPLICAS, max_lost=2), Attempt)
    decision = next_attempt(failures, 0, REPLICAS, max_lost=2)
    assert isinstance(decision, GiveUp)
    assert decision.error is failures[1]  # the shortest wait


def test_a_refusal_by_a_replica_without_a_name_is_final() -> None:
    failure = ReplicaOverloadedError("full")
    assert next_attempt([failure], 0, REPLICAS, max_lost=2) == GiveUp(failure)


def test_the_only_replica_is_waited_for_once_it_was_lost() -> None:
    assert next_attempt([LOST], 0, [], max_lost=2) == Attempt(frozenset())
    assert next_attempt([LOST], 0, ["a"], max_lost=2) == Attempt(frozenset())


def test_a_replica_of_another_release_is_no_reason_to_try_fewer_others() -> None:
    failures: list[ReplicaError] = [OLD, ReplicaVersionError("old", "b")]
    assert next_attempt(failures, 0, REPLICAS, max_lost=1) == Attempt(frozenset({"a", "b"}))
    assert next_attempt(failures, 0, ["a", "b"], max_lost=1) == GiveUp(failures[-1])


def test_a_request_that_kills_replicas_is_given_up() -> None:
    decision = next_attempt([LOST, ReplicaLostError("lost", "b")], 0, REPLICAS, max_lost=2)
    assert isinstance(decision, GiveUp)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(REPLICAS)), min_size=1, max_size=8),
    st.integers(0, 3),
    st.sets(st.sampled_from(REPLICAS)),
)
def test_no_answer_is_started_twice_and_no_replica_that_failed_is_preferred(
    failed: list[tuple[bool, str]], sent: int, ready: set[str]
) -> None:
    failures = [(ReplicaLostError if lost else ReplicaOverloadedError)("failed", name) for lost, name in failed]
    decision = next_attempt(failures, sent, ready, max_lost=3)
    if sent:
        assert isinstance(decision, GiveUp)
    if isinstance(decision, Attempt) and ready - {name for _, name in failed}:
        assert {name for _, name in failed} <= decision.avoid


@dataclass
class Replicas(ReadyTiers):
    """One tier whose replicas fail as scripted; the others answer "ok"."""

    faults: dict[str, BackendError]
    began: list[tuple[str, str]] = field(default_factory=list)  # replica and request id
    sends_first: bool = False  # whether a failing replica sends a delta before it fails

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [TierSnapshot("fast", frozenset(REPLICAS))]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
    ) -> AsyncGenerator[Sequence[Delta], None]:
        replica = next(name for name in REPLICAS if name not in avoid)
        self.began.append((replica, request.request_id))
        if (fault := self.faults.get(replica)) is not None:
            if self.sends_first:
                yield [Delta(request.request_id, (1,), "o")]
            raise fault
        yield [Delta(request.request_id, (1,), "ok", FinishReason.STOP, Usage(1, 1, 0))]


async def texts(backend: Replicas) -> str:
    request = GenerationRequest("r", "Hi")
    attempts = run_attempts(backend, "fast", request, 2, list, partial(UsageMeter().attempt, 1))
    return "".join([d.text async for deltas in attempts for d in deltas])


async def test_an_overloaded_replica_is_no_refusal_while_another_has_room() -> None:
    backend = Replicas({"a": FULL, "b": ReplicaOverloadedError("full", "b")})
    assert await texts(backend) == "ok"
    assert [replica for replica, _ in backend.began] == ["a", "b", "c"]


async def test_every_attempt_has_an_id_of_its_own() -> None:
    backend = Replicas({"a": LOST})
    assert await texts(backend) == "ok"
    assert len({request_id for _, request_id in backend.began}) == 2


async def test_an_answer_that_has_begun_is_not_started_again() -> None:
    backend = Replicas({"a": LOST}, sends_first=True)
    with pytest.raises(ReplicaLostError):
        await texts(backend)
    assert len(backend.began) == 1


async def test_a_tier_that_is_full_and_then_gone_is_full() -> None:
    backend = Replicas({"a": FULL, "b": TierUnavailableError("none")})
    with pytest.raises(ReplicaOverloadedError):
        await texts(backend)


async def test_a_tier_without_replicas_is_not_tried_again() -> None:
    backend = Replicas({"a": TierUnavailableError("none")})
    with pytest.raises(TierUnavailableError):
        await texts(backend)
    assert len(backend.began) == 1
