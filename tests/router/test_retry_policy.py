"""What follows a failed attempt: another replica or a clear error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Delta, FinishReason, GenerationRequest, SamplingParams, Usage
from router.config.failover import FailoverConfig
from router.generation.attempts import run_attempts
from router.generation.retry_policy import MAX_PAUSE_S, Attempt, GiveUp, next_attempt
from router.ports.tier_backend import (
    BackendError,
    ModelVersionError,
    OnPlaced,
    OnUsage,
    PoisonRequestError,
    ReplicaDrainedError,
    ReplicaError,
    ReplicaLostError,
    ReplicaOverloadedError,
    ReplicaUnreachableError,
    ReplicaVersionError,
    TierSnapshot,
    TierUnavailableError,
)
from router.usage_meter import UsageMeter
from tests.router.backend import ReadyTiers

LOST, FULL = ReplicaLostError("lost", "a"), ReplicaOverloadedError("full", "a", 3.0)
OLD = ReplicaVersionError("old", "a")
REPLICAS = ["a", "b", "c"]
ONCE, TWICE = FailoverConfig(max_attempts=1), FailoverConfig()


@pytest.mark.parametrize("failure", [LOST, FULL, OLD])
def test_another_ready_replica_is_tried(failure: ReplicaError) -> None:
    assert next_attempt([failure], False, REPLICAS, TWICE) == Attempt(frozenset({"a"}))


def test_a_full_replica_is_a_refusal_only_when_every_replica_is_full() -> None:
    waits = {"a": 9.0, "b": 2.0, "c": 5.0}
    failures = [ReplicaOverloadedError("full", name, wait) for name, wait in waits.items()]
    assert isinstance(next_attempt(failures[:2], False, REPLICAS, TWICE), Attempt)
    decision = next_attempt(failures, False, REPLICAS, TWICE)
    assert isinstance(decision, GiveUp)
    assert decision.error is failures[1]  # the shortest wait


def test_a_refusal_by_a_replica_without_a_name_is_final() -> None:
    failure = ReplicaOverloadedError("full")
    assert next_attempt([failure], False, REPLICAS, TWICE) == GiveUp(failure)


def test_the_only_replica_is_waited_for_once_it_was_lost() -> None:
    assert next_attempt([LOST], False, [], TWICE) == Attempt(frozenset())
    assert next_attempt([LOST], False, ["a"], TWICE) == Attempt(frozenset())


def test_a_replica_of_another_release_is_no_reason_to_try_fewer_others() -> None:
    failures: list[ReplicaError] = [OLD, ReplicaVersionError("old", "b")]
    assert next_attempt(failures, False, REPLICAS, ONCE) == Attempt(frozenset({"a", "b"}))
    assert next_attempt(failures, False, ["a", "b"], ONCE) == GiveUp(failures[-1])


@pytest.mark.parametrize("began", [False, True])
def test_a_request_that_kills_replicas_is_given_up_as_poison(began: bool) -> None:
    decision = next_attempt([LOST, ReplicaLostError("lost", "b")], began, REPLICAS, TWICE)
    assert isinstance(decision, GiveUp)
    assert isinstance(decision.error, PoisonRequestError)
    assert decision.error.replica_ids == ("a", "b")


def test_a_request_that_had_got_something_from_a_replica_did_not_kill_it() -> None:
    second = ReplicaLostError("lost", "b")
    for fruitful in ([0], [1]):
        decision = next_attempt([LOST, second], True, REPLICAS, TWICE, fruitful=fruitful)
        assert decision == Attempt(frozenset("ab"))
    third = next_attempt([LOST, second, ReplicaLostError("lost", "c")], True, REPLICAS, TWICE, fruitful=[0])
    assert isinstance(third, GiveUp)  # two that gave nothing
    assert isinstance(third.error, PoisonRequestError)


def test_replicas_that_the_request_never_reached_are_no_sign_of_poison() -> None:
    gone: list[ReplicaError] = [ReplicaUnreachableError("gone", name) for name in REPLICAS]
    assert next_attempt([LOST, *gone[1:2]], True, REPLICAS, TWICE) == Attempt(frozenset("ab"))
    assert next_attempt(gone, True, REPLICAS, TWICE) == GiveUp(gone[-1])  # but max_attempts are enough


def test_planned_moves_never_end_a_request() -> None:
    moves: list[ReplicaError] = [ReplicaDrainedError("stops", name) for name in "abcdef"]
    assert isinstance(next_attempt(moves, True, REPLICAS, TWICE), Attempt)
    assert isinstance(next_attempt([LOST, *moves], True, REPLICAS, TWICE), Attempt)


def test_full_replicas_are_waited_for_by_an_answer_that_has_begun_for_so_long() -> None:
    failures: list[ReplicaError] = [LOST, *(ReplicaOverloadedError("full", name, 3.0) for name in "bc")]
    waits = next_attempt(failures, True, REPLICAS, TWICE, waited_s=1.0)
    assert waits == Attempt(frozenset("a"), after_s=MAX_PAUSE_S)
    late = next_attempt(failures, True, REPLICAS, TWICE, waited_s=TWICE.wait_s)
    assert late == GiveUp(LOST), "a 429 would say that it can be sent again at no cost"
    never_ran = next_attempt(failures[1:], True, ["b", "c"], TWICE, waited_s=TWICE.wait_s)
    assert isinstance(never_ran, GiveUp)
    assert type(never_ran.error) is TierUnavailableError
    assert isinstance(next_attempt(failures, False, REPLICAS, TWICE, waited_s=1.0), GiveUp)


def test_another_version_of_the_model_goes_on_only_after_all_of_the_same_one() -> None:
    failures: list[ReplicaError] = [LOST, ModelVersionError("other", "b")]
    assert next_attempt(failures, True, REPLICAS, TWICE) == Attempt(frozenset("ab"))
    failures.append(ModelVersionError("other", "c"))
    assert next_attempt(failures, True, REPLICAS, TWICE) == Attempt(frozenset("a"), any_version=True)
    ends = FailoverConfig(other_version="end")
    assert next_attempt(failures, True, REPLICAS, ends) == GiveUp(failures[-1])


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(REPLICAS)), min_size=1, max_size=8),
    st.booleans(),
    st.sets(st.sampled_from(REPLICAS)),
)
def test_no_replica_that_failed_is_preferred(failed: list[tuple[bool, str]], began: bool, ready: set[str]) -> None:
    failures = [(ReplicaLostError if lost else ReplicaOverloadedError)("failed", name) for lost, name in failed]
    decision = next_attempt(failures, began, ready, FailoverConfig(max_lost_replicas=3))
    if isinstance(decision, Attempt) and ready - {name for _, name in failed}:
        assert {name for _, name in failed} <= decision.avoid


@dataclass
class Replicas(ReadyTiers):
    """One tier whose replicas fail as scripted; the others answer "ok"."""

    faults: dict[str, BackendError]
    began: list[tuple[str, str]] = field(default_factory=list)  # replica and request id
    requests: list[GenerationRequest] = field(default_factory=list)
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
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        replica = next(name for name in REPLICAS if name not in avoid)
        self.began.append((replica, request.request_id))
        self.requests.append(request)
        if on_placed is not None:
            on_placed(replica, len(self.began))
        if (fault := self.faults.get(replica)) is not None:
            if self.sends_first:
                yield [Delta(request.request_id, (1,), "o")]
            raise fault
        yield [Delta(request.request_id, (1,), "ok", FinishReason.STOP, Usage(1, 1, 0))]


async def texts(backend: Replicas, on_placed: OnPlaced | None = None) -> str:
    request = GenerationRequest("r", "Hi")
    ignored = partial(UsageMeter().attempt, 1), lambda kind, other_version: None
    attempts = run_attempts(backend, "fast", request, TWICE, list, *ignored, on_placed=on_placed)
    return "".join([d.text async for deltas in attempts for d in deltas])


async def test_an_overloaded_replica_is_no_refusal_while_another_has_room() -> None:
    backend = Replicas({"a": FULL, "b": ReplicaOverloadedError("full", "b")})
    assert await texts(backend) == "ok"
    assert [replica for replica, _ in backend.began] == ["a", "b", "c"]


async def test_each_attempt_says_where_it_is() -> None:
    said: list[tuple[str, int]] = []
    backend = Replicas({"a": FULL, "b": ReplicaLostError("lost", "b")})
    assert await texts(backend, lambda replica, tokens: said.append((replica, tokens))) == "ok"
    assert said == [("a", 1), ("b", 2), ("c", 3)]


async def test_every_attempt_has_an_id_of_its_own() -> None:
    backend = Replicas({"a": LOST})
    assert await texts(backend) == "ok"
    assert len({request_id for _, request_id in backend.began}) == 2


async def test_an_answer_that_has_begun_is_continued_from_its_tokens() -> None:
    backend = Replicas({"a": LOST}, sends_first=True)
    assert await texts(backend) == "ook"
    assert [request.resume for request in backend.requests] == [(), (1,)]


@pytest.mark.parametrize(
    ("fault", "sends_first", "taken"),
    [
        pytest.param(LOST, False, False, id="dies before a first token"),
        pytest.param(ReplicaUnreachableError("gone", "a"), False, False, id="is gone"),
        pytest.param(FULL, False, False, id="is full"),
        pytest.param(OLD, False, False, id="is of another release"),
        pytest.param(LOST, True, True, id="has begun the answer"),
        pytest.param(ReplicaDrainedError("stops", "a"), False, True, id="stops as planned"),
    ],
)
async def test_refusals_that_ride_with_a_request_are_counted_by_the_first_engine_that_can_tell_of_them(
    fault: BackendError, sends_first: bool, taken: bool
) -> None:
    backend = Replicas({"a": fault}, sends_first=sends_first)
    request = GenerationRequest("r", "Hi", refused_before=(3, 0, 0))
    ignored = partial(UsageMeter().attempt, 1), lambda kind, other_version: None
    async for _ in run_attempts(backend, "fast", request, TWICE, list, *ignored):
        pass
    assert [each.refused_before for each in backend.requests] == [(3, 0, 0), () if taken else (3, 0, 0)]


async def test_a_tier_that_is_full_and_then_gone_is_full() -> None:
    backend = Replicas({"a": FULL, "b": TierUnavailableError("none")})
    with pytest.raises(ReplicaOverloadedError):
        await texts(backend)


async def test_a_tier_without_replicas_is_not_tried_again() -> None:
    backend = Replicas({"a": TierUnavailableError("none")})
    with pytest.raises(TierUnavailableError):
        await texts(backend)
    assert len(backend.began) == 1


@dataclass
class TwoVersions(ReadyTiers):
    """Replica "a" begins the first of two choices and is lost. The others have another version of the model."""

    attempts: int = 0

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [TierSnapshot("fast", frozenset(REPLICAS))]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        self.attempts += 1
        if self.attempts == 1:
            yield [Delta(request.request_id, (1,), "o", choice=0)]
            raise ReplicaLostError("lost", "a", "1")
        replica = next((name for name in REPLICAS[1:] if name not in avoid), "b")
        if request.model_version not in ("", "2"):
            raise ModelVersionError("another version", replica)
        yield [Delta(request.request_id, (2,), "k", FinishReason.STOP, Usage(1, 1 + len(request.resume), 0))]


async def test_a_choice_that_has_sent_nothing_is_continued_by_another_version_too() -> None:
    backend, texts = TwoVersions(), {0: "", 1: ""}
    request = GenerationRequest("r", "Hi", SamplingParams(n=2, seed=1))
    ignored = partial(UsageMeter().attempt, 1), lambda kind, other_version: None
    async with asyncio.timeout(5):
        async for deltas in run_attempts(backend, "fast", request, TWICE, list, *ignored):
            for delta in deltas:
                texts[delta.choice] += delta.text
    assert texts == {0: "ok", 1: "k"}
    assert backend.attempts == 7, "each choice is refused by two replicas before any version may go on"
