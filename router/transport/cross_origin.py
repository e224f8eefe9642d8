"""``CrossOrigin``: the headers by which a browser lets a page of another origin call the API (CORS). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+([ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
MAX_HEADER_NAMES_CHARS = 2048

EXPOSED = (
    "idempotent-replayed",
    "retry-after",
    "retry-after-ms",
    "x-manta-cache",
    "x-manta-cache-entry",
    "x-manta-context",
    "x-manta-failovers",
    "x-manta-ignored",
    "x-manta-limit-warning",
    "x-manta-prompt",
    "x-manta-refused",
    "x-manta-retrieval",
    "x-manta-route-reason",
    "x-manta-safety",
    "x-manta-stream",
    "x-manta-tier",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "x-should-retry",
)
"""The response headers that a page may read."""


class CrossOrigin:
    """The rules of one service: ``allowed`` are the origins whose pages may call it, ``*``: all. ``max_age_s`` is the
    time for which a browser remembers the answer to a preflight."""

    def __init__(self, allowed: Collection[str], max_age_s: int) -> None:
        self._allowed = frozenset(allowed)
        self._max_age_s = max_age_s

    def response_headers(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Returns the headers of a response to a page of ``origin``; None: the caller is no page. An origin that is not
        allowed gets none, so that the browser withholds the response from its page."""
        if not self._allowed:
            return []
        vary = (b"vary", b"origin")  # else a cache could give one origin the response to another
        if origin is None or not self._allows(origin):
            return [vary]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", ", ".join(EXPOSED).encode()),
            vary,
        ]

    def preflight_headers(
        self, origin: str | None, method: str | None, asked: str | None, methods: Sequence[str]
    ) -> list[tuple[bytes, bytes]] | None:
        """Returns the further headers of the response to a preflight: a browser's question whether a page of ``origin``
        may send ``method`` with the headers ``asked``. ``methods`` are those of the path. None: it is no preflight, or
        its origin is not allowed."""
        if origin is None or method is None or not self._allows(origin):
            return None
        headers = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-max-age", str(self._max_age_s).encode()),
        ]
        if asked is not None and len(asked) <= MAX_HEADER_NAMES_CHARS and HEADER_NAMES.fullmatch(asked):
            headers.append((b"access-control-allow-headers", asked.encode()))
        return headers

    def _allows(self, origin: str) -> bool:
        return "*" in self._allowed or origin in self._allowed
