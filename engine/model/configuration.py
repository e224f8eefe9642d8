"""Reads config.json into a ModelSpec: the keys are brought into a common form, as the model's family declares, then
read in one way for all families.

The file is read as JSON, in the form of transformers 4 or 5. transformers' own config classes are not used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.model.family import FAMILIES, Family, Values
from engine.model.spec import (
    SUPPORTED_ROPE_TYPES,
    Activation,
    AttentionKind,
    LayerSpec,
    ModelSpec,
    NormSpec,
    RopeSpec,
    UnsupportedModelError,
)

_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
_OPTIONAL: Values = {
    "head_dim": None,
    "hidden_act": "silu",
    "intermediate_size": None,
    "num_key_value_heads": None,
    "partial_rotary_factor": None,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
_ABSENT: Values = {
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "mlp_bias": False,
    "original_max_position_embeddings": None,
    "qkv_bias": False,
    "rope_local_base_freq": None,
    "sliding_window": None,
}
"""What a family that does not list the key has instead."""

NULLABLE = frozenset(
    {"attn_logit_softcapping", "final_logit_softcapping", "head_dim", "num_key_value_heads", "sliding_window"}
)
"""Keys for which null is a value, as for transformers. For any other it is as if the key were not there."""

_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def read_spec(directory: Path) -> ModelSpec:
    """Returns the spec of the model in ``directory``, from its ``config.json``. Raises FileNotFoundError if there is
    none, UnsupportedModelError for a model that is not supported, and KeyError for a missing key."""
    return spec_of(json.loads((directory / "config.json").read_text("utf-8")))


def gguf_spec(config: Mapping[str, Any]) -> ModelSpec:
    """Returns the spec of a model in a GGUF file. ``config`` is the result of ``config_of`` in gguf/configuration.py.
    The spec differs from that of a Hugging Face directory in ``norm.offset``, which is 0: GGUF files store Gemma's norm
    weights as w, not as w - 1. And in ``qkv_bias``: a file may have biases of queries, keys and values in any family,
    and none of the output. Raises as ``spec_of`` does."""
    spec = spec_of(config)
    return replace(spec, norm=replace(spec.norm, offset=0.0), qkv_bias=spec.qkv_bias or config["qkv_bias"])


def family_of(config: Mapping[str, Any]) -> Family:
    """Returns the family of the first architecture that ``config`` names. Raises UnsupportedModelError for an unknown
    one."""
    architecture = next(iter(config.get("architectures") or []), "none named")
    _require("architecture", architecture, tuple(FAMILIES))
    return FAMILIES[architecture]


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """Returns the spec of a model from the content of its config.json. Raises UnsupportedModelError for a model that is
    not supported, and KeyError for a missing key."""
    family = family_of(config)
    values = _normalise(config, family)
    _require("hidden_act", values["hidden_act"], tuple(_ACTIVATIONS))
    if config.get("quantization_config"):
        raise UnsupportedModelError("quantised weights are not supported; supported: float32, bfloat16, float16")
    heads, hidden = int(values["num_attention_heads"]), int(values["hidden_size"])
    head_dim = int(values["head_dim"] or hidden // heads)
    kinds, layers = _layers(values, family, head_dim)
    return ModelSpec(
        architecture=config["architectures"][0],
        vocab_size=int(values["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(values["intermediate_size"] or 4 * hidden),  # GPT-2 leaves it out
        num_heads=heads,
        num_kv_heads=int(values["num_key_value_heads"] or heads),
        head_dim=head_dim,
        context_length=max(int(values["max_position_embeddings"]), *map(_stretched, kinds)),
        kinds=kinds,
        layers=layers,
        norm=NormSpec(family.norm, float(values["rms_norm_eps"]), family.norm_offset, family.norm_wide),
        head_norm=family.head_norm,
        activation=_ACTIVATIONS[values["hidden_act"]],
        gated=family.gated,
        tied_embeddings=bool(values["tie_word_embeddings"]),
        qkv_bias=bool(values["qkv_bias"] or values["attention_bias"]),
        output_bias=bool(values["attention_bias"]),
        mlp_bias=bool(values["mlp_bias"]),
        learned_positions=family.learned_positions,
        embedding_scale=hidden**0.5 if family.scaled_embedding else None,
        score_cap=values["attn_logit_softcapping"],
        logit_cap=values["final_logit_softcapping"],
    )


def _normalise(config: Mapping[str, Any], family: Family) -> Values:
    """The keys that the family reads, in their common spelling, with a value for each. Raises KeyError."""
    common = {**config, **{new: config[old] for old, new in family.renamed.items() if old in config}}
    defaults = {**_OPTIONAL, **family.keys}
    given = {key: value for key, value in common.items() if value is not None or key in NULLABLE}
    required = {key: given[key] for key in _REQUIRED}
    optional = {key: given.get(key, default) for key, default in defaults.items()}
    return {**_ABSENT, **required, **optional, **family.fixed}


def _layers(values: Values, family: Family, head_dim: int) -> tuple[tuple[AttentionKind, ...], tuple[LayerSpec, ...]]:
    """The different kinds of attention in order of appearance, and the layers that refer to them."""
    kinds: list[AttentionKind] = []
    layers: list[LayerSpec] = []
    for layer in range(int(values["num_hidden_layers"])):
        window = int(values["sliding_window"] or 0) or None if family.window(values, layer) else None
        kind = AttentionKind(window, None if family.learned_positions else _rope(values, head_dim, window))
        if kind not in kinds:
            kinds.append(kind)
        scale = family.scale(values, head_dim, layer)
        layers.append(LayerSpec(kinds.index(kind), scale, family.experts(values, layer)))
    return tuple(kinds), tuple(layers)


def _rope(values: Values, head_dim: int, window: int | None) -> RopeSpec:
    """transformers 5 writes ``rope_parameters``, for each type of layer apart if they differ; 4 wrote ``rope_theta``
    and, when scaled, ``rope_scaling``, and Gemma 3's ``rope_local_base_freq`` for the layers with a window."""
    parameters = dict(values["rope_parameters"] or {})
    layer_type = "full_attention" if window is None else "sliding_attention"
    parameters = parameters.get(layer_type, parameters)
    if not parameters and window is not None and values["rope_local_base_freq"]:
        return RopeSpec(theta=float(values["rope_local_base_freq"]))
    scaling = {key: value for key, value in (values["rope_scaling"] or {}).items() if value is not None}
    found = {"rope_theta": values["rope_theta"], "partial_rotary_factor": values["partial_rotary_factor"]}
    found |= scaling | {key: value for key, value in parameters.items() if value is not None}
    kind = str(found.get("rope_type") or found.get("type") or "default")
    kind = "longrope" if "long_factor" in found else kind  # before it was published: "su" or "yarn"
    _require("rope type", kind, SUPPORTED_ROPE_TYPES)
    context = int(values["max_position_embeddings"])
    original = values["original_max_position_embeddings"] or found.get("original_max_position_embeddings") or context
    return RopeSpec(
        type=kind,
        theta=float(found["rope_theta"]),
        rotated=float(found["partial_rotary_factor"] or 1.0),
        **_SCALING[kind](found, int(original), context),
    )


def _unscaled(found: Values, original: int, context: int) -> dict[str, Any]:
    return {}


def _linear(found: Values, original: int, context: int) -> dict[str, Any]:
    return {"factor": float(found["factor"])}


def _dynamic(found: Values, original: int, context: int) -> dict[str, Any]:
    return {"factor": float(found["factor"]), "original_context": context}


def _llama3(found: Values, original: int, context: int) -> dict[str, Any]:
    return {
        "factor": float(found["factor"]),
        "low_freq_factor": float(found["low_freq_factor"]),
        "high_freq_factor": float(found["high_freq_factor"]),
        "original_context": original,
    }


def _yarn(found: Values, original: int, context: int) -> dict[str, Any]:
    factor = float(found.get("factor") or context / original)
    numerator, denominator = found.get("mscale"), found.get("mscale_all_dim")
    magnitude = _yarn_magnitude(factor, 1.0)
    if numerator and denominator:
        magnitude = _yarn_magnitude(factor, float(numerator)) / _yarn_magnitude(factor, float(denominator))
    return {
        "factor": factor,
        "original_context": original,
        "beta_fast": float(found.get("beta_fast") or 32),
        "beta_slow": float(found.get("beta_slow") or 1),
        "truncate": bool(found.get("truncate", True)),
        "magnitude": float(found.get("attention_factor") or magnitude),
    }


def _yarn_magnitude(factor: float, weight: float) -> float:
    """The temperature of YaRN's section 3.4 (Peng et al. 2023), as a factor of cosines and sines."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(found: Values, original: int, context: int) -> dict[str, Any]:
    factor = float(found.get("factor") or context / original)
    magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return {
        "factor": factor,
        "original_context": original,
        "magnitude": float(found.get("attention_factor") or magnitude),
        "short_factors": tuple(map(float, found["short_factor"])),
        "long_factors": tuple(map(float, found["long_factor"])),
    }


_SCALING: Mapping[str, Callable[[Values, int, int], dict[str, Any]]] = {
    "default": _unscaled,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""Each type's own fields of RopeSpec, from its parameters, the original context and the model's."""


def _stretched(kind: AttentionKind) -> int:
    """Tokens that YaRN makes of the original context: its users add it to a config.json whose own context they leave
    as it was. Other types are only found where the context has been set to what they make of it."""
    rope = kind.rope
    return int(rope.factor * rope.original_context) if rope is not None and rope.type == "yarn" else 0


def _require(what: str, value: str, supported: tuple[str, ...]) -> None:
    if value not in supported:
        raise UnsupportedModelError(f"{what} {value!r} is not supported; supported: {', '.join(supported)}")
