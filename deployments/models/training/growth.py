"""Starts a larger llama as a smaller one: wider and deeper, but at first with the same answers (cf. Net2Net, 2016).

Old channels, heads and neurons keep their weights; nothing reads what the new ones write until training makes it so.
New channels of the residual stream begin near zero, so RMSNorm divides by a mean over more channels than carry
anything, and its weights shrink by the root of that ratio. Needs the same head size and vocabulary.
"""

from __future__ import annotations

import math

import torch
from transformers import LlamaForCausalLM

Weights = dict[str, torch.Tensor]


@torch.no_grad()
def grow(small: LlamaForCausalLM, large: LlamaForCausalLM) -> None:
    """Writes ``small`` into the freshly initialised ``large``. Raises ValueError if their heads differ in size."""
    old, new = small.config, large.config
    size = old.hidden_size // old.num_attention_heads
    if size != new.hidden_size // new.num_attention_heads or old.vocab_size != new.vocab_size:
        raise ValueError("both models need the same head size and vocabulary")
    shrink = math.sqrt(old.hidden_size / new.hidden_size)
    source, target = small.state_dict(), large.state_dict()
    wide = old.hidden_size

    target["model.embed_tokens.weight"].zero_()[:, :wide] = source["model.embed_tokens.weight"]
    target["model.norm.weight"][:wide] = source["model.norm.weight"] * shrink
    heads = _kept_heads(small, large)
    queries = torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads])
    for layer in range(new.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        target[prefix + "self_attn.o_proj.weight"].zero_()
        target[prefix + "mlp.down_proj.weight"].zero_()
        if layer < old.num_hidden_layers:
            _grow_layer(source, target, prefix, queries, wide, shrink)


def _grow_layer(source: Weights, target: Weights, prefix: str, queries: torch.Tensor, wide: int, shrink: float) -> None:
    for norm in ("input_layernorm", "post_attention_layernorm"):
        target[f"{prefix}{norm}.weight"][:wide] = source[f"{prefix}{norm}.weight"] * shrink
    target[prefix + "self_attn.q_proj.weight"][queries, :wide] = source[prefix + "self_attn.q_proj.weight"]
    target[prefix + "self_attn.o_proj.weight"][:wide, queries] = source[prefix + "self_attn.o_proj.weight"]
    for name in ("self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        weight = source[f"{prefix}{name}.weight"]
        target[f"{prefix}{name}.weight"][: weight.shape[0], : weight.shape[1]] = weight


def _kept_heads(small: LlamaForCausalLM, large: LlamaForCausalLM) -> list[int]:
    """Where the small model's query heads go, so that each stays with its key-value head."""
    old, new = _group(small), _group(large)
    return [head // old * new + head % old for head in range(small.config.num_attention_heads)]


def _group(model: LlamaForCausalLM) -> int:
    """Query heads per key-value head."""
    config = model.config
    return config.num_attention_heads // (config.num_key_value_heads or config.num_attention_heads)
