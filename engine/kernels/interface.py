"""What a set of kernels offers, and the plan of one step that attention works from.

The plan is made once per step on the host; the layers then run without any decision. Rows are tokens: a step computes
``tokens`` of them, those of one sequence next to each other and in order. Layers that see alike (the same window, the
same rotation) share a plan; a model may have layers of several kinds.

In the cache of a layer (``KVPages``) a block is one piece of memory, and in it so is each head, whose keys attention
reads one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from engine.kv.format import KVPages
from engine.model.spec import Activation
from engine.model.weights import ExpertWeights, Matrix

Plan = TypeVar("Plan")
PlanIn = TypeVar("PlanIn", contravariant=True)


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
class StepPlan(Generic[Plan]):
    """One step: where its rows stand in their sequences, and a plan for each of ``ModelSpec.kinds``."""

    positions: Tensor  # [tokens] int64
    kinds: tuple[Plan, ...]


class Kernels(Protocol[PlanIn]):
    """All take and return tensors of one floating dtype on one device, unless said otherwise. What the
    attention of one kind of layers works from is their own."""

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """``x`` [rows, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs]. Packed weights
        of a format that rounds inputs are multiplied by what rounding leaves of ``x``."""
        ...

    def experts(self, x: Tensor, weights: ExpertWeights, activation: Activation) -> Tensor:
        """A mixture of experts (Shazeer et al. 2017) of ``x`` [tokens, hidden]; the same shape back. A token's outputs
        are added from the likeliest expert to the least."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Root mean square norm over the last dimension (Zhang and Sennrich 2019), in float32 inside.

        The product with ``weight`` is taken in the weight's dtype, float32 or that of ``x``, in which it comes back.
        """
        ...

    def add_rms_norm(self, stream: Tensor, update: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Adds ``update`` to ``stream`` in place, both [tokens, size]; the ``rms_norm`` of the sum."""
        ...

    def place_heads(self, qkv: Tensor, norm: Tensor | None, eps: float, cache: KVPages, plan: PlanIn) -> None:
        """Prepares the queries of ``qkv`` [tokens, heads + 2 kv_heads, head_dim] in place, and writes its keys and
        values to ``cache``, in its format, where the plan says. What is left of those two in ``qkv`` means nothing.

        Queries and keys are normalised, each head by itself, if there is a ``norm`` [heads + kv_heads, head_dim], as
        ``rms_norm`` does; then rotated as the plan says (Su et al. 2021). Values stay as they are.
        """
        ...

    def gated(self, gate_up: Tensor, activation: Activation) -> Tensor:
        """activation(gate) * up, from [tokens, 2 * n] to [tokens, n] (Shazeer 2020)."""
        ...

    def attention(self, query: Tensor, cache: KVPages, plan: PlanIn, scale: float, score_cap: float | None) -> Tensor:
        """Causal paged attention (Kwon et al. 2023) of ``query`` [tokens, heads, head_dim], with grouped heads (Ainslie
        et al. 2023); the same shape back, contiguous. Scores are multiplied by ``scale`` and, with a ``score_cap`` c,
        become c * tanh(score / c) (Gemma 2), before the plan's mask is added."""
        ...
