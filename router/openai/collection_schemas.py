"""The JSON bodies of requests to /v1/collections and of their responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from router.documents import Document
from router.errors import InvalidRequestError
from router.openai.document_fields import MAX_QUERY_CHARS, CollectionName, DocumentField, Metadata
from router.openai.validation import Integer, StrictModel, ValidText, parse

MAX_ADDED = 100  # documents of one request
MAX_PAGE, USUAL_PAGE = 100, 20  # documents of a list


class NewCollection(StrictModel):
    """The JSON body of POST /v1/collections."""

    name: CollectionName
    description: Annotated[ValidText, Field(max_length=512)] | None = None
    metadata: Metadata | None = None

    @property
    def kept(self) -> dict[str, Any]:
        """The fields that are stored with the collection, without its name."""
        return {"description": self.description, "metadata": self.metadata or {}}


class AddedDocuments(StrictModel):
    """The JSON body of POST /v1/collections/{name}/documents."""

    documents: Annotated[list[DocumentField], Field(min_length=1, max_length=MAX_ADDED, fail_fast=True)]


class CollectionSearch(StrictModel):
    """The JSON body of POST /v1/collections/{name}/search."""

    query: Annotated[ValidText, Field(min_length=1, max_length=MAX_QUERY_CHARS)]
    top_k: Integer = Field(8, ge=1, le=64)
    mode: Annotated[str, Field(pattern="^(hybrid|bm25|vector)$")] = "hybrid"


def new_collection(body: bytes) -> NewCollection:
    """Returns the collection in ``body``. Raises InvalidRequestError that names the wrong field."""
    return parse(NewCollection, body)


def added_documents(body: bytes, id_of: Callable[[str, str], str]) -> list[Document]:
    """Returns the documents in ``body``. ``id_of`` names one without an id, by its title and text. Raises
    InvalidRequestError that names the wrong field."""
    fields = parse(AddedDocuments, body).documents
    return [each.document(each.id or id_of(each.title or "", each.text)) for each in fields]


def collection_search(body: bytes) -> CollectionSearch:
    """Returns the search in ``body``. Raises InvalidRequestError that names the wrong field."""
    return parse(CollectionSearch, body)


def page_of(parameters: Mapping[str, str]) -> tuple[str, int]:
    """Returns the query parameters ``after`` ("": the list's start) and ``limit`` of a request for a list. Raises
    InvalidRequestError that names the wrong parameter."""
    for name in parameters.keys() - {"after", "limit"}:
        shown = name.encode("ascii", "backslashreplace").decode()[:64]
        raise InvalidRequestError(f"There is no parameter '{shown}'.", "unknown_parameter", shown)
    limit = parameters.get("limit", str(USUAL_PAGE))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_PAGE and len(limit) < 9):
        raise InvalidRequestError(f"'limit' must be from 1 to {MAX_PAGE}.", "invalid_value", "limit")
    return parameters.get("after", ""), int(limit)


def collection_fields(name: str, document: str, state: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """Returns a collection as a JSON object. ``document`` is ``NewCollection.kept`` as JSON, ``state`` is as in
    ``CollectionState``, and ``counts`` has its numbers of documents, chunks and bytes."""
    kept = json.loads(document)
    return {
        "object": "collection",
        "name": name,
        "description": kept.get("description"),
        "metadata": kept.get("metadata", {}),
        "created_at": kept.get("created_at"),
        "state": state,
        **counts,
    }


def document_fields(
    document: Document, chunks: int, created_at: int, state: str, *, text: bool = False
) -> dict[str, Any]:
    """Returns a document as a JSON object, with its text if ``text`` is set. ``chunks`` is the number of its chunks,
    ``created_at`` is in seconds since the epoch, and ``state`` is as in ``DocumentState``."""
    shown = {
        "object": "collection.document",
        "id": document.id,
        "title": document.title or None,
        "metadata": dict(document.metadata),
        "characters": len(document.text),
        "chunks": chunks,
        "created_at": created_at,
        "state": state,
    }
    return {**shown, "text": document.text} if text else shown


def list_fields(items: Sequence[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    """Returns ``items`` as OpenAI's list object. ``has_more``: items after the last of them exist."""
    return {"object": "list", "data": list(items), "has_more": has_more}
