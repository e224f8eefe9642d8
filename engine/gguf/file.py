"""``GGUFFile``: reads a GGUF file, or the parts of a split one: metadata by key, tensors by name, all memory-mapped.

The header is not trusted: every size, offset and count in it is checked before it is used, so that no allocation
exceeds a bound given by the file's own size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.gguf.errors import GGUFError
from engine.gguf.split_parts import split_parts
from engine.gguf.types import TENSOR_TYPES, TensorType
from engine.gguf.values import ValueReader

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in its stored form. ``raw`` is memory-mapped, so its bytes are read from disk on first access."""

    name: str
    type: TensorType
    shape: tuple[int, ...]  # outputs first, as in torch
    raw: Tensor  # uint8 [rows, bytes of a row]; a row is the last dimension


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The contents of a model's GGUF files: metadata by key and tensors by name."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, path: Path) -> GGUFFile:
        """Reads the header of ``path``, and the headers of the other parts if ``path`` is the first part of a split
        file. Returns the contents.

        Raises FileNotFoundError for a missing file, GGUFError for a damaged or unsupported one.
        """
        parts = [_read_part(part) for part in split_parts(path)]
        metadata = parts[0].metadata
        _check_split(parts, path)
        tensors: dict[str, StoredTensor] = {}
        for part in parts:
            for tensor in part.tensors:
                if tensor.name in tensors:
                    raise GGUFError(f"{path.name}: the tensor {tensor.name!r} is there twice")
                tensors[tensor.name] = tensor
        return cls(path, metadata, tensors)


@dataclass(frozen=True, slots=True)
class _Part:
    metadata: dict[str, Any]
    tensors: list[StoredTensor]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor as the header describes it."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the data

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.weights * self.type.nbytes

    @property
    def nbytes(self) -> int:
        return prod(self.shape[:-1]) * self.row_bytes


def _read_part(path: Path) -> _Part:
    size = path.stat().st_size
    if size == 0:
        raise GGUFError(f"{path.name} is empty")
    data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    try:
        return _parse(data)
    except GGUFError as error:
        raise GGUFError(f"{path.name}: {error}") from error


def _parse(data: Tensor) -> _Part:
    reader = ValueReader(data.numpy().data)
    if bytes(reader.take(4, "the header")) != MAGIC:
        raise GGUFError("this is no GGUF file")
    version = reader.u32("the header")
    if version not in VERSIONS:
        raise GGUFError(f"version {version} is not supported; supported: {', '.join(map(str, VERSIONS))}")
    tensors, values = reader.u64("the header"), reader.u64("the header")
    metadata: dict[str, Any] = {}
    for _ in range(values):
        key = reader.string("a key of the metadata")
        if key in metadata:
            raise GGUFError(f"the key {key!r} is there twice")
        metadata[key] = reader.value(reader.u32(key), key)
    entries = [_entry(reader) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & alignment - 1:
        raise GGUFError(f"general.alignment is {alignment!r}, no power of two of at least 8")
    start = -(-reader.position // alignment) * alignment
    _check_places(entries, alignment, len(data) - start)
    return _Part(metadata, [_stored(entry, data, start) for entry in entries])


def _entry(reader: ValueReader) -> _Entry:
    """One tensor of the header. Raises GGUFError, naming it."""
    name = reader.string("a tensor's name")
    what = f"the description of the tensor {name!r}"
    dimensions = reader.u32(what)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise GGUFError(f"the tensor {name!r} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are supported")
    shape = tuple(reader.u64(what) for _ in range(dimensions))[::-1]
    code, offset = reader.u32(what), reader.u64(what)
    if code not in TENSOR_TYPES:
        supported = ", ".join(each.name for each in TENSOR_TYPES.values())
        raise GGUFError(f"the tensor {name!r} has the type {code}, which is not supported; supported: {supported}")
    kind = TENSOR_TYPES[code]
    if 0 in shape or shape[-1] % kind.weights:
        raise GGUFError(f"the tensor {name!r} has the shape {shape}, whose rows are no whole blocks of {kind.weights}")
    return _Entry(name, kind, shape, offset)


def _check_places(entries: Sequence[_Entry], alignment: int, room: int) -> None:
    """Raises GGUFError for a tensor that is not aligned, reaches beyond the file, or overlaps with another."""
    end, before = 0, ""
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset % alignment:
            raise GGUFError(f"the tensor {entry.name!r} starts at {entry.offset}, not aligned to {alignment} bytes")
        if entry.offset + entry.nbytes > room:
            raise GGUFError(f"the file ends before the tensor {entry.name!r} does")
        if entry.offset < end:
            raise GGUFError(f"the tensors {before!r} and {entry.name!r} overlap")
        end, before = entry.offset + entry.nbytes, entry.name


def _stored(entry: _Entry, data: Tensor, start: int) -> StoredTensor:
    first = start + entry.offset
    raw = data[first : first + entry.nbytes].view(-1, entry.row_bytes)
    return StoredTensor(entry.name, entry.type, entry.shape, raw)


def _check_split(parts: Sequence[_Part], path: Path) -> None:
    """Raises GGUFError for parts that do not belong together."""
    for number, part in enumerate(parts):
        said = (part.metadata.get("split.no", 0), part.metadata.get("split.count", 0))
        if not all(isinstance(each, int) for each in said) or (said[0], said[1] or 1) != (number, len(parts)):
            raise GGUFError(
                f"{path.name}: part {number + 1} of {len(parts)} says that it is {said[0]} + 1 of {said[1]}"
            )
