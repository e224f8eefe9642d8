"""The sizes of the embedded tiers, and how each is trained."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import LlamaConfig

VOCAB_SIZE = 4096
CONTEXT = 1024  # tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """A llama shape with tied embeddings, and its training: ``tokens`` to read, ``batch_tokens`` at a time, at a peak
    ``learning_rate``. ``grown_from`` names what it starts with the weights of; ``reads`` whose stream it reads, None:
    its own."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    tokens: int
    batch_tokens: int
    learning_rate: float
    grown_from: str | None = None
    reads: str | None = None


SHAPES = {
    "fast": Shape(128, 4, 4, 2, 384, 12_000_000, 1024, 6e-3),
    "balanced": Shape(256, 4, 8, 4, 704, 6_300_000, 1536, 4e-3, "fast"),
    # The balanced tier of a longer schedule, reading the same: what comes after it starts better from there.
    "stem": Shape(256, 4, 8, 4, 704, 8_500_000, 1536, 4e-3, "fast", "balanced"),
    "frontier": Shape(320, 8, 10, 5, 896, 9_500_000, 2048, 3e-3, "stem"),
}
TIERS = ("fast", "balanced", "frontier")


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
