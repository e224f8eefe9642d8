"""KV cache groups: which layers share block tables, and how many blocks a sequence holds in each group.

Layers with the same sliding window form a group with its own block pool (vLLM's KV cache group). In a full-attention
group a sequence holds blocks for all its tokens. In a sliding-window group it holds only the blocks in its window,
however long it grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config import EngineConfig
from engine.model.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class GroupShape:
    """The size of one KV cache group: ``blocks`` blocks of ``block_size`` tokens, for layers in which a query attends
    to ``window`` tokens, itself included; None for full attention. A step computes at most ``longest_chunk`` tokens of
    a sequence."""

    window: int | None
    blocks: int
    block_size: int
    longest_chunk: int

    @property
    def bound(self) -> int | None:
        """Most blocks that a sequence ever needs: those in the window of a chunk's first token, and those of the chunk;
        both may begin and end inside a block. None for full attention, where it depends on the sequence's length."""
        if self.window is None:
            return None
        return -(-(self.window - 1 + self.longest_chunk) // self.block_size) + 1

    @property
    def longest(self) -> int | None:
        """Number of tokens of the longest sequence that fits into the group. None if any length fits."""
        fits = self.bound is not None and self.bound <= self.blocks
        return None if fits else self.blocks * self.block_size

    def first_seen(self, start: int) -> int:
        """Returns the position of the first block that a query at position ``start``, or a later one, attends to."""
        return 0 if self.window is None else max(0, start - self.window + 1) // self.block_size

    def total(self, tokens: int) -> int:
        """Returns the number of blocks that ``tokens`` tokens fill, those outside the window included."""
        return -(-tokens // self.block_size)

    def held(self, tokens: int) -> int:
        """Returns the most blocks that a sequence of ``tokens`` tokens holds."""
        return self.total(tokens) if self.bound is None else min(self.total(tokens), self.bound)


def windows_of(spec: ModelSpec) -> tuple[int | None, ...]:
    """Returns the windows of a model's KV cache groups, in ascending order. None stands for full attention and comes
    first."""
    return tuple(sorted({kind.window for kind in spec.kinds}, key=lambda window: (window is not None, window)))


def layers_by_group(spec: ModelSpec) -> tuple[int, ...]:
    """Returns the group number of each layer."""
    windows = windows_of(spec)
    return tuple(windows.index(spec.kinds[layer.kind].window) for layer in spec.layers)


def group_shapes(
    spec: ModelSpec, *, blocks: int, block_size: int, longest_chunk: int, sequences: int
) -> tuple[GroupShape, ...]:
    """Returns the KV cache groups of a model. Each has ``blocks`` blocks; a sliding-window group has no more than
    ``sequences`` sequences can hold. ``longest_chunk`` is the most tokens of one sequence in a step."""
    return tuple(
        GroupShape(window, blocks if most is None else min(blocks, most * sequences), block_size, longest_chunk)
        for window in windows_of(spec)
        for most in (GroupShape(window, 0, block_size, longest_chunk).bound,)
    )


def shapes_of(spec: ModelSpec, config: EngineConfig) -> tuple[GroupShape, ...]:
    """Returns the KV cache groups of a model in an engine with this ``config``."""
    return group_shapes(
        spec,
        blocks=config.num_blocks,
        block_size=config.block_size,
        longest_chunk=config.prefill_chunk,
        sequences=config.max_sequences,
    )


def context_of(spec: ModelSpec, config: EngineConfig, shapes: Sequence[GroupShape]) -> int:
    """Returns the context length of an engine with this ``config``, the most tokens of one sequence: that of the
    config, or else of the model, but no more than the KV cache of ``shapes`` holds."""
    limits = [shape.longest for shape in shapes if shape.longest is not None]
    return min([config.context_length or spec.context_length, *limits])
