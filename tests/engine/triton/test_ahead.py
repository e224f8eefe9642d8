"""Which steps may be launched before the last one's tokens are known, and which of them are of use."""

from __future__ import annotations

import pytest

from engine.kernels.triton.ahead import Ahead, following
from engine.kv.block_group import BlockTable
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence
from tests.engine.sequences import sequence

BLOCK_SIZE = 4


def decoding(tokens: int = 5, max_tokens: int = 8, blocks: int = 2) -> Sequence:
    """With a prompt of three tokens."""
    made = sequence("a", [1] * 3, max_tokens)
    made.tokens += [1] * (tokens - 3)
    made.tables = [BlockTable(list(range(blocks)))]
    return made


def last(one: Sequence) -> Chunk:
    return Chunk(one, len(one.tokens) - 1, 1)


def test_a_decode_is_followed_by_the_next() -> None:
    one = decoding()

    assert following(last(one), BLOCK_SIZE, 100) == Chunk(one, 5, 1)


@pytest.mark.parametrize(
    ("one", "context"),
    [
        (decoding(tokens=8), 100),  # the next token goes into a block that it does not have
        (decoding(tokens=5, max_tokens=3), 100),  # the token that is being sampled is its last
        (decoding(tokens=5), 6),  # and there the last of the context
    ],
    ids=["no room", "last token", "context"],
)
def test_nothing_follows_where_nothing_may(one: Sequence, context: int) -> None:
    assert following(last(one), BLOCK_SIZE, context) is None


def test_nothing_follows_the_middle_of_a_prompt() -> None:
    assert following(Chunk(decoding(), 0, 2), BLOCK_SIZE, 100) is None


def expected(one: Sequence) -> Ahead[str]:
    follow = following(last(one), BLOCK_SIZE, 100)
    assert follow is not None
    ahead = Ahead.of("launch", [follow], BLOCK_SIZE)
    one.tokens.append(7)
    return ahead


def test_what_was_expected_is_covered() -> None:
    one = decoding()
    ahead = expected(one)

    assert ahead.covers(last(one))


def test_another_block_is_not() -> None:
    """Its own copy of one that it had shared."""
    one = decoding()
    ahead = expected(one)
    one.tables[0].blocks[1] = 9

    assert not ahead.covers(last(one))


def test_a_table_that_only_looks_alike_is_not() -> None:
    """It was preempted, and came back to blocks that others may have had meanwhile."""
    one = decoding()
    ahead = expected(one)
    one.tables = [BlockTable(list(one.tables[0].blocks))]

    assert not ahead.covers(last(one))


@pytest.mark.parametrize("change", [{"length": 2}, {"draft": 1, "length": 2}, {"start": 4}])
def test_another_chunk_is_not(change: dict[str, int]) -> None:
    one = decoding()
    ahead = expected(one)

    assert not ahead.covers(Chunk(one, **{"start": 5, "length": 1, **change}))


def test_another_sequence_is_not() -> None:
    ahead = expected(decoding())

    assert not ahead.covers(last(decoding(tokens=6)))
