"""Lays a step out as one array of integers, so that one transfer brings it to the device.

The offsets of its parts depend on the padded sizes alone, so that they are fixed for a captured graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.triton.tiles import Tiles
from engine.scheduler.step_plan import Chunk
from engine.step_result import rows_wanted

SAMPLED_BEFORE = -1
"""In the place of a token that the device has and the host does not know yet."""


class Sizes(NamedTuple):
    """The padded sizes of a step: rows, wanted rows, tiles and slots."""

    rows: int
    wanted: int
    few: int
    many: int
    slots: int  # rows of the tables of blocks

    def places(self) -> dict[str, slice]:
        """Returns the slice of the array that each part takes, by name."""
        lengths = {
            "tokens": self.rows,
            "positions": self.rows,
            "sequences": self.rows,
            "wanted": self.wanted,
            "winners": self.wanted,
            "few_tiles": 2 * self.few,
            "tiles": 2 * self.many,
            "starts": self.slots,
            "counts": self.slots,
            "lengths": self.slots,
        }
        ends = list(accumulate(lengths.values()))
        return {name: slice(end - length, end) for (name, length), end in zip(lengths.items(), ends, strict=True)}

    def parts(self, numbers: Tensor) -> dict[str, Tensor]:
        """Returns the parts of ``numbers``, the array on the device, by name."""
        return {name: numbers[place] for name, place in self.places().items()}

    @property
    def total(self) -> int:
        """The length of the array."""
        return 3 * self.rows + 2 * self.wanted + 2 * (self.few + self.many) + 3 * self.slots


class Tiling(Protocol):
    """A function that makes the tiles of a step, padded to ``few`` and ``many`` tiles, from each slot's number of rows
    (``counts``) and tokens (``lengths``)."""

    def __call__(self, counts: NDArray[np.int32], lengths: NDArray[np.int32], few: int, many: int, /) -> Tiles: ...


def blank(sizes: Sizes, tiles: Tiling) -> NDArray[np.int32]:
    """Returns the array, int32, of a step of padding alone, of the size ``sizes``. Raises ValueError for sizes that do
    not fit ``tiles``."""
    return lay_out((), (), False, sizes, tiles)


def lay_out(
    chunks: Sequence[Chunk],
    slots: Sequence[int],
    unknown: bool,
    sizes: Sizes,
    tiles: Tiling,
) -> NDArray[np.int32]:
    """Returns the array, int32, of a step that computes ``chunks``, whose sequences have the rows ``slots`` in the
    block tables. With ``unknown``, each chunk is one token, which was sampled last and only the device has. Raises
    ValueError for a step that does not fit ``sizes``.

    Rows of padding have the token 0 and the position -1; the padding of ``wanted`` is row 0. ``winners`` are the slots
    to which the tokens sampled after the wanted rows are written; that of padding is one after the last slot.
    """
    rows = sum(chunk.length for chunk in chunks)
    if rows > sizes.rows:
        raise ValueError(f"{rows} rows do not fit into {sizes.rows}")
    array = np.zeros(sizes.total, dtype=np.int32)
    places = sizes.places()
    part = {name: array[place] for name, place in places.items()}
    part["positions"][rows:] = -1
    row = 0
    for chunk, slot in zip(chunks, slots, strict=True):
        end = row + chunk.length
        part["tokens"][row:end] = SAMPLED_BEFORE if unknown else chunk.tokens
        part["positions"][row:end] = np.arange(chunk.start, chunk.end)
        part["sequences"][row:end] = slot
        part["starts"][slot], part["counts"][slot], part["lengths"][slot] = row, chunk.length, chunk.end
        row = end
    cut = tiles(part["counts"], part["lengths"], sizes.few, sizes.many)
    part["few_tiles"][:], part["tiles"][:] = cut.few.reshape(-1), cut.others.reshape(-1)
    # What follows a token that is not known yet is always sampled.
    wanted = range(rows) if unknown else rows_wanted(chunks)
    part["wanted"][: len(wanted)] = wanted
    winners = [slot for chunk, slot in zip(chunks, slots, strict=True) if unknown or chunk.samples]
    part["winners"][:] = sizes.slots
    part["winners"][: len(winners)] = winners
    return array
