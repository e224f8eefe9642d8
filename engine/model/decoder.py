"""The decoder: embed, then for each layer attend and transform, then project the rows that are asked for.

Plain functions over fused weights rather than a tree of modules: at the size where Python's own time counts, a module
call costs as much as the operation inside it. What differs between families is in the spec and the weights; where it
needs other operations, those are chosen once, when the decoder is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import Kernels, Plan, StepPlan
from engine.kernels.reference import ACTIVATIONS
from engine.kv.format import KVFormat, KVPages
from engine.model.configuration import read_spec
from engine.model.loader import load_weights
from engine.model.spec import LayerSpec, ModelSpec
from engine.model.weights import ExpertWeights, LayerWeights, MLPWeights, ModelWeights, NormWeights


class Decoder(Generic[Plan]):
    """A causal language model of one of the families in model/family.py. ``Plan`` is that of its kernels."""

    def __init__(self, spec: ModelSpec, weights: ModelWeights, kernels: Kernels[Plan]) -> None:
        self.spec = spec
        self.weights = weights
        self._kernels = kernels
        self._activate = _activation(spec, kernels)
        self._embedding_scale = _rounded(spec.embedding_scale, weights.embedding.dtype)

    @classmethod
    def from_directory(cls, directory: Path, dtype: torch.dtype, device: torch.device, kernels: Kernels[Plan]) -> Self:
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
        self, tokens: Tensor, plan: StepPlan[Plan], cache: list[KVPages], wanted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits [rows, vocab] float32 after the rows ``wanted`` (int64; None for all) of ``tokens`` [tokens] int64;
        and for each token whether all its numbers were finite, bool [tokens].

        Writes keys and values of all tokens to ``cache``.
        """
        stream = self._embed(tokens, plan)
        update: Tensor | None = None
        for spec, layer, pages in zip(self.spec.layers, self.weights.layers, cache, strict=True):
            normed = self._add_norm(stream, update, layer.before_attention)
            update = self._attend(normed, spec, layer, plan.kinds[spec.kind], pages)
            update = self._norm(update, layer.after_attention)
            normed = self._add_norm(stream, update, layer.before_mlp)
            update = self._norm(self._transform(normed, layer.mlp), layer.after_mlp)
        if update is not None:
            stream += update
        # What was no number in a layer stays in the stream to its end. Zero times any number is zero.
        sound = (stream * 0).sum(-1) == 0
        if wanted is not None:
            stream = stream.index_select(0, wanted)
        logits = self._kernels.linear(self._norm(stream, self.weights.norm), self.weights.head, None).float()
        cap = self.spec.logit_cap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap), sound

    def _embed(self, tokens: Tensor, plan: StepPlan[Plan]) -> Tensor:
        stream = F.embedding(tokens, self.weights.embedding)
        if self._embedding_scale is not None:
            stream *= self._embedding_scale
        if self.weights.positions is not None:
            stream += F.embedding(plan.positions, self.weights.positions)
        return stream

    def _attend(self, normed: Tensor, spec: LayerSpec, layer: LayerWeights, plan: Plan, pages: KVPages) -> Tensor:
        kernels, heads = self._kernels, self.spec.num_heads
        qkv = kernels.linear(normed, layer.qkv, layer.qkv_bias).view(normed.shape[0], -1, self.spec.head_dim)
        norm = layer.head_norm
        if norm is not None and self.spec.head_norm == "projection":
            self._norm_projections(qkv, norm)
            norm = None
        kernels.place_heads(qkv, norm, self.spec.norm.eps, pages, plan)
        output = kernels.attention(qkv[:, :heads], pages, plan, spec.scale, self.spec.score_cap)
        return kernels.linear(output.flatten(1), layer.output, layer.output_bias)

    def _transform(self, normed: Tensor, mlp: MLPWeights | ExpertWeights) -> Tensor:
        if isinstance(mlp, ExpertWeights):
            return self._kernels.experts(normed, mlp, self.spec.activation)
        inner = self._activate(self._kernels.linear(normed, mlp.gate_up, mlp.gate_up_bias))
        return self._kernels.linear(inner, mlp.down, mlp.down_bias)

    def _add_norm(self, stream: Tensor, update: Tensor | None, norm: NormWeights | None) -> Tensor:
        """Adds ``update`` to ``stream``, in place; the norm of the sum."""
        if update is None:
            return self._norm(stream, norm)
        if norm is not None and norm.bias is None:
            return self._kernels.add_rms_norm(stream, update, norm.weight, self.spec.norm.eps)
        return self._norm(stream.add_(update), norm)

    def _norm(self, x: Tensor, norm: NormWeights | None) -> Tensor:
        """``x`` itself where the family has no norm."""
        if norm is None:
            return x
        if norm.bias is None:
            return self._kernels.rms_norm(x, norm.weight, self.spec.norm.eps)
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, self.spec.norm.eps)

    def _norm_projections(self, qkv: Tensor, weight: Tensor) -> None:
        """All heads of queries, and all of keys, together (OLMo 2); in place."""
        sides = (self.spec.num_heads, self.spec.num_kv_heads)
        for part, own in zip(qkv[:, : sum(sides)].split(sides, 1), weight.split(sides), strict=True):
            part.copy_(self._kernels.rms_norm(part.flatten(1), own.flatten(), self.spec.norm.eps).view_as(part))


def _activation(spec: ModelSpec, kernels: Kernels[Any]) -> Callable[[Tensor], Tensor]:
    """What stands between the projections of an MLP: [tokens, 2 * n] to [tokens, n] if gated, else the shape kept."""
    if spec.gated:
        return partial(kernels.gated, activation=spec.activation)
    return ACTIVATIONS[spec.activation]


def _rounded(scale: float | None, dtype: torch.dtype) -> float | None:
    """As the checkpoint's dtype has it: Gemma's scale was rounded in training."""
    return None if scale is None else float(torch.tensor(scale, dtype=dtype))
