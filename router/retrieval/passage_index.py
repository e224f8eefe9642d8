"""``PassageIndex``: the chunks of some documents, searched by BM25 and by vectors. No I/O.

Documents are put and removed at any time. Rows are numbered as they are added; a removed document's rows stay empty
until ``compact`` makes an index without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.documents import Document, SearchMode, Source
from router.retrieval.bm25 import Bm25Index
from router.retrieval.chunking import Chunk
from router.retrieval.index_terms import terms
from router.retrieval.marginal_relevance import diversified
from router.retrieval.rank_fusion import fused, ranking
from router.retrieval.vector_scan import VectorRows

RRF_K = 5.0
RRF_WEIGHTS = (1.5, 1.0)  # of BM25 and of vectors; ``python -m load_tests.retrieval --tune`` finds these
MIN_COSINE = 0.0  # of a chunk that is found by its vector
DEPTH = 100  # rows of each ranking that are fused
MAX_DIVERSIFIED = 64  # of the best, among which the choice is made
MAX_QUERY_TERMS = 256


class Row(NamedTuple):
    """A chunk of an indexed document."""

    source: Source
    text: str
    chunk: Chunk
    place: int  # of the document, for the order of documents


class Hit(NamedTuple):
    """A row that a search has found, and its score."""

    row: int
    score: float


class Query(NamedTuple):
    """A parsed query. ``vector``: float32 [dimensions], of length 1, made by ``model``; None: by BM25 alone."""

    terms: Sequence[str]
    vector: NDArray[np.float32] | None = None
    model: str = ""

    @classmethod
    def of(cls, text: str, vector: NDArray[np.float32] | None = None, model: str = "") -> Query:
        """Returns the query for ``text``. At most MAX_QUERY_TERMS different terms of it are used. ``vector`` is that of
        ``text`` by ``model``; None: it is searched by its words alone."""
        return cls(list(dict.fromkeys(terms(text)))[:MAX_QUERY_TERMS], vector, model)

    def comparable(self, model: str) -> Query:
        """Returns the query for an index with vectors by ``model``: without its vector if another one has made it."""
        return self if self.model == model else self._replace(vector=None)


class PassageIndex:
    """The index of some documents' chunks. ``dimensions`` is the length of the vectors; 0: it has no vectors."""

    def __init__(self, dimensions: int = 0) -> None:
        self.dimensions = dimensions
        self._rows: list[Row | None] = []
        self._terms = Bm25Index()
        self._vectors = VectorRows(dimensions)
        self._documents: dict[str, list[int]] = {}  # document id → its rows
        self._placed = 0  # documents that were ever put
        self._removed = 0  # rows

    def __len__(self) -> int:
        """The number of chunks."""
        return len(self._rows) - self._removed

    def __contains__(self, document: str) -> bool:
        return document in self._documents

    @property
    def documents(self) -> Sequence[str]:
        """The ids of the documents."""
        return list(self._documents)

    @property
    def vectors(self) -> int:
        """The number of chunks with a vector."""
        return len(self._vectors)

    @property
    def sparse(self) -> bool:
        """Whether most rows are empty."""
        return self._removed > 1000 and self._removed > len(self)

    def put(
        self, document: Document, source: Source, chunks: Sequence[Chunk], vectors: NDArray[np.float16] | None = None
    ) -> None:
        """Adds a document, or replaces the one with its id. ``vectors``: float16 [chunks, dimensions]."""
        self.remove(document.id)
        rows = self._documents[document.id] = []
        for chunk in chunks:
            row = Row(source, document.text[chunk.start : chunk.end], chunk, self._placed)
            rows.append(self._terms.add(_terms_of(row)))
            self._rows.append(row)
        self._placed += 1
        if vectors is not None and rows:
            self._vectors.put(rows[0], vectors)

    def set_vectors(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Gives ``rows`` their vectors, float32 [rows, dimensions]."""
        for row, vector in zip(rows, vectors, strict=True):
            self._vectors.put(row, vector[None].astype(np.float16))

    def remove(self, document: str) -> None:
        """Removes a document, if it is there."""
        for number in self._documents.pop(document, ()):
            row = self._rows[number]
            assert row is not None, "a row belongs to one document"
            self._terms.remove(number, _terms_of(row))
            self._vectors.remove(number)
            self._rows[number] = None
            self._removed += 1

    def row(self, number: int) -> Row:
        """Returns the chunk in row ``number``."""
        row = self._rows[number]
        assert row is not None, "removed rows are not found"
        return row

    def in_order(self, count: int) -> list[int]:
        """Returns the numbers of the first ``count`` rows, in the order of the documents."""
        return [number for number, row in enumerate(self._rows) if row is not None][:count]

    def best_by_terms(self, query: Query, depth: int) -> list[int]:
        """Returns the numbers of the ``depth`` best rows by BM25, best first."""
        return ranking(self._terms.scores(query.terms), depth, 0.0)

    def best_by_vector(self, query: Query, depth: int) -> list[int]:
        """Returns the numbers of the ``depth`` best rows by cosine, best first; none for a query without a vector."""
        if query.vector is None or not self.vectors:
            return []
        return ranking(self._vectors.cosines(query.vector), depth, MIN_COSINE)

    def search(self, query: Query, mode: SearchMode = SearchMode.HYBRID, depth: int = DEPTH) -> list[Hit]:
        """Returns the rows that match ``query``, best first, from the best ``depth`` of each ranking. The mode VECTOR
        finds only rows with a vector."""
        if mode is SearchMode.BM25:
            rankings, weights = [self.best_by_terms(query, depth)], [1.0]
        elif mode is SearchMode.VECTOR:
            rankings, weights = [self.best_by_vector(query, depth)], [1.0]
        else:
            rankings = [self.best_by_terms(query, depth), self.best_by_vector(query, depth)]
            weights = list(RRF_WEIGHTS)
        return [Hit(row, score) for row, score in fused(rankings, weights, RRF_K).items()]

    def diverse(self, hits: Sequence[Hit], count: int, trade_off: float) -> list[Hit]:
        """Returns ``count`` of ``hits`` by maximal marginal relevance, in the order in which they are chosen.
        ``trade_off`` is as in ``found_in``: 1 is relevance alone, less prefers chunks that differ."""
        best = hits[: max(count, MAX_DIVERSIFIED)]
        if not best:
            return []
        top = best[0].score
        words = [frozenset(_terms_of(self.row(hit.row))) for hit in best]

        def similarity(one: int, other: int) -> float:
            cosine = self._vectors.cosine(best[one].row, best[other].row)
            common, fewer = len(words[one] & words[other]), min(len(words[one]), len(words[other]))
            return max(0.0, cosine) if cosine is not None else common / max(1, fewer)

        places = diversified([hit.score / top for hit in best], similarity, count, trade_off)
        return [best[place] for place in places]

    def compact(self) -> PassageIndex:
        """Returns an index with the same documents, without empty rows."""
        made = PassageIndex(self.dimensions)
        for document, numbers in self._documents.items():
            made._documents[document] = rows = []
            for number in numbers:
                row = self.row(number)
                rows.append(made._terms.add(_terms_of(row)))
                made._rows.append(row)
                if (vector := self._vectors.get(number)) is not None:
                    made._vectors.put(rows[-1], vector[None])
        made._placed = self._placed
        return made


def embedded_text(row: Row) -> str:
    """Returns the text of a chunk that is embedded: with the title and the headings above it, which say what the chunk
    is about."""
    above = " > ".join(each for each in (row.source.title, row.chunk.heading) if each)
    return f"{above}\n{row.text}" if above else row.text


def _terms_of(row: Row) -> list[str]:
    return terms(embedded_text(row))
