"""``AdminSection``: the interface of what answers some of the administrators' paths, and what goes in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from router.principal import Principal

JSON, CSV, JSON_LINES = "application/json", "text/csv; charset=utf-8", "application/jsonl; charset=utf-8"

RecordChange = Callable[[str, Mapping[str, object]], None]
"""Records in the audit log what was changed of a tenant."""


@dataclass(frozen=True, slots=True)
class AdminCall:
    """One HTTP request to the admin API.

    ``read`` returns the body; its argument is the largest size accepted, in bytes. ``parameters`` are those of the
    query.
    """

    method: str
    path: str
    parameters: Mapping[str, str]
    credentials: str | None
    read: Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of a response and its media type."""

    body: str
    media_type: str = JSON


class AdminSection(Protocol):
    """Answers the requests to some paths. The caller has checked that ``principal`` may make them."""

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this section does not serve ``path``."""
        ...

    async def answer(self, call: AdminCall, principal: Principal) -> Mapping[str, Any] | Reply:
        """Answers a request whose method and path are among ``methods``, with a JSON object or a body of another media
        type. Raises a RefusalError, and StateUnavailableError if the shared state cannot be reached."""
        ...
