"""``VectorIndex``: the questions of all tenants, by partition, bounded. Pure: no I/O and no clock."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.cache.lru_slots import LruSlots
from cluster.cache.partition_index import PartitionIndex
from cluster.cache.row_scan import row_scan
from cluster.cache.scan_sizes import SIZES, ScanSizes
from cluster.cache.slot_expiry import SlotExpiry
from cluster.cache.vector_quantisation import to_int8

ENTRY_BYTES = 558
"""What an entry takes beside its vector and its id: slot, expiry, recency, and the bits of its vector, as the process
was found to grow."""
PARTITION_BYTES = 900
SPARE = 4
"""How many times as many candidates are searched as are wanted: some may be too old, or expired."""


@dataclass(frozen=True, slots=True)
class IndexBounds:
    """The bounds of the index. Beyond ``tenant_entries`` or ``tenant_bytes``, the tenant's least recently used entry is
    evicted; beyond ``total_bytes``, that of the tenant with the most bytes."""

    tenant_entries: int
    tenant_bytes: int
    total_bytes: int


class IndexedEntry(NamedTuple):
    """An entry without its question and vector. Times are wall times in milliseconds since the epoch."""

    tenant: str
    id: str
    partition: str
    created_ms: int
    expires_ms: int


class Neighbour(NamedTuple):
    """An entry near the query. ``similarity`` is the cosine of their vectors in 8 bits."""

    id: str
    similarity: float


class IndexSize(NamedTuple):
    """The number of entries of an index, and their size in bytes, which is an estimate. ``IndexBounds`` limits both."""

    entries: int
    partitions: int
    bytes: int


class _Tenant:
    """What the index has of one tenant. ``head`` is that of its ring of recency."""

    __slots__ = ("bytes", "entries", "head", "name", "shelves", "slots")

    def __init__(self, name: str, head: int) -> None:
        self.name = name
        self.head = head
        self.entries = 0
        self.bytes = 0
        self.shelves: dict[str, _Shelf] = {}  # by the partition's name
        self.slots: dict[str, int] = {}  # by the entry's id


class _Shelf:
    """A partition of a tenant."""

    __slots__ = ("name", "partition", "tenant")

    def __init__(self, name: str, tenant: _Tenant, partition: PartitionIndex) -> None:
        self.name = name
        self.tenant = tenant
        self.partition = partition


class VectorIndex:
    """The index. Vectors are unit vectors of ``dimensions`` components. ``sizes`` says how exactly a
    large partition is searched.

    Nothing is kept of a removed entry. The facts about an entry are in arrays, by its slot: if each were an object, the
    garbage collector would stop lookups for tens of milliseconds.
    """

    def __init__(self, dimensions: int, bounds: IndexBounds, sizes: ScanSizes = SIZES) -> None:
        self.dimensions = dimensions
        self._bounds = bounds
        self._scan = row_scan(dimensions, sizes)
        self._tenants: dict[str, _Tenant] = {}
        self._ids: list[str] = []  # by slot, as all that follow
        self._shelves: list[_Shelf | None] = []  # None: the slot is free, or a head
        self._created = array("q")
        self._places = array("i")  # the row in its partition
        self._expiry = SlotExpiry()
        self._recency = LruSlots()
        self._free = array("i")
        self._entries = 0
        self._partitions = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._entries

    @property
    def size(self) -> IndexSize:
        """The size of the whole index."""
        return IndexSize(self._entries, self._partitions, self._bytes)

    def tenant_size(self, tenant: str) -> IndexSize:
        """Returns the size of the entries of ``tenant``."""
        found = self._tenants.get(tenant)
        return IndexSize(0, 0, 0) if found is None else IndexSize(found.entries, len(found.shelves), found.bytes)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Yields tenant and id of each entry. The index must not change meanwhile."""
        return ((tenant.name, entry_id) for tenant in self._tenants.values() for entry_id in tenant.slots)

    def has(self, tenant: str, entry_id: str) -> bool:
        """Returns whether the index has the entry."""
        found = self._tenants.get(tenant)
        return found is not None and entry_id in found.slots

    def has_partition(self, tenant: str, partition: str) -> bool:
        """Returns whether the index has entries of this partition."""
        found = self._tenants.get(tenant)
        return found is not None and partition in found.shelves

    def add(self, entry: IndexedEntry, vector: NDArray[np.float32]) -> bool:
        """Adds an entry with its unit vector, float32 [dimensions]. It replaces an entry with the same tenant and id.

        Evicts the least recently used entries to stay within the bounds. Returns whether the entry was added: an entry
        that alone exceeds the bounds is not.
        """
        self.remove(entry.tenant, entry.id)
        shelf = self._shelf(entry.tenant, entry.partition)
        slot = self._take(entry, shelf)
        shelf.partition.add(slot, to_int8(vector))
        self._make_room(shelf.tenant)
        return self.has(entry.tenant, entry.id)

    def add_many(self, entries: Sequence[IndexedEntry], vectors: NDArray[np.float32]) -> None:
        """Adds entries, which differ in tenant or id, with their unit vectors, float32 [n, dimensions]. Evicts as
        ``add`` does."""
        rows: dict[tuple[str, str], list[int]] = {}
        for row, entry in enumerate(entries):
            self.remove(entry.tenant, entry.id)
            rows.setdefault((entry.tenant, entry.partition), []).append(row)
        quantised = to_int8(vectors)
        for (tenant, partition), places in rows.items():
            shelf = self._shelf(tenant, partition)
            slots = [self._take(entries[place], shelf) for place in places]
            shelf.partition.add_many(slots, quantised[places])
            self._make_room(shelf.tenant)

    def remove(self, tenant: str, entry_id: str) -> bool:
        """Removes an entry. Returns whether the index had it."""
        found = self._tenants.get(tenant)
        slot = None if found is None else found.slots.get(entry_id)
        if slot is None:
            return False
        self._drop(slot)
        return True

    def touch(self, tenant: str, entry_id: str) -> None:
        """Counts an entry as used. Has no effect if the index does not have it."""
        found = self._tenants.get(tenant)
        slot = None if found is None else found.slots.get(entry_id)
        if found is not None and slot is not None:
            self._recency.remove(slot)
            self._recency.append(found.head, slot)

    def expire(self, now_ms: int, count: int) -> list[tuple[str, str]]:
        """Removes at most ``count`` entries that have expired. Returns tenant and id of each. ``now_ms`` is in
        milliseconds since the epoch."""
        removed: list[tuple[str, str]] = []
        while len(removed) < count and (slot := self._expiry.expired(now_ms)) is not None:
            shelf = self._shelves[slot]
            assert shelf is not None
            removed.append((shelf.tenant.name, self._ids[slot]))
            self._drop(slot)
        return removed

    def search(
        self, tenant: str, partition: str, vector: NDArray[np.float32], count: int, now_ms: int, min_created_ms: int = 0
    ) -> list[Neighbour]:
        """Returns at most ``count`` entries of a partition by their cosine with the unit vector, the highest first.

        Entries that have expired by ``now_ms``, or were created before ``min_created_ms``, are left out.
        """
        found = self._tenants.get(tenant)
        shelf = None if found is None else found.shelves.get(partition)
        if shelf is None:
            return []
        near = shelf.partition.search(to_int8(vector), SPARE * count)
        kept = [
            Neighbour(self._ids[each.slot], each.similarity)
            for each in near
            if self._expiry.time(each.slot) > now_ms and self._created[each.slot] >= min_created_ms
        ]
        return kept[:count]

    def _shelf(self, tenant: str, partition: str) -> _Shelf:
        owner = self._tenants.get(tenant)
        if owner is None:
            owner = self._tenants[tenant] = _Tenant(tenant, self._slot())
            self._recency.start(owner.head)
        shelf = owner.shelves.get(partition)
        if shelf is None:
            shelf = owner.shelves[partition] = _Shelf(partition, owner, PartitionIndex(self._scan, self._places))
            self._partitions += 1
            self._count(owner, PARTITION_BYTES)
        return shelf

    def _slot(self) -> int:
        """Returns a free slot. There is room for twice as many when all are taken."""
        if not self._free:
            first, more = len(self._ids), max(16, len(self._ids))
            self._ids.extend([""] * more)
            self._shelves.extend([None] * more)
            self._created.extend([0] * more)
            self._places.extend([0] * more)
            self._expiry.grow(first + more)
            self._recency.grow(first + more)
            self._free.extend(range(first + more - 1, first - 1, -1))
        return self._free.pop()

    def _take(self, entry: IndexedEntry, shelf: _Shelf) -> int:
        """Returns a slot with the facts about ``entry``."""
        slot, owner = self._slot(), shelf.tenant
        self._ids[slot] = entry.id
        self._shelves[slot] = shelf
        self._created[slot] = entry.created_ms
        self._expiry.set(slot, max(1, entry.expires_ms))
        self._recency.append(owner.head, slot)
        owner.slots[entry.id] = slot
        owner.entries += 1
        self._entries += 1
        self._count(owner, self._entry_bytes(entry.id))
        return slot

    def _drop(self, slot: int) -> None:
        """Removes the entry of a slot, and what is empty without it."""
        shelf, entry_id = self._shelves[slot], self._ids[slot]
        assert shelf is not None
        owner = shelf.tenant
        shelf.partition.remove(slot)
        self._recency.remove(slot)
        self._expiry.clear(slot)
        self._ids[slot], self._shelves[slot] = "", None
        self._free.append(slot)
        del owner.slots[entry_id]
        owner.entries -= 1
        self._entries -= 1
        self._count(owner, -self._entry_bytes(entry_id))
        if not len(shelf.partition):
            del owner.shelves[shelf.name]
            self._partitions -= 1
            self._count(owner, -PARTITION_BYTES)
        if not owner.entries:
            del self._tenants[owner.name]
            self._free.append(owner.head)

    def _make_room(self, owner: _Tenant) -> None:
        bounds = self._bounds
        while owner.entries > bounds.tenant_entries or owner.bytes > bounds.tenant_bytes:
            self._evict(owner)
        while self._bytes > bounds.total_bytes:
            self._evict(max(self._tenants.values(), key=lambda each: each.bytes))

    def _evict(self, owner: _Tenant) -> None:
        slot = self._recency.oldest(owner.head)
        assert slot is not None  # a tenant without entries is not kept
        self._drop(slot)

    def _count(self, owner: _Tenant, amount: int) -> None:
        owner.bytes += amount
        self._bytes += amount

    def _entry_bytes(self, entry_id: str) -> int:
        return ENTRY_BYTES + self.dimensions + len(entry_id)
