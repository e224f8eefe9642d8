"""The sizes of the embedded tiers."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import LlamaConfig

VOCAB_SIZE = 4096
CONTEXT = 1024  # tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """A llama shape with tied embeddings; ``learning_rate`` is the peak."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    learning_rate: float


SHAPES = {
    "fast": Shape(128, 4, 4, 2, 384, 4e-3),
    "balanced": Shape(192, 6, 6, 2, 512, 3e-3),
    "frontier": Shape(256, 8, 8, 4, 704, 2e-3),
}


def llama_config(shape: Shape, bos: int, eos: int, pad: int) -> LlamaConfig:
    """The Hugging Face config of ``shape``."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
