"""The JSON documents of ``/admin/v1/review`` and ``/admin/v1/audit``, and the parameters of their queries. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from router.config.settings import Name
from router.errors import InvalidRequestError
from router.ports.review_store import ReviewException, ReviewState
from router.review.audit_reader import DayReport
from router.review.reviewer_operations import ReviewCase

EPOCH = date(1970, 1, 1).toordinal()
MAX_EXCEPTION_S = 3650 * 86_400.0


class ReviewStepBody(BaseModel):
    """The body of ``POST /admin/v1/review/{id}/claim`` and of the other steps on an item. It may be empty.

    ``reviewer`` is a name that distinguishes people who share a key. The key's id is always part of the name that is
    stored.
    """

    model_config = ConfigDict(extra="forbid")

    reviewer: Name | None = None


class ApprovalBody(ReviewStepBody):
    """The body of ``POST /admin/v1/review/{id}/approve``. ``exception_s`` is the time in seconds for which the same
    text then passes without review; 0: only this once; None: the time in the tenant's policy."""

    exception_s: float | None = Field(None, ge=0, le=MAX_EXCEPTION_S, allow_inf_nan=False)


def check_parameters(parameters: Mapping[str, str], known: Collection[str]) -> None:
    """Raises InvalidRequestError if ``parameters`` has a name that is not in ``known``."""
    for name in parameters.keys() - known:
        shown = name.encode("ascii", "backslashreplace").decode()[:64]
        raise InvalidRequestError(f"There is no parameter '{shown}'.", "unknown_parameter", shown)


def number_of(parameters: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Returns the parameter ``name``, a whole number from 0 to ``most``, or ``default`` without it. Raises
    InvalidRequestError for any other value."""
    text = parameters.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= most):
        raise InvalidRequestError(f"{name}: must be a whole number of at most {most}.", "invalid_value", name)
    return int(text)


def state_of(parameters: Mapping[str, str]) -> ReviewState | None:
    """Returns the review state in the parameter ``state``; None without it, which means open items. Raises
    InvalidRequestError for an unknown state."""
    text = parameters.get("state", "")
    if not text or text == "open":
        return None
    try:
        return ReviewState(text)
    except ValueError:
        names = ", ".join(["open", *ReviewState])
        raise InvalidRequestError(f"state: must be one of {names}.", "invalid_value", "state") from None


def day_of(parameters: Mapping[str, str], now: float) -> int:
    """Returns the parameter ``day``, a date in UTC, as days since the epoch; without it, today, by ``now`` in seconds
    since the epoch. Raises InvalidRequestError for a malformed date."""
    text = parameters.get("day", "")
    if not text:
        return int(now // 86_400)
    try:
        return date.fromisoformat(text).toordinal() - EPOCH
    except ValueError:
        raise InvalidRequestError("day: must be a date such as 2026-11-27.", "invalid_value", "day") from None


def day_text(day: int) -> str:
    """Returns a day, given in days since the epoch, as a date ``YYYY-MM-DD``."""
    return date.fromordinal(day + EPOCH).isoformat()


def case_document(case: ReviewCase, *, with_text: bool) -> dict[str, Any]:
    """Returns a review item as a JSON object. ``with_text`` adds its text, which is null if it is not stored."""
    item, facts = case.item, case.facts
    document = {
        "id": item.id,
        "object": "review_item",
        "tenant": item.tenant,
        "state": item.state.value,
        "created_at": item.created_ms / 1000,
        "expires_at": item.expires_ms / 1000,
        "reviewer": item.reviewer or None,
        "lease_ends_at": item.lease_ends_ms / 1000 or None,
        "decided_at": item.decided_ms / 1000 or None,
        "times": item.times,
        "check": facts.check,
        "version": facts.version,
        "category": facts.category,
        "score": facts.score,
        "origin": facts.origin,
        "field": facts.field,
        "request_id": facts.request_id,
        "key_id": facts.key_id,
        "user": facts.user or None,
        "fingerprint": item.fingerprint,
        "exception_s": facts.exception_s,
    }
    return {**document, "text": case.text} if with_text else document


def label_line(case: ReviewCase) -> str:
    """Returns a decided item as a line of training data: ``label`` 1 is harmful (rejected), 0 harmless (approved)."""
    item, facts = case.item, case.facts
    return json.dumps(
        {
            "text": case.text,
            "label": int(item.state is ReviewState.REJECTED),
            "category": facts.category,
            "score": facts.score,
            "check": facts.check,
            "version": facts.version,
            "origin": facts.origin,
            "tenant": item.tenant,
            "fingerprint": item.fingerprint,
            "id": item.id,
            "decided_at": item.decided_ms / 1000,
        },
        ensure_ascii=False,
    )


def exception_document(exception: ReviewException) -> dict[str, Any]:
    """Returns an exception (an approved text that passes for a while) as a JSON object."""
    document = json.loads(exception.document)
    return {
        "object": "review_exception",
        "tenant": exception.tenant,
        "fingerprint": exception.fingerprint,
        "expires_at": exception.expires_ms / 1000,
        "item": document.get("item"),
        "reviewer": document.get("reviewer"),
        "category": document.get("category"),
        "origin": document.get("origin"),
    }


def report_document(report: DayReport) -> dict[str, Any]:
    """Returns the result of verifying one tenant's day of the audit log as a JSON object. ``head`` is the hash of the
    day's last record; keep it elsewhere as evidence."""
    day, fault = report.day, report.fault
    return {
        "object": "audit_verification",
        "tenant": day.tenant,
        "day": day_text(day.day),
        "valid": fault is None,
        "retained": report.retained,
        "records": day.records,
        "opening": day.opening,
        "head": day.head,
        "first_bad_record": None if fault is None else fault.record,
        "reason": None if fault is None else fault.reason,
    }


def record_document(line: str) -> dict[str, Any]:
    """Returns a line of the audit log as a JSON object: the record with its hash, or the raw text of a damaged line."""
    digest, _, text = line.partition(" ")
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    return {**record, "hash": digest} if isinstance(record, dict) else {"damaged": line}
