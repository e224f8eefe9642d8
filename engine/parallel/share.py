"""``Share``: the part of a model that one rank has (its tensor-parallel shard).

Matrices that read the residual stream are split by outputs: queries, keys and values by whole heads, gate and up
separately. Matrices that write to the stream are split by inputs, and the ranks' products are summed. The vocabulary is
split too. Every rank has all norms, routers and learned positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from engine.model.spec import ExpertSpec, ModelSpec


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of one dimension of a matrix that a rank keeps: sorted ranges that are not adjacent. ``size`` is the
    size of the whole dimension."""

    size: int
    pieces: tuple[slice, ...]

    @classmethod
    def of(cls, size: int, pieces: Iterable[slice]) -> Cut:
        """Returns the cut with ``pieces``. Adjacent pieces are merged."""
        merged: list[slice] = []
        for piece in pieces:
            if merged and merged[-1].stop == piece.start:
                merged[-1] = slice(merged[-1].start, piece.stop)
            else:
                merged.append(piece)
        return cls(size, tuple(merged))

    @classmethod
    def whole(cls, size: int) -> Cut:
        """Returns the cut that keeps the whole dimension."""
        return cls(size, (slice(0, size),))


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a model that rank ``rank``, from 0, of ``ranks`` has.

    ``spec`` must have accepted the model: the other methods do not check that sizes can be divided. ``whole`` is the
    spec of the whole model, ``size`` a dimension of it.
    """

    rank: int = 0
    ranks: int = 1

    def spec(self, whole: ModelSpec) -> ModelSpec:
        """Returns the spec of this rank's share as a model of its own; ``vocab_size`` stays that of the whole model.
        Raises ValueError, naming the field of config.json, for a size that cannot be divided by the number of ranks."""
        self._check(whole)
        dense = any(layer.experts is None for layer in whole.layers)
        return replace(
            whole,
            num_heads=whole.num_heads // self.ranks,
            num_kv_heads=max(1, whole.num_kv_heads // self.ranks),
            intermediate_size=whole.intermediate_size // self.ranks if dense else whole.intermediate_size,
            layers=tuple(replace(layer, experts=self._experts(layer.experts)) for layer in whole.layers),
        )

    def qkv(self, whole: ModelSpec) -> Cut:
        """Returns this rank's rows of the fused matrix of queries, keys and values."""
        queries, keys = whole.num_heads, whole.num_kv_heads
        heads = (self.heads(whole), self._shifted(self.kv_heads(whole), queries))
        ranges = (*heads, self._shifted(heads[1], keys))
        return Cut.of((queries + 2 * keys) * whole.head_dim, (self._scaled(each, whole.head_dim) for each in ranges))

    def heads(self, whole: ModelSpec) -> slice:
        """Returns this rank's query heads."""
        return self._part(whole.num_heads)

    def kv_heads(self, whole: ModelSpec) -> slice:
        """Returns this rank's KV heads: those that its query heads use. If there are fewer KV heads than ranks, several
        ranks have the same one."""
        if whole.num_kv_heads >= self.ranks:
            return self._part(whole.num_kv_heads)
        only = self.rank * whole.num_kv_heads // self.ranks
        return slice(only, only + 1)

    def attended(self, whole: ModelSpec) -> Cut:
        """Returns this rank's inputs of the output projection after attention: the outputs of its heads."""
        return Cut.of(whole.num_heads * whole.head_dim, [self._scaled(self.heads(whole), whole.head_dim)])

    def inner(self, size: int) -> Cut:
        """Returns this rank's part of the ``size`` elements between an MLP's projections."""
        return Cut.of(size, [self._part(size)])

    def gate_up(self, size: int, gated: bool) -> Cut:
        """Returns this rank's outputs of an MLP's first projection: gate, then up, if it is ``gated``."""
        own = self._part(size)
        return Cut.of(2 * size, [own, self._shifted(own, size)]) if gated else self.inner(size)

    def vocabulary(self, whole: ModelSpec) -> Cut:
        """Returns this rank's rows of the vocabulary. The last rank may have fewer than ``vocabulary_rows``."""
        rows = self.vocabulary_rows(whole)
        return Cut.of(whole.vocab_size, [slice(self.rank * rows, min((self.rank + 1) * rows, whole.vocab_size))])

    def vocabulary_rows(self, whole: ModelSpec) -> int:
        """Returns the number of vocabulary rows per rank, with padding."""
        return -(-whole.vocab_size // self.ranks)

    def _check(self, whole: ModelSpec) -> None:
        kv_heads, ranks = whole.num_kv_heads, self.ranks
        dense = any(layer.experts is None for layer in whole.layers)
        experts = sorted({layer.experts.intermediate_size for layer in whole.layers if layer.experts is not None})
        sizes = [("num_attention_heads", whole.num_heads)]
        sizes += [("intermediate_size", whole.intermediate_size)] if dense else []
        sizes += [("intermediate_size of experts", size) for size in experts]
        uneven = [f"{name} {size}" for name, size in sizes if size % ranks]
        if kv_heads % ranks and ranks % kv_heads:
            uneven.append(f"num_key_value_heads {kv_heads}")
        if (ranks - 1) * self.vocabulary_rows(whole) >= whole.vocab_size:
            uneven.append(f"vocab_size {whole.vocab_size}")
        if uneven:
            raise ValueError(f"tensor_parallel: {', '.join(uneven)} cannot be split over {ranks} ranks")

    def _experts(self, whole: ExpertSpec | None) -> ExpertSpec | None:
        if whole is None:
            return None
        return replace(whole, intermediate_size=whole.intermediate_size // self.ranks)

    def _part(self, size: int) -> slice:
        own = size // self.ranks
        return slice(self.rank * own, (self.rank + 1) * own)

    @staticmethod
    def _shifted(piece: slice, by: int) -> slice:
        return slice(piece.start + by, piece.stop + by)

    @staticmethod
    def _scaled(piece: slice, by: int) -> slice:
        return slice(piece.start * by, piece.stop * by)


WHOLE = Share()
