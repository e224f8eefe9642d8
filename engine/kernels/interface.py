"""``Kernels``: the interface of a set of kernels, and the plan of one step from which attention works.

The plan is made once per step on the host; the layers then run without further decisions. Rows are tokens: a step
computes ``tokens`` of them, those of one sequence next to each other and in order. Layers of one kind (the same window
and rotation) share a plan; a model may have layers of several kinds.

In the KV cache of a layer (``KVPages``) a block is contiguous, and so is each head within a block, so that attention
reads a head's keys sequentially.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from engine.kv.format import KVPages
from engine.model.spec import Activation
from engine.model.weights import ExpertWeights, Matrix

Plan = TypeVar("Plan")
PlanIn = TypeVar("PlanIn", contravariant=True)


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Sequences whose attention is computed together: they have the same number of queries each, and their pages are
    padded to the same number.

    The pages are those that the queries attend to: with a sliding window, the pages before it are left out.

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
    """The rotations, cache slots and attention groups of one step, shared by all layers of one kind."""

    rotation: tuple[Tensor, Tensor] | None  # cosines and sines [tokens, 1, head_dim] as in model/rope.py, if any
    slots: Tensor  # [tokens * 2 kv_heads] int64: (block * 2 kv_heads + head) * block_size + offset, where heads go
    groups: tuple[AttentionGroup, ...]


@dataclass(frozen=True, slots=True)
class StepPlan(Generic[Plan]):
    """The plan of one step: the positions of its rows in their sequences, and an attention plan for each of
    ``ModelSpec.kinds``."""

    positions: Tensor  # [tokens] int64
    kinds: tuple[Plan, ...]


class Kernels(Protocol[PlanIn]):
    """The operations of a decoder. All take and return tensors of one floating dtype on one device, unless stated
    otherwise. Each implementation has its own type of attention plan, ``PlanIn``."""

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """Returns ``x`` [rows, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs]. For
        packed weights of a format that rounds inputs, ``x`` is rounded first."""
        ...

    def embedding(self, tokens: Tensor, table: Matrix, dtype: torch.dtype) -> Tensor:
        """Returns the rows ``tokens``, int32 or int64 [count], of ``table`` [vocab, hidden]: a tensor of ``dtype``, or
        packed weights, which are converted to it."""
        ...

    def experts(self, x: Tensor, weights: ExpertWeights, activation: Activation) -> Tensor:
        """Returns the output of a mixture of experts (Shazeer et al. 2017) for ``x`` [tokens, hidden], with the same
        shape. A token's outputs are added in the order of its experts, the likeliest first."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Returns the root mean square norm of ``x`` over the last dimension (Zhang and Sennrich 2019), computed in
        float32.

        The product with ``weight`` is computed in the weight's dtype, float32 or that of ``x``. The result has the
        dtype of ``x``.
        """
        ...

    def add_rms_norm(self, stream: Tensor, update: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Adds ``update`` to ``stream`` in place, both [tokens, size], and returns the ``rms_norm`` of the sum."""
        ...

    def place_heads(self, qkv: Tensor, norm: Tensor | None, eps: float, cache: KVPages, plan: PlanIn) -> None:
        """Prepares the queries of ``qkv`` [tokens, heads + 2 kv_heads, head_dim] in place, and writes its keys and
        values to ``cache``, in its format, where the plan says. The keys and values left in ``qkv`` are undefined.

        Queries and keys are normalised, each head by itself, if there is a ``norm`` [heads + kv_heads, head_dim], as
        ``rms_norm`` does; then rotated as the plan says (Su et al. 2021). Values stay as they are.
        """
        ...

    def gated(self, gate_up: Tensor, activation: Activation) -> Tensor:
        """Returns activation(gate) * up, [tokens, n], of ``gate_up`` [tokens, 2 * n] (Shazeer 2020)."""
        ...

    def attention(self, query: Tensor, cache: KVPages, plan: PlanIn, scale: float, score_cap: float | None) -> Tensor:
        """Returns the causal paged attention (Kwon et al. 2023) of ``query`` [tokens, heads, head_dim], with grouped
        heads (Ainslie et al. 2023). The result has the same shape and is contiguous. Scores are multiplied by ``scale``
        and, with a ``score_cap`` c, become c * tanh(score / c) (Gemma 2), before the plan's mask is added."""
        ...
