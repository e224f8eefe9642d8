"""The weights of a model, fused into the shapes in which the decoder multiplies them.

Matrices are [out, in] as torch's linear takes them, in the dtype of the activations, or packed; biases are [out], or
None.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from engine.model.spec import ExpertSpec
from engine.quant.blocks import BlockMatrix
from engine.quant.matrix import PackedMatrix

Matrix = Tensor | PackedMatrix | BlockMatrix


def plain(matrix: Matrix) -> Tensor:
    """``matrix`` for those who read no packed ones. Raises TypeError if it is one."""
    if not isinstance(matrix, Tensor):
        raise TypeError(f"a packed matrix of {matrix.shape} stands where numbers of the model's dtype are wanted")
    return matrix


@dataclass(frozen=True, slots=True)
class NormWeights:
    """A norm over the last dimension. The weight's dtype is the one it is multiplied in; the offset is in it."""

    weight: Tensor  # [size]
    bias: Tensor | None  # [size]


@dataclass(frozen=True, slots=True)
class MLPWeights:
    """Two projections with an activation between them."""

    gate_up: Matrix  # [2 * intermediate, hidden]: gate, then up; without a gate [intermediate, hidden]
    gate_up_bias: Tensor | None
    down: Matrix  # [hidden, intermediate]
    down_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """MLPs of which each token goes through a few."""

    spec: ExpertSpec
    router: Tensor  # [experts, hidden]
    gate_up: Tensor  # [experts, 2 * intermediate, hidden]
    down: Tensor  # [experts, hidden, intermediate]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer; a norm that the family does not have is None."""

    before_attention: NormWeights | None
    qkv: Matrix  # [(heads + 2 kv_heads) * head_dim, hidden]: q, k, v in this order
    qkv_bias: Tensor | None
    head_norm: Tensor | None  # [heads + kv_heads, head_dim]: weights of queries' norm, then of keys'
    output: Matrix  # [hidden, heads * head_dim]
    output_bias: Tensor | None
    after_attention: NormWeights | None
    before_mlp: NormWeights | None
    mlp: MLPWeights | ExpertWeights
    after_mlp: NormWeights | None


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All weights. When they are ``tied``, ``head`` is the same tensor as ``embedding``, or the same weights in the
    blocks of their file."""

    embedding: Tensor  # [vocab, hidden]
    positions: Tensor | None  # [context, hidden], where they are learned
    layers: tuple[LayerWeights, ...]
    norm: NormWeights
    head: Matrix  # [vocab, hidden]
    tied: bool
