"""What workers hear is what rank 0 has planned, whatever sequences come, go, grow and move."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from engine.kv.block_group import BlockTable
from engine.parallel.wire import Listener, Teller
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence
from tests.engine.sequences import sequence


def facts(chunk: Chunk) -> tuple[object, ...]:
    """All that runners read of a chunk."""
    blocks = [list(table.blocks) for table in chunk.sequence.tables]
    known = (chunk.start, chunk.length, chunk.end, chunk.draft, chunk.tokens)
    return (*known, chunk.samples, chunk.sampled, chunk.scored, blocks)


def with_tables(name: str, length: int, groups: int = 2) -> Sequence:
    made = sequence(name, list(range(100, 100 + length)))
    made.tables = [BlockTable([7]) for _ in range(groups)]
    return made


@given(st.data())
def test_every_step_is_heard_as_it_was_planned(data: st.DataObject) -> None:
    teller, listener = Teller(), Listener()
    alive = [with_tables(str(number), 12) for number in range(4)]
    alive[1].scores_prompt = True
    for _ in range(data.draw(st.integers(1, 6))):
        chunks = []
        for subject in data.draw(st.permutations(alive)):
            change = data.draw(st.sampled_from(["absent", "same", "grown", "first gone", "anew"]))
            for table in subject.tables:
                if change == "grown":
                    table.blocks.append(data.draw(st.integers(0, 99)))
                elif change == "first gone" and table.blocks:
                    table.blocks[0] = 99
                elif change == "anew":
                    table.blocks = data.draw(st.lists(st.integers(0, 99), max_size=5))
            if change != "absent":
                subject.draft = data.draw(st.lists(st.integers(0, 99), max_size=2))
                start = data.draw(st.integers(0, 11))
                length = data.draw(st.integers(1, 12 - start))
                draft = len(subject.draft) if start + length == 12 else 0
                chunks.append(Chunk(subject, start, length + draft, draft))

        heard = listener.chunks(pickle.loads(pickle.dumps(teller.rows(chunks))))

        assert [facts(chunk) for chunk in heard] == [facts(chunk) for chunk in chunks]


def test_a_step_of_decodes_tells_little() -> None:
    teller = Teller()
    alive = [with_tables(str(number), 4096) for number in range(256)]
    for subject in alive:
        subject.tables = [BlockTable(list(range(256)))]
    first = teller.rows([Chunk(subject, 4095, 1) for subject in alive])

    second = teller.rows([Chunk(subject, 4095, 1) for subject in alive])

    assert len(pickle.dumps(first)) > 100_000
    assert len(pickle.dumps(second)) < 16_000
