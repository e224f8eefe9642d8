"""The texts of documents that are kept in collections, as passages for the guard; and those that a search has found.
Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from router.documents import Document
from safety.api import Origin, Passage

RESULT_TEXTS = ("title", "heading", "text")
"""The members of a search result that have text of the document."""


def document_passages(documents: Sequence[Document]) -> list[Passage]:
    """Returns the texts of documents to be stored: of each its title, its text and its metadata."""
    found = []
    for place, document in enumerate(documents):
        field = f"documents[{place}]"
        found += _passage(document.title, f"{field}.title")
        found += _passage(document.text, f"{field}.text")
        found += _passage(_joined(document.metadata), f"{field}.metadata")
    return found


def collection_passages(description: str | None, metadata: Mapping[str, Any]) -> list[Passage]:
    """Returns the texts that describe a collection."""
    return _passage(description or "", "description") + _passage(_joined(metadata), "metadata")


def query_passages(query: str) -> list[Passage]:
    """Returns the text that is searched for."""
    return [Passage(query, Origin.USER, "query")]


def result_passages(results: Sequence[Mapping[str, Any]]) -> list[Passage]:
    """Returns the texts of search results."""
    return [
        Passage(result[name], Origin.DOCUMENT, f"data[{place}].{name}")
        for place, result in enumerate(results)
        for name in RESULT_TEXTS
        if result[name]
    ]


def with_result_texts(
    results: Sequence[Mapping[str, Any]], texts: Sequence[str], dropped: Collection[int] = ()
) -> list[dict[str, Any]]:
    """Returns search results with ``texts`` in the places of ``result_passages``, in their order. A result of which one
    of the passages is ``dropped`` is left out."""
    rest = iter(enumerate(texts))
    found = []
    for result in results:
        places = {name: next(rest) for name in RESULT_TEXTS if result[name]}
        if not any(place in dropped for place, _ in places.values()):
            found.append({**result, **{name: text for name, (_, text) in places.items()}})
    return found


def _passage(text: str, field: str) -> list[Passage]:
    return [Passage(text, Origin.DOCUMENT, field)] if text else []


def _joined(metadata: Mapping[str, Any]) -> str:
    """Returns the names and values of metadata, one pair a line. A number may be a card number."""
    return "\n".join(f"{name}: {value}" for name, value in metadata.items())
