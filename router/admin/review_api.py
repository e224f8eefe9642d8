"""``ReviewApi``: the requests to ``/admin/v1/review`` and ``/admin/v1/audit``, independent of the transport.

::

    GET    /admin/v1/review                  lists items; ``?tenant=``, ``?state=``, ``?limit=``
    GET    /admin/v1/review/{id}             shows one, with its text
    POST   /admin/v1/review/{id}/claim       holds it for a while, so that no other reviewer can
    POST   /admin/v1/review/{id}/release     gives it back
    POST   /admin/v1/review/{id}/approve     lets the text pass, now and for a while
    POST   /admin/v1/review/{id}/reject      refuses it
    GET    /admin/v1/review/exceptions       lists approved texts that pass; ``?tenant=``
    DELETE /admin/v1/review/exceptions       ends one; ``?tenant=``, ``?fingerprint=``
    GET    /admin/v1/review/export           decided items as JSON lines; ``?tenant=``, ``?since=``, ``?limit=``
    GET    /admin/v1/audit                   records of a day; ``?day=``, ``?tenant=``, ``?first=``, ``?limit=``
    GET    /admin/v1/audit/verify            verifies a day; ``?day=``, ``?tenant=``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.admin.admin_section import JSON_LINES, AdminCall, Reply
from router.admin.key_schemas import parse_document
from router.admin.review_schemas import (
    ApprovalBody,
    ReviewStepBody,
    case_document,
    check_parameters,
    day_of,
    day_text,
    exception_document,
    label_line,
    number_of,
    record_document,
    report_document,
    state_of,
)
from router.errors import InvalidRequestError
from router.ports.clock import Clock
from router.ports.review_store import ReviewAction
from router.principal import Principal
from router.review.audit_reader import AuditReader
from router.review.reviewer_operations import ReviewerOperations

REVIEW, AUDIT = "/admin/v1/review", "/admin/v1/audit"
EXCEPTIONS, EXPORT, VERIFY = f"{REVIEW}/exceptions", f"{REVIEW}/export", f"{AUDIT}/verify"
FIXED = {REVIEW: ("GET",), EXCEPTIONS: ("GET", "DELETE"), EXPORT: ("GET",), AUDIT: ("GET",), VERIFY: ("GET",)}
MAX_ITEMS, MAX_EXPORTED, MAX_RECORDS = 1000, 10_000, 1000  # of one answer
DEFAULT_LIMIT = 100
MAX_BODY_BYTES = 64 * 1024
MAX_TIME_S = 10**11


class ReviewApi:
    """Answers requests of administrators about reviews and the audit log. Each coroutine raises StateUnavailableError
    if the store cannot be reached."""

    def __init__(self, desk: ReviewerOperations, audit: AuditReader, clock: Clock) -> None:
        self._desk = desk
        self._audit = audit
        self._clock = clock

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        if path in FIXED:
            return FIXED[path]
        match path.removeprefix(f"{REVIEW}/").split("/") if path.startswith(f"{REVIEW}/") else []:
            case [item_id] if item_id:
                return ("GET",)
            case [item_id, action] if item_id and action in list(ReviewAction):
                return ("POST",)
        return None

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any] | Reply:
        """Answers a request whose method and path are among ``methods``: with JSON lines for ``/review/export``.

        Raises InvalidRequestError for a wrong field or parameter, NotFoundError for an unknown item, and ConflictError
        if the item's state does not allow the step.
        """
        path, parameters = call.path, call.parameters
        if path == EXPORT:
            return Reply(await self._export(parameters, principal), JSON_LINES)
        if path == REVIEW:
            return await self._list(parameters)
        if path == EXCEPTIONS:
            return await (self._exceptions(parameters) if call.method == "GET" else self._revoke(parameters, principal))
        if path == VERIFY:
            return await self._verify(parameters)
        if path == AUDIT:
            return await self._records(parameters)
        item_id, _, action = path.removeprefix(f"{REVIEW}/").partition("/")
        check_parameters(parameters, ())
        if not action:
            return case_document(await self._desk.show(item_id, principal.key_id), with_text=True)
        return await self._take(item_id, ReviewAction(action), await call.read(MAX_BODY_BYTES), principal)

    async def _list(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        check_parameters(parameters, ("tenant", "state", "limit"))
        limit = number_of(parameters, "limit", DEFAULT_LIMIT, MAX_ITEMS)
        found = await self._desk.list(parameters.get("tenant") or None, state_of(parameters), limit + 1)
        data = [case_document(case, with_text=False) for case in found[:limit]]
        return {"object": "list", "data": data, "has_more": len(found) > limit}

    async def _take(self, item_id: str, action: ReviewAction, body: bytes, principal: Principal) -> dict[str, Any]:
        """Does what a reviewer asks. The name of a reviewer is the key's id, and what the body adds."""
        exception_s = None
        if action is ReviewAction.APPROVE:
            approval = parse_document(ApprovalBody, body)
            name, exception_s = approval.reviewer, approval.exception_s
        else:
            name = parse_document(ReviewStepBody, body).reviewer
        reviewer = principal.key_id if name is None else f"{principal.key_id}/{name}"
        case = await self._desk.take(item_id, action, reviewer, exception_s)
        return case_document(case, with_text=action is ReviewAction.CLAIM)

    async def _exceptions(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        check_parameters(parameters, ("tenant",))
        found = await self._desk.exceptions(parameters.get("tenant") or None)
        return {"object": "list", "data": [exception_document(each) for each in found]}

    async def _revoke(self, parameters: Mapping[str, str], principal: Principal) -> dict[str, Any]:
        check_parameters(parameters, ("tenant", "fingerprint"))
        for name in ("tenant", "fingerprint"):
            if not parameters.get(name):
                raise InvalidRequestError(f"{name}: is required.", "invalid_value", name)
        tenant, fingerprint = parameters["tenant"], parameters["fingerprint"]
        await self._desk.revoke(tenant, fingerprint, principal.key_id)
        return {"object": "review_exception", "tenant": tenant, "fingerprint": fingerprint, "deleted": True}

    async def _export(self, parameters: Mapping[str, str], principal: Principal) -> str:
        check_parameters(parameters, ("tenant", "since", "limit"))
        since_s = number_of(parameters, "since", 0, MAX_TIME_S)
        limit = number_of(parameters, "limit", MAX_EXPORTED, MAX_EXPORTED)
        tenant = parameters.get("tenant") or None
        found = await self._desk.decided(tenant, 1000 * since_s, limit, principal.key_id)
        return "".join(f"{label_line(case)}\n" for case in found)

    async def _records(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        check_parameters(parameters, ("tenant", "day", "first", "limit"))
        day, tenant = day_of(parameters, self._clock.now()), parameters.get("tenant") or None
        first = number_of(parameters, "first", 1, MAX_TIME_S)
        limit = number_of(parameters, "limit", DEFAULT_LIMIT, MAX_RECORDS)
        names = [tenant] if tenant is not None else await self._audit.tenants(day)
        lines: list[str] = []
        for name in names:
            lines += await self._audit.read(name, day, max(0, first - 1), limit + 1 - len(lines))
            if len(lines) > limit:
                break
        data = [record_document(line) for line in lines[:limit]]
        return {"object": "list", "day": day_text(day), "data": data, "has_more": len(lines) > limit}

    async def _verify(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        check_parameters(parameters, ("tenant", "day"))
        now = self._clock.now()
        day = day_of(parameters, now)
        reports = await self._audit.verify(parameters.get("tenant") or None, day, int(now // 86_400))
        data = [report_document(report) for report in reports]
        return {"object": "list", "day": day_text(day), "valid": all(each["valid"] for each in data), "data": data}
