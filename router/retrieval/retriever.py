"""``Retriever``: finds the passages for a request, and puts them into its conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from engine.api import Conversation
from router.config.retrieval import RetrievalConfig
from router.documents import (
    ContextPassage,
    Document,
    RetrievalOptions,
    RetrievedContext,
    SearchMode,
    Source,
    url_of,
    with_context,
)
from router.errors import InvalidRequestError, UnavailableError
from router.inference_request import InferenceRequest
from router.ports.embedder import EmbedderUnavailableError
from router.ports.state_store import StateUnavailableError
from router.retrieval.chunk_embedder import ChunkEmbedder, ChunkVectors
from router.retrieval.chunking import chunks
from router.retrieval.collections import Collections, Found, candidate_of, found_in
from router.retrieval.context_packing import Candidate, Packed, max_prompt_tokens, packed
from router.retrieval.passage_index import PassageIndex, Query, embedded_text
from router.retrieval.search_turns import SearchTurns

MAX_QUERY_CHARS = 4000  # of the end of a long message, where the question usually is
MAX_SEARCHES = 4  # at a time, of which each may keep a thread busy


class _Search(NamedTuple):
    """A query, how it is searched, and why not as the request wants; None: as it wants."""

    query: Query
    mode: SearchMode
    reason: str | None = None


class Retriever:
    """Finds the passages for requests. ``collections`` are the tenants' named collections. ``embedder`` None: passages
    are found by BM25 alone."""

    def __init__(self, config: RetrievalConfig, collections: Collections, embedder: ChunkEmbedder | None) -> None:
        self._config = config
        self.collections = collections
        self._embedder = embedder
        self._searches = SearchTurns(MAX_SEARCHES)

    async def augment(self, tenant: str, request: InferenceRequest) -> InferenceRequest:
        """Returns ``request`` with the passages for it in its conversation; unchanged if it asks for no retrieval.

        Raises NotFoundError for a collection that the tenant does not have, InvalidRequestError if the request has no
        text to search for, and UnavailableError if the collections cannot be reached, or a search by vectors alone has
        no embedder.
        """
        if not request.retrieves:
            return request
        options = request.retrieval or RetrievalOptions()
        text = _query_text(request, options)
        try:
            async with self._searches.turn(tenant):
                context = await self._context(tenant, text, request.documents, options)
        except StateUnavailableError:
            message = "The collections cannot be reached at the moment."
            raise UnavailableError(message, "state_unavailable", "retrieval.collections", retry_after_s=5) from None
        prompts = [with_context(prompt, context.text) for prompt in request.prompts]
        return replace(request, prompts=prompts, context=context)

    def max_context_tokens(self, request: InferenceRequest) -> int:
        """Returns the most tokens that the passages for ``request`` may add to its prompt, by estimate."""
        options = request.retrieval or RetrievalOptions()
        return max_prompt_tokens(options.budget_tokens or self._config.budget_tokens)

    async def search(
        self, tenant: str, name: str, text: str, mode: SearchMode, count: int
    ) -> tuple[Found, Mapping[str, Any]]:
        """Returns the best chunks of a collection for ``text``, ``count`` at most, and details of the search for the
        response.

        Raises NotFoundError for an unknown collection, UnavailableError if a search by vectors alone has no embedder,
        and StateUnavailableError if the store does not answer.
        """
        async with self._searches.turn(tenant):
            search = await self._search(tenant, text, mode)
            found = await self.collections.search(tenant, name, search.query, search.mode, count, 1.0, None)
        return found, _how(search, found.with_vectors)

    async def _context(
        self, tenant: str, text: str, documents: Sequence[Document], options: RetrievalOptions
    ) -> RetrievedContext:
        config = self._config
        top_k = options.top_k or config.top_k
        budget = options.budget_tokens or config.budget_tokens
        count = max(2 * top_k, 16)
        search = await self._search(tenant, text, options.mode)
        found: list[Found] = []
        if documents:
            found.append(await self._in_documents(tenant, documents, search, count))
        for place, name in enumerate(options.collections):
            field = f"retrieval.collections[{place}]"
            query, mode = search.query, search.mode
            found.append(await self.collections.search(tenant, name, query, mode, count, config.diversity, field))
        chunk_count = sum(each.chunks for each in found)
        candidates = _interleaved([each.candidates for each in found])
        complete = not options.collections and len(candidates) == chunk_count
        made = packed(candidates, top_k, budget, options.order, complete=complete)
        how = _how(search, any(each.with_vectors for each in found))
        details = {**how, **_counts(made, chunk_count, budget), "passages": [_shown(each) for each in made.passages]}
        return RetrievedContext(made.passages, details, options.citations)

    async def _search(self, tenant: str, text: str, mode: SearchMode) -> _Search:
        """Returns a tenant's search for ``text``. Without an embedder that answers in time, it is by BM25, and says
        so."""
        if mode is SearchMode.BM25:
            return _Search(Query.of(text), mode)
        made, reason = await self._vectors(tenant, [text])
        if made is None:
            if mode is SearchMode.VECTOR:
                message = "There are no vectors at the moment: search with another 'mode'."
                raise UnavailableError(message, reason, "retrieval.mode", retry_after_s=5)
            return _Search(Query.of(text), SearchMode.BM25, reason)
        return _Search(Query.of(text, made.rows[0], made.model), mode)

    async def _vectors(self, tenant: str, texts: Sequence[str]) -> tuple[ChunkVectors | None, str | None]:
        """Returns the vectors of a tenant's texts, or the reason why there are none."""
        if self._embedder is None:
            return None, "no_embedder"
        try:
            async with asyncio.timeout(self._config.embed_timeout_s):
                return await self._embedder.vectors(texts, tenant), None
        except TimeoutError:
            return None, "embedder_timeout"
        except EmbedderUnavailableError:
            return None, "embedder_unavailable"

    async def _in_documents(self, tenant: str, documents: Sequence[Document], search: _Search, count: int) -> Found:
        """Returns what the request's own documents have. The client has chosen them, so those that do not fit the query
        are candidates too, after the others, if they are few or none does."""
        size, overlap = self._config.chunk_tokens, self._config.overlap_tokens
        dimensions = 0 if self._embedder is None else self._embedder.dimensions
        index = await asyncio.to_thread(indexed, documents, size, overlap, dimensions)
        if search.query.vector is not None:
            await self._embed_best(tenant, index, search.query)
        found = await asyncio.to_thread(found_in, index, search.query, search.mode, count, self._config.diversity)
        if len(index) <= count or not found.candidates:
            known = {(each.place, each.start) for each in found.candidates}
            first = [candidate_of(index, row, 0.0) for row in index.in_order(count)]
            rest = [each for each in first if (each.place, each.start) not in known]
            return found._replace(candidates=[*found.candidates, *rest])
        return found

    async def _embed_best(self, tenant: str, index: PassageIndex, query: Query) -> None:
        """Embeds the chunks that BM25 finds best, and the first ones if it finds few: all would take too long. Vectors
        of another model than the query's are left out."""
        limit = self._config.max_embedded_chunks
        rows = index.best_by_terms(query, limit)
        rows += [row for row in index.in_order(limit) if row not in set(rows)][: limit - len(rows)]
        made, _ = await self._vectors(tenant, [embedded_text(index.row(row)) for row in rows])
        if made is not None and made.model == query.model:
            index.set_vectors(rows, made.rows)


def indexed(documents: Sequence[Document], size_tokens: int, overlap_tokens: int, dimensions: int) -> PassageIndex:
    """Returns an index of the documents in a request. Their ids in the index are their positions, from 0.
    ``size_tokens`` and ``overlap_tokens`` are as in ``chunks``, whose errors are raised. ``dimensions`` is the length
    of the vectors that are set later; 0: there are none."""
    index = PassageIndex(dimensions)
    for place, document in enumerate(documents):
        source = Source(f"documents[{place}]", document.id, "", document.title, url_of(document.metadata))
        index.put(replace(document, id=str(place)), source, chunks(document.text, size_tokens, overlap_tokens))
    return index


def _query_text(request: InferenceRequest, options: RetrievalOptions) -> str:
    """Returns what is searched for. Raises InvalidRequestError if the request has nothing."""
    if options.query is not None:
        return options.query
    for prompt in request.prompts:
        if isinstance(prompt, Conversation):
            said = [message.content for message in prompt.messages if message.role == "user" and message.content]
            if said:
                return said[-1][-MAX_QUERY_CHARS:]
    message = "There is nothing to search for: the conversation has no message of the user."
    raise InvalidRequestError(message, "missing_required_parameter", "retrieval.query")


def _interleaved(lists: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Returns the candidates of several sources, the first of each before the second of any. Scores of different
    sources say little about each other: where there are several, the rank within its own decides."""
    several = len(lists) > 1
    placed = [
        (rank, source, candidate._replace(place=candidate.place + (source << 32), rank=rank * several))
        for source, candidates in enumerate(lists)
        for rank, candidate in enumerate(candidates)
    ]
    return [candidate for _, _, candidate in sorted(placed, key=lambda each: each[:2])]


def _how(search: _Search, with_vectors: bool) -> dict[str, Any]:
    """Returns how was searched, and why not as the request wants."""
    mode, reason = search.mode, search.reason
    if mode is SearchMode.HYBRID and not with_vectors:
        mode, reason = SearchMode.BM25, reason or "no_vectors_yet"
    return {"mode": mode.value, "reason": reason}


def _counts(made: Packed, chunk_count: int, budget: int) -> dict[str, Any]:
    return {
        "chunks": chunk_count,
        "left_out": chunk_count - made.chunks,
        "tokens": made.tokens,
        "budget_tokens": budget,
    }


def _shown(passage: ContextPassage) -> dict[str, Any]:
    """Returns what the answer's details say of a passage."""
    return {
        "number": passage.number,
        "document": passage.source.document,
        "collection": passage.source.collection or None,
        "title": passage.source.title or None,
        "start": passage.start,
        "end": passage.end,
        "score": passage.score,
    }
