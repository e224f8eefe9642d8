"""Kernels in plain torch, for any device: the oracle for all others, and fast enough to serve small models on CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import AttentionGroup, AttentionPlan
from engine.kv.format import SCALED, KVPages, dequantise, quantise
from engine.model.experts import mix
from engine.model.spec import Activation
from engine.model.weights import ExpertWeights, Matrix, plain
from engine.quant.matrix import PackedMatrix, rounded_rows
from engine.quant.packed_groups import PackedGroups

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
_FORMATS = {form.number: form for form in SCALED.values()}


class ReferenceKernels:
    """Implements ``Kernels`` for one engine: its work buffer has that engine's dtype, and it must be used on one thread
    at a time."""

    def __init__(self) -> None:
        self._gathered = torch.empty(0)

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        if isinstance(weight, PackedMatrix):
            return F.linear(rounded_rows(x, weight.form), weight.dequantised(x.dtype), bias)
        if isinstance(weight, PackedGroups):
            return F.linear(x, weight.dequantised(x.dtype), bias)
        return F.linear(x, plain(weight), bias)

    def embedding(self, tokens: Tensor, table: Matrix, dtype: torch.dtype) -> Tensor:
        whole = table.dequantised(dtype) if isinstance(table, PackedGroups) else plain(table)
        return F.embedding(tokens, whole)

    def experts(self, x: Tensor, weights: ExpertWeights, activation: Activation) -> Tensor:
        return mix(x, weights, partial(self.gated, activation=activation))

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
        return ((wide * scale).to(weight.dtype) * weight).to(x.dtype)

    def add_rms_norm(self, stream: Tensor, update: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self.rms_norm(stream.add_(update), weight, eps)

    def place_heads(self, qkv: Tensor, norm: Tensor | None, eps: float, cache: KVPages, plan: AttentionPlan) -> None:
        both = cache.numbers.shape[1]
        qk = qkv[:, : -(both // 2)]
        placed = qk if norm is None else self.rms_norm(qk, norm, eps)
        if plan.rotation is not None:
            cos, sin = plan.rotation
            placed = (placed * cos).addcmul_(placed.roll(placed.shape[-1] // 2, -1), sin)
        if placed is not qk:
            # Back into place, so that keys and values lie next to each other and are written at once.
            qk.copy_(placed)
        self._write(cache, qkv[:, -both:], plan.slots)

    def gated(self, gate_up: Tensor, activation: Activation) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return ACTIVATIONS[activation](gate).mul_(up)

    def _write(self, cache: KVPages, kv: Tensor, slots: Tensor) -> None:
        """``kv`` is [tokens, 2 * kv_heads, head_dim]."""
        head_dim = kv.shape[-1]
        numbers = kv.reshape(-1, head_dim)
        if cache.scales is not None:
            numbers, scales = quantise(numbers, _FORMATS[cache.numbers.dtype])
            cache.scales.view(-1).index_copy_(0, slots, scales)
        stored = cache.numbers.view(-1, head_dim)
        # As bytes, because indices do not know every format.
        stored.view(_bits(stored)).index_copy_(0, slots, numbers.to(stored.dtype).view(_bits(stored)))

    def attention(
        self, query: Tensor, cache: KVPages, plan: AttentionPlan, scale: float, score_cap: float | None
    ) -> Tensor:
        if len(plan.groups) == 1:
            return self._attend(query, cache, plan.groups[0], scale, score_cap)
        output = torch.empty_like(query)
        for group in plan.groups:
            rows = slice(group.first_row, group.first_row + group.sequences * group.queries)
            output[rows] = self._attend(query[rows], cache, group, scale, score_cap)
        return output

    def _attend(
        self, query: Tensor, cache: KVPages, group: AttentionGroup, scale: float, score_cap: float | None
    ) -> Tensor:
        """One group: gather its pages side by side, then one batched attention."""
        rows, heads, head_dim = query.shape
        both = cache.numbers.shape[1]
        gathered = self._gather(cache, group.pages, query.dtype)
        keys, values = gathered.view(group.sequences, both, -1, head_dim).chunk(2, 1)
        if group.queries == 1:
            # The heads that share keys become the queries of one: each key is read once for all of them.
            query = query.reshape(rows, both // 2, -1, head_dim)
        else:
            query = query.view(group.sequences, group.queries, heads, head_dim).transpose(1, 2)
        if score_cap is None:
            shared = query.shape[1] != keys.shape[1]
            output = F.scaled_dot_product_attention(
                query, keys, values, attn_mask=group.mask, scale=scale, enable_gqa=shared
            )
        else:
            output = _capped_attention(query, keys, values, group.mask, scale, score_cap)
        # On a card the heads of what torch returns need not follow each other.
        return output.reshape(rows, heads, head_dim) if group.queries == 1 else output.transpose(1, 2).flatten(0, 1)

    def _gather(self, cache: KVPages, pages: Tensor, dtype: torch.dtype) -> Tensor:
        """Copies pages next to each other, [pages * block_size, head_dim] of ``dtype``."""
        if cache.scales is not None:
            numbers, scales = (part.flatten(0, 1) for part in (cache.numbers, cache.scales))
            chosen = numbers.view(_bits(numbers)).index_select(0, pages).view(numbers.dtype)
            return dequantise(chosen, scales.index_select(0, pages), dtype)
        # Into the same buffer every time: a new one of this size would be given back to the system after every layer,
        # and its memory mapped anew.
        source = cache.numbers.view(cache.numbers.shape[0] * cache.numbers.shape[1], -1)
        size = pages.shape[0] * source.shape[1]
        if self._gathered.numel() < size:
            self._gathered = source.new_empty(size)
        return torch.index_select(source, 0, pages, out=self._gathered[:size].view(-1, source.shape[1])).to(dtype)


def _bits(numbers: Tensor) -> torch.dtype:
    """What can be indexed in place of ``numbers``, bit for bit."""
    return torch.uint8 if numbers.itemsize == 1 else numbers.dtype


def _capped_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, cap: float) -> Tensor:
    """As torch's scaled_dot_product_attention, with scores softly capped; softmax in float32.

    ``query`` is [sequences, heads, queries, head_dim], ``keys`` and ``values`` [sequences, kv_heads, keys, head_dim].
    """
    grouped = query.unflatten(1, (keys.shape[1], -1)) * scale
    scores = (grouped @ keys.unsqueeze(2).transpose(-1, -2)).float()
    scores = scores.div_(cap).tanh_().mul_(cap).add_(mask.unsqueeze(2))
    output: Tensor = scores.softmax(-1).to(query.dtype) @ values.unsqueeze(2)
    return output.flatten(1, 2)
