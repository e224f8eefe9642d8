"""Citations as annotations of an answer: OpenAI's ``url_citation``, with the offsets in the cited document as an
extension."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from router.documents import Citation


def annotation(citation: Citation) -> dict[str, Any]:
    """Returns a citation as an item of ``annotations``. Offsets count characters (Unicode code points). The end is
    exclusive.

    ``url`` is the document's own, if its metadata has one; otherwise a name that begins with ``document:``.
    """
    passage = citation.passage
    source = passage.source
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": citation.start,
            "end_index": citation.end,
            "title": source.title or source.document,
            "url": source.url or _name(source.collection, source.document),
        },
        "document_citation": {
            "passage": passage.number,
            "document": source.document,
            "collection": source.collection or None,
            "start": citation.source_start,
            "end": citation.source_end,
            "by": citation.by.value,
            "score": citation.score,
        },
    }


def _name(collection: str, document: str) -> str:
    path = f"{collection}/{quote(document, safe='')}" if collection else quote(document, safe="")
    return f"document:{path}"
