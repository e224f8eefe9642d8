"""``Plans``: makes the attention plans of all kinds of layers from a step's numbers on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EngineConfig
from engine.kernels.interface import StepPlan
from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.layout import Sizes
from engine.kernels.triton.tiles import Tiles, queries_per_tile, tiles_of
from engine.kernels.triton.tuning import card_of, format_of, tuning_of
from engine.kv.format import KVFormat
from engine.kv.shape import windows_of
from engine.model.decoder import Decoder
from engine.model.rope import rope_tables
from engine.scheduler.step_plan import Chunk


class Plans:
    """Makes the attention plans for one model. It owns the block tables on the device, ``width`` blocks wide, and the
    tables of rotations."""

    def __init__(
        self, model: Decoder[PagedPlan], form: KVFormat, config: EngineConfig, width: int, context_length: int
    ) -> None:
        spec, embedding = model.spec, model.weights.embedding
        tuning = tuning_of(card_of(embedding.device), spec.head_dim, format_of(embedding.dtype, form.number))
        few, many = (tuning.exact, tuning.exact) if config.deterministic else (tuning.few, tuning.many)
        self._few = queries_per_tile(few.rows, spec.num_heads, spec.num_kv_heads)
        self._many = queries_per_tile(many.rows, spec.num_heads, spec.num_kv_heads)
        self._windows = windows_of(spec)
        self._kinds = spec.kinds
        shape = (config.max_sequences, width)
        self._tables = [torch.zeros(shape, dtype=torch.int32, device=embedding.device) for _ in self._windows]
        self._ropes = {
            kind.rope: _on(embedding.device, rope_tables(kind.rope, spec.head_dim, context_length))
            for kind in spec.kinds
            if kind.rope is not None
        }

    def tiles(self, counts: NDArray[np.int32], lengths: NDArray[np.int32], few: int, many: int) -> Tiles:
        """Returns the tiles of slots with ``counts`` rows and ``lengths`` tokens each, padded to ``few`` and ``many``
        tiles. Raises ValueError if there are more."""
        return tiles_of(counts, lengths, self._few, self._many, few, many)

    def sizes(self, chunks: Sequence[Chunk], wanted: int, slots: int) -> Sizes:
        """Returns the sizes of a step over ``chunks`` without padding."""
        few = sum(chunk.length <= self._few for chunk in chunks)
        many = sum(-(-chunk.length // self._many) for chunk in chunks if chunk.length > self._few)
        return Sizes(sum(chunk.length for chunk in chunks), wanted, few, many, slots)

    def write(self, group: int, changes: Tensor) -> None:
        """Writes ``changes`` of ``Slots.changes``, places and block ids, int32 [2, n], to the block table of a
        group."""
        if changes.shape[1]:
            self._tables[group].view(-1).index_copy_(0, changes[0].long(), changes[1])

    def of(self, part: dict[str, Tensor], longest: int) -> StepPlan[PagedPlan]:
        """Returns the plan of a step whose arrays are ``part`` (``Sizes.parts``) and whose sequences have at most
        ``longest`` tokens."""
        shared: dict[str, Any] = {
            name: part[name] for name in ("positions", "sequences", "starts", "counts", "lengths")
        }
        shared |= {name: part[name].view(-1, 2) for name in ("few_tiles", "tiles")}
        plans = tuple(
            PagedPlan(
                **shared,
                tables=self._tables[self._windows.index(kind.window)],
                rotation=None if kind.rope is None else self._ropes[kind.rope],
                window=kind.window,
                longest=longest,
                few_queries=self._few,
                tile_queries=self._many,
            )
            for kind in self._kinds
        )
        return StepPlan(part["positions"].clamp(min=0).long(), plans)


def _on(device: torch.device, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return tables[0].to(device), tables[1].to(device)
