"""``CollectionApi``: the requests to ``/v1/collections``, independent of the transport.

::

    POST   /v1/collections                        creates a collection
    GET    /v1/collections                        lists those of the key's tenant
    GET    /v1/collections/{name}                 shows one
    DELETE /v1/collections/{name}                 deletes it with its documents
    POST   /v1/collections/{name}/documents       adds documents, all or none
    GET    /v1/collections/{name}/documents       lists them; ``?after=ID&limit=``
    GET    /v1/collections/{name}/documents/{id}  shows one with its text
    DELETE /v1/collections/{name}/documents/{id}  deletes it
    POST   /v1/collections/{name}/search          finds passages
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.documents import SearchMode
from router.guard.document_passages import (
    collection_passages,
    document_passages,
    query_passages,
    result_passages,
    with_result_texts,
)
from router.inference_request import Call
from router.openai.collection_schemas import (
    added_documents,
    collection_fields,
    collection_search,
    document_fields,
    list_fields,
    new_collection,
    page_of,
)
from router.requests.collection_requests import CollectionRequests, Inspect, Worked
from router.retrieval.collections import CollectionState, DocumentState, document_id
from router.retrieval.retriever import Retriever
from safety.api import TextUse

COLLECTIONS = "/v1/collections"
PATH = re.compile(r"/v1/collections(?:/(?P<name>[^/]+)(?:/(?P<part>documents|search)(?:/(?P<id>[^/]+))?)?)?")


@dataclass(frozen=True, slots=True)
class CollectionCall:
    """One HTTP request to ``/v1/collections``. ``parameters`` are those of the query. ``call.endpoint`` is COLLECTIONS,
    whatever the path."""

    method: str
    path: str
    parameters: Mapping[str, str]
    call: Call


class CollectionApi:
    """Answers requests for collections. A key sees the collections of its own tenant only.

    The guard inspects what is stored and searched for, which is used as it is unless it is blocked, and the results of
    a search, of which those that are blocked are left out and counted. A document that is shown by its id is shown as
    it was stored.
    """

    def __init__(self, requests: CollectionRequests, retriever: Retriever) -> None:
        self._requests = requests
        self._retriever = retriever
        self._collections = retriever.collections

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        match = PATH.fullmatch(path)
        if match is None or (match["part"] == "search" and match["id"] is not None):
            return None
        if match["part"] == "search":
            return ("POST",)
        if match["id"] is not None or (match["name"] is not None and match["part"] is None):
            return "GET", "DELETE"
        return "GET", "POST"

    async def answer(self, asked: CollectionCall) -> Worked[dict[str, Any]]:
        """Answers a request whose method and path are among ``methods``.

        Raises InvalidRequestError that names the wrong field, NotFoundError, ConflictError, UnavailableError, and the
        errors about the key and its limits.
        """
        match = PATH.fullmatch(asked.path)
        assert match is not None, "the path is one of this class"
        name, part, document = match["name"], match["part"], match["id"]

        async def work(tenant: str, body: bytes, inspect: Inspect) -> dict[str, Any]:
            if name is None:
                return await self._all(asked, tenant, body, inspect)
            if part == "search":
                return await self._search(tenant, name, body, inspect)
            if document is not None:
                return await self._document(asked, tenant, name, document)
            if part == "documents":
                return await self._documents(asked, tenant, name, body, inspect)
            return await self._one(asked, tenant, name)

        return await self._requests.run(asked.call, work)

    async def _all(self, asked: CollectionCall, tenant: str, body: bytes, inspect: Inspect) -> dict[str, Any]:
        if asked.method == "GET":
            return list_fields([_collection(each) for each in await self._collections.list(tenant)])
        new = new_collection(body)
        await inspect(collection_passages(new.description, new.metadata or {}), TextUse.STORAGE)
        return _collection(await self._collections.create(tenant, new.name, new.kept))

    async def _one(self, asked: CollectionCall, tenant: str, name: str) -> dict[str, Any]:
        if asked.method == "GET":
            return _collection(await self._collections.get(tenant, name))
        await self._collections.delete(tenant, name)
        return {"object": "collection.deleted", "name": name, "deleted": True}

    async def _documents(
        self, asked: CollectionCall, tenant: str, name: str, body: bytes, inspect: Inspect
    ) -> dict[str, Any]:
        if asked.method == "POST":
            documents = added_documents(body, document_id)
            await inspect(document_passages(documents), TextUse.STORAGE)
            added = await self._collections.add(tenant, name, documents)
            return list_fields([_document(each) for each in added])
        found, more = await self._collections.documents(tenant, name, *page_of(asked.parameters))
        return list_fields([_document(each) for each in found], has_more=more)

    async def _document(self, asked: CollectionCall, tenant: str, name: str, document: str) -> dict[str, Any]:
        if asked.method == "GET":
            return _document(await self._collections.document(tenant, name, document), text=True)
        await self._collections.delete_document(tenant, name, document)
        return {"object": "collection.document.deleted", "id": document, "deleted": True}

    async def _search(self, tenant: str, name: str, body: bytes, inspect: Inspect) -> dict[str, Any]:
        search = collection_search(body)
        await inspect(query_passages(search.query), TextUse.STORAGE)
        found, how = await self._retriever.search(tenant, name, search.query, SearchMode(search.mode), search.top_k)
        data = [
            {
                "document": each.source.document,
                "title": each.source.title or None,
                "heading": each.heading or None,
                "start": each.start,
                "end": each.end,
                "text": each.text,
                "score": round(each.score, 6),
            }
            for each in found.candidates
        ]
        inspected = await inspect(result_passages(data), TextUse.RESULT)
        allowed = with_result_texts(data, inspected.texts, inspected.dropped)
        return {**list_fields(allowed), **how, "filtered": len(data) - len(allowed)}


def _collection(each: CollectionState) -> dict[str, Any]:
    record = each.record
    counts = {
        "documents": record.documents,
        "embedded_documents": record.embedded,
        "chunks": record.chunks,
        "bytes": record.bytes,
    }
    return collection_fields(record.name, record.document, each.state, counts)


def _document(each: DocumentState, *, text: bool = False) -> dict[str, Any]:
    document, chunks, created_at = each.indexed
    return document_fields(document, len(chunks), created_at, each.state, text=text)
