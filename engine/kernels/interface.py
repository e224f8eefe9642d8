"""What a set of kernels offers, and the plan of one step that attention works from.

The plan is made once per step on the host; the layers then run without any decision. Rows are tokens: a step computes
``tokens`` of them, those of one sequence next to each other and in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Sequences that attend together: the same number of queries each, pages padded to the same number.

    Decoding sequences are grouped by a size that depends on their own length alone, and chunks of prompts are groups
    of one, so that the shape in which a sequence's attention is computed never depends on the others.
    """

    first_row: int
    sequences: int
    queries: int  # rows of each sequence
    pages: Tensor  # [sequences * pages per sequence] int64: block ids, padded with the page that is always zero
    mask: Tensor  # [sequences, 1, queries, keys] of the activations' dtype: 0 to see, -inf not to


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Positions, slots and groups of one step, shared by all layers."""

    cos: Tensor  # [tokens, 1, head_dim]
    sin: Tensor  # [tokens, 1, head_dim], signed as in model/rope.py
    slots: Tensor  # [tokens] int64: block id * block size + offset, where each row's key and value go
    groups: tuple[AttentionGroup, ...]


class Kernels(Protocol):
    """All take and return tensors of one floating dtype on one device, unless said otherwise."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Root mean square norm over the last dimension (Zhang and Sennrich 2019), in float32 inside."""
        ...

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotates ``x`` [tokens, heads, head_dim] by the plan's cosines and signed sines."""
        ...

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up, from [tokens, 2 * n] to [tokens, n] (Shazeer 2020)."""
        ...

    def write_kv(self, cache: Tensor, kv: Tensor, slots: Tensor) -> None:
        """Writes ``kv`` [tokens, 2 * kv_heads, head_dim] to ``cache`` [blocks, block size, 2 * kv_heads, head_dim]."""
        ...

    def attention(self, query: Tensor, cache: Tensor, plan: AttentionPlan) -> Tensor:
        """Causal paged attention (Kwon et al. 2023) of ``query`` [tokens, heads, head_dim], scaled by
        1 / sqrt(head_dim), with grouped heads (Ainslie et al. 2023); the same shape back."""
        ...
