"""The scan of a partition: what C and numpy find, and what is left after removals."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cluster.cache.partition_index import PartitionIndex
from cluster.cache.row_block import CHUNK, GROUP, RowBlock
from cluster.cache.row_scan import RowScan
from cluster.cache.scan_library import SOURCE, loaded_scan, scan_library
from cluster.cache.scan_sizes import ScanSizes
from cluster.cache.vector_quantisation import to_int8, unit_rows
from engine.kernels.cpu import compiler
from engine.kernels.cpu.compiler import CompilerError, built_source

SIZES = ScanSizes(exact=256, near=1024, share=64, block=512)
ROOM = 5000


def clustered(count: int, dimensions: int, seed: int = 0) -> NDArray[np.int8]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, dimensions))
    drawn = centres[rng.integers(0, 20, count)] + 0.7 * rng.standard_normal((count, dimensions))
    return to_int8(unit_rows(drawn.astype(np.float32)))


def partition(dimensions: int, compiled: bool = True, sizes: ScanSizes = SIZES) -> PartitionIndex:
    library = scan_library() if compiled else None
    assert compiled == (library is not None)
    return PartitionIndex(RowScan(dimensions, sizes, library), array("i", [0]) * ROOM)


def processor_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()


def assert_planes_have_the_signs(block: RowBlock, rows: int) -> None:
    halves = block.planes.reshape(len(block.planes), -1, CHUNK // 2)
    groups = np.stack([halves & 15, halves >> GROUP], axis=2).reshape(len(block.planes), -1).T  # [rows, groups]
    pairs = groups[:, 0::2] << GROUP | groups[:, 1::2]
    assert np.array_equal(pairs[:rows], block.signs.view(np.uint8)[:rows])


def by_brute_force(codes: NDArray[np.int8], query: NDArray[np.int8], count: int) -> list[int]:
    rows = codes.astype(np.float32)
    cosines = rows @ query.astype(np.float32) / np.maximum(np.linalg.norm(rows, axis=1), 1)
    return [int(each) for each in np.argsort(-cosines, kind="stable")[:count]]


@pytest.mark.parametrize("dimensions", [8, 100, 384, 520])
@pytest.mark.parametrize("compiled", [True, False])
def test_few_vectors_are_ranked_as_by_brute_force(dimensions: int, compiled: bool) -> None:
    codes, index = clustered(64, dimensions), partition(dimensions, compiled)
    index.add_many(range(64), codes)

    for query in clustered(20, dimensions, seed=1):
        found = index.search(query, 10)
        cosines = [each.similarity for each in found]
        assert cosines == sorted(cosines, reverse=True)
        rows = codes.astype(np.float32)
        best = rows[by_brute_force(codes, query, 1)[0]]
        wide = query.astype(np.float32)
        expected = best @ wide / (np.linalg.norm(best) * np.linalg.norm(wide))
        assert cosines[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dimensions", [100, 384])
def test_many_vectors_are_found_by_their_bits(compiled: bool, dimensions: int) -> None:
    codes, index = clustered(4000, dimensions), partition(dimensions, compiled)
    index.add_many(range(4000), codes)

    hits = sum(
        len({each.slot for each in index.search(query, 10)} & set(by_brute_force(codes, query, 5)))
        for query in clustered(100, dimensions, seed=1)
    )

    assert hits >= 0.99 * 500


@pytest.mark.parametrize("count", [257, 2048, 2049, 4000])
@pytest.mark.parametrize("dimensions", [100, 384, 520])
def test_c_and_numpy_find_the_same(dimensions: int, count: int) -> None:
    codes = clustered(count, dimensions)
    both = [partition(dimensions, compiled) for compiled in (True, False)]
    for index in both:
        index.add_many(range(count), codes)

    for query in clustered(10, dimensions, seed=2):
        assert both[0].search(query, 30) == both[1].search(query, 30)


@pytest.mark.parametrize("flags", [(), ("-mssse3",), ("-mavx2",)], ids=["plain", "SSSE3", "AVX2"])
def test_a_lesser_processor_finds_the_same(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flags and flags[0].removeprefix("-m") not in processor_flags():
        pytest.skip(f"the processor does not have {flags[0]}")
    monkeypatch.setattr(compiler, "FLAGS", (*(each for each in compiler.FLAGS if "-march" not in each), *flags))
    lesser = loaded_scan(built_source(SOURCE, "scan", tmp_path))
    codes, usual = clustered(4000, 384), partition(384)
    other = PartitionIndex(RowScan(384, SIZES, lesser), array("i", [0]) * ROOM)
    for index in (usual, other):
        index.add_many(range(4000), codes)

    for query in clustered(50, 384, seed=2):
        assert other.search(query, 10) == usual.search(query, 10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300)), min_size=1, max_size=12), st.integers(0, 99))
def test_any_adds_and_removals_leave_what_a_new_partition_has(steps: list[tuple[bool, int]], seed: int) -> None:
    sizes = ScanSizes(exact=64, near=64, share=64, block=128)
    codes, rng = clustered(ROOM, 64), np.random.default_rng(seed)
    by_c, by_numpy = partition(64, True, sizes), partition(64, False, sizes)
    free, kept = list(range(ROOM)), list[int]()
    for adds, many in steps:
        if adds:
            some = [free.pop() for _ in range(many)]
            kept += some
        else:
            some = [kept.pop(int(rng.integers(len(kept)))) for _ in range(min(many, len(kept)))]
        for index in (by_c, by_numpy):
            if adds:
                index.add_many(some, codes[some])
            else:
                for slot in some:
                    index.remove(slot)

    for query in (*clustered(3, 64, seed=2), *codes[kept[:3]]):
        found = by_c.search(query, 10)
        assert found == by_numpy.search(query, 10)
        assert {each.slot for each in found} <= set(kept)
    for slot in kept[:20]:
        assert by_c.search(codes[slot], 1)[0].similarity == pytest.approx(1, abs=1e-5)
    room = len(by_c._blocks[0].codes)
    for number, block in enumerate(by_c._blocks):
        if block.has_bits:
            assert_planes_have_the_signs(block, max(0, min(room, len(kept) - number * room)))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_sample_of_rows_that_are_all_near_leaves_no_others_out(compiled: bool) -> None:
    """The first chunk is the whole sample: its 32nd row by the first look is nearer than most of its topic."""
    rng = np.random.default_rng(3)
    topic = rng.standard_normal(384)
    alike = topic + 0.5 * rng.standard_normal((CHUNK + 300, 384))
    others = rng.standard_normal((ROOM - len(alike), 384))
    codes = to_int8(unit_rows(np.concatenate([alike, others]).astype(np.float32)))
    query = to_int8(unit_rows(topic[None].astype(np.float32)))[0]
    index = partition(384, compiled, SIZES._replace(near=2048))
    index.add_many(range(ROOM), codes)

    found = {each.slot for each in index.search(query, 80)}

    assert len(found & set(by_brute_force(codes, query, 40))) >= 30  # 20, if as few are kept as the sample says


@pytest.mark.parametrize("compiled", [True, False])
def test_equal_vectors_are_found_though_all_are_equally_near(compiled: bool) -> None:
    index = partition(384, compiled)
    index.add_many(range(4000), np.repeat(clustered(1, 384), 4000, axis=0))

    found = index.search(clustered(1, 384)[0], 10)

    assert len({each.slot for each in found}) == 10
    assert all(each.similarity == pytest.approx(1, abs=1e-5) for each in found)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_left_after_removals_is_found_and_nothing_else(compiled: bool) -> None:
    codes, index = clustered(2000, 64), partition(64, compiled)
    index.add_many(range(2000), codes)
    order = np.random.default_rng(5).permutation(2000).tolist()
    while len(order) > 1:
        for slot in order[len(order) // 3 :]:
            index.remove(slot)
        del order[len(order) // 3 :]
        assert len(index) == len(order)
        for slot in order[:20]:
            assert slot in {each.slot for each in index.search(codes[slot], 3)}
        assert {each.slot for each in index.search(codes[0], 2000)} <= set(order)


def test_a_partition_that_was_large_gives_its_room_back() -> None:
    codes, index = clustered(SIZES.block + 1, 64), partition(64)
    index.add_many(range(len(codes)), codes)
    for slot in range(1, len(codes)):
        index.remove(slot)

    assert [each.slot for each in index.search(codes[0], 3)] == [0]
    assert sum(len(block.codes) for block in index._blocks) <= 4


def test_no_vector_is_asked_for_and_none_is_found() -> None:
    index = partition(64)
    index.add_many(range(10), clustered(10, 64))

    assert index.search(clustered(1, 64)[0], 0) == []


def test_a_vector_of_zeros_is_neither_near_nor_an_error() -> None:
    index = partition(384)
    index.add_many([0, 1], np.stack([np.zeros(384, np.int8), clustered(1, 384)[0]]))

    assert [each.slot for each in index.search(clustered(1, 384)[0], 2)] == [1, 0]
    assert all(each.similarity == 0 for each in index.search(np.zeros(384, np.int8), 2))


def test_source_that_does_not_compile_is_an_error_that_says_so(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int nearest(", encoding="utf-8")

    with pytest.raises(CompilerError, match="failed"):
        built_source(source, "wrong", tmp_path)
