"""Manta's own response headers of an inference request. docs/api.md describes them."""

from __future__ import annotations

from router.answer_events import Routed
from router.openai.document_fields import retrieval_header


def headers(routed: Routed) -> list[tuple[bytes, bytes]]:
    """Returns Manta's response headers: the chosen tier, why, and what the request sets without effect."""
    headers = [
        (b"x-manta-tier", routed.tier.encode()),
        (b"x-manta-route-reason", routed.reason.encode("ascii", "replace")),
        (b"x-manta-cache", routed.cache.encode("ascii", "replace")),
    ]
    if routed.template is not None:
        headers.append((b"x-manta-prompt", routed.template.encode()))
    if routed.cache_entry:
        headers.append((b"x-manta-cache-entry", routed.cache_entry.encode()))
    if routed.retrieval is not None:
        headers.append((b"x-manta-retrieval", retrieval_header(routed.retrieval).encode()))
    if routed.ignored:
        headers.append((b"x-manta-ignored", ", ".join(routed.ignored).encode("ascii", "replace")))
    return headers


def late_headers(routed: Routed) -> list[tuple[bytes, bytes]]:
    """Returns the headers that are known only when the answer begins: a conversation may be shortened until then,
    another replica may have gone on with the request, and the guard has inspected a whole answer."""
    found = [(b"x-manta-safety", routed.safety().encode())]
    if (context := routed.context()) is not None:
        found.append((b"x-manta-context", context.encode()))
    count, other_version = routed.failovers()
    if count:
        found.append((b"x-manta-failovers", f"{count}{'; other_version' if other_version else ''}".encode()))
    return found
