"""Terms, BM25, fusion, diversity and the index of passages."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.documents import Document, SearchMode, Source
from router.retrieval.bm25 import Bm25Index
from router.retrieval.chunking import Chunk, chunks
from router.retrieval.index_terms import terms
from router.retrieval.marginal_relevance import diversified
from router.retrieval.passage_index import PassageIndex, Query
from router.retrieval.rank_fusion import fused, ranking
from router.retrieval.vector_scan import VectorRows

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


def put(index: PassageIndex, name: str, text: str, vector: list[float] | None = None) -> None:
    vectors = None if vector is None else np.array([vector], np.float16)
    index.put(Document(name, text), Source(name, name), [Chunk(0, len(text))], vectors)


def found(index: PassageIndex, query: Query, mode: SearchMode = SearchMode.HYBRID) -> list[str]:
    return [index.row(hit.row).source.document for hit in index.search(query, mode)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Installing the installer", "install installer"),
        ("CAFÉ", "cafe"),
        ("batteries", "battery"),
        ("classes", "class"),
        ("stopped", "stop"),
        ("ﬁne", "fine"),
        ("naïve", "naive"),
    ],
)
def test_forms_of_a_word_are_one_term(one: str, other: str) -> None:
    assert set(terms(one)) == set(terms(other))


def test_unspaced_scripts_are_indexed_by_pairs() -> None:
    assert terms("東京都 x1") == ["東京", "京都", "x1"]
    assert terms("가") == ["가"]


def test_scores_are_those_of_a_known_implementation() -> None:
    bm25s = pytest.importorskip("bm25s")
    random.seed(3)
    corpus = [[random.choice(WORDS) for _ in range(random.randint(1, 30))] for _ in range(60)]
    oracle = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    oracle.index(corpus, show_progress=False)
    index = Bm25Index(1.2, 0.75)
    for row in corpus:
        index.add(row)

    for query in (["alpha"], ["beta", "eta"], ["theta", "none"]):
        expected = oracle.get_scores(query)
        scores = index.scores(query)
        np.testing.assert_allclose(scores / 2.2, expected, rtol=1e-4)


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=8), min_size=1, max_size=12), st.data())
def test_removed_rows_leave_the_scores_of_the_rest_as_if_they_had_never_been(
    rows: list[list[str]], data: st.DataObject
) -> None:
    removed = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    index, fresh = Bm25Index(), Bm25Index()
    for row in rows:
        index.add(row)
    for number in removed:
        index.remove(number, rows[number])
    kept = [number for number in range(len(rows)) if number not in removed]
    for number in kept:
        fresh.add(rows[number])

    query = data.draw(st.lists(st.sampled_from(WORDS), max_size=4))

    np.testing.assert_allclose(index.scores(query)[kept], fresh.scores(query), rtol=1e-4)
    assert not index.scores(query)[sorted(removed)].any()


def test_a_ranking_is_the_best_first_and_equals_in_their_order() -> None:
    scores = np.array([0.0, 2.0, 1.0, 2.0, -1.0], np.float32)

    assert ranking(scores, 10, 0.0) == [1, 3, 2]
    assert ranking(np.tile(scores, 20), 2, 0.0)[0] == 1


def test_fusion_prefers_what_both_rankings_have() -> None:
    assert list(fused([[1, 2, 3], [4, 2, 5]], [1, 1], 10)) == [2, 1, 4, 3, 5]
    assert fused([[7]], [2], 10)[7] == pytest.approx(2 / 11)


def test_diversity_passes_over_a_copy_of_what_was_chosen() -> None:
    alike = {frozenset({0, 1}): 1.0}

    def similarity(one: int, other: int) -> float:
        return alike.get(frozenset({one, other}), 0.0)

    assert diversified([1.0, 0.99, 0.6], similarity, 2, 0.7) == [0, 2]
    assert diversified([1.0, 0.99, 0.6], similarity, 2, 1.0) == [0, 1]


def test_both_ways_find_what_one_alone_does_not() -> None:
    index = PassageIndex(2)
    put(index, "word", "zebra crossing", [0.0, 1.0])
    put(index, "meaning", "striped animal", [1.0, 0.0])
    put(index, "neither", "tax form", [0.0, -1.0])
    query = Query.of("zebra", np.array([1.0, 0.0], np.float32))

    assert found(index, query, SearchMode.BM25) == ["word"]
    assert found(index, query, SearchMode.VECTOR) == ["meaning"]
    assert found(index, query) == ["word", "meaning"]


def test_a_removed_document_is_not_found_and_a_new_one_takes_its_place() -> None:
    index = PassageIndex(2)
    put(index, "a", "zebra", [1.0, 0.0])
    put(index, "b", "zebra", [1.0, 0.0])
    query = Query.of("zebra", np.array([1.0, 0.0], np.float32))

    index.remove("a")
    assert found(index, query) == ["b"]
    put(index, "b", "horse")
    assert found(index, query) == []
    assert (len(index), index.vectors, index.documents) == (1, 0, ["b"])


def test_an_index_is_the_same_after_its_empty_rows_are_gone() -> None:
    index = PassageIndex(2)
    for n in range(20):
        put(index, f"d{n}", f"zebra {WORDS[n % 8]} {n}", [1.0, n / 20])
    for n in range(0, 20, 2):
        index.remove(f"d{n}")
    query = Query.of("zebra beta", np.array([1.0, 0.0], np.float32))

    compact = index.compact()

    assert found(compact, query) == found(index, query)
    assert (len(compact), compact.vectors) == (10, 10)


def test_a_text_that_asks_for_nothing_finds_nothing() -> None:
    index = PassageIndex()
    put(index, "a", "the of and")

    assert found(index, Query.of("what is the of and?!")) == []


def test_cosines_are_those_of_the_vectors() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((9000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = VectorRows(8)
    rows.put(3, vectors.astype(np.float16))
    rows.remove(5)

    cosines = rows.cosines(vectors[0])

    np.testing.assert_allclose(cosines[6:], vectors[3:] @ vectors[0], atol=2e-3)
    assert list(cosines[[0, 1, 2, 5]]) == [-1.0] * 4


def test_a_long_text_is_found_by_each_of_its_chunks() -> None:
    text = "\n\n".join(f"# Part {n}\nThe code of part {n} is k{n}x. It is secret." for n in range(30))
    index = PassageIndex()
    index.put(Document("d", text), Source("d", "d"), chunks(text, 48, 8))

    for n in (0, 13, 29):
        best = index.row(index.search(Query.of(f"what is k{n}x"))[0].row)
        assert f"k{n}x" in best.text
        assert text[best.chunk.start : best.chunk.end] == best.text
