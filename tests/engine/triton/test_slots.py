"""The tables of blocks on the device say what those on the host do, though only changes are sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.triton.slots import Slots
from engine.scheduler.step_plan import Chunk
from tests.engine.sequences import BLOCK_SIZE, finish_step, scheduler, sequence

WIDTH = 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12), st.booleans()), min_size=2, max_size=12),
    st.sampled_from([(None,), (6,), (None, 6)]),
    st.integers(8, 20),
)
def test_tables_are_those_of_the_sequences(
    requests: list[tuple[int, int, bool]], windows: tuple[int | None, ...], blocks: int
) -> None:
    subject = scheduler(blocks=blocks, windows=windows)
    slots = Slots(5, WIDTH, len(windows), BLOCK_SIZE)
    device = [np.full(5 * WIDTH, -7, dtype=np.int32) for _ in windows]
    waiting = [
        sequence(str(number), list(range(1, prompt + 1)) if alike else [number + 1] * prompt, answer)
        for number, (prompt, answer, alike) in enumerate(requests)
        if -(-(prompt + answer) // BLOCK_SIZE) <= min(blocks, WIDTH)
    ]
    while waiting or subject.running or subject.waiting:
        if waiting:
            subject.add(waiting.pop())
        plan = subject.schedule(0.0)
        placed = slots.place(plan.chunks)
        for table, changes in zip(device, slots.changes(plan.chunks), strict=True):
            table[changes[0]] = changes[1]
        slots.written(plan.chunks)

        assert len(set(placed)) == len(placed)
        for slot, chunk in zip(placed, plan.chunks, strict=True):
            for group, shape in enumerate(subject.cache.groups):
                seen = range(shape.shape.first_seen(chunk.start), -(-chunk.end // BLOCK_SIZE))
                found = [int(device[group][slot * WIDTH + place]) for place in seen]
                assert found == [chunk.sequence.tables[group].blocks[place] for place in seen]
        finish_step(subject, plan)


def test_a_decode_sends_one_number() -> None:
    subject = scheduler()
    subject.add(sequence("a", [1] * 6))
    slots = Slots(2, WIDTH, 1, BLOCK_SIZE)
    sent = []
    for _ in range(4):
        plan = subject.schedule(0.0)
        slots.place(plan.chunks)
        [changes] = slots.changes(plan.chunks)
        slots.written(plan.chunks)
        sent.append(changes.shape[1])
        finish_step(subject, plan)

    assert sent == [2, 1, 1, 1]


def test_what_did_not_arrive_is_sent_again() -> None:
    subject = scheduler()
    subject.add(sequence("a", [1] * 6))
    slots = Slots(2, WIDTH, 1, BLOCK_SIZE)
    chunks = subject.schedule(0.0).chunks
    slots.place(chunks)

    assert slots.changes(chunks)[0].tolist() == slots.changes(chunks)[0].tolist() != [[], []]


def test_whoever_has_not_run_for_longest_makes_way() -> None:
    slots = Slots(2, WIDTH, 0, BLOCK_SIZE)
    first, second, third = (Chunk(sequence(name, [1]), 0, 1) for name in "abc")

    assert slots.place([first]) + slots.place([second]) == [0, 1]
    slots.place([first])
    assert slots.place([third]) == [1]
    assert slots.place([first]) == [0]


def test_more_sequences_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="2 sequences for 1 rows"):
        Slots(1, WIDTH, 0, BLOCK_SIZE).place([Chunk(sequence(name, [1]), 0, 1) for name in "ab"])
