"""What a model's KV cache costs: bytes, sequences that fit, and the arithmetic of a prefill, before anything is loaded.

Keys and values take ``2 x layers x KV heads x head size x bytes of a number`` per token, and two scales per layer and
KV head where numbers have one byte. With grouped queries the heads that count are those of keys and values (Ainslie
et al. 2023), not those of the queries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine.kv.format import KVFormat
from engine.kv.shape import GroupShape, group_shapes, layers_by_group
from engine.model.spec import LayerSpec, ModelSpec

GIB = 1024**3


class MemoryPlanError(ValueError):
    """The KV cache that is configured does not fit into the memory there is; the message gives both."""


@dataclass(frozen=True, slots=True)
class LengthPlan:
    """What sequences of ``length`` tokens come to."""

    length: int
    kv_bytes: int  # that one sequence holds at most, in whole blocks
    prefill_flops: int  # of computing all its tokens once
    sequences: int  # that fit into the cache at once


@dataclass(frozen=True, slots=True)
class KVPlan:
    """A KV cache for the model ``spec`` in the format ``form``; ``shapes`` has the groups of its layers."""

    spec: ModelSpec
    form: KVFormat
    shapes: tuple[GroupShape, ...]

    @classmethod
    def within(
        cls, spec: ModelSpec, form: KVFormat, memory: int, *, block_size: int, longest_chunk: int, sequences: int
    ) -> KVPlan:
        """The largest cache within ``memory`` bytes, for ``sequences`` sequences at most."""

        def of(blocks: int) -> KVPlan:
            sizes = {"blocks": blocks, "block_size": block_size, "longest_chunk": longest_chunk}
            return cls(spec, form, group_shapes(spec, **sizes, sequences=sequences))

        most = memory // (block_size * 2 * spec.num_kv_heads * form.head_bytes(spec.head_dim))  # for a single layer
        return of(bisect_right(range(most + 1), memory, key=lambda blocks: of(blocks).total_bytes) - 1)

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token in all layers."""
        return bytes_per_token(self.spec, self.form)

    @property
    def tokens(self) -> int:
        """Tokens that the largest group holds."""
        return max(shape.blocks * shape.block_size for shape in self.shapes)

    @property
    def total_bytes(self) -> int:
        """The whole cache."""
        return self._bytes([shape.blocks for shape in self.shapes])

    def of_length(self, length: int) -> LengthPlan:
        """For sequences of ``length`` tokens, prompt and answer together."""
        held = [shape.held(length) for shape in self.shapes]
        fitting = min(shape.blocks // blocks for shape, blocks in zip(self.shapes, held, strict=True))
        return LengthPlan(length, self._bytes(held), prefill_flops(self.spec, length), fitting)

    def check(self, available: int) -> None:
        """Raises MemoryPlanError if the cache needs more than the ``available`` bytes."""
        if self.total_bytes > available:
            fitting = int(self.tokens * available / self.total_bytes)
            raise MemoryPlanError(
                f"kv_cache_tokens: {self.tokens:,} tokens need {self.total_bytes / GIB:.1f} GiB, "
                f"{available / GIB:.1f} GiB are available; about {fitting:,} would fit"
            )

    def _bytes(self, blocks: Sequence[int]) -> int:
        """Of so many blocks in each group."""
        layers = Counter(layers_by_group(self.spec))
        tokens = sum(layers[group] * count * self.shapes[group].block_size for group, count in enumerate(blocks))
        return tokens * bytes_per_token(self.spec, self.form) // self.spec.num_layers


def bytes_per_token(spec: ModelSpec, form: KVFormat) -> int:
    """Keys and values of one token, in bytes."""
    return 2 * spec.num_layers * spec.num_kv_heads * form.head_bytes(spec.head_dim)


def prefill_flops(spec: ModelSpec, length: int) -> int:
    """Floating-point operations of computing ``length`` tokens from nothing, a multiplication and an addition counted
    as two: products with the weights, and attention over the positions that each token sees. The logits of one token
    are counted, those of the others are not computed."""
    linear = sum(2 * _weights(spec, layer) for layer in spec.layers) * length
    seen = sum(_pairs(length, spec.kinds[layer.kind].window) for layer in spec.layers)
    attention = 4 * spec.num_heads * spec.head_dim * seen
    return linear + attention + 2 * spec.vocab_size * spec.hidden_size


def _weights(spec: ModelSpec, layer: LayerSpec) -> int:
    """Weights of one layer that a token is multiplied with."""
    heads = 2 * spec.num_heads + 2 * spec.num_kv_heads  # queries and output; keys and values
    attention = spec.hidden_size * heads * spec.head_dim
    matrices = 3 if spec.gated else 2
    if layer.experts is None:
        return attention + matrices * spec.hidden_size * spec.intermediate_size
    inner = layer.experts.per_token * layer.experts.intermediate_size
    return attention + spec.hidden_size * (layer.experts.count + matrices * inner)


def _pairs(length: int, window: int | None) -> int:
    """Pairs of a query and a position that it sees."""
    if window is None or length <= window:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window
