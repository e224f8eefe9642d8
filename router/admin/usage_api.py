"""``UsageApi``: the requests for usage, independent of the transport.

::

    GET    /admin/v1/usage                usage of all tenants
    GET    /v1/usage                      usage of the key's own tenant
"""

from __future__ import annotations

from typing import Any

from router.admin.admin_section import CSV, AdminCall, Reply
from router.ledger.usage_report import csv_of, question_of, rows_of
from router.ports.clock import Clock
from router.ports.state_store import StateStore
from router.principal import Principal

USAGE, OWN_USAGE = "/admin/v1/usage", "/v1/usage"


class UsageApi:
    """Answers requests for usage. ``currency`` is that of the prices."""

    def __init__(self, store: StateStore, currency: str, clock: Clock) -> None:
        self._store = store
        self._currency = currency
        self._clock = clock

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        return ("GET",) if path in (USAGE, OWN_USAGE) else None

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any] | Reply:
        """Answers with the usage of the tenant of ``principal`` for OWN_USAGE, else with that of the tenant that the
        request names, or of all. Raises InvalidRequestError and StateUnavailableError."""
        tenant = principal.tenant if call.path == OWN_USAGE else None
        question = question_of(call.parameters, self._clock.now(), tenant)
        rows = rows_of(question, await self._store.sums(question.query))
        if question.csv:
            return Reply(csv_of(question, rows), CSV)
        query = question.query
        span = {"start": query.start_ms // 1000, "end": query.end_ms // 1000, "currency": self._currency}
        return {"object": "list", "data": rows, **span}
