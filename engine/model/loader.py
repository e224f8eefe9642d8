"""Weights of a Hugging Face directory, fused into the shapes in which the decoder multiplies them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from engine.model.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer. Matrices are [out, in] as torch's linear takes them; biases [out] or None."""

    input_norm: Tensor  # [hidden]
    qkv: Tensor  # [(heads + 2 kv_heads) * head_dim, hidden]: q, k, v in this order
    qkv_bias: Tensor | None
    qk_norm: Tensor | None  # [heads + kv_heads, head_dim]: the weight of q's norm for each q head, then k's
    output: Tensor  # [hidden, heads * head_dim]
    output_bias: Tensor | None
    post_norm: Tensor  # [hidden]
    gate_up: Tensor  # [2 * intermediate, hidden]
    gate_up_bias: Tensor | None
    down: Tensor  # [hidden, intermediate]
    down_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All weights; ``head`` is the same tensor as ``embedding`` when they are tied."""

    embedding: Tensor  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    norm: Tensor  # [hidden]
    head: Tensor  # [vocab, hidden]


class Checkpoint:
    """Tensors of a directory by name, from one safetensors file or from shards with an index."""

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device) -> None:
        self._directory = directory
        self._dtype = dtype
        self._device = device
        self._files = _tensor_files(directory)

    def tensor(self, name: str) -> Tensor:
        """The tensor ``name``, converted. Raises KeyError."""
        if name not in self._files:
            raise KeyError(f"{self._directory} has no tensor {name!r}")
        with safe_open(self._directory / self._files[name], framework="pt") as file:
            found: Tensor = file.get_tensor(name)
        return found.to(self._device, self._dtype)

    def fused(self, names: list[str]) -> Tensor:
        """The tensors ``names`` stacked along their first dimension."""
        return torch.cat([self.tensor(name) for name in names])


def load_weights(directory: Path, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> ModelWeights:
    """Raises FileNotFoundError without safetensors, KeyError for a missing tensor, ValueError for a wrong shape."""
    checkpoint = Checkpoint(directory, dtype, device)
    embedding = checkpoint.tensor("model.embed_tokens.weight")
    if embedding.shape != (spec.vocab_size, spec.hidden_size):
        raise ValueError(f"embedding is {tuple(embedding.shape)}, config.json says {spec.vocab_size, spec.hidden_size}")
    return ModelWeights(
        embedding=embedding,
        layers=tuple(_load_layer(checkpoint, spec, layer) for layer in range(spec.num_layers)),
        norm=checkpoint.tensor("model.norm.weight"),
        head=embedding if spec.tied_embeddings else checkpoint.tensor("lm_head.weight"),
    )


def _load_layer(checkpoint: Checkpoint, spec: ModelSpec, layer: int) -> LayerWeights:
    prefix = f"model.layers.{layer}."

    def names(parts: tuple[str, ...], suffix: str) -> list[str]:
        return [f"{prefix}{part}.{suffix}" for part in parts]

    def bias(present: bool, *parts: str) -> Tensor | None:
        return checkpoint.fused(names(parts, "bias")) if present else None

    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    gate_up = ("mlp.gate_proj", "mlp.up_proj")
    return LayerWeights(
        input_norm=checkpoint.tensor(f"{prefix}input_layernorm.weight"),
        qkv=checkpoint.fused(names(qkv, "weight")),
        qkv_bias=bias(spec.attention_bias, *qkv),
        qk_norm=_load_qk_norm(checkpoint, spec, prefix) if spec.qk_norm else None,
        output=checkpoint.tensor(f"{prefix}self_attn.o_proj.weight"),
        output_bias=bias(spec.attention_bias, "self_attn.o_proj"),
        post_norm=checkpoint.tensor(f"{prefix}post_attention_layernorm.weight"),
        gate_up=checkpoint.fused(names(gate_up, "weight")),
        gate_up_bias=bias(spec.mlp_bias, *gate_up),
        down=checkpoint.tensor(f"{prefix}mlp.down_proj.weight"),
        down_bias=bias(spec.mlp_bias, "mlp.down_proj"),
    )


def _load_qk_norm(checkpoint: Checkpoint, spec: ModelSpec, prefix: str) -> Tensor:
    q = checkpoint.tensor(f"{prefix}self_attn.q_norm.weight")
    k = checkpoint.tensor(f"{prefix}self_attn.k_norm.weight")
    return torch.cat((q.expand(spec.num_heads, -1), k.expand(spec.num_kv_heads, -1)))


def _tensor_files(directory: Path) -> dict[str, str]:
    """File name of each tensor."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return dict(json.loads(index.read_text("utf-8"))["weight_map"])
    single = directory / "model.safetensors"
    if not single.exists():
        raise FileNotFoundError(f"{directory} has neither model.safetensors nor model.safetensors.index.json")
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single.name)
