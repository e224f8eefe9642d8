"""Which layers share blocks, and how many blocks a sequence holds of them.

Layers that see alike (the same window) form a group with a block pool of its own. A sequence holds blocks for all its
tokens in a group that sees everything; in a windowed one only those that a query can still see, however long it grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config import EngineConfig
from engine.model.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class GroupShape:
    """``blocks`` of ``block_size`` tokens for layers in which a query sees ``window`` tokens, itself included; None:
    all. A step computes ``longest_chunk`` tokens of a sequence at most."""

    window: int | None
    blocks: int
    block_size: int
    longest_chunk: int

    @property
    def bound(self) -> int | None:
        """Blocks that a sequence needs at most: what the first token of a chunk sees, and the chunk; both may begin and
        end inside a block. None: as many as it has tokens for."""
        if self.window is None:
            return None
        return -(-(self.window - 1 + self.longest_chunk) // self.block_size) + 1

    @property
    def longest(self) -> int | None:
        """Tokens of the longest sequence that has room here; None: any."""
        fits = self.bound is not None and self.bound <= self.blocks
        return None if fits else self.blocks * self.block_size

    def first_seen(self, start: int) -> int:
        """Position of the first block that a query at ``start``, or a later one, sees."""
        return 0 if self.window is None else max(0, start - self.window + 1) // self.block_size

    def total(self, tokens: int) -> int:
        """Blocks that so many tokens fill, those no longer seen included."""
        return -(-tokens // self.block_size)

    def held(self, tokens: int) -> int:
        """Blocks that a sequence of so many tokens holds at most."""
        return self.total(tokens) if self.bound is None else min(self.total(tokens), self.bound)


def windows_of(spec: ModelSpec) -> tuple[int | None, ...]:
    """The windows of a model's groups, in order: first, if there is one, the group that sees everything."""
    return tuple(sorted({kind.window for kind in spec.kinds}, key=lambda window: (window is not None, window)))


def layers_by_group(spec: ModelSpec) -> tuple[int, ...]:
    """For each layer, the number of its group."""
    windows = windows_of(spec)
    return tuple(windows.index(spec.kinds[layer.kind].window) for layer in spec.layers)


def group_shapes(
    spec: ModelSpec, *, blocks: int, block_size: int, longest_chunk: int, sequences: int
) -> tuple[GroupShape, ...]:
    """The groups of a model: ``blocks`` each, but for a windowed one no more than ``sequences`` can hold."""
    return tuple(
        GroupShape(window, blocks if most is None else min(blocks, most * sequences), block_size, longest_chunk)
        for window in windows_of(spec)
        for most in (GroupShape(window, 0, block_size, longest_chunk).bound,)
    )


def shapes_of(spec: ModelSpec, config: EngineConfig) -> tuple[GroupShape, ...]:
    """The groups of a model's layers, and the blocks that each has in an engine of this config."""
    return group_shapes(
        spec,
        blocks=config.num_blocks,
        block_size=config.block_size,
        longest_chunk=config.prefill_chunk,
        sequences=config.max_sequences,
    )


def context_of(spec: ModelSpec, config: EngineConfig, shapes: Sequence[GroupShape]) -> int:
    """Tokens of the longest sequence that an engine of this config takes."""
    limits = [shape.longest for shape in shapes if shape.longest is not None]
    return min([config.context_length or spec.context_length, *limits])
