"""All settings of one engine, each with its unit and its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

DTypeName = Literal["float32", "bfloat16", "float16"]
WeightDTypeName = Literal["auto", "int8", "int4", "w8a8", "fp8"]
KVDTypeName = Literal["auto", "float32", "bfloat16", "float16", "int8", "fp8"]
DeviceName = Literal["cpu", "cuda"]
KernelsName = Literal["auto", "compiled", "triton", "torch"]

_AT_LEAST_ONE = (
    "tensor_parallel",
    "block_size",
    "max_batch_tokens",
    "prefill_chunk",
    "max_partial_prefills",
    "max_sequences",
    "max_waiting",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of one engine. Raises ValueError, naming the field, for a value out of range."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    model: str
    """Path of a Hugging Face model directory: config.json, safetensors, tokenizer."""

    name: str | None = None
    """What ModelInfo calls the model. None: the last part of ``model``."""

    dtype: DTypeName = "float32"
    """Type of weights and activations. On torch, float32 is the type in which answers
    do not depend on the batch; the compiled kernels keep that in bfloat16 too."""

    weight_dtype: WeightDTypeName = "auto"
    """Type of weights in memory. auto: that of ``dtype``. int8: whole numbers and a scale per output; int4: and a scale
    for each 32 weights, 4.5 bits each, but for those that read the logits out, which are int8. Rounded when the model
    is loaded. The compiled kernels then multiply whole numbers, with inputs rounded to eight bits, and decode faster;
    on a card the weights are unpacked as they are read, and inputs stay as they are. w8a8 and fp8 (e4m3) have a scale
    per output and are for a card: inputs are rounded as well, to int8 or fp8 with a scale per token, so that long
    prompts are computed faster too; weights that read the logits out are int8 as above. torch computes with what
    rounding left of the weights, in any of them, and saves nothing."""

    kv_dtype: KVDTypeName = "auto"
    """Type of keys and values in the cache. auto: that of ``dtype``. int8 and fp8 (e4m3) take one byte a number and one
    bfloat16 per token and head, so that nearly twice as many tokens fit and decoding reads half as much."""

    device: DeviceName = "cpu"
    """Where the model runs."""

    kernels: KernelsName = "auto"
    """What computes. auto: on CUDA Triton's kernels; on a CPU those compiled for it on first use, where there is a C
    compiler and they know the model's family, else torch."""

    deterministic: bool = False
    """Of Triton's kernels: answers in 16 bits that do not depend, to the bit, on what else a step computes, for some
    throughput. The compiled kernels on a CPU are so always."""

    tensor_parallel: int = 1
    """Processes, each with a GPU of its own on the same machine, over which every layer is split: for models that one
    GPU does not hold, or not fast enough. Heads and inner sizes must divide by it. On a CPU it runs on torch."""

    rank_timeout_s: float = 60.0
    """With tensor_parallel, seconds that a step may take before the other processes are given up and the engine with
    them. Must leave time for what the first steps compile."""

    context_length: int | None = None
    """Most tokens of one sequence, prompt and answer together. None: what the model was trained for."""

    block_size: int = 16
    """Tokens per KV block: the grain of allocation and of prefix reuse. Smaller shares more and gathers slower."""

    kv_cache_tokens: int = 65_536
    """Tokens that the KV cache holds, over all sequences and the prefix cache; rounded down to whole blocks. Layers
    with a window hold so many at most, and no more than max_sequences need for what they see. Memory is 2 x layers x KV
    heads x head size x bytes of kv_dtype per token. A context longer than this is cut to it, unless all
    layers have windows."""

    max_batch_tokens: int = 2_048
    """Tokens computed by one step, prefill and decode together: bounds the time of a step, and so the gap between two
    tokens of a running answer."""

    prefill_chunk: int = 512
    """Most prompt tokens of one sequence in one step, so that a long prompt does not take a whole step for itself."""

    max_partial_prefills: int = 2
    """Most prompts longer than prefill_chunk that are computed at the same time. Each holds blocks for all of itself
    from the start; the next waits for a better use of them, and shorter prompts pass."""

    max_decode_slowdown: float | None = 1.6
    """How many times as long as decodes alone a step may take when it computes a part of a long prompt beside them:
    bounds what a long prompt does to the gaps between others' tokens, here meant to stay below twice, the noise of
    steps counted in. Learnt as the engine runs, so where chunks are cut depends on time. Does not apply beside decodes
    of class batch alone. None: only prefill_chunk bounds it."""

    max_sequences: int = 256
    """Most sequences that hold KV blocks at once. Each may decode one token per step, so at most max_batch_tokens."""

    max_waiting: int = 1_024
    """Most sequences that wait for blocks; one more is refused with OverloadedError rather than left to time out. A
    tenant with less than its share of them gets in all the same, up to twice as many in all."""

    ageing_s: float = 30.0
    """Seconds of waiting that raise a request by one class. Bounds the wait of batch work when the classes above could
    fill the engine."""

    prefix_bonus_s: float = 1.0
    """A waiting request whose prompt is cached goes ahead of those of its tenant and class that came up to so many
    seconds before it, in proportion to the cached part: what is cached now may soon be evicted. 0: never."""

    preemption_cooldown: int = 32
    """Tokens that a preempted request generates, once it runs again, before it may be preempted again."""

    reserve_answers: bool = False
    """Set KV blocks for all of max_tokens aside when a request starts, for all requests: nothing is ever preempted, and
    fewer run at once. A request may ask for it by itself."""

    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    """Shares of tenants in the tokens computed, when more is asked than can be served. 1 for those not named."""

    prefix_caching: bool = True
    """Reuse the KV blocks of earlier prompts that begin with the same tokens under the same salt."""

    speculative_tokens: int = 0
    """Most tokens guessed for a sequence in a step, from what followed the same tokens before (prompt lookup), and
    computed with it. Texts that repeat their prompt, such as edits and extractions, come in fewer steps. Answers stay
    the same, token by token, with the compiled kernels, and on torch in float32; in 16 bits on torch they are as good,
    but a near tie may fall to the other side. Not for requests with rules, grammars or log probabilities. 0: none."""

    draft_model: str | None = None
    """Directory of a smaller model of the same vocabulary that guesses where there is nothing to look up, up to
    speculative_tokens. Its KV cache comes on top, in as many blocks. It guesses while tokens come faster that way than
    without, which is measured all along; answers stay the same as above."""

    speculative_rows: int = 12
    """Rows of a step up to which guesses are added: what one reading of the weights serves."""

    threads: int | None = None
    """Threads that compute a step. None: as many as torch takes, usually one per core. On torch it holds for the whole
    process, and small models are faster with 1: their operations are shorter than the hand-over to another thread.
    Where the compiled kernels run, torch itself keeps to one thread from then on."""

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("context_length", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or None, got {value}")
        if self.speculative_tokens < 0 or self.speculative_rows < 0:
            raise ValueError("speculative_tokens and speculative_rows must not be negative")
        if not self.rank_timeout_s > 0:
            raise ValueError(f"rank_timeout_s must be positive, got {self.rank_timeout_s}")
        if self.tensor_parallel > 1 and self.kernels == "compiled":
            raise ValueError("tensor_parallel: the compiled kernels run a model in one process")
        if self.draft_model is not None and not self.speculative_tokens:
            raise ValueError("draft_model needs speculative_tokens")
        if self.max_decode_slowdown is not None and not self.max_decode_slowdown > 1.0:
            raise ValueError(f"max_decode_slowdown must be above 1 or None, got {self.max_decode_slowdown}")
        if not self.ageing_s > 0:
            raise ValueError(f"ageing_s must be positive, got {self.ageing_s}")
        if not self.prefix_bonus_s >= 0 or self.preemption_cooldown < 0:
            raise ValueError("prefix_bonus_s and preemption_cooldown must not be negative")
        if not all(weight > 0 and math.isfinite(weight) for weight in self.tenant_weights.values()):
            raise ValueError("tenant_weights must be positive numbers")
        if self.kv_cache_tokens < self.block_size:
            raise ValueError(f"kv_cache_tokens must hold at least one block of {self.block_size} tokens")
        if self.max_sequences > self.max_batch_tokens:
            raise ValueError(f"max_sequences must not exceed max_batch_tokens, got {self.max_sequences}")

    @property
    def num_blocks(self) -> int:
        """Blocks of the KV pool."""
        return self.kv_cache_tokens // self.block_size
