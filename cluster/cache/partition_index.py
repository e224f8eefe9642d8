"""``PartitionIndex``: the vectors of one partition, searched exactly while they are few, and by a graph beyond that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from usearch.index import Index

MAX_ROWS = 512
"""The newest vectors, which are compared with a query one by one: 512 take about 0.1 ms, as a graph does."""
CONNECTIVITY = 16
EXPANSION_ADD = 96
EXPANSION_SEARCH = 128
"""The parameters M, efConstruction and ef of HNSW."""


class Found(NamedTuple):
    """A vector near the query. ``similarity`` is the cosine of the vectors in 8 bits."""

    slot: int
    similarity: float


class PartitionIndex:
    """The vectors of one partition: unit vectors in 8 bits. Each has a slot, a number from 0 that the caller chooses.

    The newest ``max_rows`` are rows of a matrix. Each further one moves the oldest of them to a graph (HNSW: Malkov and
    Yashunin, 2016), so no call ever has to build a graph of many vectors. A search reads both. ``dimensions`` is the
    length of a vector.
    """

    __slots__ = ("_graph", "_lengths", "_max_rows", "_places", "_rows", "_slots")

    def __init__(self, dimensions: int, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._rows: NDArray[np.int8] = np.empty((1, dimensions), np.int8)
        self._lengths: NDArray[np.float32] = np.ones(1, np.float32)  # of each row
        self._slots: list[int] = []  # of each row
        self._places: dict[int, int] = {}  # slot → row
        self._graph: Index | None = None

    def __len__(self) -> int:
        return len(self._slots) + (0 if self._graph is None else len(self._graph))

    @property
    def in_graph(self) -> int:
        """The number of vectors in the graph."""
        return 0 if self._graph is None else len(self._graph)

    def add(self, slot: int, vector: NDArray[np.int8]) -> None:
        """Adds a vector, int8 [dimensions], under a slot that the partition does not have."""
        if len(self._slots) >= self._max_rows:
            self._move_oldest()
        place = len(self._slots)
        if place == len(self._rows):
            room = min(2 * place, self._max_rows)
            self._rows = np.resize(self._rows, (room, self._rows.shape[1]))
            self._lengths = np.resize(self._lengths, room)
        self._rows[place] = vector
        self._lengths[place] = _length(vector)
        self._slots.append(slot)
        self._places[slot] = place

    def add_many(self, slots: Sequence[int], vectors: NDArray[np.int8], threads: int) -> None:
        """Adds vectors, int8 [n, dimensions], under new slots.

        Vectors without room in the matrix go to the graph at once, which ``threads`` threads build; 0: one thread per
        core.
        """
        many = max(0, len(slots) + len(self._slots) - self._max_rows)
        if many > 1:
            self._index().add(np.asarray(slots[:many], np.uint64), vectors[:many], threads=threads)
        else:
            many = 0
        for slot, vector in zip(slots[many:], vectors[many:], strict=True):
            self.add(slot, vector)

    def remove(self, slot: int) -> None:
        """Removes the vector of a slot. Raises KeyError if the partition does not have it."""
        place = self._places.pop(slot, None)
        if place is None:
            if self._graph is None or not self._graph.remove(slot):
                raise KeyError(slot)
            if not len(self._graph):
                self._graph = None  # with what the graph keeps of removed vectors
            return
        last = self._slots.pop()
        if last != slot:
            self._rows[place] = self._rows[len(self._slots)]
            self._lengths[place] = self._lengths[len(self._slots)]
            self._slots[place] = last
            self._places[last] = place

    def search(self, vector: NDArray[np.int8], count: int) -> list[Found]:
        """Returns at most ``count`` vectors by their cosine with ``vector`` [dimensions], the highest first."""
        found = [*self._search_rows(vector, count), *self._search_graph(vector, count)]
        return sorted(found, key=lambda each: -each.similarity)[:count]

    def _search_rows(self, vector: NDArray[np.int8], count: int) -> Iterator[Found]:
        if not self._slots:
            return
        rows = self._rows[: len(self._slots)].astype(np.float32)
        lengths = self._lengths[: len(rows)] * _length(vector)
        similarities = rows @ vector.astype(np.float32) / lengths
        for place in np.argsort(-similarities)[:count].tolist():
            yield Found(self._slots[place], float(similarities[place]))

    def _search_graph(self, vector: NDArray[np.int8], count: int) -> Iterator[Found]:
        if self._graph is None:
            return
        matches = self._graph.search(vector, count, threads=1)
        for slot, distance in zip(matches.keys.tolist(), matches.distances.tolist(), strict=True):
            yield Found(slot, 1 - distance)

    def _move_oldest(self) -> None:
        """Moves the first row to the graph. ``remove`` puts the last row in the place of another, so that is the oldest
        one about."""
        slot, vector = self._slots[0], self._rows[:1].copy()
        self.remove(slot)
        self._index().add(np.asarray([slot], np.uint64), vector, threads=1)

    def _index(self) -> Index:
        if self._graph is None:
            # Only where they are needed: a service whose partitions are small does not load the libraries. ONNX
            # Runtime, which the pair model needs later, comes first: importing it after usearch ends the process with
            # a segmentation fault (onnxruntime 1.32, usearch 2.26).
            import onnxruntime  # noqa: F401
            from usearch.index import Index

            self._graph = Index(
                ndim=self._rows.shape[1],
                metric="cos",
                dtype="i8",
                connectivity=CONNECTIVITY,
                expansion_add=EXPANSION_ADD,
                expansion_search=EXPANSION_SEARCH,
            )
        return self._graph


def _length(vector: NDArray[np.int8]) -> np.float32:
    """Returns the length of a vector, 1 for that of zeros: its cosines are 0."""
    return np.float32(np.linalg.norm(vector.astype(np.float32)) or 1)
