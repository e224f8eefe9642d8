"""What the decoder needs to know of a model, read from config.json without building transformers' own config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM", "Qwen3ForCausalLM")
SUPPORTED_ROPE_TYPES = ("default", "linear", "llama3")


class UnsupportedModelError(ValueError):
    """The directory holds a model that this engine cannot run; the message lists what it can."""


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding (Su et al. 2021). ``factor`` and below apply to the scaled types only."""

    type: str = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    original_context: int = 8_192  # llama3: tokens, before scaling


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Shape of a decoder-only transformer of the Llama family."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float
    rope: RopeSpec
    tied_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    qk_norm: bool  # an RMS norm over each head of q and k, before the rotation (Qwen3)

    @classmethod
    def from_directory(cls, directory: Path) -> ModelSpec:
        """Reads ``config.json``. Raises FileNotFoundError or UnsupportedModelError."""
        return cls.from_config(json.loads((directory / "config.json").read_text("utf-8")))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelSpec:
        """From the content of a Hugging Face config.json, as written by transformers 4 or 5."""
        architecture = next(iter(config.get("architectures") or []), "none named")
        _require("architecture", architecture, SUPPORTED_ARCHITECTURES)
        _require("hidden_act", config.get("hidden_act", "silu"), ("silu",))
        if config.get("use_sliding_window"):
            raise UnsupportedModelError("use_sliding_window is not supported")
        if config.get("quantization_config"):
            raise UnsupportedModelError("quantised weights are not supported; supported: float32, bfloat16, float16")
        heads = int(config["num_attention_heads"])
        qwen3 = architecture == "Qwen3ForCausalLM"
        return cls(
            architecture=architecture,
            vocab_size=int(config["vocab_size"]),
            hidden_size=int(config["hidden_size"]),
            intermediate_size=int(config["intermediate_size"]),
            num_layers=int(config["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or (128 if qwen3 else int(config["hidden_size"]) // heads)),
            context_length=int(config["max_position_embeddings"]),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            rope=_rope(config),
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)) and not qwen3,
            qk_norm=qwen3,
        )


def _require(what: str, value: str, supported: tuple[str, ...]) -> None:
    if value not in supported:
        raise UnsupportedModelError(f"{what} {value!r} is not supported; supported: {', '.join(supported)}")


def _rope(config: Mapping[str, Any]) -> RopeSpec:
    """transformers 5 writes ``rope_parameters``; 4 wrote ``rope_theta`` and, when scaled, ``rope_scaling``."""
    values = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = str(values.get("rope_type") or values.get("type") or "default")
    _require("rope type", kind, SUPPORTED_ROPE_TYPES)
    if float(values.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0)) != 1.0:
        raise UnsupportedModelError("partial_rotary_factor other than 1 is not supported")
    return RopeSpec(
        type=kind,
        theta=float(values.get("rope_theta", config.get("rope_theta", 10_000.0))),
        factor=float(values.get("factor", 1.0)),
        low_freq_factor=float(values.get("low_freq_factor", 1.0)),
        high_freq_factor=float(values.get("high_freq_factor", 4.0)),
        original_context=int(values.get("original_max_position_embeddings", 8_192)),
    )
