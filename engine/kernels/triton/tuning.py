"""The tuned shapes of the attention kernels by card, head size and KV format. They affect the speed of a step, not its
meaning.

Entries without a measurement are calculated: from registers and shared memory, as counted by ``variants``, and from the
bytes that must be in flight to keep the memory busy, about 40 KB per multiprocessor of an H100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from triton.compiler.compiler import max_shared_mem

Format = Literal["float32", "16", "int8", "fp8"]
"""What queries and cache are: float32 queries; both 16 bits; 16 bits with a cache of one byte."""


FEW_ROWS = 16
"""Queries times the heads that share keys: with so few, the product that has the least rows is full, and memory is
what a tile waits for."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one kernel: the rows (queries times the heads that share keys) and keys of a tile, its warps, and
    the pipeline stages of its loop."""

    rows: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class AttentionTuning:
    """The shapes for tiles of few queries, whose keys are split (``few``), for tiles of many queries (``many``), and
    for all tiles in deterministic mode (``exact``)."""

    few: Shape
    many: Shape
    exact: Shape
    least_split: int = 256  # keys: less than that is not worth a program of its own
    exact_split: int = 512  # keys of every part where all are to be alike; multiples of the keys of a tile, both

    def rows(self, deterministic: bool) -> tuple[int, int]:
        """Returns the number of rows of a tile of few queries, and that of a tile of many. ``deterministic``: a row's
        result must not depend on the other rows of its step."""
        return FEW_ROWS, (self.exact if deterministic else self.many).rows


_WIDE = {
    # Products are of single numbers here, and hold whole rows in registers.
    64: AttentionTuning(few=Shape(16, 16, 4, 2), many=Shape(32, 16, 8, 2), exact=Shape(16, 16, 8, 2)),
    128: AttentionTuning(few=Shape(16, 16, 4, 2), many=Shape(32, 16, 8, 2), exact=Shape(16, 16, 8, 2)),
    256: AttentionTuning(few=Shape(16, 16, 4, 2), many=Shape(16, 16, 4, 2), exact=Shape(16, 16, 4, 2)),
}
_HALF = {
    64: AttentionTuning(few=Shape(16, 128, 4, 3), many=Shape(128, 128, 8, 3), exact=Shape(64, 64, 4, 3)),
    128: AttentionTuning(
        few=Shape(16, 64, 4, 2), many=Shape(128, 128, 8, 3), exact=Shape(64, 64, 4, 3), exact_split=2048
    ),
    256: AttentionTuning(few=Shape(16, 32, 4, 3), many=Shape(128, 64, 8, 2), exact=Shape(64, 16, 8, 4)),
}
_BYTE = {
    64: AttentionTuning(few=Shape(16, 128, 4, 3), many=Shape(128, 64, 8, 3), exact=Shape(64, 64, 4, 3)),
    128: AttentionTuning(few=Shape(16, 64, 2, 3), many=Shape(128, 64, 8, 3), exact=Shape(64, 64, 4, 3)),
    256: AttentionTuning(few=Shape(16, 64, 4, 3), many=Shape(64, 16, 8, 3), exact=Shape(64, 16, 8, 3)),
}
_TABLES: Mapping[Format, Mapping[int, AttentionTuning]] = {"float32": _WIDE, "16": _HALF, "int8": _BYTE, "fp8": _BYTE}
MEASURED: Mapping[tuple[str, int, Format], AttentionTuning] = {}
"""(beginning of the card's name, padded head size, format): what was found to be fastest there."""


def padded_head(head_dim: int) -> int:
    """Returns the power of two to which a head's elements are padded, at least 16, the minimum of a product."""
    return max(16, 1 << (head_dim - 1).bit_length())


def format_of(query: torch.dtype, number: torch.dtype) -> Format:
    """Returns the format for queries of the dtype ``query`` and a KV cache with numbers of the dtype ``number``."""
    if query == torch.float32:
        return "float32"
    if number == torch.int8:
        return "int8"
    return "fp8" if number.itemsize == 1 else "16"


@cache
def tuning_of(card: str, head_dim: int, form: Format) -> AttentionTuning:
    """Returns the tuning for the card with this name ("": no GPU), head size and format."""
    size = padded_head(head_dim)
    for (prefix, measured_size, measured_form), tuning in MEASURED.items():
        if card.startswith(prefix) and (measured_size, measured_form) == (size, form):
            return tuning
    return _TABLES[form][min(256, max(64, size))]


@cache
def card_of(device: torch.device) -> str:
    """Returns the name of a GPU; "" for another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


@cache
def shared_memory_of(device: torch.device) -> int | None:
    """Returns the bytes of shared memory that a program on a GPU may use; None for another device."""
    if device.type != "cuda":
        return None
    with torch.cuda.device(device):
        return int(max_shared_mem(torch.cuda.current_device()))
