"""What others' retrieval got wrong, by its public reports; the right values are ours."""

from __future__ import annotations

import numpy as np

from router.documents import Document, Source
from router.retrieval.bm25 import Bm25Index
from router.retrieval.chunking import Chunk, chunks
from router.retrieval.passage_index import PassageIndex, Query


def test_offsets_of_repeated_text_are_its_own_and_not_those_of_the_first_copy() -> None:
    """langchain#21475: the start of a chunk was looked up in the text, and an earlier copy was found."""
    text = "The same again. " * 40

    found = chunks(text, 32, 8)

    starts = [chunk.start for chunk in found]
    assert starts == sorted(set(starts))
    assert found[-1].end == len(text.rstrip())


def test_a_corpus_without_a_term_has_no_scores_and_no_error() -> None:
    """haystack#11598, rank_bm25#36: a division by the average length of zero."""
    index = Bm25Index()
    assert list(index.scores(["a"])) == []
    index.add([])
    assert list(index.scores(["a"])) == [0.0]
    index.remove(0, [])
    assert list(index.scores(["a"])) == [0.0]


def test_a_word_of_every_document_still_finds_them() -> None:
    """rank_bm25#36 and others: the inverse document frequency became negative, or a lone document was never found."""
    index = Bm25Index()
    for words in (["harbour"], ["harbour", "north"]):
        index.add(words)

    assert (index.scores(["harbour"]) > 0).all()


def test_deleted_documents_take_no_places_of_the_best() -> None:
    """Deleted vectors stayed in the index and were filtered out after the search, which then found too few."""
    index = PassageIndex(2)
    for n in range(40):
        document = Document(f"d{n}", "zebra")
        index.put(document, Source("", document.id), [Chunk(0, 5)], np.array([[1.0, n / 1000]], np.float16))
    for n in range(30):
        index.remove(f"d{n}")

    hits = index.search(Query.of("zebra", np.array([1.0, 0.0], np.float32)), depth=10)

    assert {index.row(hit.row).source.document for hit in hits} == {f"d{n}" for n in range(30, 40)}


def test_a_comment_in_code_is_no_heading() -> None:
    """langchain#10262: lines with # within fences began sections."""
    text = "# Real\n\n```bash\n# install it\nmake\n```\n\nText."

    assert {chunk.heading for chunk in chunks(text, 64, 0)} == {"Real"}
