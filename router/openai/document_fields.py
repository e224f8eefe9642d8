"""The request fields ``documents`` and ``retrieval``, and the bodies of /v1/collections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from router.documents import Document, PassageOrder, RetrievalOptions, SearchMode
from router.openai.validation import Integer, StrictModel, ValidText

MAX_DOCUMENTS = 1024  # of a request
MAX_DOCUMENT_CHARS = 1_000_000
MAX_COLLECTIONS = 8  # that one request searches
MAX_PAIRS = 32  # of a document's metadata
MAX_QUERY_CHARS = 4000

CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
DocumentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
DocumentText = Annotated[ValidText, Field(min_length=1, max_length=MAX_DOCUMENT_CHARS)]
Title = Annotated[ValidText, Field(max_length=512)]
MetadataValue = Annotated[ValidText, Field(max_length=2048)] | bool | Integer | float


def _check_pairs(values: dict[str, Any]) -> dict[str, Any]:
    """Returns ``values``. Raises ValueError for numbers that JSON does not have."""
    if any(isinstance(value, float) and not abs(value) < 1e300 for value in values.values()):
        raise ValueError("must have finite numbers")
    return values


Metadata = Annotated[
    dict[Annotated[ValidText, Field(min_length=1, max_length=64)], MetadataValue],
    Field(max_length=MAX_PAIRS, fail_fast=True),
    AfterValidator(_check_pairs),
]


class DocumentField(StrictModel):
    """A document in a request."""

    text: DocumentText
    id: DocumentId | None = None
    title: Title | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _some_text(self) -> DocumentField:
        if not self.text.strip():
            raise PydanticCustomError("misplaced", "has no text but white space", {"name": "text"})
        return self

    def document(self, default_id: str) -> Document:
        """Returns the document. ``default_id`` is its id if it has none of its own."""
        return Document(self.id or default_id, self.text, self.title or "", self.metadata or {})


DocumentList = Annotated[list[DocumentField], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]


class RetrievalField(StrictModel):
    """The request field ``retrieval``: how passages are found for a request."""

    collections: Annotated[list[CollectionName], Field(max_length=MAX_COLLECTIONS, fail_fast=True)] | None = None
    query: Annotated[ValidText, Field(min_length=1, max_length=MAX_QUERY_CHARS)] | None = None
    top_k: Integer | None = Field(None, ge=1, le=64)
    budget_tokens: Integer | None = Field(None, ge=64, le=131_072)
    mode: Annotated[str, Field(pattern="^(hybrid|bm25|vector)$")] | None = None
    order: Annotated[str, Field(pattern="^(auto|ends|document)$")] | None = None
    citations: bool | None = None

    @model_validator(mode="after")
    def _each_once(self) -> RetrievalField:
        names = self.collections or []
        if len(set(names)) < len(names):
            raise PydanticCustomError("misplaced", "names a collection twice", {"name": "collections"})
        return self

    @property
    def options(self) -> RetrievalOptions:
        """The options, independent of the wire format."""
        return RetrievalOptions(
            tuple(self.collections or ()),
            self.query,
            self.top_k,
            self.budget_tokens,
            SearchMode(self.mode or "hybrid"),
            PassageOrder(self.order or "auto"),
            self.citations is not False,
        )


def retrieval_header(details: Mapping[str, Any]) -> str:
    """Returns the value of ``x-manta-retrieval``, such as ``bm25; reason=no_embedder; passages=4; tokens=480``."""
    reason = {} if details["reason"] is None else {"reason": details["reason"]}
    facts = {**reason, "passages": len(details["passages"]), "tokens": details["tokens"]}
    return "; ".join([details["mode"], *(f"{name}={value}" for name, value in facts.items())])
