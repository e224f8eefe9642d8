"""The settings of one engine (vLLM's ``EngineArgs``)."""

from __future__ import annotations

import math
import re
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
    """Path of a Hugging Face model directory (config.json, safetensors, tokenizer) or of a GGUF file; the first part of
    a split file. ``package:DISTRIBUTION/FILE`` is a file of an installed Python package."""

    model_sha256: str | None = None
    """SHA-256 of the file ``model``, in lower-case hexadecimal; of a split one, of all parts one after the other. A
    file with another hash is refused. None: not checked."""

    name: str | None = None
    """Name of the model in ModelInfo. None: the last part of ``model``. vLLM: ``served_model_name``."""

    chat_template: str | None = None
    """Path of a file with the Jinja chat template, in place of the model's; GGUF files often lack one. None: the
    model's. vLLM: the same name."""

    dtype: DTypeName = "float32"
    """Type of weights and activations. Answers do not depend on the batch in float32 on torch, and in every type with
    the compiled kernels."""

    weight_dtype: WeightDTypeName = "auto"
    """Type of weights in memory; they are rounded when the model is loaded. vLLM: ``quantization``.

    * auto: that of ``dtype``; of a GGUF file as it is stored, where the kernels multiply that.
    * int8: a scale per output. int4: a scale for each 32 weights, 4.5 bits per weight; the output layer is int8.
      A matrix that a GGUF file stores in as few bits or fewer stays as it is stored.
      The compiled kernels round the inputs to eight bits too, multiply whole numbers and so decode faster. On a GPU
      the weights are unpacked as they are read, and inputs are not rounded.
    * w8a8, fp8 (e4m3): for a GPU. A scale per output; inputs are rounded to int8 or fp8 with a scale per token, so that
      prefill is faster too. The output layer is int8, and its inputs are not rounded.

    torch computes with the rounded weights in ``dtype`` and saves no memory."""

    kv_dtype: KVDTypeName = "auto"
    """Type of keys and values in the cache. auto: that of ``dtype``. int8 and fp8 (e4m3) take one byte per number and a
    bfloat16 scale per token and head: nearly twice as many tokens fit as in bfloat16, and decoding reads half as much.
    vLLM: ``kv_cache_dtype``."""

    device: DeviceName = "cpu"
    """The device that the model runs on."""

    kernels: KernelsName = "auto"
    """Which kernels compute. auto: Triton's on CUDA; on a CPU the kernels in C, compiled on first use, if there is a C
    compiler and they support the model's family, else torch."""

    deterministic: bool = False
    """Batch invariance of Triton's kernels: answers in 16 bits have the same bits whatever else is in the batch. Costs
    some throughput. The compiled CPU kernels are always batch invariant."""

    tensor_parallel: int = 1
    """Number of processes that every layer is split over, each with a GPU of its own on the same machine. For models
    that do not fit on one GPU or are too slow there. Heads and inner sizes must be divisible by it. On a CPU it runs
    on torch. vLLM: ``tensor_parallel_size``."""

    rank_timeout_s: float = 60.0
    """Seconds that a step may take with tensor_parallel above 1. If it takes longer, the engine considers the other
    processes lost and fails. The first steps also compile kernels and need more time."""

    context_length: int | None = None
    """Most tokens of one sequence, prompt and answer together. None: the model's trained context. vLLM:
    ``max_model_len``."""

    default_max_tokens: int | None = None
    """Most tokens of an answer to a request that sets no limit; small models may repeat themselves until something
    ends them. None: what the context has room for. vLLM: ``max_new_tokens`` in ``--override-generation-config``."""

    block_size: int = 16
    """Tokens per KV block, the unit of allocation and of prefix reuse. Smaller blocks share more, and attention reads
    them more slowly."""

    kv_cache_tokens: int = 65_536
    """Size of the KV cache in tokens, over all sequences and the prefix cache; rounded down to whole blocks. Layers
    with a sliding window get at most this size, and no more than max_sequences windows need. Memory per token is 2 x
    layers x KV heads x head size x bytes of kv_dtype. A longer context_length is cut to this size, unless all layers
    have windows."""

    max_batch_tokens: int = 2_048
    """Token budget of one step, prefill and decode together. Bounds the time of a step, and so the time between two
    tokens of a running answer. vLLM: ``max_num_batched_tokens``."""

    prefill_chunk: int = 512
    """Most prompt tokens of one sequence in one step, so that a long prompt does not use up a whole step. vLLM:
    ``long_prefill_token_threshold``."""

    max_partial_prefills: int = 2
    """Most prompts longer than prefill_chunk that are prefilled at the same time, and one more if its tenant has none
    among them. Each allocates the blocks of its whole prompt at admission. Further long prompts wait, and shorter
    prompts pass them."""

    max_decode_slowdown: float | None = 1.6
    """Limit on the time of a step that computes a chunk of a long prompt beside decodes, as a multiple of the time of
    the decodes alone. The default keeps the time between other requests' tokens below twice the usual, with some room
    for noise. The engine learns step times as it runs, so chunk borders depend on time. Does not apply if all decodes
    are of class batch. None: only prefill_chunk limits chunks."""

    max_sequences: int = 256
    """Most sequences that hold KV blocks at once. Each may decode one token per step, so it must not exceed
    max_batch_tokens. vLLM: ``max_num_seqs``."""

    max_waiting: int = 1_024
    """Most requests in the waiting queue; further choices of an admitted request do not count. A request beyond that is
    refused with OverloadedError. A tenant with less than its share of the queue is still admitted, until the queue
    holds twice this number."""

    ageing_s: float = 30.0
    """Seconds of waiting that raise a request by one priority class. Bounds the wait of batch requests while higher
    classes could fill the engine."""

    prefix_bonus_s: float = 1.0
    """Head start of a waiting request whose whole prompt is cached, in seconds: it goes ahead of requests of its tenant
    and class that arrived up to this long before it. A partly cached prompt gets a part of it. The reason: cached
    blocks may soon be evicted. 0: no head start."""

    preemption_cooldown: int = 32
    """Tokens that a preempted sequence generates, once it runs again, before it may be preempted again."""

    reserve_answers: bool = False
    """Allocate the KV blocks of all of max_tokens when a request is admitted. Then no sequence is preempted, except
    beams, and fewer requests run at once. A request may ask for it by ``GenerationRequest.reserve``."""

    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of tenants. Under overload, computed tokens are shared in proportion, and so are places and KV blocks
    that one tenant has to give back to another. A tenant that is not named has 1."""

    prefix_caching: bool = True
    """Reuse the KV blocks of earlier prompts that begin with the same tokens under the same cache_salt. vLLM:
    ``enable_prefix_caching``."""

    speculative_tokens: int = 0
    """Most draft tokens of a sequence in a step. Prompt lookup proposes them: the tokens that followed the same tokens
    before. Answers that repeat their prompt, such as edits and extractions, take fewer steps. Answers stay the same,
    token by token, with the compiled kernels, and on torch in float32; in 16 bits on torch, rounding may decide a near
    tie differently. Requests with rules, grammars, log probabilities or beam search get no draft tokens. 0: no
    speculative decoding. vLLM: ``num_speculative_tokens``."""

    draft_model: str | None = None
    """Directory of a draft model: a smaller model with the same vocabulary. It proposes up to speculative_tokens where
    prompt lookup finds nothing. Its KV cache has as many blocks and needs memory of its own. The engine keeps measuring
    whether answers are generated faster with it, and uses it only while they are. Answers stay the same as above."""

    speculative_rows: int = 12
    """Rows of a step up to which draft tokens are added. Up to about this number the time of a step is that of reading
    the weights, so further rows cost little."""

    threads: int | None = None
    """Threads that compute a step. None: torch's default, usually one per core. On torch the setting applies to the
    whole process, and small models are faster with 1, because their operations are shorter than a hand-over to another
    thread. With the compiled kernels torch itself uses one thread from then on."""

    def __post_init__(self) -> None:
        if self.model_sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.model_sha256):
            raise ValueError("model_sha256 must be 64 lower-case hexadecimal digits")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("context_length", "default_max_tokens", "threads"):
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
        """Number of KV blocks that ``kv_cache_tokens`` amounts to."""
        return self.kv_cache_tokens // self.block_size
