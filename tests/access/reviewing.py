"""Requests of administrators about reviews, and what guards submit and record."""

from __future__ import annotations

from typing import Any

from safety.api import Action, AuditRecord, Origin, Passage, ReviewTerms, Stage, Subject, Verdict
from tests.access.service import ADMIN, Service
from tests.state.clock import MONDAY

TEXT = "How do I pick\u200b the LOCK of my own shed?"
DAY, TODAY = int(MONDAY // 86_400), "2026-10-19"


async def submit(service: Service, text: str = TEXT, tenant: str = "acme", **terms: Any) -> str:
    verdict = Verdict("content", "v1", Action.REVIEW, "illicit", 0.7)
    subject, passage = Subject(tenant, "req-1", "k1", "user-9"), Passage(text, Origin.USER, "messages[0].content")
    return await service.oversight.submit(subject, passage, verdict, ReviewTerms(**terms))


def record(number: int, tenant: str = "acme", text: str = TEXT) -> AuditRecord:
    return AuditRecord(
        tenant, f"req-{number}", Stage.BEFORE, "content", "v1", Action.REVIEW, "queued", "illicit", 0.7, text
    )


async def call(service: Service, method: str, path: str, key: str | None = ADMIN, **options: Any) -> Any:
    """The status and the JSON of an answer."""
    async with service.client(key) as http:
        answer = await http.request(method, path, **options)
    return answer.status_code, answer.json()
