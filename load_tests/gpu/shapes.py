"""The models whose sizes are measured, as their config.json tells them, and a tiny one for dry runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.model.configuration import spec_of
from engine.model.spec import ModelSpec
from load_tests.gpu.figure import Bench

_QWEN: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "hidden_act": "silu",
}
LLAMA_8B = "Llama-3.1-8B"
QWEN_8B = "Qwen3-8B"
QWEN_SMALL = "Qwen3-0.6B"
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    LLAMA_8B: {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "hidden_act": "silu",
    },
    QWEN_8B: _QWEN
    | {"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32},
    QWEN_SMALL: _QWEN
    | {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
}
_TINY = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}


def config_named(name: str, bench: Bench) -> Mapping[str, Any]:
    """Of the model called ``name``; in a dry run one of its family that is tiny."""
    return {**CONFIGS[name], **_TINY} if bench.dry else CONFIGS[name]


def spec_named(name: str, bench: Bench) -> ModelSpec:
    """The same, as the engine understands it."""
    return spec_of(config_named(name, bench))
