"""Which part of a model one rank has.

Matrices that read the stream are split by outputs: queries, keys and values by whole heads, gate and up each. Those
that write to it are split by inputs, and the ranks' products add up to the whole. The vocabulary is split too; norms,
routers and learned positions are with every rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from engine.model.spec import ExpertSpec, ModelSpec


@dataclass(frozen=True, slots=True)
class Cut:
    """What is kept of one dimension of a matrix that has ``size`` in all: pieces in order, which do not touch."""

    size: int
    pieces: tuple[slice, ...]

    @classmethod
    def of(cls, size: int, pieces: Iterable[slice]) -> Cut:
        """Pieces that touch become one."""
        merged: list[slice] = []
        for piece in pieces:
            if merged and merged[-1].stop == piece.start:
                merged[-1] = slice(merged[-1].start, piece.stop)
            else:
                merged.append(piece)
        return cls(size, tuple(merged))

    @classmethod
    def whole(cls, size: int) -> Cut:
        """All of it."""
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
        """What this rank's share looks like by itself; the vocabulary stays that of the model. Raises ValueError,
        naming the field of config.json, for what cannot be split."""
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
        """Rows of queries, keys and values in this order."""
        queries, keys = whole.num_heads, whole.num_kv_heads
        heads = (self.heads(whole), self._shifted(self.kv_heads(whole), queries))
        ranges = (*heads, self._shifted(heads[1], keys))
        return Cut.of((queries + 2 * keys) * whole.head_dim, (self._scaled(each, whole.head_dim) for each in ranges))

    def heads(self, whole: ModelSpec) -> slice:
        """Its heads of queries."""
        return self._part(whole.num_heads)

    def kv_heads(self, whole: ModelSpec) -> slice:
        """Its heads of keys and values: those that its queries read. Where there are fewer than ranks, several have the
        same one."""
        if whole.num_kv_heads >= self.ranks:
            return self._part(whole.num_kv_heads)
        only = self.rank * whole.num_kv_heads // self.ranks
        return slice(only, only + 1)

    def attended(self, whole: ModelSpec) -> Cut:
        """What its heads give, of what the projection after attention reads."""
        return Cut.of(whole.num_heads * whole.head_dim, [self._scaled(self.heads(whole), whole.head_dim)])

    def inner(self, size: int) -> Cut:
        """Of the ``size`` numbers between an MLP's projections."""
        return Cut.of(size, [self._part(size)])

    def gate_up(self, size: int, gated: bool) -> Cut:
        """The same of what the first projection gives: gate, then up."""
        own = self._part(size)
        return Cut.of(2 * size, [own, self._shifted(own, size)]) if gated else self.inner(size)

    def vocabulary(self, whole: ModelSpec) -> Cut:
        """Its rows of the vocabulary. The last rank's may be fewer than ``vocabulary_rows``."""
        rows = self.vocabulary_rows(whole)
        return Cut.of(whole.vocab_size, [slice(self.rank * rows, min((self.rank + 1) * rows, whole.vocab_size))])

    def vocabulary_rows(self, whole: ModelSpec) -> int:
        """How many each rank has, padding included."""
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
