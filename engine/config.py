"""All settings of one engine, each with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

DTypeName = Literal["float32", "bfloat16", "float16"]
DeviceName = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of one engine. Raises ValueError, naming the field, for a value out of range."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    model: str
    """Path of a Hugging Face model directory: config.json, safetensors, tokenizer."""

    name: str | None = None
    """What ModelInfo calls the model. None: the last part of ``model``."""

    dtype: DTypeName = "float32"
    """Type of weights, activations and KV cache. float32 is the type in which answers do not depend on the batch."""

    device: DeviceName = "cpu"
    """Where the model runs."""

    context_length: int | None = None
    """Most tokens of one sequence, prompt and answer together. None: what the model was trained for."""

    block_size: int = 16
    """Tokens per KV block: the grain of allocation and of prefix reuse. Smaller shares more and gathers slower."""

    kv_cache_tokens: int = 65_536
    """Tokens that the KV cache holds, over all sequences and the prefix cache; rounded down to whole blocks. Memory is
    2 x layers x KV heads x head size x bytes of dtype per token. A context longer than this is cut to it."""

    max_batch_tokens: int = 2_048
    """Tokens computed by one step, prefill and decode together: bounds the time of a step, and so the gap between two
    tokens of a running answer."""

    prefill_chunk: int = 512
    """Most prompt tokens of one sequence in one step, so that a long prompt does not take a whole step for itself."""

    max_sequences: int = 256
    """Most sequences that hold KV blocks at once. Each may decode one token per step, so at most max_batch_tokens."""

    max_waiting: int = 1_024
    """Most sequences that wait for blocks; one more is refused with OverloadedError rather than left to time out."""

    prefix_caching: bool = True
    """Reuse the KV blocks of earlier prompts that begin with the same tokens under the same salt."""

    threads: int | None = None
    """Threads torch uses inside one operation, for the whole process. None leaves it alone. Small models are faster
    with 1: their operations are shorter than the hand-over to another thread."""

    def __post_init__(self) -> None:
        for field in ("block_size", "max_batch_tokens", "prefill_chunk", "max_sequences", "max_waiting"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        for field in ("context_length", "threads"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1 or None, got {value}")
        if self.kv_cache_tokens < self.block_size:
            raise ValueError(f"kv_cache_tokens must hold at least one block of {self.block_size} tokens")
        if self.max_sequences > self.max_batch_tokens:
            raise ValueError(f"max_sequences must not exceed max_batch_tokens, got {self.max_sequences}")

    @property
    def num_blocks(self) -> int:
        """Blocks of the KV pool."""
        return self.kv_cache_tokens // self.block_size
