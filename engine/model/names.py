"""The tensor names in checkpoints: one table per layout, relative to the checkpoint's root.

A tuple of names is one matrix of the decoder: a checkpoint stores its parts under these names, or the whole under one
name. ``None`` means that the layout does not have the tensor. ``{}`` stands for the number of a layer or an expert.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TensorNames:
    """The tensor names of one layout, without their ending (``.weight``, ``.bias``). Names from ``qkv`` on are appended
    to ``layer``."""

    roots: tuple[str, ...] = ("model.",)  # the first under which the embedding is found
    embedding: str = "embed_tokens"
    positions: str | None = None
    norm: str = "norm"
    head: str = "lm_head"  # not under the root
    layer: str = "layers.{}."
    transposed: bool = False  # matrices of layers are stored [in, out]

    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    query_norm: str = "self_attn.q_norm"
    key_norm: str = "self_attn.k_norm"
    output: str = "self_attn.o_proj"
    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    router: str = "mlp.gate"
    expert_gate_up: tuple[str, ...] = ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj")
    expert_down: str = "mlp.experts.{}.down_proj"


LLAMA = TensorNames()
GEMMA = replace(
    LLAMA,
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)
OLMO2 = replace(
    LLAMA,
    before_attention=None,
    after_attention="post_attention_layernorm",
    before_mlp=None,
    after_mlp="post_feedforward_layernorm",
)
PHI3 = replace(LLAMA, qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))
MIXTRAL = replace(
    LLAMA,
    router="block_sparse_moe.gate",
    expert_gate_up=("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"),
    expert_down="block_sparse_moe.experts.{}.w2",
)
GPT2 = TensorNames(
    roots=("transformer.", ""),  # the published checkpoints have no root
    embedding="wte",
    positions="wpe",
    norm="ln_f",
    layer="h.{}.",
    transposed=True,
    qkv=("attn.c_attn",),
    output="attn.c_proj",
    before_attention="ln_1",
    before_mlp="ln_2",
    gate_up=("mlp.c_fc",),
    down="mlp.c_proj",
)
