"""``read_header``: the keys of a GGUF file and the places of its tensors. Versions 2 and 3, little-endian.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader in the gguf package makes two arrays
of each token, which takes 2.3 s and 170 MB for SmolLM2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quant_shape_to_byte_shape
from numpy.typing import NDArray

MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The types of values, by their letters in ``struct`` and NumPy."""

MAX_DEPTH = 4  # of arrays in arrays


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in the file. ``rows``: the bytes of its rows, uint8 [rows, bytes]; of a vector each number is a row."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    rows: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Header:
    """The values of keys, and the tensors by name."""

    values: dict[str, object]
    tensors: dict[str, StoredTensor]


def read_header(data: NDArray[np.uint8]) -> Header:
    """Returns the header of the mapped file ``data``, uint8 [bytes]. Raises ValueError for a file that is malformed,
    cut off, or of another version."""
    cursor = _Cursor(data)
    if bytes(cursor.take(4)) != MAGIC or cursor.scalar("I") not in VERSIONS:
        raise ValueError(f"it does not start with GGUF and one of the versions {VERSIONS}")
    tensors, keys = cursor.scalar("Q"), cursor.scalar("Q")
    values = {cursor.string(): cursor.value(cursor.scalar("I")) for _ in range(keys)}
    entries = [_Entry.read(cursor) for _ in range(tensors)]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {str(alignment)[:80]}")
    start = -(-cursor.place // alignment) * alignment
    return Header(values, {entry.name: entry.stored(data, start) for entry in entries})


class _Cursor:
    """A place in a file, which moves behind what is read. Reading past the end raises ValueError."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data
        self.place = 0

    def take(self, count: int) -> NDArray[np.uint8]:
        """Returns the next bytes."""
        if count > len(self._data) - self.place:
            raise ValueError("it is cut off")
        self.place += count
        return self._data[self.place - count : self.place]

    def scalar(self, letter: str) -> Any:
        """Returns the next number, by its letter in ``struct``."""
        (number,) = struct.unpack(f"<{letter}", bytes(self.take(struct.calcsize(f"<{letter}"))))
        return number

    def string(self) -> str:
        return bytes(self.take(self.scalar("Q"))).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> object:
        """Returns the next value of the type ``kind``; an array as a list."""
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY or depth > MAX_DEPTH:
            raise ValueError(f"it has a value of the type {kind}, {depth} arrays deep")
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner in SCALARS:
            letter = f"<{SCALARS[inner]}"
            return np.frombuffer(self.take(count * struct.calcsize(letter)), letter).tolist()
        return [self.value(inner, depth + 1) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int  # from the end of the header

    @classmethod
    def read(cls, cursor: _Cursor) -> _Entry:
        name, dimensions = cursor.string(), cursor.scalar("I")
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))[::-1]
        return cls(name, shape, GGMLQuantizationType(cursor.scalar("I")), cursor.scalar("Q"))

    def stored(self, data: NDArray[np.uint8], start: int) -> StoredTensor:
        """Returns the tensor in ``data``, whose tensors begin at ``start``."""
        if len(self.shape) not in (1, 2) or 0 in self.shape:
            raise ValueError(f"the tensor {self.name} has the shape {list(self.shape)}")
        begin, count = start + self.offset, prod(quant_shape_to_byte_shape(self.shape, self.kind))
        if begin + count > len(data):
            raise ValueError(f"it ends within the tensor {self.name}")
        return StoredTensor(self.kind, self.shape, data[begin : begin + count].reshape(self.shape[0], -1))
