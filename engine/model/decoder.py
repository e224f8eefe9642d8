"""The decoder: embed, then for each layer attend and transform, then project the rows that are asked for.

Plain functions over fused weights rather than a tree of modules: at the size where Python's own time counts, a module
call costs as much as the operation inside it. What differs between families is in the spec and the weights; where it
needs other operations, those are chosen once, when the decoder is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import AttentionPlan, Kernels, StepPlan
from engine.kv.format import KVFormat, KVPages
from engine.model.configuration import read_spec
from engine.model.experts import mix
from engine.model.loader import load_weights
from engine.model.spec import LayerSpec, ModelSpec
from engine.model.weights import ExpertWeights, LayerWeights, MLPWeights, ModelWeights, NormWeights


class Decoder:
    """A causal language model of one of the families in model/family.py."""

    def __init__(self, spec: ModelSpec, weights: ModelWeights, kernels: Kernels) -> None:
        self.spec = spec
        self.weights = weights
        self._kernels = kernels
        self._activate = _activation(spec, kernels)
        self._embedding_scale = _rounded(spec.embedding_scale, weights.embedding.dtype)

    @classmethod
    def from_directory(cls, directory: Path, dtype: torch.dtype, device: torch.device, kernels: Kernels) -> Self:
        """Raises UnsupportedModelError, FileNotFoundError, KeyError or ValueError for what it cannot load."""
        spec = read_spec(directory)
        return cls(spec, load_weights(directory, spec, dtype, device), kernels)

    def with_weights(self, weights: ModelWeights) -> Self:
        """The same decoder with others."""
        return type(self)(self.spec, weights, self._kernels)

    def new_cache(self, form: KVFormat, blocks: Sequence[int], block_size: int) -> list[KVPages]:
        """As many empty blocks for each layer as ``blocks`` says."""
        heads, device = 2 * self.spec.num_kv_heads, self.weights.embedding.device
        return [KVPages.zeros(form, count, heads, block_size, self.spec.head_dim, device) for count in blocks]

    def forward(
        self, tokens: Tensor, plan: StepPlan, cache: list[KVPages], wanted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits [rows, vocab] float32 after the rows ``wanted`` (int64; None for all) of ``tokens`` [tokens] int64;
        and for each token whether all its numbers were finite, bool [tokens].

        Writes keys and values of all tokens to ``cache``.
        """
        hidden = self._embed(tokens, plan)
        for spec, layer, pages in zip(self.spec.layers, self.weights.layers, cache, strict=True):
            kind = plan.kinds[spec.kind]
            update = self._attend(self._norm(hidden, layer.before_attention), spec, layer, kind, pages)
            hidden = hidden + self._norm(update, layer.after_attention)
            update = self._transform(self._norm(hidden, layer.before_mlp), layer.mlp)
            hidden = hidden + self._norm(update, layer.after_mlp)
        # What was no number in a layer stays in the stream to its end. Zero times any number is zero.
        sound = (hidden * 0).sum(-1) == 0
        if wanted is not None:
            hidden = hidden.index_select(0, wanted)
        logits = F.linear(self._norm(hidden, self.weights.norm), self.weights.head).float()
        cap = self.spec.logit_cap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap), sound

    def _embed(self, tokens: Tensor, plan: StepPlan) -> Tensor:
        hidden = F.embedding(tokens, self.weights.embedding)
        if self._embedding_scale is not None:
            hidden *= self._embedding_scale
        if self.weights.positions is not None:
            hidden += F.embedding(plan.positions, self.weights.positions)
        return hidden

    def _attend(
        self, normed: Tensor, spec: LayerSpec, layer: LayerWeights, plan: AttentionPlan, pages: KVPages
    ) -> Tensor:
        heads, rotated = self.spec.num_heads, self.spec.num_heads + self.spec.num_kv_heads
        qkv = F.linear(normed, layer.qkv, layer.qkv_bias).view(normed.shape[0], -1, self.spec.head_dim)
        qk = qkv[:, :rotated]
        if layer.head_norm is not None:
            qk = self._norm_heads(qk, layer.head_norm)
        if plan.rotation is not None:
            qk = self._kernels.rope(qk, *plan.rotation)
        # Back into place, so that keys and values lie next to each other and are written at once.
        qkv[:, :rotated] = qk
        self._kernels.write_kv(pages, qkv[:, heads:], plan.slots)
        output = self._kernels.attention(qkv[:, :heads], pages, plan, spec.scale, self.spec.score_cap)
        return F.linear(output.flatten(1), layer.output, layer.output_bias)

    def _transform(self, normed: Tensor, mlp: MLPWeights | ExpertWeights) -> Tensor:
        if isinstance(mlp, ExpertWeights):
            return mix(normed, mlp, self._activate)
        inner = self._activate(F.linear(normed, mlp.gate_up, mlp.gate_up_bias))
        return F.linear(inner, mlp.down, mlp.down_bias)

    def _norm(self, x: Tensor, norm: NormWeights | None) -> Tensor:
        """``x`` itself where the family has no norm."""
        if norm is None:
            return x
        if norm.bias is None:
            return self._kernels.rms_norm(x, norm.weight, self.spec.norm.eps)
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, self.spec.norm.eps)

    def _norm_heads(self, qk: Tensor, weight: Tensor) -> Tensor:
        """Each head by itself (Qwen 3, Gemma 3), or all heads of queries and all of keys together (OLMo 2)."""
        eps = self.spec.norm.eps
        if self.spec.head_norm == "head":
            return self._kernels.rms_norm(qk, weight, eps)
        sides = (self.spec.num_heads, self.spec.num_kv_heads)
        parts = zip(qk.split(sides, 1), weight.split(sides), strict=True)
        return torch.cat([self._kernels.rms_norm(p.flatten(1), w.flatten(), eps).view_as(p) for p, w in parts], 1)


def _activation(spec: ModelSpec, kernels: Kernels) -> Callable[[Tensor], Tensor]:
    """What stands between the projections of an MLP: [tokens, 2 * n] to [tokens, n] if gated, else the shape kept."""
    if spec.gated and spec.activation == "silu":
        return kernels.silu_mul
    plain = _ACTIVATIONS[spec.activation]
    return (lambda gate_up: _gated(plain, gate_up)) if spec.gated else plain


def _gated(activate: Callable[[Tensor], Tensor], gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return activate(gate).mul_(up)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def _rounded(scale: float | None, dtype: torch.dtype) -> float | None:
    """As the checkpoint's dtype has it: Gemma's scale was rounded in training."""
    return None if scale is None else float(torch.tensor(scale, dtype=dtype))
