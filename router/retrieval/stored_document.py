"""The stored form of documents and vectors: JSON, and float16 after a line of JSON. Pure.

Both begin with their format's version. Reading bytes that have another version or are damaged raises
StoredDocumentError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.documents import Document
from router.retrieval.chunking import Chunk

FORMAT = 1


class StoredDocumentError(ValueError):
    """The bytes are no document or no vectors of this format's version."""


class IndexedDocument(NamedTuple):
    """A document with its chunks. ``created_at`` is in seconds since the epoch."""

    document: Document
    chunks: Sequence[Chunk]
    created_at: int


class StoredVectors(NamedTuple):
    """The vectors of a document's chunks, float16 [chunks, dimensions], and the model that made them."""

    model: str
    vectors: NDArray[np.float16]


def document_bytes(indexed: IndexedDocument) -> bytes:
    """Returns a document in its stored form."""
    document = indexed.document
    kept = {
        "format": FORMAT,
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
        "chunks": [list(chunk) for chunk in indexed.chunks],
        "created_at": indexed.created_at,
    }
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()


def read_document(body: bytes) -> IndexedDocument:
    """Returns the document in ``body``. Raises StoredDocumentError if it is damaged or has another version."""
    try:
        kept = json.loads(body)
        if kept["format"] != FORMAT:
            raise StoredDocumentError(f"a document of the format {kept['format']}")
        document = Document(kept["id"], kept["text"], kept["title"], kept["metadata"])
        chunks = [Chunk(int(each[0]), int(each[1]), str(each[2])) for each in kept["chunks"]]
        if any(not 0 <= chunk.start < chunk.end <= len(document.text) for chunk in chunks):
            raise StoredDocumentError("a chunk is outside its document")
        return IndexedDocument(document, chunks, int(kept["created_at"]))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise StoredDocumentError(f"a document is damaged: {type(error).__name__}") from error


def vectors_bytes(model: str, vectors: NDArray[np.float32]) -> bytes:
    """Returns vectors, float32 [chunks, dimensions], in their stored form: float16, with the name of ``model``."""
    head = {"format": FORMAT, "model": model, "shape": list(vectors.shape)}
    return json.dumps(head).encode() + b"\n" + vectors.astype("<f2").tobytes()


def read_vectors(body: bytes) -> StoredVectors:
    """Returns the vectors in ``body``. Raises StoredDocumentError if they are damaged or have another version."""
    head, _, data = body.partition(b"\n")
    try:
        read = json.loads(head)
        if read["format"] != FORMAT:
            raise StoredDocumentError(f"vectors of the format {read['format']}")
        rows, dimensions = map(int, read["shape"])
        vectors = np.frombuffer(data, "<f2").reshape(rows, dimensions)
        if not np.isfinite(vectors).all():
            raise StoredDocumentError("vectors that are no numbers")
        return StoredVectors(str(read["model"]), vectors.astype(np.float16))
    except (KeyError, TypeError, ValueError) as error:
        raise StoredDocumentError(f"vectors are damaged: {type(error).__name__}") from error
