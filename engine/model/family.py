"""The model families, as data: the differences of each, and the keys of config.json that decide them.

A family reads only the keys that it lists, so that a stray key has no effect. A missing key has the value listed here,
which is transformers' default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.model import names
from engine.model.names import TensorNames
from engine.model.spec import ExpertSpec, HeadNorm, NormKind

Values = Mapping[str, Any]
"""A config.json in the normal form of model/configuration.py."""


def no_window(values: Values, layer: int) -> bool:
    """Returns False: no layer has a sliding window."""
    return False


def every_window(values: Values, layer: int) -> bool:
    """Returns True: every layer has a sliding window (Mistral 7B, Jiang et al. 2023)."""
    return True


def switched_window(values: Values, layer: int) -> bool:
    """Returns whether the layers have a sliding window: all do if ``use_sliding_window`` is set (Qwen 3 MoE)."""
    return bool(values["use_sliding_window"])


def upper_window(values: Values, layer: int) -> bool:
    """Returns whether ``layer``, from 0, has a sliding window (Qwen 2). No layer has one unless ``use_sliding_window``
    is set. Then ``layer_types`` says which have one; without it, the layers from ``max_window_layers`` on have one."""
    above = layer >= values["max_window_layers"]
    return bool(values["use_sliding_window"]) and _listed_window(values, layer, otherwise=above)


def alternating_window(values: Values, layer: int) -> bool:
    """Returns whether ``layer``, from 0, has a sliding window: as ``layer_types`` says; without it, all layers except
    each n-th (Gemma 2: every second, Gemma 3: every sixth) have one."""
    return _listed_window(values, layer, otherwise=(layer + 1) % values["sliding_window_pattern"] != 0)


def _listed_window(values: Values, layer: int, otherwise: bool) -> bool:
    """What ``layer_types`` says, which transformers writes since 4.53, or ``otherwise``."""
    types = values["layer_types"]
    return types[layer] == "sliding_attention" if types else otherwise


def no_experts(values: Values, layer: int) -> ExpertSpec | None:
    """Returns None: every layer has an MLP."""
    return None


def mixtral_experts(values: Values, layer: int) -> ExpertSpec | None:
    """Returns the experts of Mixtral (Jiang et al. 2024); never None, since every layer has the same. ``layer`` is not
    used."""
    return ExpertSpec(values["num_local_experts"], values["num_experts_per_tok"], values["intermediate_size"], True)


def qwen3_experts(values: Values, layer: int) -> ExpertSpec | None:
    """Returns the experts of a Qwen 3 MoE layer: each n-th layer has them, except the layers listed as MLPs, for which
    it returns None."""
    if layer in (values["mlp_only_layers"] or ()) or (layer + 1) % values["decoder_sparse_step"] != 0:
        return None
    return ExpertSpec(
        values["num_experts"],
        values["num_experts_per_tok"],
        values["moe_intermediate_size"],
        bool(values["norm_topk_prob"]),
    )


def head_scale(values: Values, head_dim: int, layer: int) -> float:
    """Returns the factor of attention scores: 1 / sqrt(head_dim) (Vaswani et al. 2017)."""
    return float(head_dim**-0.5)


def query_scale(values: Values, head_dim: int, layer: int) -> float:
    """Returns the factor of attention scores in Gemma: 1 / sqrt(``query_pre_attn_scalar``)."""
    return float(values["query_pre_attn_scalar"] ** -0.5)


def gpt2_scale(values: Values, head_dim: int, layer: int) -> float:
    """Returns the factor of attention scores in GPT-2: 1 / sqrt(head_dim), or 1 without ``scale_attn_weights``; divided
    by the number of the layer, from 1, with ``scale_attn_by_inverse_layer_idx`` (Karamcheti et al. 2021, Mistral of
    CRFM)."""
    scale = float(head_dim**-0.5) if values["scale_attn_weights"] else 1.0
    return scale / (layer + 1) if values["scale_attn_by_inverse_layer_idx"] else scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The differences of the models of one architecture from Llama's (Touvron et al. 2023)."""

    keys: Values
    """Keys of config.json that this family reads besides those all do, with the values of missing ones."""

    fixed: Values = field(default_factory=dict)
    """Values in the normal form that config.json has no say in."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    """Keys that config.json spells differently, and their common spelling."""

    names: TensorNames = names.LLAMA
    window: Callable[[Values, int], bool] = no_window
    """Whether a layer's attention is limited to ``sliding_window``, if there is one."""

    experts: Callable[[Values, int], ExpertSpec | None] = no_experts
    scale: Callable[[Values, int, int], float] = head_scale
    norm: NormKind = "rms"
    norm_offset: float = 0.0
    norm_wide: bool = False
    head_norm: HeadNorm = "none"
    gated: bool = True
    learned_positions: bool = False
    scaled_embedding: bool = False
    """Whether embeddings are multiplied by sqrt(hidden_size)."""


_QWEN_WINDOW = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None}
_GEMMA = {
    "attention_bias": False,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_types": None,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}

FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family(keys={"attention_bias": False, "mlp_bias": False}),
    "MistralForCausalLM": Family(keys={"sliding_window": 4096, "num_key_value_heads": 8}, window=every_window),
    "MixtralForCausalLM": Family(
        keys={
            "num_experts_per_tok": 2,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
            "sliding_window": None,
        },
        names=names.MIXTRAL,
        window=every_window,
        experts=mixtral_experts,
    ),
    "Qwen2ForCausalLM": Family(keys=_QWEN_WINDOW, fixed={"qkv_bias": True}, window=upper_window),
    "Qwen3ForCausalLM": Family(
        keys={**_QWEN_WINDOW, "attention_bias": False, "head_dim": 128},
        window=upper_window,
        head_norm="head",
    ),
    "Qwen3MoeForCausalLM": Family(
        keys={
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "mlp_only_layers": None,
            "moe_intermediate_size": 768,
            "norm_topk_prob": False,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "use_sliding_window": False,
        },
        renamed={"num_local_experts": "num_experts"},  # as transformers 5 writes it
        window=switched_window,
        experts=qwen3_experts,
        head_norm="head",
    ),
    "Gemma2ForCausalLM": Family(
        keys={
            **_GEMMA,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window_pattern": 2,
        },
        renamed={"hidden_activation": "hidden_act"},
        names=names.GEMMA,
        window=alternating_window,
        scale=query_scale,
        norm_offset=1.0,
        norm_wide=True,
        scaled_embedding=True,
    ),
    "Gemma3ForCausalLM": Family(
        keys={
            **_GEMMA,
            "final_logit_softcapping": None,
            "rope_local_base_freq": 10_000.0,
            "rope_theta": 1e6,
            "sliding_window_pattern": 6,
        },
        renamed={"hidden_activation": "hidden_act"},
        names=names.GEMMA,
        window=alternating_window,
        scale=query_scale,
        norm_offset=1.0,
        norm_wide=True,
        head_norm="head",
        scaled_embedding=True,
    ),
    "Phi3ForCausalLM": Family(
        keys={"original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "sliding_window": None},
        names=names.PHI3,
        window=every_window,
    ),
    "Olmo2ForCausalLM": Family(
        keys={"attention_bias": False, "rms_norm_eps": 1e-5},
        names=names.OLMO2,
        norm_wide=True,
        head_norm="projection",
    ),
    "GPT2LMHeadModel": Family(
        keys={
            "hidden_act": "gelu_new",
            "rms_norm_eps": 1e-5,
            "scale_attn_by_inverse_layer_idx": False,
            "scale_attn_weights": True,
            "tie_word_embeddings": True,
        },
        fixed={"attention_bias": True, "mlp_bias": True, "head_dim": None, "num_key_value_heads": None},
        renamed={
            "activation_function": "hidden_act",
            "layer_norm_epsilon": "rms_norm_eps",
            "n_embd": "hidden_size",
            "n_head": "num_attention_heads",
            "n_inner": "intermediate_size",
            "n_layer": "num_hidden_layers",
            "n_positions": "max_position_embeddings",
        },
        names=names.GPT2,
        scale=gpt2_scale,
        norm="layer",
        gated=False,
        learned_positions=True,
    ),
}
"""By the architecture that config.json names."""
