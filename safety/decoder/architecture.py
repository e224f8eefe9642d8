"""``Architecture``: the sizes of a decoder, and the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


class UnsupportedDecoderError(ValueError):
    """The files are malformed, or describe a decoder that this package does not run."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of a Llama decoder (Touvron et al., 2023, arXiv:2302.13971): RMSNorm before attention and MLP, rotary
    positions over whole heads, grouped-query attention, SwiGLU, no biases. ``max_tokens`` bounds a sequence."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    max_tokens: int
    rope_theta: float
    norm_epsilon: float

    def __post_init__(self) -> None:
        sizes = (self.layers, self.hidden, self.heads, self.kv_heads, self.intermediate, self.vocabulary)
        if min(*sizes, self.max_tokens) < 1:
            raise UnsupportedDecoderError("sizes of a decoder are at least 1")
        if self.hidden % self.heads or self.heads % self.kv_heads or self.head_size % 2:
            raise UnsupportedDecoderError(
                f"hidden {self.hidden}, heads {self.heads} and kv_heads {self.kv_heads} do not fit each other"
            )

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the name and the shape of each tensor, by the names of Hugging Face's ``LlamaModel``."""
        hidden, wide, kv = self.hidden, self.intermediate, self.kv_heads * self.head_size
        yield "embed_tokens.weight", (self.vocabulary, hidden)
        for layer in range(self.layers):
            prefix = f"layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (hidden,)
            for name, outputs in (("q_proj", hidden), ("k_proj", kv), ("v_proj", kv), ("o_proj", hidden)):
                yield f"{prefix}.self_attn.{name}.weight", (outputs, hidden)
            yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
            for name in ("gate_proj", "up_proj"):
                yield f"{prefix}.mlp.{name}.weight", (wide, hidden)
            yield f"{prefix}.mlp.down_proj.weight", (hidden, wide)
        yield "norm.weight", (hidden,)
