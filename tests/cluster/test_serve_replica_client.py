"""Calls to replicas: those of one turn are batched, and Serve must not start a replica for one that is gone."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from ray.serve.handle import DeploymentHandle

from cluster.lanes.replica_directory import ReplicaDirectory
from cluster.lanes.serve_replica_client import ServeReplicaClient
from cluster.lanes.submission_batches import MAX_BATCH
from router.ports.tier_backend import ReplicaLostError

NAMES: Any = ["a", "b"]


class Handle:
    """A handle of Serve, whose calls are counted."""

    def __init__(self) -> None:
        self.deployment_name = f"tier-{uuid.uuid4()}"
        self.calls = 0

    def options(self, **options: object) -> Handle:
        return self

    @property
    def abort(self) -> Handle:
        return self

    async def remote(self, *arguments: object, **named: object) -> None:
        self.calls += 1


@pytest.mark.parametrize(("running", "calls"), [(frozenset({"a"}), 1), (frozenset(), 0)], ids=["one runs", "at zero"])
async def test_an_abort_at_a_tier_without_replicas_is_not_left_with_serve(running: frozenset[str], calls: int) -> None:
    handle = Handle()
    client = ServeReplicaClient(cast(DeploymentHandle[Any], handle))
    ReplicaDirectory.publish(handle.deployment_name, running)
    if calls:
        await client.abort("a", "lane", ["q"])
    else:
        with pytest.raises(ReplicaLostError):
            await client.abort("a", "lane", ["q"])
    assert handle.calls == calls


class Replica:
    """A handle of Serve to a replica, which accepts requests but ``no``, whose lane has the header ``calls``, and whose
    calls are recorded."""

    def __init__(self, calls: list[str]) -> None:
        self.deployment_name = f"tier-{uuid.uuid4()}"
        self._calls = calls
        self.seen: list[tuple[str, Any]] = []
        self._method = ""

    def options(self, **options: object) -> Replica:
        return self

    def __getattr__(self, method: str) -> Replica:
        self._method = method
        return self

    def remote(self, *arguments: Any, **named: object) -> Any:
        if self._method == "lane":
            return Items(self._calls)
        return self._answer(self._method, arguments[1])

    async def _answer(self, method: str, sent: Any) -> Any:
        self.seen.append((method, sent))
        if sent == "lost" or "lost" in sent:
            raise OSError("the replica is gone")
        replies = {"no": {"kinds": ["EngineError"], "message": "no"}, "bad": {"fault": "ZeroDivisionError"}}
        refusals = [replies.get(each) for each in sent]
        return refusals if method == "submit_all" else None


class Items:
    """The items of a lane, of which only the first comes."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    async def __aiter__(self) -> AsyncGenerator[tuple[Any, ...], None]:
        yield (), [], {"calls": self._calls}
        await asyncio.Event().wait()

    def cancel(self) -> None:
        pass


async def connected(calls: list[str]) -> tuple[Replica, ServeReplicaClient, AsyncGenerator[Any, None]]:
    """Returns a replica and a client that has opened a lane to it."""
    replica = Replica(calls)
    client = ServeReplicaClient(cast(DeploymentHandle[Any], replica))
    ReplicaDirectory.publish(replica.deployment_name, frozenset({"r"}))
    items = client.lane("r", "lane")
    await anext(items)
    return replica, client, items


def submit(client: ServeReplicaClient, *requests: Any, validated_at_once: bool = True) -> Any:
    return asyncio.gather(
        *(client.submit("r", "lane", each, validated_at_once=validated_at_once) for each in requests),
        return_exceptions=True,
    )


async def test_requests_of_one_turn_are_submitted_in_one_call_and_each_gets_its_own_reply() -> None:
    replica, client, items = await connected(["submit_all"])
    replies = await submit(client, "a", "no", "b")
    assert replica.seen == [("submit_all", ["a", "no", "b"])]
    assert [reply and reply["message"] for reply in replies] == [None, "no", None]
    await submit(client, "c")
    assert replica.seen[1:] == [("submit", "c")]
    await items.aclose()


@pytest.mark.parametrize(("calls", "at_once"), [([], True), (["submit_all"], False)], ids=["old replica", "slow"])
async def test_requests_to_older_replicas_and_those_that_take_time_have_calls_of_their_own(
    calls: list[str], at_once: bool
) -> None:
    replica, client, items = await connected(calls)
    await submit(client, "a", "b", validated_at_once=at_once)
    assert replica.seen == [("submit", "a"), ("submit", "b")]
    await items.aclose()


async def test_a_lost_replica_is_told_to_all_requests_of_a_batch() -> None:
    _, client, items = await connected(["submit_all"])
    assert [type(each) for each in await submit(client, "a", "lost")] == [ReplicaLostError, ReplicaLostError]
    await items.aclose()


async def test_a_request_that_breaks_is_lost_and_the_others_of_its_batch_are_not() -> None:
    _, client, items = await connected(["submit_all"])
    assert [type(each) for each in await submit(client, "bad", "a")] == [ReplicaLostError, type(None)]
    await items.aclose()


async def test_a_caller_that_leaves_takes_no_other_request_of_its_batch_along() -> None:
    replica, client, items = await connected(["submit_all"])
    requests: Any = ["a", "b"]
    calls = [asyncio.ensure_future(client.submit("r", "lane", each, validated_at_once=True)) for each in requests]
    await asyncio.sleep(0)
    calls[0].cancel()
    assert await calls[1] is None
    assert replica.seen == [("submit_all", ["a", "b"])], "a request that was sent can only be aborted"
    await items.aclose()


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled() -> None:
    replica, client, items = await connected(["submit_all"])
    held = asyncio.Event()
    begun: list[str] = []
    ended: list[str] = []

    async def hold(method: str, sent: Any) -> None:
        begun.append(sent)
        try:
            await held.wait()
        finally:
            ended.append(sent)

    replica._answer = hold  # type: ignore[method-assign]
    for turns in range(4):
        calls = [asyncio.ensure_future(client.submit("r", "lane", each, validated_at_once=True)) for each in NAMES]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        for _ in range(3):
            await asyncio.sleep(0)
    assert begun
    assert ended == begun
    assert client._batches._collecting == {}
    await items.aclose()


async def test_a_batch_has_a_largest_size() -> None:
    replica, client, items = await connected(["submit_all"])
    await submit(client, *(f"{number}" for number in range(2 * MAX_BATCH + 1)))
    assert [len(sent) if method == "submit_all" else 1 for method, sent in replica.seen] == [MAX_BATCH, MAX_BATCH, 1]
    await items.aclose()
