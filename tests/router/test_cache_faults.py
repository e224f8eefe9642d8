"""The answer cache without its store, and with entries that are spoilt."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from router.cache import answer_cache
from router.cache.answer_document import StoredAnswers, encode_answers
from router.memory_entry_store import MemoryEntryStore
from router.ports.cache_entry import encode_entry
from router.ports.state_store import StateUnavailableError
from tests.router.cached import Cached
from tests.state.cached import all_of, spoil
from tests.state.clock import VirtualClock


class Outage(MemoryEntryStore):
    """A store that can be gone. Implements ``EntryStore``."""

    gone = False

    def _check_open(self) -> None:
        if self.gone:
            raise StateUnavailableError("gone")


async def test_without_the_store_answers_go_on_and_with_it_again_hits() -> None:
    store = Outage(VirtualClock())
    cached = Cached(store=store)
    await cached.ask()
    store.gone = True
    assert await cached.status() == "bypass; unavailable"
    assert (await cached.ask("Another?")).status_code == 200
    store.gone = False
    assert await cached.status() == "exact; age=0"
    assert await cached.status("Another?") == "miss; new"


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x80\n{}"])
async def test_a_poisoned_entry_is_a_miss_and_replaced(cached: Cached, data: bytes) -> None:
    await cached.ask()
    (entry,) = await all_of(cached.entries.entries())
    spoil(cached.entries, None, "acme", entry.key, data)
    assert await cached.status() == "miss; new"
    assert cached.metrics.counts[("poisoned",)] == 1
    assert await cached.status() == "exact; age=0"


@pytest.mark.parametrize("document", ["", "{}", '{"answers":[]}', '{"answers":[{"prompt":0,"text":1}]}'])
async def test_an_entry_without_the_answers_is_a_miss(cached: Cached, document: str) -> None:
    await cached.ask()
    (entry,) = await all_of(cached.entries.entries())
    spoil(cached.entries, None, "acme", entry.key, encode_entry(replace(entry, document=document)))
    assert await cached.status() == "miss; poisoned"
    assert cached.metrics.counts[("poisoned",)] == 1
    assert (await cached.status()).startswith("exact")


async def test_those_that_wait_go_on_when_the_cache_fails_to_keep_the_answer(
    cached: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([RuntimeError("a fault of the cache")])

    def encode(stored: StoredAnswers) -> str:
        for fault in faults:
            raise fault
        return encode_answers(stored)

    monkeypatch.setattr(answer_cache, "encode_answers", encode)

    answers = await asyncio.wait_for(asyncio.gather(*(cached.ask() for _ in range(3))), 5)

    assert sorted(answer.status_code for answer in answers) == [200, 200, 500]
    assert len(cached.backend.requests) == 2
