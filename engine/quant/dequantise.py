"""Models whose quantised matrices are unpacked, for kernels that read numbers of the activations' dtype only."""

from __future__ import annotations

from dataclasses import replace

from engine.model.weights import ExpertWeights, LayerWeights, Matrix, MLPWeights, ModelWeights
from engine.quant.blocks import BlockMatrix


def dequantised_model(weights: ModelWeights) -> ModelWeights:
    """The same model with every ``BlockMatrix`` in the dtype of the embedding, on its device. A tied output layer is
    the embedding itself again."""
    dtype, device = weights.embedding.dtype, weights.embedding.device

    def dense(matrix: Matrix) -> Matrix:
        return matrix.dequantised(dtype).to(device) if isinstance(matrix, BlockMatrix) else matrix

    def mlp(whole: MLPWeights | ExpertWeights) -> MLPWeights | ExpertWeights:
        if isinstance(whole, ExpertWeights):
            return whole
        return replace(whole, gate_up=dense(whole.gate_up), down=dense(whole.down))

    def layer(whole: LayerWeights) -> LayerWeights:
        return replace(whole, qkv=dense(whole.qkv), output=dense(whole.output), mlp=mlp(whole.mlp))

    head = weights.embedding if weights.tied else dense(weights.head)
    return replace(weights, layers=tuple(map(layer, weights.layers)), head=head)


def quantised_bytes(weights: ModelWeights) -> int:
    """Bytes of the matrices that are quantised in their file."""
    found = [weights.head]
    for layer in weights.layers:
        found += [layer.qkv, layer.output]
        if isinstance(layer.mlp, MLPWeights):
            found += [layer.mlp.gate_up, layer.mlp.down]
    return sum(matrix.nbytes for matrix in found if isinstance(matrix, BlockMatrix))
