"""Converts a GGUF file's metadata to the content of a Hugging Face config.json, which model/configuration.py reads.

Sizes in the metadata are checked against the tensors' shapes, so that a wrong size is refused, by the name of its key,
before memory of that size is allocated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch

from engine.gguf.errors import GGUFError
from engine.gguf.file import GGUFFile
from engine.gguf.names import LAYOUTS, MIXTRAL, Layout
from engine.model.spec import ModelSpec, UnsupportedModelError

MAX_CONTEXT = 1 << 24  # tokens
_ZERO_IS_NONE = frozenset(
    {
        "attention.sliding_window",  # Phi-4's
        "expert_count",
        "expert_used_count",
        "rope.scale_linear",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
    }
)
"""Keys whose zero is as if they were not there. llama.cpp's converters write some of them."""
MAX_GROWTH = 8  # times the bytes in the file: what float32 makes of weights of four bits
_LAYER = re.compile(r"blk\.(\d{1,9})\.")
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}
"""The models whose scores are not divided by the root of the head size; nothing else in a file tells them (llama.cpp,
src/models/gemma2.cpp, gemma3.cpp)."""


def layout_of(file: GGUFFile) -> Layout:
    """Returns the tensor layout of the file's architecture (``general.architecture``): its tensor names and the order
    of its rows. Raises UnsupportedModelError for an architecture that the engine does not have, and GGUFError for a
    number of experts that is none."""
    architecture = str(file.metadata.get("general.architecture"))
    if architecture not in LAYOUTS:
        raise UnsupportedModelError(
            f"general.architecture {architecture!r} is not supported; supported: {', '.join(LAYOUTS)}"
        )
    if architecture == "llama" and _Keys(file.metadata, architecture).optional_whole("expert_count"):
        return MIXTRAL
    return LAYOUTS[architecture]


def config_of(file: GGUFFile) -> dict[str, Any]:
    """Returns the content of a config.json for the model in the file. Raises UnsupportedModelError for an architecture
    that the engine does not have, GGUFError for a key that is missing, of another type, or in conflict with the
    tensors."""
    layout = layout_of(file)
    keys = _Keys(file.metadata, str(file.metadata["general.architecture"]))
    config = _sizes(file, keys) | _rope(file, keys)
    config |= {
        "architectures": [layout.architecture],
        "attention_bias": "blk.0.attn_output.bias" in file.tensors,
        "qkv_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rms_norm_eps": keys.optional_positive("attention.layer_norm_rms_epsilon")
        or keys.positive("attention.layer_norm_epsilon"),
        "attn_logit_softcapping": keys.optional_positive("attn_logit_softcapping"),
        "final_logit_softcapping": keys.optional_positive("final_logit_softcapping"),
    }
    return config | _OWN.get(keys.architecture, _nothing)(keys, config)


def check_positions(file: GGUFFile, spec: ModelSpec) -> None:
    """Raises GGUFError if the angles of all positions would take more memory than the weights of the ``file`` unpacked.

    Of a model whose layers all have a window nothing else bounds the context: its KV cache holds any length.
    """
    if any(kind.window is None for kind in spec.kinds):
        return
    weights = sum(tensor.raw.nbytes for tensor in file.tensors.values())
    angles = 2 * torch.float32.itemsize * spec.head_dim * spec.context_length
    if angles > MAX_GROWTH * weights:
        raise GGUFError(
            f"a context of {spec.context_length} tokens takes {angles} bytes of angles, the weights {weights}"
        )


@dataclass(frozen=True, slots=True)
class _Keys:
    """Metadata of one architecture, by the part of the key behind its name."""

    metadata: Mapping[str, Any]
    architecture: str

    def whole(self, key: str) -> int:
        """Returns the whole number of at least 1 in ``key``. A list stands for one number if all its numbers are equal.
        Raises GGUFError for another value, or without this key."""
        found = self.optional_whole(key)
        if found is None:
            said = self.metadata.get(f"{self.architecture}.{key}")
            wrong = "missing" if said is None else f"{said}, no whole number above 0"
            raise GGUFError(f"{self.architecture}.{key} is {wrong}")
        return found

    def optional_whole(self, key: str) -> int | None:
        """Returns the number in ``key``, as ``whole`` does; None without this key or for a zero that means it."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(found, np.ndarray) and len(found) and (found == found[0]).all():
            found = found[0].item()
        if _is_none(found, key):
            return None
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise GGUFError(f"{self.architecture}.{key} is {str(found)[:80]}, no whole number above 0")
        return found

    def positive(self, key: str) -> float:
        """Returns the number above 0 in ``key``. Raises GGUFError for another value, or without this key."""
        found = self.optional_positive(key)
        if found is None:
            raise GGUFError(f"{self.architecture}.{key} is missing")
        return found

    def optional_positive(self, key: str) -> float | None:
        """Returns the number in ``key``, as ``positive`` does; None without this key."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        if _is_none(found, key):
            return None
        if not isinstance(found, int | float) or not 0 < found < 1e30:
            raise GGUFError(f"{self.architecture}.{key} is {str(found)[:80]}, no number above 0")
        return float(found)


def _is_none(found: Any, key: str) -> bool:
    return found is None or (key in _ZERO_IS_NONE and type(found) in (int, float) and found == 0)


def _sizes(file: GGUFFile, keys: _Keys) -> dict[str, Any]:
    """Sizes of the model; those that make memory grow are the tensors' own, or checked against them."""
    vocabulary, hidden = _shape(file, "token_embd.weight", 2)
    layers = _layers(file, keys)
    _agree(f"{keys.architecture}.embedding_length", keys.whole("embedding_length"), hidden, "token_embd.weight")
    heads, context = keys.whole("attention.head_count"), keys.whole("context_length")
    kv_heads = keys.optional_whole("attention.head_count_kv") or heads
    head_dim = keys.optional_whole("attention.key_length") or hidden // heads
    if heads % kv_heads or head_dim < 1 or context > MAX_CONTEXT:
        raise GGUFError(
            f"{keys.architecture}.attention.head_count {heads}, attention.head_count_kv {kv_heads}, key length"
            f" {head_dim} and context_length {context} do not go together"
        )
    if (keys.optional_whole("attention.value_length") or head_dim) != head_dim:
        raise UnsupportedModelError(f"{keys.architecture}.attention.value_length differs from the key length")
    attended = _shape(file, "blk.0.attn_output.weight", 2)[1]
    _agree(f"{keys.architecture}.attention.head_count x key length", heads * head_dim, attended, "attn_output")
    fused = "blk.0.attn_qkv.weight" in file.tensors
    projected = _shape(file, "blk.0.attn_qkv.weight" if fused else "blk.0.attn_k.weight", 2)[0]
    wanted = (heads + 2 * kv_heads if fused else kv_heads) * head_dim
    _agree(f"{keys.architecture}.attention.head_count_kv x key length", wanted, projected, "the keys' projection")
    if "blk.0.ffn_gate.0.weight" in file.tensors:
        raise UnsupportedModelError(
            "blk.0.ffn_gate.0.weight: the file has a tensor for each expert, as llama.cpp wrote them before April 2024;"
            " convert the model anew, so that they are in one tensor, blk.0.ffn_gate_exps.weight"
        )
    if "blk.0.ffn_gate_exps.weight" in file.tensors:
        _check_experts(file, keys)
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": keys.optional_whole("feed_forward_length") or 4 * hidden,
        "max_position_embeddings": context,
    }


def _layers(file: GGUFFile, keys: _Keys) -> int:
    """Returns the number of layers. Raises GGUFError if one of them has no tensor: a number is not to be believed that
    only its last layer speaks for."""
    layers = keys.whole("block_count")
    found = {int(number[1]) for number in map(_LAYER.match, file.tensors) if number}
    missing = next(number for number in count() if number not in found)
    if layers > missing:
        raise GGUFError(f"{keys.architecture}.block_count is {layers}, but there is no tensor blk.{missing}")
    return layers


def _check_experts(file: GGUFFile, keys: _Keys) -> None:
    """Raises GGUFError if the experts of the first layer have another shape than the keys say."""
    experts, inner, hidden = _shape(file, "blk.0.ffn_gate_exps.weight", 3)
    width = "expert_feed_forward_length" if keys.architecture == "qwen3moe" else "feed_forward_length"
    for key, found in (("expert_count", experts), (width, inner), ("embedding_length", hidden)):
        _agree(f"{keys.architecture}.{key}", keys.whole(key), found, "ffn_gate_exps")


def _rope(file: GGUFFile, keys: _Keys) -> dict[str, Any]:
    """Frequencies: their base, how many are rotated, and how they are scaled, in ``rope_scaling``."""
    rotated = keys.optional_whole("rope.dimension_count")
    head_dim = keys.optional_whole("attention.key_length") or keys.whole("embedding_length") // keys.whole(
        "attention.head_count"
    )
    if rotated is not None and rotated > head_dim:
        raise GGUFError(f"{keys.architecture}.rope.dimension_count is {rotated}, a head has {head_dim}")
    base = {
        "rope_theta": keys.optional_positive("rope.freq_base") or 10_000.0,
        "partial_rotary_factor": None if rotated is None else rotated / head_dim,
    }
    return base | {"rope_scaling": _scaling(file, keys, (rotated or head_dim) // 2)}


def _scaling(file: GGUFFile, keys: _Keys, frequencies: int) -> dict[str, Any] | None:
    context = keys.whole("context_length")
    original = keys.optional_whole("rope.scaling.original_context_length") or context
    attention = keys.optional_positive("rope.scaling.attn_factor")
    if "rope_freqs.weight" in file.tensors:  # Llama 3.1's scaling, worked out when the file was made
        factors = _factors(file, "rope_freqs.weight", frequencies)
        return {"rope_type": "longrope", "factor": 1.0, "short_factor": factors, "long_factor": factors}
    if "rope_factors_long.weight" in file.tensors:
        return {
            "rope_type": "longrope",
            "original_max_position_embeddings": original,
            "attention_factor": attention,
            "short_factor": _factors(file, "rope_factors_short.weight", frequencies),
            "long_factor": _factors(file, "rope_factors_long.weight", frequencies),
        }
    # Without a type it is linear, and without a factor none, as in llama.cpp. Files of 2023 have the second key.
    kind = str(keys.metadata.get(f"{keys.architecture}.rope.scaling.type", "linear"))
    factor = keys.optional_positive("rope.scaling.factor") or keys.optional_positive("rope.scale_linear") or 1.0
    if kind == "none" or (kind == "linear" and factor == 1):
        return None
    if kind not in ("linear", "yarn"):
        raise UnsupportedModelError(f"{keys.architecture}.rope.scaling.type {kind!r} is not supported")
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if factor * original > MAX_CONTEXT:
        raise GGUFError(
            f"{keys.architecture}.rope.scaling.factor {factor:g} makes a context of more than {MAX_CONTEXT} tokens"
            f" out of {original}"
        )
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
        "attention_factor": attention,
        "beta_fast": keys.optional_positive("rope.scaling.yarn_beta_fast"),
        "beta_slow": keys.optional_positive("rope.scaling.yarn_beta_slow"),
    }


def _factors(file: GGUFFile, name: str, wanted: int) -> list[float]:
    """Returns the divisors of frequencies in the tensor ``name``. Raises GGUFError if they are not ``wanted``
    numbers."""
    (found,) = _shape(file, name, 1)
    _agree(f"the number of frequencies in {name}", found, wanted, "rope.dimension_count")
    tensor = file.tensors[name]
    if tensor.type.name != "F32":
        raise GGUFError(f"{name} has the type {tensor.type.name}, not F32")
    factors = tensor.raw.contiguous().view(-1).view(torch.float32).tolist()
    if not all(0 < factor < 1e30 for factor in factors):
        raise GGUFError(f"{name} holds a factor that is no number above 0")
    return list(map(float, factors))


def _shape(file: GGUFFile, name: str, dimensions: int) -> tuple[int, ...]:
    """Returns the shape of a tensor. Raises GGUFError if it is missing or has another number of dimensions."""
    if name not in file.tensors:
        raise GGUFError(f"the tensor {name!r} is missing")
    shape = file.tensors[name].shape
    if len(shape) != dimensions:
        raise GGUFError(f"the tensor {name!r} has {len(shape)} dimensions, not {dimensions}")
    return shape


def _agree(what: str, said: int, found: int, where: str) -> None:
    if said != found:
        raise GGUFError(f"{what} is {said}, but {where} has {found}")


def _nothing(keys: _Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _experts_used(keys: _Keys, experts: int) -> int:
    """Returns the number of experts per token. Raises GGUFError if it exceeds ``experts``, the number of all."""
    used = keys.whole("expert_used_count")
    if used > experts:
        raise GGUFError(f"{keys.architecture}.expert_used_count is {used}, but expert_count is {experts}")
    return used


def _llama(keys: _Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    experts = keys.optional_whole("expert_count")
    if experts is None:
        return {}
    used = _experts_used(keys, experts)
    return {"num_local_experts": experts, "num_experts_per_tok": used, "sliding_window": None}


def _qwen3moe(keys: _Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_experts": keys.whole("expert_count"),
        "num_experts_per_tok": _experts_used(keys, keys.whole("expert_count")),
        "moe_intermediate_size": keys.whole("expert_feed_forward_length"),
        "norm_topk_prob": True,  # as in llama.cpp, for which no key says otherwise
    }


def _gemma(keys: _Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    architecture, heads = keys.architecture, config["num_attention_heads"]
    layers = config["num_hidden_layers"]
    large = layers == _GEMMA_27B_LAYERS[architecture]
    window = keys.optional_whole("attention.sliding_window") or (4096 if architecture == "gemma2" else None)
    own: dict[str, Any] = {
        "query_pre_attn_scalar": config["hidden_size"] // heads if large else config["head_dim"],
        "sliding_window": window,
        "tie_word_embeddings": config["tie_word_embeddings"],
    }
    pattern = keys.metadata.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, np.ndarray):
        _agree(f"the length of {architecture}.attention.sliding_window_pattern", len(pattern), layers, "block_count")
        own["layer_types"] = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    elif pattern is not None:
        own["sliding_window_pattern"] = keys.whole("attention.sliding_window_pattern")
    if architecture == "gemma3":
        own["rope_local_base_freq"] = keys.optional_positive("rope.freq_base_swa") or 10_000.0
    return own


def _phi3(keys: _Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sliding_window": keys.optional_whole("attention.sliding_window"),
        "original_max_position_embeddings": keys.optional_whole("rope.scaling.original_context_length"),
    }


def _olmo2(keys: _Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    if keys.optional_whole("attention.sliding_window") is not None:
        raise UnsupportedModelError("olmo2.attention.sliding_window: OLMo 3's windows are not supported")
    return {}


_OWN: Mapping[str, Callable[[_Keys, Mapping[str, Any]], dict[str, Any]]] = {
    "llama": _llama,
    "qwen3moe": _qwen3moe,
    "gemma2": _gemma,
    "gemma3": _gemma,
    "phi3": _phi3,
    "olmo2": _olmo2,
}
"""What an architecture has besides, from its keys and the configuration so far."""
