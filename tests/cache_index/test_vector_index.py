"""The index against a model: a dictionary, and all cosines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from cluster.cache.scan_sizes import ScanSizes
from cluster.cache.vector_index import IndexBounds, IndexedEntry, VectorIndex

DIMENSIONS = 32
WIDE = IndexBounds(tenant_entries=10_000, tenant_bytes=1 << 30, total_bytes=1 << 30)
SMALL = ScanSizes(exact=256, near=1024, share=64, block=512)
"""So that few vectors are in several blocks, and are found by their bits."""
RNG = np.random.default_rng(7)
VECTORS = RNG.standard_normal((4000, DIMENSIONS)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def entry(
    entry_id: str, tenant: str = "a", partition: str = "p", created: int = 0, expires: int = 1000
) -> IndexedEntry:
    return IndexedEntry(tenant, entry_id, partition, created, expires)


def filled(count: int, bounds: IndexBounds = WIDE) -> VectorIndex:
    index = VectorIndex(DIMENSIONS, bounds, SMALL)
    for place in range(count):
        index.add(entry(str(place)), VECTORS[place])
    return index


def nearest(query: NDArray[np.float32], ids: set[int], count: int) -> set[str]:
    """The oracle: the highest of all cosines, in float32."""
    places = sorted(ids)
    order = np.argsort(-(VECTORS[places] @ query))[:count]
    return {str(places[each]) for each in order}


def recall(index: VectorIndex, ids: set[int], count: int = 5) -> float:
    """The share of the nearest that are among twice as many found, which a look-up ranks again with exact vectors."""
    found = 0
    for query in VECTORS[3800:]:
        best = {each.id for each in index.search("a", "p", query, 2 * count, now_ms=0)}
        found += len(best & nearest(query, ids, count))
    return found / (200 * count)


@pytest.mark.parametrize("count", [1, 5, 40, 64, 65, 256, 257, 513, 2000])
def test_finds_what_brute_force_finds(count: int) -> None:
    assert recall(filled(count), set(range(count)), min(5, count)) >= 0.99


def test_many_at_once_are_found_as_well() -> None:
    index = VectorIndex(DIMENSIONS, WIDE, SMALL)
    index.add_many([entry(str(place)) for place in range(2000)], VECTORS[:2000])

    assert len(index) == 2000
    assert recall(index, set(range(2000))) >= 0.99


def test_recall_holds_after_all_entries_were_replaced() -> None:
    index = filled(1000)
    for place in range(1000, 3800):
        index.remove("a", str(place - 1000))
        index.add(entry(str(place)), VECTORS[place])

    assert recall(index, set(range(2800, 3800))) >= 0.99


def test_the_similarity_is_the_cosine() -> None:
    index = filled(300)

    for each in index.search("a", "p", VECTORS[3900], 20, now_ms=0):
        assert each.similarity == pytest.approx(float(VECTORS[int(each.id)] @ VECTORS[3900]), abs=0.03)


@pytest.mark.parametrize("other", [{"tenant": "b"}, {"partition": "q"}])
def test_neither_another_tenant_nor_another_partition_sees_an_entry(other: dict[str, str]) -> None:
    index = filled(100)
    place = {"tenant": "a", "partition": "p", **other}

    assert index.search(place["tenant"], place["partition"], VECTORS[0], 5, now_ms=0) == []


def test_tenants_may_use_the_same_id() -> None:
    index = VectorIndex(DIMENSIONS, WIDE)
    index.add(entry("1", tenant="a"), VECTORS[0])
    index.add(entry("1", tenant="b"), VECTORS[1])
    index.remove("a", "1")

    assert not index.has("a", "1")
    assert [each.id for each in index.search("b", "p", VECTORS[1], 5, now_ms=0)] == ["1"]


def test_expired_and_too_old_entries_are_not_found() -> None:
    index = VectorIndex(DIMENSIONS, WIDE)
    index.add(entry("old", created=10, expires=100), VECTORS[0])
    index.add(entry("new", created=20, expires=50), VECTORS[0])

    assert {each.id for each in index.search("a", "p", VECTORS[0], 5, now_ms=49)} == {"old", "new"}
    assert [each.id for each in index.search("a", "p", VECTORS[0], 5, now_ms=50)] == ["old"]
    assert [each.id for each in index.search("a", "p", VECTORS[0], 5, now_ms=49, min_created_ms=11)] == ["new"]
    assert index.expire(now_ms=50, count=10) == [("a", "new")]
    assert len(index) == 1


def test_what_was_used_is_evicted_last() -> None:
    index = VectorIndex(DIMENSIONS, IndexBounds(3, 1 << 30, 1 << 30))
    for place in range(3):
        index.add(entry(str(place)), VECTORS[place])
    index.touch("a", "0")
    index.add(entry("3"), VECTORS[3])

    assert [index.has("a", each) for each in "0123"] == [True, False, True, True]


def test_beyond_the_total_the_largest_tenant_makes_room() -> None:
    one = filled(1).size.bytes
    index = VectorIndex(DIMENSIONS, IndexBounds(100, 1 << 30, 5 * one))
    index.add(entry("small", tenant="b"), VECTORS[0])
    for place in range(30):
        index.add(entry(str(place)), VECTORS[place])

    assert index.has("b", "small")
    assert index.size.bytes <= 5 * one


def test_an_entry_that_alone_exceeds_the_bounds_is_not_kept() -> None:
    index = VectorIndex(DIMENSIONS, IndexBounds(100, 10, 1 << 30))

    assert not index.add(entry("1"), VECTORS[0])
    assert index.size == (0, 0, 0)


@dataclass
class Kept:
    place: int
    partition: str
    created: int
    expires: int


class IndexMachine(RuleBasedStateMachine):
    """A model with the same bounds: for each tenant, entries in the order of their use."""

    TENANTS = st.sampled_from(["a", "b", "c"])
    IDS = st.integers(0, 30).map(str)
    MAX_ENTRIES = 12
    PER_ENTRY = filled(2).size.bytes - filled(1).size.bytes + 1
    TOTAL = 30 * PER_ENTRY

    def __init__(self) -> None:
        super().__init__()
        self.index = VectorIndex(DIMENSIONS, IndexBounds(self.MAX_ENTRIES, 1 << 30, self.TOTAL), SMALL)
        self.model: dict[str, dict[str, Kept]] = {"a": {}, "b": {}, "c": {}}
        self.now = 0

    def evict_in_model(self, tenant: str) -> None:
        while len(self.model[tenant]) > self.MAX_ENTRIES:
            del self.model[tenant][next(iter(self.model[tenant]))]
        for each in self.model:  # which of equal tenants makes room is the index's choice; it must be an oldest one
            kept = [entry_id for entry_id in self.model[each] if self.index.has(each, entry_id)]
            lost = len(self.model[each]) - len(kept)
            assert kept == list(self.model[each])[lost:]
            assert not lost or self.index.size.bytes > self.TOTAL - 2 * (self.PER_ENTRY + 900)
            self.model[each] = {entry_id: self.model[each][entry_id] for entry_id in kept}

    @rule(
        tenant=TENANTS,
        entry_id=IDS,
        place=st.integers(0, 3000),
        partition=st.sampled_from("pq"),
        lifetime=st.integers(1, 50),
    )
    def add(self, tenant: str, entry_id: str, place: int, partition: str, lifetime: int) -> None:
        kept = Kept(place, partition, self.now, self.now + lifetime)
        assert self.index.add(IndexedEntry(tenant, entry_id, partition, kept.created, kept.expires), VECTORS[place])
        self.model[tenant].pop(entry_id, None)
        self.model[tenant][entry_id] = kept
        self.evict_in_model(tenant)

    @rule(tenant=TENANTS, places=st.lists(st.integers(0, 3000), min_size=1, max_size=10, unique=True))
    def add_many(self, tenant: str, places: list[int]) -> None:
        entries = [IndexedEntry(tenant, str(each % 31), "p", self.now, self.now + 20) for each in places]
        last = {each.id: (each, place) for each, place in zip(entries, places, strict=True)}
        self.index.add_many([each for each, _ in last.values()], VECTORS[[place for _, place in last.values()]])
        for each, place in last.values():
            self.model[tenant].pop(each.id, None)
            self.model[tenant][each.id] = Kept(place, "p", each.created_ms, each.expires_ms)
        self.evict_in_model(tenant)

    @rule(tenant=TENANTS, entry_id=IDS)
    def remove(self, tenant: str, entry_id: str) -> None:
        assert self.index.remove(tenant, entry_id) == (self.model[tenant].pop(entry_id, None) is not None)

    @rule(tenant=TENANTS, entry_id=IDS)
    def touch(self, tenant: str, entry_id: str) -> None:
        self.index.touch(tenant, entry_id)
        if entry_id in self.model[tenant]:
            self.model[tenant][entry_id] = self.model[tenant].pop(entry_id)

    @rule(passed=st.integers(1, 10))
    def expire(self, passed: int) -> None:
        self.now += passed
        removed = set(self.index.expire(self.now, 1000))
        expected = {
            (tenant, entry_id)
            for tenant, entries in self.model.items()
            for entry_id, kept in entries.items()
            if kept.expires <= self.now
        }
        assert removed == expected
        for tenant, entry_id in removed:
            del self.model[tenant][entry_id]

    @rule(tenant=TENANTS, partition=st.sampled_from("pq"), place=st.integers(0, 3000), age=st.integers(0, 60))
    def search(self, tenant: str, partition: str, place: int, age: int) -> None:
        found = self.index.search(tenant, partition, VECTORS[place], 30, self.now, self.now - age)
        expected = {
            entry_id
            for entry_id, kept in self.model[tenant].items()
            if kept.partition == partition and kept.expires > self.now and kept.created >= self.now - age
        }
        assert {each.id for each in found} == expected
        for each in found:
            cosine = float(VECTORS[self.model[tenant][each.id].place] @ VECTORS[place])
            assert each.similarity == pytest.approx(cosine, abs=0.03)

    @invariant()
    def nothing_is_lost_or_leaked(self) -> None:
        sizes = [self.index.tenant_size(tenant) for tenant in self.model]
        assert [each.entries for each in sizes] == [len(entries) for entries in self.model.values()]
        partitions = [len({kept.partition for kept in entries.values()}) for entries in self.model.values()]
        assert [each.partitions for each in sizes] == partitions
        total = self.index.size
        assert total == tuple(sum(amounts) for amounts in zip(*sizes, strict=True))
        assert total.bytes <= self.TOTAL
        assert (total.bytes == 0) == (total.entries == 0)


IndexMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestIndexMachine = IndexMachine.TestCase
