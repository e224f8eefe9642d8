"""The routers' semantic index: slow, dead and confused replicas, the breaker, and the deployment on a real cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ray import serve

from cluster.cache.cache_reply import CacheReply
from cluster.cache.config import SemanticCacheConfig
from cluster.cache.deployment import SemanticCacheLink, bind_semantic_cache, semantic_cache_client
from cluster.cache.pair_stage import PairStage
from cluster.cache.semantic_cache_client import SemanticCacheClient
from cluster.cache.semantic_cache_replica import FollowerStoppedError, SemanticCacheReplica
from cluster.config import MantaConfig, StateConfig
from cluster.embedder.deployment import bind_embedder
from cluster.local.redis_server import RedisServer
from cluster.state.redis_entry_store import RedisEntryStore
from router.cache.calibration_table import CalibrationTable, Row
from router.ports.answer_cache import (
    CacheBounds,
    HitFeedback,
    HitJudge,
    SemanticMatch,
    SemanticQuestion,
    SemanticUnavailableError,
)
from router.ports.cache_entry import CacheEntry
from tests.cluster.graph import Graph, dev_config, eventually
from tests.embedder.models import embedder_config, write_model
from tests.state.clock import VirtualClock
from tests.state.conftest import _redis_server, redis_server

__all__ = ["_redis_server", "redis_server"]

QUESTION = SemanticQuestion("acme", "ab" * 32, "short rain today", 0.1)
MATCH = SemanticMatch("id", 0.9, 0.95)
REPLY = CacheReply(MATCH)
ROOM = CacheBounds(1000, 1_000_000)


def config(**changes: Any) -> SemanticCacheConfig:
    settings = {"pair_model": "unused", "deadline_ms": 50, "max_faults": 2, "num_cpus": 0}
    return SemanticCacheConfig.model_validate(settings | changes)


class ScriptedReplica:
    """Gives the replies of ``script`` in turn: a reply, an error to raise, or seconds to sleep before a good one."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.calls = 0

    async def lookup(self, question: SemanticQuestion) -> object:
        self.calls += 1
        step = self.script.pop(0) if self.script else REPLY
        if isinstance(step, float):
            await asyncio.sleep(step)
            return REPLY
        if isinstance(step, BaseException):
            raise step
        return step

    async def feedback(self, feedback: HitFeedback) -> object:
        return await self.lookup(QUESTION)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (10.0, "did not answer within 0.05 s"),
        (SemanticUnavailableError("the semantic index was lost: ActorDiedError"), "ActorDiedError"),
        (None, "nonsense"),
        (MATCH, "nonsense"),
    ],
    ids=["late", "dead", "nothing", "no-reply"],
)
async def test_each_failure_is_unavailable_and_opens_the_breaker(step: object, message: str) -> None:
    clock, replica = VirtualClock(), ScriptedReplica(step, step)
    index = SemanticCacheClient(replica, config(), clock)
    for _ in range(2):
        with pytest.raises(SemanticUnavailableError, match=message):
            await index.lookup(QUESTION)
    with pytest.raises(SemanticUnavailableError, match="not asked for a while"):
        await index.lookup(QUESTION)
    assert (replica.calls, index.state.value) == (2, "open")
    clock.advance(1)
    assert await index.lookup(QUESTION) == MATCH
    assert index.state.value == "closed"


async def test_a_replica_that_says_why_it_cannot_look_is_no_fault_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    index = SemanticCacheClient(
        ScriptedReplica(*[CacheReply(failure="the embedder was lost")] * 5, CacheReply()), config()
    )
    caplog.set_level(logging.INFO)
    for _ in range(5):
        with pytest.raises(SemanticUnavailableError, match="embedder was lost"):
            await index.lookup(QUESTION)
    assert await index.lookup(QUESTION) is None
    assert index.state.value == "closed"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_feedback_that_is_lost_is_an_error() -> None:
    feedback = HitFeedback("acme", "id", True, HitJudge.CLIENT)
    index = SemanticCacheClient(ScriptedReplica(CacheReply(failure="no Redis"), CacheReply()), config())
    with pytest.raises(SemanticUnavailableError, match="no Redis"):
        await index.feedback(feedback)
    await index.feedback(feedback)


async def test_a_replica_that_follows_no_longer_is_not_healthy() -> None:
    class Failing:
        async def start(self) -> None:
            raise RuntimeError("a mistake in the program")

    replica = SemanticCacheReplica(config(), lambda _: Failing(), None)  # type: ignore[arg-type,return-value]
    replica.check_health()
    await asyncio.wait([replica._following])
    with pytest.raises(FollowerStoppedError):
        replica.check_health()
    assert isinstance(replica._following.exception(), RuntimeError)


def test_without_what_it_needs_the_deployment_is_not_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = {"pair_model": str(tmp_path)}
    assert MantaConfig.model_validate(dev_config() | {"cache": cache}).cache is not None
    with pytest.raises(ValidationError, match=r"cache\.pairmodel"):
        MantaConfig.model_validate(dev_config() | {"cache": cache | {"pairmodel": "x"}})
    link, shared = bind_embedder(embedder_config(write_model(tmp_path))), StateConfig(url="redis://localhost")
    with pytest.raises(ValueError, match=r"cache\.pair_model.*No such file"):
        bind_semantic_cache(config(pair_model=tmp_path / "absent"), shared, link)
    assert bind_semantic_cache(config(pair_model=tmp_path / "absent", optional=True), shared, link) is None
    assert bind_semantic_cache(config(), StateConfig(), link) is None
    assert bind_semantic_cache(config(), shared, None) is None
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "answers are found by their exact question only"
    ] * 3


@pytest.fixture
def link(graph: Graph, redis_server: RedisServer, tmp_path: Path) -> Iterator[SemanticCacheLink]:
    """The deployment and its embedder on the cluster of the session, as an application of their own."""

    def make(_: SemanticCacheConfig) -> PairStage:
        class Cosine:  # here, so that it is sent by value
            version = "cosine@1"

            async def score(self, question: str, candidates: Any) -> list[float]:
                return [each.cosine for each in candidates]

        table = CalibrationTable(version="cosine@1", different=1000, same=10, rows=(Row(0.5, 1, 10),))
        return PairStage(Cosine(), lambda one, other: "number" if "2" in one + other else None, table)

    embedder = bind_embedder(embedder_config(write_model(tmp_path), deadline_ms=20_000))
    state = StateConfig(url=redis_server.url, journal=tmp_path, background_timeout_s=5, timeout_s=5)
    settings = config(deadline_ms=20_000, health_check_period_s=0.5, min_similarity=-1.0)
    bound = bind_semantic_cache(settings, state, embedder, make)
    assert bound is not None
    serve.run(bound.handle, name="cache", route_prefix=None)
    yield bound._replace(handle=serve.get_deployment_handle("SemanticCache", "cache"))
    serve.delete("cache")


@pytest.mark.slow
def test_the_deployment_finds_what_is_stored_also_after_a_crash(
    graph: Graph, link: SemanticCacheLink, redis_server: RedisServer, tmp_path: Path
) -> None:
    now_ms = int(1000 * time.time())
    key = "cd" * 32
    entry = CacheEntry(
        f"{key}-1", "acme", key, QUESTION.partition, "rain is short today", "m", "", now_ms, now_ms + 600_000, "{}"
    )

    async def store() -> None:
        state = StateConfig(journal=tmp_path, background_timeout_s=5, timeout_s=5)
        entries = RedisEntryStore(state, redis_server.url)
        assert await entries.put(entry, ROOM)
        await entries.close()

    async def lookup(question: SemanticQuestion = QUESTION) -> SemanticMatch | None:
        return await semantic_cache_client(link).lookup(question)

    async def status() -> dict[str, Any]:
        found: dict[str, Any] = await link.handle.status.remote()
        return found

    def found() -> bool:
        try:
            match = graph.run(lookup())
        except SemanticUnavailableError:
            return False
        return match is not None and match.entry_id == entry.id

    graph.run(store())
    eventually(found, "the entry is in the index")
    match = graph.run(lookup())
    assert match is not None
    assert match.hit
    assert graph.run(lookup(QUESTION._replace(text="rain is short 2"))).refused_by == "number"  # type: ignore[union-attr]
    assert graph.run(lookup(QUESTION._replace(tenant="other"))) is None

    before = graph.run(status())
    os.kill(before["pid"], signal.SIGKILL)
    eventually(found, "a new replica has rebuilt the index")
    after = graph.run(status())
    assert after["pid"] != before["pid"]
    assert after["embedded"] == 0, "the vector is in Redis"

    graph.run(semantic_cache_client(link).feedback(HitFeedback("acme", entry.id, True, HitJudge.CLIENT, match.score)))
    assert graph.run(lookup()) is None
