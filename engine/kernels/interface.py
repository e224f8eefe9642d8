"""What a set of kernels offers, and the plan of one step that attention works from.

The plan is made once per step on the host; the layers then run without any decision. Rows are tokens: a step computes
``tokens`` of them, those of one sequence next to each other and in order. Layers that see alike (the same window, the
same rotation) share a plan; a model may have layers of several kinds.

In the cache of a layer (``KVPages``) a block is one piece of memory, and in it so is each head, whose keys attention
reads one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engine.kv.format import KVPages


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Sequences that attend together: the same number of queries each, pages padded to the same number.

    The pages are those that hold what the queries see: with a window, those before it are left out.

    Decoding sequences are grouped by a size that depends on their own length alone, and chunks of prompts are groups
    of one, so that the shape in which a sequence's attention is computed never depends on the others.
    """

    first_row: int
    sequences: int
    queries: int  # rows of each sequence
    pages: Tensor  # [sequences * 2 kv_heads * pages] int64: block * 2 kv_heads + head; padding is the page of zeros
    mask: Tensor  # [sequences, 1, queries, keys] of the activations' dtype: 0 to see, -inf not to


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Rotation, slots and groups of one step, shared by all layers of one kind."""

    rotation: tuple[Tensor, Tensor] | None  # cosines and sines [tokens, 1, head_dim] as in model/rope.py, if any
    slots: Tensor  # [tokens * 2 kv_heads] int64: (block * 2 kv_heads + head) * block_size + offset, where heads go
    groups: tuple[AttentionGroup, ...]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: where its rows stand in their sequences, and a plan for each of ``ModelSpec.kinds``."""

    positions: Tensor  # [tokens] int64
    kinds: tuple[AttentionPlan, ...]


class Kernels(Protocol):
    """All take and return tensors of one floating dtype on one device, unless said otherwise."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Root mean square norm over the last dimension (Zhang and Sennrich 2019), in float32 inside.

        The product with ``weight`` is taken in the weight's dtype, float32 or that of ``x``, in which it comes back.
        """
        ...

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotates ``x`` [tokens, heads, head_dim] by the plan's cosines and signed sines."""
        ...

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up, from [tokens, 2 * n] to [tokens, n] (Shazeer 2020)."""
        ...

    def write_kv(self, cache: KVPages, kv: Tensor, slots: Tensor) -> None:
        """Writes ``kv`` [tokens, 2 * kv_heads, head_dim] to ``cache``, where the plan's slots say, in its format."""
        ...

    def attention(
        self, query: Tensor, cache: KVPages, plan: AttentionPlan, scale: float, score_cap: float | None
    ) -> Tensor:
        """Causal paged attention (Kwon et al. 2023) of ``query`` [tokens, heads, head_dim], with grouped heads (Ainslie
        et al. 2023); the same shape back. Scores are multiplied by ``scale`` and, with a ``score_cap`` c, become
        c * tanh(score / c) (Gemma 2), before the plan's mask is added."""
        ...
