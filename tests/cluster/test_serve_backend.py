"""The backend without Serve: its life, what it says of its tiers, and one attempt per call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from cluster.config import PlacementConfig
from cluster.lanes.replica_directory import ReplicaDirectory
from cluster.serve_backend import ServeBackend
from engine.api import MIN_DEADLINE_S, GenerationRequest, SamplingParams, Usage
from router.ports.tier_backend import (
    ReplicaLostError,
    ReplicaOverloadedError,
    TierDescription,
    TierSnapshot,
    TierUnavailableError,
)
from tests.cluster.engines import LocalClient, LocalReplica
from tests.cluster.lanes import settle

TIERS = (TierDescription("small", "model-s"), TierDescription("large", "model-l"))


def request(request_id: str = "q", max_tokens: int = 3) -> GenerationRequest:
    return GenerationRequest(request_id, "hi", SamplingParams(max_tokens=max_tokens))


def make_backend(**replicas: LocalReplica) -> tuple[ServeBackend, LocalClient]:
    """A backend of two tiers; ``replicas`` are those of ``small``, by their ids."""
    small = LocalClient(replicas)
    clients = {"small": small, "large": LocalClient({})}
    return ServeBackend(TIERS, clients, PlacementConfig(wait_s=0)), small


@asynccontextmanager
async def started(**replicas: LocalReplica) -> AsyncIterator[ServeBackend]:
    backend, _ = make_backend(**replicas)
    await backend.start(lambda _: None)
    ReplicaDirectory.publish("small", frozenset(replicas))
    await settle()
    yield backend
    await backend.close()
    ReplicaDirectory.publish("small", frozenset())


async def test_the_tiers_are_known_before_the_start_and_none_is_ready() -> None:
    backend, client = make_backend()
    assert backend.tiers() == TIERS
    assert backend.snapshot() == [TierSnapshot("small"), TierSnapshot("large")]
    with pytest.raises(TierUnavailableError, match="small"):
        await anext(backend.generate("small", request()))
    assert client.connected == 0


async def test_after_the_start_the_replicas_that_serve_lists_are_ready() -> None:
    async with started(a=LocalReplica(), b=LocalReplica()) as backend:
        small, large = backend.snapshot()
        assert (small.replicas, small.context_length) == (frozenset("ab"), 128)
        assert large == TierSnapshot("large")


async def test_the_end_closes_every_lane_and_their_replicas_abort_what_ran_there() -> None:
    replica = LocalReplica()
    async with started(a=replica) as backend:
        batches = backend.generate("small", request(max_tokens=100))
        reader = asyncio.ensure_future(anext(batches))
        await settle()
        assert set(replica.engine.live) == {"q"}
        await backend.close()
        assert replica.actor._registry._outboxes == {}
        assert replica.engine.aborted == ["q"]
        with pytest.raises(ReplicaLostError):
            await reader
        assert backend.snapshot()[0] == TierSnapshot("small")
        await backend.close()  # again: nothing is left to do

        ReplicaDirectory.publish("small", frozenset({"a", "late"}))
        await settle()
        assert replica.actor._registry._outboxes == {}


async def test_a_full_replica_is_one_failed_attempt_and_the_next_may_avoid_it() -> None:
    full, free = LocalReplica(capacity=0), LocalReplica()
    async with started(full=full, free=free) as backend:
        with pytest.raises(ReplicaOverloadedError) as refusal:
            await anext(backend.generate("small", request("first"), {"free"}))
        assert (refusal.value.replica_id, refusal.value.retry_after_s) == ("full", 2.0)
        async with aclosing(backend.generate("small", request("second"), {"full"})) as batches:
            reader = asyncio.ensure_future(anext(batches))
            await settle()
            free.engine.step()
            assert [delta.text for delta in await reader] == ["0 "]


async def test_the_router_hears_where_a_request_is_when_the_load_there_has_it() -> None:
    seen: list[tuple[str, int, bool]] = []

    def placed(replica_id: str, tokens: int) -> None:
        load = backend.snapshot()[0].loads[replica_id]
        seen.append((replica_id, tokens, load.waiting == 1))

    async with started(a=LocalReplica(), b=LocalReplica()) as backend:
        asked = replace(request(), prompt=40 * "word ")
        async with aclosing(backend.generate("small", asked, {"a"}, on_placed=placed)) as batches:
            reader = asyncio.ensure_future(anext(batches))
            await settle()
            reader.cancel()
            await asyncio.wait({reader})
    [(replica_id, tokens, in_load)] = seen
    assert (replica_id, in_load) == ("b", True)
    assert 20 < tokens <= 200


async def test_a_replica_lost_before_the_first_token_is_one_failed_attempt() -> None:
    lost, other = LocalReplica(), LocalReplica()
    async with started(lost=lost, other=other) as backend:
        reader = asyncio.ensure_future(anext(backend.generate("small", request(), {"other"})))
        await settle()
        lost.dead = True
        lost.engine.step()
        with pytest.raises(ReplicaLostError) as loss:
            await reader
        assert loss.value.replica_id == "lost"
        assert not other.engine.live


async def test_a_tier_whose_replicas_are_all_to_be_avoided_is_unavailable() -> None:
    async with started(a=LocalReplica()) as backend:
        with pytest.raises(TierUnavailableError):
            await anext(backend.generate("small", request(), {"a"}))


@pytest.mark.parametrize(("deadline_s", "most_s"), [(10.0, 9.95), (0.01, MIN_DEADLINE_S)])
async def test_the_wait_for_a_replica_is_a_part_of_the_time_to_a_deadline(deadline_s: float, most_s: float) -> None:
    replica = LocalReplica()
    clients = {"small": LocalClient({"a": replica}), "large": LocalClient({})}
    backend = ServeBackend(TIERS, clients, PlacementConfig(wait_s=60))
    await backend.start(lambda _: None)
    reader = asyncio.ensure_future(anext(backend.generate("small", replace(request(), deadline_s=deadline_s))))
    await asyncio.sleep(0.05)
    ReplicaDirectory.publish("small", frozenset("a"))
    await settle()
    left_s = replica.engine.live["q"][0].deadline_s
    assert left_s is not None
    assert MIN_DEADLINE_S <= left_s <= most_s
    reader.cancel()
    await asyncio.wait({reader})
    await backend.close()
    ReplicaDirectory.publish("small", frozenset())


async def test_a_client_that_leaves_while_no_replica_is_ready_used_nothing() -> None:
    clients = {"small": LocalClient({}), "large": LocalClient({})}
    backend = ServeBackend(TIERS, clients, PlacementConfig(wait_s=60))
    await backend.start(lambda _: None)
    counts: list[Usage | None] = []
    reader = asyncio.ensure_future(anext(backend.generate("small", request(), (), counts.append)))
    await settle()
    reader.cancel()
    await settle()
    assert counts == [Usage(0, 0, 0)]
    await backend.close()
