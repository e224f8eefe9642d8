"""While a release is rolled out, routers and replicas of two versions serve together: no answer is stored under the
version of another model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace

from engine.api import Delta, GenerationRequest
from router.ports.tier_backend import (
    ModelVersionError,
    OnPlaced,
    OnUsage,
    ReplicaLostError,
    TierDescription,
    TierSnapshot,
)
from tests.router.backend import ScriptedBackend
from tests.router.cached import Cached


class Versioned(ScriptedBackend):
    """Each tier has the replicas 0 and 1 with the model versions ``models``. The first of which is not to be avoided
    gets a request, and is lost after ``lost_after`` deltas of the first request (None: never)."""

    def __init__(self, release: str, *models: str, lost_after: int | None = None) -> None:
        super().__init__()
        self.release = release
        self.models = {str(place): model for place, model in enumerate(models)}
        self.lost_after = lost_after

    def tiers(self) -> Sequence[TierDescription]:
        return [replace(tier, version=self.release, replica_version=self.release) for tier in super().tiers()]

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [replace(each, replicas=frozenset(self.models)) for each in super().snapshot()]

    def model_version(self, tier: str, replica_id: str) -> str:
        return self.models[replica_id]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        replica_id = next(each for each in sorted(self.models) if each not in avoid)
        version = self.models[replica_id]
        if on_placed is not None:
            on_placed(replica_id, 1)
        if request.model_version not in ("", version):
            raise ModelVersionError("another version", replica_id, version)
        sent, lost_after, self.lost_after = 0, self.lost_after, None
        async with aclosing(super().generate(tier, request, avoid, on_usage, account)) as batches:
            async for batch in batches:
                if sent == lost_after:
                    raise ReplicaLostError("lost", replica_id, version)
                sent += 1
                yield batch


async def test_the_answer_of_a_replica_with_the_routers_version_is_stored() -> None:
    cached = Cached(backend=Versioned("new", "new", "old"))

    assert [await cached.status() for _ in range(2)] == ["miss; new", "exact; age=0"]


async def test_the_answer_of_a_replica_with_another_version_is_not_stored() -> None:
    for release, model in (("new", "old"), ("old", "new")):
        cached = Cached(backend=Versioned(release, model))

        assert [(await cached.status()).split(";")[0] for _ in range(2)] == ["miss", "miss"]
        assert cached.metrics.counts["unstored", "acme", "version"] == 2


async def test_a_replica_of_an_unknown_version_is_no_other_one() -> None:
    cached = Cached(backend=Versioned("new", ""))

    assert [await cached.status() for _ in range(2)] == ["miss; new", "exact; age=0"]


async def test_a_router_that_does_not_know_the_files_compares_nothing() -> None:
    cached = Cached(backend=Versioned("", "new"))

    assert [await cached.status() for _ in range(2)] == ["miss; new", "exact; age=0"]


async def test_those_that_wait_for_an_answer_of_another_version_get_their_own() -> None:
    cached = Cached(backend=Versioned("new", "old"))

    answers = await asyncio.gather(*(cached.ask() for _ in range(3)))

    said = sorted(answer.headers["x-manta-cache"] for answer in answers)
    assert said == ["miss; new", "miss; version", "miss; version"]
    assert len(cached.backend.requests) == 3


async def test_an_answer_that_another_version_continues_is_not_stored() -> None:
    cached = Cached(backend=Versioned("old", "old", "new", lost_after=2))

    answer = await cached.ask()

    assert answer.status_code == 200
    assert len(cached.backend.requests) == 2
    assert (await cached.status()).startswith("miss")
