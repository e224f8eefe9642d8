"""``PagedPlan``: the attention plan of one step for the Triton kernels: integers on the device, the same for all layers
of a kind."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PagedPlan:
    """The plan for one kind of layers. Rows are tokens. Those of one sequence are adjacent and in order.

    The shapes of all tensors, and so the grids of all kernels, depend on the padded size of the step, not on its
    contents: rows of padding have the position -1, sequences of padding the length 0, tiles of padding the sequence -1.

    Attention is computed in tiles of consecutive queries of one sequence. ``few_tiles`` are those of sequences with few
    tokens in this step, whose keys are split among programs; ``tiles`` are those of all other sequences.
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
