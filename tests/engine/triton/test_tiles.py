"""The queries of a step cut into tiles; how many programs share the keys of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.kernels.triton.attention import splits_of
from engine.kernels.triton.tiles import most_tiles, queries_per_tile, tiles_of


@given(
    counts=st.lists(st.integers(0, 70), max_size=8),
    few=st.integers(1, 8),
    queries=st.integers(1, 32),
    padding=st.integers(0, 3),
)
def test_every_row_is_in_one_tile(counts: list[int], few: int, queries: int, padding: int) -> None:
    small = [count for count in counts if 0 < count <= few]
    large = [count for count in counts if count > few]
    size = most_tiles(sum(large), len(large), queries)
    lengths = [count + 3 for count in counts]
    tiles = tiles_of(counts, lengths, few, queries, len(small) + padding, size + padding)
    assert tiles.few.shape == (len(small) + padding, 2)
    assert tiles.others.shape == (size + padding, 2)
    rows = [
        (sequence, row)
        for part, width in ((tiles.few.tolist(), few), (tiles.others.tolist(), queries))
        for sequence, first in part
        if sequence >= 0
        for row in range(first, min(first + width, counts[sequence]))
    ]
    assert sorted(rows) == [(s, row) for s, count in enumerate(counts) for row in range(count)]
    assert {sequence for sequence, _ in tiles.few.tolist()} <= {-1, *(s for s, c in enumerate(counts) if 0 < c <= few)}


def test_those_with_the_most_keys_come_first_and_padding_last() -> None:
    tiles = tiles_of([1, 40, 1, 20], [10, 40, 90, 200], 4, 16, 3, 6)
    assert tiles.few.tolist() == [[2, 0], [0, 0], [-1, 0]]
    assert tiles.others.tolist() == [[3, 16], [3, 0], [1, 32], [1, 16], [1, 0], [-1, 0]]


@pytest.mark.parametrize(("few_size", "size"), [(0, 9), (9, 2)])
def test_more_tiles_than_were_planned_are_refused(few_size: int, size: int) -> None:
    with pytest.raises(ValueError, match="where"):
        tiles_of([1, 40], [1, 40], 4, 16, few_size, size)


@given(counts=st.lists(st.integers(1, 70), min_size=1, max_size=8), queries=st.integers(1, 32))
def test_no_step_has_more_tiles_than_its_size_allows(counts: list[int], queries: int) -> None:
    most = most_tiles(sum(counts), len(counts), queries)
    assert sum(-(-count // queries) for count in counts) <= most <= sum(counts)


@pytest.mark.parametrize(("heads", "kv_heads", "queries"), [(32, 8, 4), (8, 8, 16), (28, 4, 2), (71, 1, 1)])
def test_heads_that_share_keys_are_rows_of_one_tile(heads: int, kv_heads: int, queries: int) -> None:
    assert queries_per_tile(16, heads, kv_heads) == queries


@pytest.mark.parametrize(
    ("programs", "longest", "splits"),
    [(512, 4096, 2), (8, 4096, 16), (8, 100, 1), (4096, 4096, 1), (4096, 131072, 16), (8, 131072, 66)],
)
def test_keys_are_split_until_all_processors_are_busy(programs: int, longest: int, splits: int) -> None:
    assert splits_of(programs, longest, 256, 132) == splits
