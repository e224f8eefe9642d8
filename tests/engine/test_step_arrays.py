"""What the C code reads of a step: every number is where the pointers say, also if the step before was larger."""

from __future__ import annotations

import random

import pytest

from engine.kernels.cpu.step_arrays import StepArrays
from engine.kv.block_group import BlockTable
from engine.scheduler.step_plan import Chunk
from tests.engine.sequences import BLOCK_SIZE, sequence

GROUPS = 2


def chunk(draw: random.Random, name: str) -> Chunk:
    tokens = [draw.randrange(100) for _ in range(draw.randrange(1, 30))]
    made = sequence(name, tokens)
    blocks = -(-len(tokens) // BLOCK_SIZE)
    made.tables = [BlockTable([draw.randrange(50) for _ in range(blocks)]) for _ in range(GROUPS)]
    start = draw.randrange(len(tokens))
    return Chunk(made, start, draw.choice([1, len(tokens) - start]))


@pytest.mark.parametrize("sizes", [[1, 2, 8], [8, 1, 3, 0, 8]], ids=str)
def test_a_step_is_read_as_it_was_planned(sizes: list[int]) -> None:
    draw = random.Random(0)
    arrays = StepArrays(GROUPS, BLOCK_SIZE)
    for size in sizes:
        chunks = [chunk(draw, str(number)) for number in range(size)]
        rows = [(one, position) for one in chunks for position in range(one.start, one.end)]
        wanted = [row for row in range(len(rows)) if row % 2]

        step = arrays.step(chunks, wanted, largest=True)

        assert (step.rows, step.spans_count, step.wanted_count) == (len(rows), size, len(wanted))
        assert step.tokens[: len(rows)] == [one.sequence.tokens[position] for one, position in rows]
        assert step.positions[: len(rows)] == [position for _, position in rows]
        assert step.wanted[: len(wanted)] == wanted
        for group in range(GROUPS):
            blocks = [one.sequence.tables[group].blocks[position // BLOCK_SIZE] for one, position in rows]
            slots = [block * BLOCK_SIZE + at % BLOCK_SIZE for block, (_, at) in zip(blocks, rows, strict=True)]
            assert step.slots[group * len(rows) : (group + 1) * len(rows)] == slots
            row = 0
            for span, one in zip(step.spans[group * size : (group + 1) * size], chunks, strict=True):
                table = one.sequence.tables[group].blocks
                assert (span.row, span.rows, span.position) == (row, one.length, one.start)
                assert span.table[: len(table)] == table
                row += one.length
        for place in range(len(wanted)):
            step.largest[place] = 7 * place
        assert arrays.largest(step) == [7 * place for place in range(len(wanted))]


def test_no_room_for_largest_logits_unless_asked_for() -> None:
    assert not StepArrays(GROUPS, BLOCK_SIZE).step([chunk(random.Random(1), "a")], [0], largest=False).largest
