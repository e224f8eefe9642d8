"""What others' retrieval got wrong, by its public reports; the right values are ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from router.config.retrieval import RetrievalConfig
from router.documents import Document, SearchMode, Source
from router.memory_collection_store import MemoryCollectionStore
from router.ports.embedder import Embedded, EmbedderUnavailableError
from router.retrieval.bm25 import Bm25Index
from router.retrieval.chunk_embedder import BATCH, ChunkEmbedder
from router.retrieval.chunking import Chunk, chunks
from router.retrieval.collections import Collections
from router.retrieval.passage_index import PassageIndex, Query
from tests.embedder.fake_embedder import FakeEmbedder
from tests.state.clock import VirtualClock


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


class FailingOnce(FakeEmbedder):
    """Fails in its third call."""

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        made = await super().embed(texts, tenant)
        if len(self.calls) == 3:
            raise EmbedderUnavailableError("the embedder did not answer within 2 s")
        return made


async def test_a_fault_costs_the_batch_that_it_hits_and_not_all_before_it() -> None:
    """neomjs/neo 16972: a long text is embedded from its beginning after each timeout, and never to its end."""
    embedder = FailingOnce()
    chunked, texts = ChunkEmbedder(embedder), [f"Chunk {number}." for number in range(4 * BATCH)]
    with pytest.raises(EmbedderUnavailableError):
        await chunked.vectors(texts)

    made = await chunked.vectors(texts)

    assert len(made.rows) == len(texts)
    assert sum(map(len, embedder.calls)) == len(texts) + BATCH


async def test_documents_with_vectors_of_another_length_are_embedded_anew() -> None:
    """HKUDS/LightRAG 2119, open-webui 13225: after a change of the model the collection answers with errors."""
    store, clock = MemoryCollectionStore(), VirtualClock()
    for dimensions, model in ((64, "fake@1"), (32, "fake@2")):
        embedder = FakeEmbedder(dimensions)
        embedder.model = model
        chunked = ChunkEmbedder(embedder)
        named = Collections(RetrievalConfig(), store, chunked, clock)
        await named.start()
        if dimensions == 64:
            await named.create("acme", "notes", {})
            await named.add("acme", "notes", [Document("d", "The harbour is north.")])
        made = await chunked.vectors(["Where is the harbour?"], "acme")
        query = Query.of("Where is the harbour?", made.rows[0], made.model)
        found = []
        for _ in range(2):
            found.append(await named.search("acme", "notes", query, SearchMode.HYBRID, 4, 1.0, None))
            assert named.worker is not None
            await named.worker.drained()
        await named.close()

        assert [len(each.candidates) for each in found] == [1, 1]
        assert found[1].with_vectors
