"""``ModelWeights``: the weights of a model, fused into the matrices that the decoder multiplies.

Matrices are [out, in] as torch's linear takes them: in the dtype of the activations, packed, or in the quantised form
of a GGUF file. Biases are [out], or None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from engine.model.spec import ExpertSpec
from engine.quant.blocks import BlockMatrix
from engine.quant.grouped import GroupedMatrix
from engine.quant.matrix import PackedMatrix
from engine.quant.packed_groups import PackedGroups

Matrix = Tensor | PackedMatrix | PackedGroups | GroupedMatrix | BlockMatrix


def plain(matrix: Matrix) -> Tensor:
    """Returns ``matrix``, which must be a plain tensor, for code that supports no quantised matrices. Raises TypeError
    for a quantised matrix."""
    if isinstance(matrix, Tensor):
        return matrix
    raise TypeError(f"a quantised matrix {matrix.shape} stands where numbers of the model's dtype are wanted")


@dataclass(frozen=True, slots=True)
class NormWeights:
    """A norm over the last dimension. The dtype of the weight is that of its multiplication. The norm's offset is
    already added to the weight."""

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
    """The MLPs of a mixture of experts, and its router."""

    spec: ExpertSpec
    router: Tensor  # [experts, hidden]
    gate_up: Tensor  # [experts, 2 * intermediate, hidden]
    down: Tensor  # [experts, hidden, intermediate]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights of one layer; a norm that the family does not have is None."""

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
    """All weights of a model. ``head`` is the same tensor as ``embedding`` if they are tied.

    A quantised ``head`` can be tied too: ``embedding`` then has no rows, and tokens are looked up in ``head``.
    """

    embedding: Tensor  # [vocab, hidden], or [0, hidden]
    positions: Tensor | None  # [context, hidden], where they are learned
    layers: tuple[LayerWeights, ...]
    norm: NormWeights
    head: Matrix  # [vocab, hidden]

    @property
    def embeds_by_head(self) -> bool:
        """Whether tokens are looked up in ``head``, because a quantised ``head`` is tied."""
        return not len(self.embedding)

    @property
    def table(self) -> Matrix:
        """The matrix [vocab, hidden] in which tokens are looked up."""
        return self.head if self.embeds_by_head else self.embedding

    def matrices(self) -> Iterator[tuple[str, Matrix]]:
        """Yields the name and the matrix of each matrix of the layers, named ``layers.NUMBER.NAME``, and of the
        ``head``. The matrices of experts are in one tensor."""
        for number, layer in enumerate(self.layers):
            every = {"qkv": layer.qkv, "output": layer.output, "gate_up": layer.mlp.gate_up, "down": layer.mlp.down}
            yield from ((f"layers.{number}.{name}", matrix) for name, matrix in every.items())
        yield "head", self.head


def grouped(weights: ModelWeights) -> bool:
    """Returns whether all matrices of a model are quantised in groups with a scale and a minimum: GroupedMatrix or
    BlockMatrix."""
    return all(isinstance(matrix, GroupedMatrix | BlockMatrix) for _, matrix in weights.matrices())
