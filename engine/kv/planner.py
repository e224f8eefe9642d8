"""What a model's KV cache costs, before anything is loaded: its bytes, the number of sequences that fit, and the
operations of a prefill.

Keys and values take ``2 x layers x KV heads x head size x bytes of a number`` per token. Formats of one byte add two
scales per token, layer and KV head. With grouped-query attention only the KV heads count, not the query heads (Ainslie
et al. 2023).
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
    """The configured KV cache does not fit into the available memory. The message gives both sizes."""


@dataclass(frozen=True, slots=True)
class LengthPlan:
    """The costs of sequences of ``length`` tokens."""

    length: int
    kv_bytes: int  # most bytes of KV blocks that one sequence holds
    prefill_flops: int  # floating-point operations to compute all its tokens once
    sequences: int  # sequences that fit into the cache at once


@dataclass(frozen=True, slots=True)
class KVPlan:
    """The size of a KV cache for the model ``spec`` in the format ``form``. ``shapes`` has its KV cache groups."""

    spec: ModelSpec
    form: KVFormat
    shapes: tuple[GroupShape, ...]

    @classmethod
    def within(
        cls, spec: ModelSpec, form: KVFormat, memory: int, *, block_size: int, longest_chunk: int, sequences: int
    ) -> KVPlan:
        """Returns the largest cache that fits into ``memory`` bytes and is of use to ``sequences`` sequences.
        ``longest_chunk`` is the most tokens of one sequence in a step, ``block_size`` the tokens of a block."""

        def of(blocks: int) -> KVPlan:
            sizes = {"blocks": blocks, "block_size": block_size, "longest_chunk": longest_chunk}
            return cls(spec, form, group_shapes(spec, **sizes, sequences=sequences))

        # The most blocks if the model had a single layer.
        most = memory // (block_size * 2 * spec.num_kv_heads * form.head_bytes(spec.head_dim))
        return of(bisect_right(range(most + 1), memory, key=lambda blocks: of(blocks).total_bytes) - 1)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token in all layers."""
        return bytes_per_token(self.spec, self.form)

    @property
    def tokens(self) -> int:
        """Number of tokens that the largest group holds."""
        return max(shape.blocks * shape.block_size for shape in self.shapes)

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole cache."""
        return self._bytes([shape.blocks for shape in self.shapes])

    def of_length(self, length: int) -> LengthPlan:
        """Returns the costs of sequences of ``length`` tokens, prompt and answer together."""
        held = [shape.held(length) for shape in self.shapes]
        fitting = min(shape.blocks // blocks for shape, blocks in zip(self.shapes, held, strict=True))
        return LengthPlan(length, self._bytes(held), prefill_flops(self.spec, length), fitting)

    def check(self, available: int) -> None:
        """Raises MemoryPlanError if the cache needs more than ``available`` bytes."""
        if self.total_bytes > available:
            fitting = int(self.tokens * available / self.total_bytes)
            raise MemoryPlanError(
                f"kv_cache_tokens: {self.tokens:,} tokens need {self.total_bytes / GIB:.1f} GiB, "
                f"{available / GIB:.1f} GiB are available; about {fitting:,} would fit"
            )

    def _bytes(self, blocks: Sequence[int]) -> int:
        """Returns the bytes of the given numbers of blocks, one for each group."""
        layers = Counter(layers_by_group(self.spec))
        tokens = sum(layers[group] * count * self.shapes[group].block_size for group, count in enumerate(blocks))
        return tokens * bytes_per_token(self.spec, self.form) // self.spec.num_layers


def bytes_per_token(spec: ModelSpec, form: KVFormat) -> int:
    """Returns the bytes of the keys and values of one token in all layers."""
    return 2 * spec.num_layers * spec.num_kv_heads * form.head_bytes(spec.head_dim)


def prefill_flops(spec: ModelSpec, length: int) -> int:
    """Returns the floating-point operations to compute ``length`` tokens without cached ones, counting a multiplication
    and an addition as two: the products with the weights, and attention over the positions that each token attends to.
    The logits of one token are included; those of the others are not computed."""
    linear = sum(2 * _weights(spec, layer) for layer in spec.layers) * length
    seen = sum(_pairs(length, spec.kinds[layer.kind].window) for layer in spec.layers)
    attention = 4 * spec.num_heads * spec.head_dim * seen
    return linear + attention + 2 * spec.vocab_size * spec.hidden_size


def _weights(spec: ModelSpec, layer: LayerSpec) -> int:
    """Returns the number of weights of one layer that each token is multiplied with."""
    heads = 2 * spec.num_heads + 2 * spec.num_kv_heads  # queries and output; keys and values
    attention = spec.hidden_size * heads * spec.head_dim
    matrices = 3 if spec.gated else 2
    if layer.experts is None:
        return attention + matrices * spec.hidden_size * spec.intermediate_size
    inner = layer.experts.per_token * layer.experts.intermediate_size
    return attention + spec.hidden_size * (layer.experts.count + matrices * inner)


def _pairs(length: int, window: int | None) -> int:
    """Returns the number of pairs of a query and a position that it attends to."""
    if window is None or length <= window:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window
