"""``ErrorBodies``: the bodies of a request's errors, with the tokens that were generated until then."""

from __future__ import annotations

from collections.abc import Callable

from engine.api import Usage
from router.errors import RefusalError


class ErrorBodies:
    """Writes the error bodies of one request, by ``error_of``, its wire format. ``usage`` returns the present token
    counts of its stream; None: the stream has not begun."""

    def __init__(self, error_of: Callable[[RefusalError], str]) -> None:
        self._error_of = error_of
        self.usage: Callable[[], Usage | None] = lambda: None

    def body(self, refusal: RefusalError) -> str:
        """Returns the error body of ``refusal``. It has the token counts of the request if tokens were generated."""
        used = self.usage()
        refusal.usage = used if used is not None and used.completion_tokens else None
        return self._error_of(refusal)
