"""How passages are found in documents and collections."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from router.config.settings import Settings


class RetrievalConfig(Settings):
    """Documents in requests, and named collections of documents."""

    chunk_tokens: int = Field(256, ge=32, le=1024)
    """Tokens of a chunk, by estimate (3 bytes each). The embedded model reads 256 of its own, which are longer."""
    overlap_tokens: int = Field(48, ge=0, le=512)
    """Tokens at the end of a chunk that the next one repeats, in whole sentences."""
    top_k: int = Field(8, ge=1, le=64)
    """The most chunks in a context, for requests that do not say."""
    budget_tokens: int = Field(512, ge=64, le=131_072)
    """The most tokens of a context, by estimate, for requests that do not say. Half of the embedded tiers' context."""
    diversity: float = Field(0.8, ge=0, le=1)
    """Between relevance alone (1) and unlikeness to what was chosen before (0): the trade-off of maximal marginal
    relevance."""
    max_embedded_chunks: int = Field(16, ge=0, le=1024)
    """The most chunks of a request's own documents that are embedded while it waits, those that BM25 finds best. Each
    takes about 60 ms of a core. 0: their search is by BM25 alone."""
    embed_timeout_s: float = Field(2.0, gt=0, le=60)
    """Seconds that a request waits for vectors. Then it is searched by BM25 alone, and its answer says so."""
    max_collections: int = Field(64, ge=0)
    """The most collections of a tenant."""
    max_documents: int = Field(10_000, ge=1)
    """The most documents of a collection."""
    max_chunks: int = Field(50_000, ge=1)
    """The most chunks of a collection. A router's memory has about 4 KB for each."""
    max_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    """The most bytes of a tenant's documents, in Redis."""
    max_indexed_chunks: int = Field(200_000, ge=1)
    """The most chunks in a router's memory, beyond the collection that is searched. Other collections are read from
    Redis again when they are searched."""
    index_idle_s: float = Field(600.0, gt=0)
    """Seconds after which a collection that is not searched leaves a router's memory."""

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.overlap_tokens >= self.chunk_tokens:
            raise ValueError("overlap_tokens must be smaller than chunk_tokens")
        return self
