"""The arrays that describe a step to the C code. Their memory and the pointers to it are reused from step to step,
because allocating takes longer than filling."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any

from engine.kernels.cpu.library import Span, Step
from engine.scheduler.step_plan import Chunk


class Buffer:
    """An array of 64-bit integers whose memory is reused. ``target`` is the C type that the integers represent."""

    def __init__(self, target: type[ctypes._SimpleCData[int] | ctypes.Structure]) -> None:
        self._pointer_type = ctypes.POINTER(target)
        self._numbers = array("q")
        self._pointer: ctypes._Pointer[Any] = self._pointer_type()

    def hold(self, numbers: Sequence[int]) -> ctypes._Pointer[Any]:
        """Stores ``numbers``. Returns a pointer to them, which is valid until the next call."""
        if len(numbers) > len(self._numbers):
            self._numbers = array("q", numbers)
            self._pointer = ctypes.cast(self._numbers.buffer_info()[0], self._pointer_type)
        else:
            self._numbers[: len(numbers)] = array("q", numbers)
        return self._pointer

    def first(self, count: int) -> list[int]:
        """Returns the first ``count`` numbers."""
        return self._numbers[:count].tolist()


class StepArrays:
    """The arrays of the steps of one runner, one step after the other. ``groups`` is the number of KV cache groups."""

    def __init__(self, groups: int, block_size: int) -> None:
        self._groups = groups
        self._block_size = block_size
        self._tokens, self._positions, self._slots = (Buffer(ctypes.c_int64) for _ in range(3))
        self._wanted, self._largest = (Buffer(ctypes.c_int64) for _ in range(2))
        self._spans = Buffer(Span)  # four numbers each, a pointer being one

    def step(self, chunks: Sequence[Chunk], wanted: Sequence[int], largest: bool) -> Step:
        """Returns a step over ``chunks`` that reads the rows ``wanted`` out, with room for their largest logits if
        ``largest`` is set. It is valid until the next call. The caller adds the buffers for its logits and
        soundness."""
        tokens: list[int] = []
        positions: list[int] = []
        for chunk in chunks:
            tokens += chunk.tokens
            positions += range(chunk.start, chunk.start + chunk.length)
        spans, slots = self._laid_out(chunks)
        return Step(
            tokens=self._tokens.hold(tokens),
            positions=self._positions.hold(positions),
            slots=self._slots.hold(slots),
            rows=len(tokens),
            spans=self._spans.hold(spans),
            spans_count=len(chunks),
            wanted=self._wanted.hold(wanted),
            wanted_count=len(wanted),
            largest=self._largest.hold(wanted) if largest else None,  # the step overwrites what is held
        )

    def largest(self, step: Step) -> list[int]:
        """Returns, for each row that ``step`` has read out, the token with the largest logit."""
        return self._largest.first(step.wanted_count)

    def _laid_out(self, chunks: Sequence[Chunk]) -> tuple[list[int], list[int]]:
        """Returns the numbers of the spans of all groups, and the slots of their rows."""
        size = self._block_size
        spans: list[int] = []
        slots: list[int] = []
        for group in range(self._groups):
            row = 0
            for chunk in chunks:
                start, length = chunk.start, chunk.length
                table = chunk.sequence.tables[group]
                blocks = table.blocks
                spans += (row, length, start, table.address)
                if length == 1:
                    slots.append(blocks[start // size] * size + start % size)
                else:
                    slots += [blocks[at // size] * size + at % size for at in range(start, start + length)]
                row += length
        return spans, slots
