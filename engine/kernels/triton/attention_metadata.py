"""The plan of one step as the Triton kernels read it: whole numbers on the device, nothing that depends on a layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PagedPlan:
    """One kind of layers. Rows are tokens: those of one sequence next to each other and in order.

    The shapes of all tensors, and so the grids of all kernels, follow from the padded size of the step, not from what
    is in it: rows of padding have the position -1, sequences of padding the length 0, tiles of padding the sequence -1.

    Attention is computed in tiles of queries that follow each other in one sequence: ``few_tiles`` are of sequences
    that compute so few tokens in this step that the work is split over their keys instead; ``tiles`` are of all others.
    """

    positions: Tensor  # [rows] int32: where each row stands in its sequence
    sequences: Tensor  # [rows] int32: which sequence each row belongs to
    tables: Tensor  # [sequences, width] int32: block ids by position // block_size; what is not seen may be any block
    starts: Tensor  # [sequences] int32: the first row of each
    counts: Tensor  # [sequences] int32: its rows
    lengths: Tensor  # [sequences] int32: its tokens up to the last of this step, so the keys that its last row sees
    few_tiles: Tensor  # [tiles, 2] int32: sequence, and first of its rows, counted from ``starts``
    tiles: Tensor  # the same
    rotation: tuple[Tensor, Tensor] | None  # cosines and signed sines [context, head_dim] float32 as in model/rope.py
    window: int | None  # most tokens that a query sees, itself included
    longest: int  # tokens: no length exceeds it; a bound that is the same for all steps of the same padded size
    few_queries: int = 0  # most rows of one of ``few_tiles``; 0 only if there are none
    tile_queries: int = 0  # as many rows has each of ``tiles``, but for the last of a sequence
