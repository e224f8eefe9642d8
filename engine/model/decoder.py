"""The decoder: embed, then for each layer attend and transform, then project the rows that are asked for.

Plain functions over fused weights rather than a tree of modules: at the size where Python's own time counts, a module
call costs as much as the operation inside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import AttentionPlan, Kernels
from engine.model.loader import LayerWeights, ModelWeights, load_weights
from engine.model.spec import ModelSpec


class Decoder:
    """A causal language model of the Llama family."""

    def __init__(self, spec: ModelSpec, weights: ModelWeights, kernels: Kernels) -> None:
        self.spec = spec
        self.weights = weights
        self._kernels = kernels

    @classmethod
    def from_directory(cls, directory: Path, dtype: torch.dtype, device: torch.device, kernels: Kernels) -> Self:
        """Raises UnsupportedModelError, FileNotFoundError, KeyError or ValueError for what it cannot load."""
        spec = ModelSpec.from_directory(directory)
        return cls(spec, load_weights(directory, spec, dtype, device), kernels)

    def new_cache(self, num_blocks: int, block_size: int) -> list[Tensor]:
        """Per layer, zeros [num_blocks, 2 * kv_heads, block_size, head_dim]: keys first, then values."""
        shape = (num_blocks, 2 * self.spec.num_kv_heads, block_size, self.spec.head_dim)
        return [self.weights.embedding.new_zeros(shape) for _ in range(self.spec.num_layers)]

    def forward(self, tokens: Tensor, plan: AttentionPlan, cache: list[Tensor], wanted: Tensor | None) -> Tensor:
        """Logits [rows, vocab] float32 after the rows ``wanted`` (int64; None for all) of ``tokens`` [tokens] int64.

        Writes keys and values of all tokens to ``cache``.
        """
        hidden = F.embedding(tokens, self.weights.embedding)
        for layer, pages in zip(self.weights.layers, cache, strict=True):
            hidden = self._attend(hidden, layer, plan, pages)
            hidden = self._transform(hidden, layer)
        if wanted is not None:
            hidden = hidden.index_select(0, wanted)
        hidden = self._kernels.rms_norm(hidden, self.weights.norm, self.spec.norm_eps)
        return F.linear(hidden, self.weights.head).float()

    def _attend(self, hidden: Tensor, layer: LayerWeights, plan: AttentionPlan, pages: Tensor) -> Tensor:
        spec, kernels = self.spec, self._kernels
        normed = kernels.rms_norm(hidden, layer.input_norm, spec.norm_eps)
        qkv = F.linear(normed, layer.qkv, layer.qkv_bias).view(hidden.shape[0], -1, spec.head_dim)
        rotated = spec.num_heads + spec.num_kv_heads
        qk = qkv[:, :rotated]
        if layer.qk_norm is not None:
            qk = kernels.rms_norm(qk, layer.qk_norm, spec.norm_eps)
        # Rotated back into place, so that keys and values lie next to each other and are written at once.
        qkv[:, :rotated] = kernels.rope(qk, plan.cos, plan.sin)
        kernels.write_kv(pages, qkv[:, spec.num_heads :], plan.slots)
        output = kernels.attention(qkv[:, : spec.num_heads], pages, plan)
        return hidden + F.linear(output.flatten(1), layer.output, layer.output_bias)

    def _transform(self, hidden: Tensor, layer: LayerWeights) -> Tensor:
        normed = self._kernels.rms_norm(hidden, layer.post_norm, self.spec.norm_eps)
        inner = self._kernels.silu_mul(F.linear(normed, layer.gate_up, layer.gate_up_bias))
        return hidden + F.linear(inner, layer.down, layer.down_bias)
