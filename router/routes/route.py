"""``Route``: what answers the requests of some paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from router.errors import RefusalError
from router.routes.error_bodies import ErrorBodies
from router.transport.http_exchange import HttpExchange


class Route(Protocol):
    """Answers the requests of some paths, which are given without a slash at their end."""

    def methods(self, path: str) -> Sequence[str] | None:
        """Returns the HTTP methods that ``path`` allows; None: it is no path of this route."""

    def error_body(self, refusal: RefusalError) -> str:
        """Returns the body of an error in the wire format of the paths."""

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Answers a request with one of the methods. Raises what refuses it; ``errors`` makes the body of that."""
