"""Attention for training on a CPU: float32, whatever the rest of the model computes in.

torch's fused attention is slow there in bfloat16, above all backwards: of a training step of the frontier tier it took
a third, and in float32 takes a tenth.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import AttentionInterface, LlamaForCausalLM

NAME = "float32_causal"


def use_float32_attention(model: LlamaForCausalLM) -> None:
    """Makes ``model`` attend in float32. Every sequence has to start at the first column; padding is on the right."""
    AttentionInterface.register(NAME, _attend)
    model.set_attn_implementation(NAME)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **unused: object,
) -> tuple[torch.Tensor, None]:
    """[rows, heads, length, size] each, fewer heads in ``key`` and ``value``; gives [rows, length, heads, size]."""
    group = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        attended = functional.scaled_dot_product_attention(
            query.float(),
            key.float().repeat_interleave(group, 1),
            value.float().repeat_interleave(group, 1),
            is_causal=True,
            scale=scaling,
        )
    return attended.transpose(1, 2).to(query.dtype), None
