"""``Decoder``: embeds tokens, runs each layer's attention and MLP, and projects the wanted rows to logits.

It consists of plain functions over fused weights, not of a tree of modules: in small models a module call costs as much
as the operation inside it. Families differ in spec and weights; where they need other operations, these are chosen
once, when the decoder is made.

With tensor parallelism, spec and weights are those of this rank's share. The residual stream is the same on all ranks:
the ranks' contributions are summed before they are added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import Kernels, Plan, StepPlan
from engine.kernels.reference import ACTIVATIONS
from engine.kv.format import KVFormat, KVPages
from engine.model.loader import load_weights
from engine.model.source import ModelSource
from engine.model.spec import LayerSpec, ModelSpec
from engine.model.weights import ExpertWeights, LayerWeights, MLPWeights, ModelWeights, NormWeights
from engine.parallel.exchange import ALONE, Exchange
from engine.parallel.share import Share


class Decoder(Generic[Plan]):
    """A causal language model of one of the families in model/family.py. ``Plan`` is the attention plan of its
    kernels."""

    def __init__(
        self, spec: ModelSpec, weights: ModelWeights, kernels: Kernels[Plan], exchange: Exchange = ALONE
    ) -> None:
        self.spec = spec
        self.weights = weights
        self._kernels = kernels
        self._exchange = exchange
        self._activate = _activation(spec, kernels)
        self._embedding_scale = _rounded(spec.embedding_scale, weights.embedding.dtype)

    @classmethod
    def load(
        cls,
        source: ModelSource,
        dtype: torch.dtype,
        device: torch.device,
        kernels: Kernels[Plan],
        exchange: Exchange = ALONE,
    ) -> Self:
        """Loads this rank's share of the model in ``source``; the ``exchange`` has the number of the rank. Returns the
        decoder.

        Raises FileNotFoundError without weights, KeyError for a missing tensor, and ValueError for a tensor of a wrong
        shape or a model that cannot be split.
        """
        share = Share(exchange.rank, exchange.ranks)
        return cls(share.spec(source.spec), load_weights(source, dtype, device, share), kernels, exchange)

    def with_weights(self, weights: ModelWeights) -> Self:
        """Returns the same decoder with ``weights`` instead of its own."""
        return type(self)(self.spec, weights, self._kernels, self._exchange)

    def new_cache(self, form: KVFormat, blocks: Sequence[int], block_size: int) -> list[KVPages]:
        """Returns an empty KV cache. ``blocks`` has the number of blocks for each layer."""
        heads, device = 2 * self.spec.num_kv_heads, self.weights.embedding.device
        return [KVPages.zeros(form, count, heads, block_size, self.spec.head_dim, device) for count in blocks]

    def forward(
        self, tokens: Tensor, plan: StepPlan[Plan], cache: list[KVPages], wanted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns logits [rows, vocab] float32 for the rows ``wanted`` (int64; None: all) of ``tokens`` [tokens] int64;
        and a mask, bool [tokens], of the tokens whose numbers were all finite.

        Ranks other than the first return logits for their part of the vocabulary only.

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
        logits = self._kernels.linear(self._norm(stream, self.weights.norm), self.weights.head, None)
        logits = self._exchange.gather(logits)[:, : self.spec.vocab_size].float().contiguous()
        cap = self.spec.logit_cap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap), sound

    def _embed(self, tokens: Tensor, plan: StepPlan[Plan]) -> Tensor:
        stream = self._look_up(tokens)
        if self._embedding_scale is not None:
            stream *= self._embedding_scale
        if self.weights.positions is not None:
            stream += F.embedding(plan.positions, self.weights.positions)
        return stream

    def _look_up(self, tokens: Tensor) -> Tensor:
        """The embedding's rows, each of which one rank has."""
        table, exchange = self.weights.embedding, self._exchange
        if exchange.ranks == 1:
            return self._kernels.embedding(tokens, self.weights.table, table.dtype)
        own = tokens - exchange.rank * table.shape[0]
        elsewhere = (own < 0) | (own >= table.shape[0])
        found = F.embedding(own.masked_fill_(elsewhere, 0), table)
        return exchange.sum(found.masked_fill_(elsewhere.unsqueeze(1), 0.0))

    def _attend(self, normed: Tensor, spec: LayerSpec, layer: LayerWeights, plan: Plan, pages: KVPages) -> Tensor:
        kernels, heads = self._kernels, self.spec.num_heads
        qkv = kernels.linear(normed, layer.qkv, layer.qkv_bias).view(normed.shape[0], -1, self.spec.head_dim)
        norm = layer.head_norm
        if norm is not None and self.spec.head_norm == "projection":
            self._norm_projections(qkv, norm)
            norm = None
        kernels.place_heads(qkv, norm, self.spec.norm.eps, pages, plan)
        output = kernels.attention(qkv[:, :heads], pages, plan, spec.scale, self.spec.score_cap)
        return self._exchange.sum(kernels.linear(output.flatten(1), layer.output, layer.output_bias))

    def _transform(self, normed: Tensor, mlp: MLPWeights | ExpertWeights) -> Tensor:
        if isinstance(mlp, ExpertWeights):
            return self._exchange.sum(self._kernels.experts(normed, mlp, self.spec.activation))
        inner = self._activate(self._kernels.linear(normed, mlp.gate_up, mlp.gate_up_bias))
        return self._exchange.sum(self._kernels.linear(inner, mlp.down, mlp.down_bias))

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
        """All heads of queries, and all of keys, together (OLMo 2), those of other ranks too; in place."""
        sides, eps, exchange = (self.spec.num_heads, self.spec.num_kv_heads), self.spec.norm.eps, self._exchange
        parts = qkv[:, : sum(sides)].split(sides, 1)
        if exchange.ranks == 1:
            for part, own in zip(parts, weight.split(sides), strict=True):
                part.copy_(self._kernels.rms_norm(part.flatten(1), own.flatten(), eps).view_as(part))
            return
        # All ranks have as many heads, and those that several have are on equally many: means of means are right.
        means = exchange.sum(torch.stack([part.float().square().mean((1, 2)) for part in parts])) / exchange.ranks
        for part, own, mean in zip(parts, weight.split(sides), means, strict=True):
            part.copy_((part.float() * torch.rsqrt(mean + eps).view(-1, 1, 1)).to(own.dtype) * own)


def _activation(spec: ModelSpec, kernels: Kernels[Any]) -> Callable[[Tensor], Tensor]:
    """What stands between the projections of an MLP: [tokens, 2 * n] to [tokens, n] if gated, else the shape kept."""
    if spec.gated:
        return partial(kernels.gated, activation=spec.activation)
    return ACTIVATIONS[spec.activation]


def _rounded(scale: float | None, dtype: torch.dtype) -> float | None:
    """As the checkpoint's dtype has it: Gemma's scale was rounded in training."""
    return None if scale is None else float(torch.tensor(scale, dtype=dtype))
