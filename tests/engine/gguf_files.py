"""Tiny models as GGUF files, of any tensor type, beside directories with the very weights that the files hold.

Names come from the gguf package and weights go through its quantisers, so that nothing of the engine's own is its
oracle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from tests.engine.families import disturb
from tests.engine.models import LLAMA3_ROPE, SHAPE

Array = NDArray[Any]
Type = gguf.GGMLQuantizationType
FLOATS = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16}
K_TYPES = {
    Type.Q2_K: (80, 82),
    Type.Q3_K: (108,),
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
    Type.IQ4_NL: (0,),
    Type.IQ4_XS: (0,),
}
"""Types that the gguf package reads but does not write, with the places of their float16 factors: random bytes do."""

_SHAPE = {**SHAPE, "hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, "head_dim": 32}
_SHAPE["initializer_range"] = 0.05
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
_LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0 + 0.1 * n for n in range(16)],
    "long_factor": [1.0 + 0.5 * n for n in range(16)],
}
_GEMMA3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0},
}
_MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256}


@dataclass(frozen=True)
class Kind:
    """A model of one architecture, and what its file says of it beside the sizes that all have."""

    architecture: gguf.MODEL_ARCH
    config: Any
    keys: Mapping[str, Any] = field(default_factory=dict)
    left_out: str = ""
    """The end of the names of tensors that are zero, and not in the file."""


KINDS: dict[str, Kind] = {
    "llama": Kind(gguf.MODEL_ARCH.LLAMA, LlamaConfig(**_SHAPE, tie_word_embeddings=True)),
    "llama-of-zeros": Kind(
        gguf.MODEL_ARCH.LLAMA,
        LlamaConfig(**_SHAPE),
        {"expert_count": 0, "expert_used_count": 0, "rope.scaling.original_context_length": 0},
    ),
    "llama-wide": Kind(
        gguf.MODEL_ARCH.LLAMA,
        LlamaConfig(**_SHAPE | {"vocab_size": 1024, "intermediate_size": 6144}, tie_word_embeddings=True),
    ),
    "llama-stretched": Kind(
        gguf.MODEL_ARCH.LLAMA, LlamaConfig(**_SHAPE, rope_parameters=_LINEAR), {"rope.scaling.factor": 4.0}
    ),
    "llama-of-2023": Kind(
        gguf.MODEL_ARCH.LLAMA,
        LlamaConfig(**_SHAPE, rope_parameters=_LINEAR),
        {"rope.scaling.factor": 0.0, "rope.scale_linear": 4.0},
    ),
    "llama-biased": Kind(
        gguf.MODEL_ARCH.LLAMA, LlamaConfig(**_SHAPE, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3_ROPE)
    ),
    "llama-qkv-biased": Kind(gguf.MODEL_ARCH.LLAMA, LlamaConfig(**_SHAPE, attention_bias=True), left_out="o_proj.bias"),
    "mixtral": Kind(
        gguf.MODEL_ARCH.LLAMA,
        MixtralConfig(**_SHAPE, num_local_experts=4, num_experts_per_tok=2),
        {"expert_count": 4, "expert_used_count": 2},
    ),
    "qwen2": Kind(
        gguf.MODEL_ARCH.QWEN2,
        Qwen2Config(**_SHAPE, use_sliding_window=False, rope_parameters=_YARN),
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
        },
    ),
    "qwen3": Kind(gguf.MODEL_ARCH.QWEN3, Qwen3Config(**_SHAPE, tie_word_embeddings=True)),
    "qwen3-moe": Kind(
        gguf.MODEL_ARCH.QWEN3MOE,
        Qwen3MoeConfig(**_SHAPE, **_MOE, norm_topk_prob=True),
        {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 256},
    ),
    "gemma2": Kind(
        gguf.MODEL_ARCH.GEMMA2,
        Gemma2Config(**_SHAPE, query_pre_attn_scalar=32, sliding_window=24, attn_logit_softcapping=2.0),
        {"attention.sliding_window": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": Kind(
        gguf.MODEL_ARCH.GEMMA3,
        Gemma3TextConfig(
            **_SHAPE | {"num_hidden_layers": 6},
            query_pre_attn_scalar=32,
            sliding_window=24,
            layer_types=["sliding_attention"] * 5 + ["full_attention"],
            rope_parameters=_GEMMA3_ROPE,
        ),
        {"attention.sliding_window": 24, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "phi3": Kind(
        gguf.MODEL_ARCH.PHI3,
        Phi3Config(
            **_SHAPE,
            original_max_position_embeddings=32,
            rope_parameters=_LONG,
        ),
        {"rope.scaling.original_context_length": 32},
    ),
    "phi3-windows": Kind(
        gguf.MODEL_ARCH.PHI3, Phi3Config(**_SHAPE, sliding_window=24), {"attention.sliding_window": 24}
    ),
    "phi4": Kind(gguf.MODEL_ARCH.PHI3, Phi3Config(**_SHAPE, sliding_window=None), {"attention.sliding_window": 0}),
    "olmo2": Kind(gguf.MODEL_ARCH.OLMO2, Olmo2Config(**_SHAPE)),
    "gpt2": Kind(
        gguf.MODEL_ARCH.GPT2,
        GPT2Config(vocab_size=512, n_embd=256, n_layer=2, n_head=8, n_positions=256, initializer_range=0.05),
    ),
}


class SavedGGUF:
    """A random model of KINDS as the file ``path``, and transformers' model with the weights that the file holds."""

    def __init__(
        self,
        name: str,
        stored: Type,
        directory: Path,
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
        halves: Collection[str] = (),
    ) -> None:
        """``metadata`` are keys of the file besides those of its kind, such as those of a tokenizer. The tensors
        ``halves`` are in F16 whatever ``stored``."""
        kind = KINDS[name]
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(kind.config, attn_implementation="eager").eval()
        disturb(model)
        model.save_pretrained(directory / "original")
        tensors = load_file(directory / "original" / "model.safetensors")
        self.path = directory / "model.gguf"
        writer = _Writer(kind, stored, self.path, metadata or {}, halves)
        held = {key: writer.add(key, tensor) for key, tensor in tensors.items()}
        writer.finish()
        twin = directory / "held"
        model.config.save_pretrained(twin)
        save_file(held, twin / "model.safetensors", metadata={"format": "pt"})
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            twin, attn_implementation="eager", dtype=torch.float32
        ).eval()

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> Tensor:
        """[len(tokens), vocab] float32 after each of ``tokens``, by transformers."""
        logits: Tensor = self.model(torch.tensor([tokens]), use_cache=False).logits[0]
        return logits


class _Writer:
    """Writes one file as llama.cpp's converter does."""

    def __init__(
        self, kind: Kind, stored: Type, path: Path, metadata: Mapping[str, Any], halves: Collection[str]
    ) -> None:
        self._kind, self._type, self._halves = kind, stored, halves
        config = kind.config
        self._layers = config.num_hidden_layers
        self._names = gguf.get_tensor_name_map(kind.architecture, self._layers)
        self._writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[kind.architecture])
        self._random = np.random.default_rng(0)
        self._experts: dict[str, dict[int, Tensor]] = {}
        self._held: dict[str, Tensor] = {}
        self._add_keys()
        for key, value in metadata.items():
            if isinstance(value, list):
                self._writer.add_array(key, value)
            else:
                self._writer.add_key_value(key, value, _VALUE_TYPES[type(value)])

    def add(self, name: str, tensor: Tensor) -> Tensor:
        """Writes the tensor that a Hugging Face checkpoint calls ``name``; returns it as the file holds it."""
        if self._kind.left_out and name.endswith(self._kind.left_out):
            return torch.zeros_like(tensor)
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:  # an expert
            return self._add_expert(name, tensor)
        if self._kind.architecture is gguf.MODEL_ARCH.GPT2 and found.split(".")[-2] in _TRANSPOSED:
            return self._write(found, tensor.t().contiguous()).t().contiguous()
        if "gemma" in self._kind.config.model_type and found.endswith("norm.weight"):
            return self._write(found, tensor + 1) - 1
        heads = self._interleaved(found)
        if heads is None:
            return self._write(found, tensor)
        return halves_of(self._write(found, pairs_of(tensor, heads)), heads)

    def finish(self) -> None:
        """Ends the file."""
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_tensors_to_file()
        self._writer.close()

    def _add_keys(self) -> None:
        config, name = self._kind.config, self._writer.arch
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        self._writer.add_context_length(config.max_position_embeddings)
        self._writer.add_embedding_length(config.hidden_size)
        self._writer.add_block_count(self._layers)
        self._writer.add_head_count(heads)
        self._writer.add_head_count_kv(getattr(config, "num_key_value_heads", heads))
        self._writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
        self._writer.add_key_length(head_dim)
        self._writer.add_value_length(head_dim)
        if hasattr(config, "rms_norm_eps"):
            self._writer.add_layer_norm_rms_eps(config.rms_norm_eps)
            self._writer.add_rope_dimension_count(head_dim)
        else:
            self._writer.add_layer_norm_eps(config.layer_norm_epsilon)
        self._add_rope(head_dim)
        for key, value in self._kind.keys.items():
            self._writer.add_key_value(f"{name}.{key}", value, _VALUE_TYPES[type(value)])

    def _add_rope(self, head_dim: int) -> None:
        parameters = getattr(self._kind.config, "rope_parameters", None) or {}
        parameters = parameters.get("full_attention", parameters)
        self._writer.add_rope_freq_base(parameters.get("rope_theta", 10_000.0))
        if parameters.get("rope_type") == "llama3":
            self._write("rope_freqs.weight", llama3_factors(parameters, head_dim))
        for which in ("long", "short"):
            if f"{which}_factor" in parameters:
                self._write(f"rope_factors_{which}.weight", torch.tensor(parameters[f"{which}_factor"]))
        if "long_factor" in parameters:
            stretch = (
                self._kind.config.max_position_embeddings / self._kind.keys["rope.scaling.original_context_length"]
            )
            original = self._kind.keys["rope.scaling.original_context_length"]
            self._writer.add_rope_scaling_attn_factors((1 + np.log(stretch) / np.log(original)) ** 0.5)

    def _interleaved(self, name: str) -> int | None:
        """The heads of a tensor whose rows llama.cpp stores in pairs."""
        if self._kind.architecture is not gguf.MODEL_ARCH.LLAMA:
            return None
        config = self._kind.config
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        return heads.get(name.split(".")[-2])

    def _add_expert(self, name: str, tensor: Tensor) -> Tensor:
        """Experts of a layer are one tensor; it is written with the last of them."""
        parts = name.split(".")
        place = parts.index("experts") + 1
        layer, expert, which = parts[parts.index("layers") + 1], int(parts[place]), _EXPERTS[parts[place + 1]]
        stack = self._experts.setdefault(f"blk.{layer}.ffn_{which}_exps.weight", {})
        # Each row is quantised alone, so an expert's own rows are the same in the stack.
        raw, held = self._quantised(tensor)
        stack[expert] = torch.from_numpy(raw)
        count = int(self._kind.keys["expert_count"])
        if len(stack) == count:
            whole = np.stack([stack[n].numpy() for n in range(count)])
            self._writer.add_tensor(f"blk.{layer}.ffn_{which}_exps.weight", whole, raw_dtype=self._type)
        return held

    def _write(self, name: str, tensor: Tensor) -> Tensor:
        if tensor.dim() == 1 or name.endswith("ffn_gate_inp.weight") or name == "position_embd.weight":
            self._writer.add_tensor(name, tensor.float().numpy(), raw_dtype=Type.F32)
            return tensor.float()
        if name in self._halves:
            self._writer.add_tensor(name, tensor.half().numpy(), raw_dtype=Type.F16)
            return tensor.half().float()
        raw, held = self._quantised(tensor)
        self._writer.add_tensor(name, raw, raw_dtype=self._type)
        return held

    def _quantised(self, tensor: Tensor) -> tuple[Array, Tensor]:
        """The tensor in the file's type, and what that holds."""
        if self._type in FLOATS:
            held = tensor.to(FLOATS[self._type])
            return held.view(torch.uint8).numpy(), held.float()
        raw = self._random_blocks(tensor.shape) if self._type in K_TYPES else gguf.quantize(tensor.numpy(), self._type)
        return raw, torch.from_numpy(gguf.dequantize(raw, self._type).copy())

    def _random_blocks(self, shape: torch.Size) -> Array:
        weights, size = gguf.GGML_QUANT_SIZES[self._type]
        blocks = self._random.integers(0, 256, (*shape[:-1], shape[-1] // weights, size), dtype=np.uint8)
        for place in K_TYPES[self._type]:
            # These multiply by a scale of six or eight bits besides.
            largest = 4e-5 if self._type in (Type.Q6_K, Type.IQ4_XS) else 4e-4
            factors = self._random.uniform(largest / 2, largest, (*blocks.shape[:-1], 1)).astype(np.float16)
            blocks[..., place : place + 2] = factors.view(np.uint8)
        return blocks.reshape(*shape[:-1], -1)


_TRANSPOSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
_EXPERTS = {"w1": "gate", "w2": "down", "w3": "up", "gate_proj": "gate", "down_proj": "down", "up_proj": "up"}
_VALUE_TYPES = {
    int: gguf.GGUFValueType.UINT32,
    float: gguf.GGUFValueType.FLOAT32,
    str: gguf.GGUFValueType.STRING,
}


def pairs_of(tensor: Tensor, heads: int) -> Tensor:
    """Rows in halves of each head, as pairs."""
    return tensor.view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape).contiguous()


def halves_of(tensor: Tensor, heads: int) -> Tensor:
    """The other way round."""
    return tensor.view(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape).contiguous()


def llama3_factors(parameters: Mapping[str, Any], head_dim: int) -> Tensor:
    """Divisors of frequencies, float32 [head_dim / 2] (Llama 3.1's rope scaling)."""
    frequencies = parameters["rope_theta"] ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    turns = parameters["original_max_position_embeddings"] * frequencies / (2 * torch.pi)
    low, high, factor = (parameters[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    divisors: Tensor = 1 / ((1 - smooth) / factor + smooth)
    return divisors.float()
