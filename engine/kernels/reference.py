"""Kernels in plain torch, for any device: the oracle for all others, and fast enough to serve small models on CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import AttentionGroup, AttentionPlan


class ReferenceKernels:
    """Implements ``Kernels``."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
        return (wide * scale).to(x.dtype) * weight

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)

    def write_kv(self, cache: Tensor, kv: Tensor, slots: Tensor) -> None:
        cache.view(-1, *cache.shape[2:]).index_copy_(0, slots, kv)

    def attention(self, query: Tensor, cache: Tensor, plan: AttentionPlan) -> Tensor:
        if len(plan.groups) == 1:
            return _attend(query, cache, plan.groups[0])
        output = torch.empty_like(query)
        for group in plan.groups:
            rows = slice(group.first_row, group.first_row + group.sequences * group.queries)
            output[rows] = _attend(query[rows], cache, group)
        return output


def _attend(query: Tensor, cache: Tensor, group: AttentionGroup) -> Tensor:
    """One group: gather its pages side by side, then one batched attention."""
    rows, heads, head_dim = query.shape
    kv_heads = cache.shape[2] // 2
    pages = cache.index_select(0, group.pages).view(group.sequences, -1, 2 * kv_heads, head_dim).transpose(1, 2)
    output = F.scaled_dot_product_attention(
        query.view(group.sequences, group.queries, heads, head_dim).transpose(1, 2),
        pages[:, :kv_heads],
        pages[:, kv_heads:],
        attn_mask=group.mask,
        enable_gqa=heads != kv_heads,
    )
    return output.transpose(1, 2).reshape(rows, heads, head_dim)
