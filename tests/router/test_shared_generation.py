"""A generation that identical requests share goes on when the client that began it leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import pytest

from engine.api import Delta, GenerationRequest, Usage
from router.config.answer_cache import AnswerCacheConfig
from router.ports.tier_backend import OnPlaced, OnUsage
from tests.router.asking import BODY, Asking
from tests.router.backend import WORDS, ScriptedBackend
from tests.router.cached import Cached
from tests.router.served import CONFIG, Served


class Gated(ScriptedBackend):
    """Waits before delta number ``gate_at`` until ``gate`` is set, and then raises ``then``, if that is set."""

    def __init__(self, gate_at: int) -> None:
        super().__init__()
        self.gate_at = gate_at
        self.gate = asyncio.Event()
        self.then: Exception | None = None

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        number = 0
        try:
            async with aclosing(super().generate(tier, request, avoid, on_usage, account, on_placed)) as batches:
                async for batch in batches:
                    if number == self.gate_at:
                        await self.gate.wait()
                        if self.then is not None:
                            raise self.then
                    number += 1
                    yield batch
        finally:
            if on_usage is not None:
                on_usage(Usage(3, number, 1))  # as an engine reports after an abort


async def turns() -> None:
    await asyncio.sleep(0.02)


def shared(gate_at: int, **settings: Any) -> tuple[Cached, Gated]:
    backend = Gated(gate_at)
    return Cached(backend=backend, **settings), backend


async def test_identical_requests_at_once_share_one_generation(cached: Cached) -> None:
    answers = await asyncio.gather(*(cached.ask(stream=n % 2 == 1 or None) for n in range(16)))
    assert len(cached.backend.requests) == 1
    said = [answer.headers["x-manta-cache"] for answer in answers]
    assert sorted(said) == ["exact; shared; age=0"] * 15 + ["miss; new"]


async def test_a_request_with_a_deadline_waits_for_another_a_part_of_it_only(cached: Cached) -> None:
    cached.backend.stall_at = 2
    leader = asyncio.create_task(cached.ask())
    await asyncio.sleep(0.05)
    cached.backend.stall_at = None
    assert await cached.status(deadline_s=0.2) == "miss; wait"
    leader.cancel()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("gate_at", [0, 2, len(WORDS)])
async def test_the_others_get_the_answer_when_the_client_that_began_it_leaves(gate_at: int, stream: bool) -> None:
    cached, backend = shared(gate_at)
    leader = Asking(cached.app, stream)
    await turns()
    followers = [Asking(cached.app) for _ in range(3)]
    await turns()
    await leader.leave()
    late = Asking(cached.app)
    await turns()
    assert backend.closed == 0
    backend.gate.set()
    for each in (*followers, late):
        assert "🎉" in await each.answer() or "\\ud83c" in await each.answer()
        assert each.status == "exact; shared; age=0"
    await turns()
    assert len(backend.requests) == backend.closed == 1
    assert (await cached.status()) == "exact; age=0"


async def test_the_one_that_began_it_pays_once_and_its_entry_says_that_it_left() -> None:
    cached, backend = shared(2)
    leader = Asking(cached.app)
    await turns()
    follower = Asking(cached.app)
    await turns()
    await leader.leave()
    await turns()
    assert cached.documents() == []
    backend.gate.set()
    await follower.answer()
    await turns()
    entries = {document["cache"]: document for document in cached.documents()}
    assert set(entries) == {"miss", "exact"}
    assert (entries["miss"]["outcome"], entries["miss"]["output_tokens"]) == ("cancelled", len(WORDS))
    assert (entries["exact"]["outcome"], entries["exact"]["output_tokens"]) == ("finished", 0)
    assert entries["exact"]["cost"] == 0
    assert entries["miss"]["exact"]


@pytest.mark.parametrize("gate_at", [0, 2])
async def test_when_the_last_one_leaves_the_generation_is_aborted(gate_at: int) -> None:
    cached, backend = shared(gate_at)
    leader = Asking(cached.app)
    await turns()
    followers = [Asking(cached.app) for _ in range(2)]
    await turns()
    await leader.leave()
    await followers[0].leave()
    await turns()
    assert backend.closed == 0
    await followers[1].leave()
    await turns()
    assert backend.closed == len(backend.requests) == 1
    assert {document["outcome"] for document in cached.documents()} == {"cancelled"}
    assert len(cached.documents()) == 3
    backend.gate.set()
    assert (await cached.status()) == "miss; new"


async def test_without_others_a_client_that_leaves_aborts_its_generation() -> None:
    cached, backend = shared(2)
    leader = Asking(cached.app)
    await turns()
    await leader.leave()
    await turns()
    assert backend.closed == 1


async def test_a_failure_after_the_client_has_left_reaches_all_others() -> None:
    cached, backend = shared(2)
    leader = Asking(cached.app)
    await turns()
    followers = [Asking(cached.app, stream=False) for _ in range(4)]
    await turns()
    await leader.leave()
    backend.then = ValueError("broken")
    backend.gate.set()
    for each in followers:
        await each.answer()
        assert each.client.sent[0]["status"] == 500
    await turns()
    assert backend.closed == len(backend.requests)
    assert not cached.app.parts.outliving._watching  # type: ignore[attr-defined]


async def test_a_request_that_is_cut_from_above_leaves_the_others_their_answer() -> None:
    cached, backend = shared(2)
    leader = Asking(cached.app)
    await turns()
    follower = Asking(cached.app)
    await turns()
    leader.task.cancel()
    await asyncio.wait({leader.task})
    assert '"request_cancelled"' in leader.client.text
    sent = len(leader.client.sent)
    backend.gate.set()
    await follower.answer()
    assert len(backend.requests) == 1
    assert len(leader.client.sent) == sent


async def test_a_generation_without_its_client_ends_at_the_time_limit() -> None:
    cached, backend = shared(2, request_timeout_s=0.2)
    leader = Asking(cached.app)
    await turns()
    follower = Asking(cached.app)
    await leader.leave()
    await asyncio.sleep(0.3)
    assert backend.closed >= 1
    await follower.answer()


async def test_the_router_ends_what_has_no_client_when_it_stops() -> None:
    cached, backend = shared(2)
    leader = Asking(cached.app)
    await turns()
    follower = Asking(cached.app)
    await turns()
    await leader.leave()
    follower.task.cancel()
    await cached.app.parts.outliving.close()  # type: ignore[attr-defined]
    assert backend.closed == 1


async def test_an_answer_that_becomes_too_large_lets_the_others_go_alone_at_once() -> None:
    cached, backend = shared(1, max_entry_bytes=1024)
    backend._words = lambda request: ("x" * 600, "y" * 600, *WORDS)  # type: ignore[method-assign]
    leader = Asking(cached.app)
    await turns()
    follower = Asking(cached.app)
    await turns()
    assert len(backend.requests) == 1
    backend.gate.set()
    await asyncio.gather(leader.answer(), follower.answer())
    assert follower.status == "miss; large"


@pytest.mark.parametrize(
    "which", [{"tenant": "acme"}, {"tenant": "acme", "model_version": "fast-model"}, {"all": True}]
)
@pytest.mark.parametrize("mode", ["default", "no-cache"])
async def test_an_answer_that_was_begun_before_a_deletion_is_sent_and_not_stored(
    mode: str, which: dict[str, Any]
) -> None:
    cached, backend = shared(2)
    backend.gate.set()
    await cached.ask("Another?")
    backend.gate.clear()
    asking = Asking(cached.app, cache={"mode": mode})
    await turns()
    said = await cached.post("/admin/v1/cache/invalidate", {**which, "dry_run": False}, "sk-admin")
    assert (said.json()["count"], len(said.json()["sample"])) == (1, 1)
    backend.gate.set()
    assert "[DONE]" in await asking.answer()
    await turns()
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"


class Slow(ScriptedBackend):
    """Takes 0.5 s for each delta."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        async with aclosing(super().generate(tier, request, avoid, on_usage, account, on_placed)) as batches:
            async for batch in batches:
                await asyncio.sleep(0.5)
                yield batch


def test_over_a_socket_too_the_others_get_the_answer_when_the_first_client_closes_its_connection() -> None:
    served = Served(CONFIG.model_copy(update={"cache": AnswerCacheConfig(enabled=True)}))
    try:
        served.backend = Slow()
        with ThreadPoolExecutor(1) as pool:
            with served.http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as leader:
                lines = leader.iter_lines()  # kept, since its end would close the connection
                next(lines)
                other = pool.submit(served.http.post, "/v1/chat/completions", json=BODY)
                time.sleep(1)  # until the other waits
            answer = other.result(timeout=20)
        assert answer.headers["x-manta-cache"].startswith("exact; shared")
        assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)
        assert len(served.backend.requests) == 1
    finally:
        served.stop()
