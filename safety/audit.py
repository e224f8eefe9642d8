"""What the audit log says of a request: a record of each check that ran, and none of one that did not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safety.api import TOOLS, Action, AuditRecord, Passage, Ruling, Stage, Subject, Verdict
from safety.policy import PolicyConfig


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one check did. ``read``: how many passages it has read; those that it remembers are not among them."""

    check: str
    version: str
    verdicts: Sequence[Verdict]
    read: int


def audit_records(
    policy: PolicyConfig, subject: Subject, passages: Sequence[Passage], scanned: Sequence[Scanned], ruling: Ruling
) -> Iterator[AuditRecord]:
    """Returns a record for each verdict, and one for each check that read the request and found nothing."""
    for verdict in ruling.verdicts:
        in_passage = verdict.check != TOOLS and verdict.passage < len(passages)
        text = passages[verdict.passage].text if in_passage else ""
        yield AuditRecord(
            subject.tenant,
            subject.request_id,
            Stage.BEFORE,
            verdict.check,
            verdict.version,
            verdict.action,
            outcome(verdict, ruling),
            verdict.category,
            None if verdict.error is not None else verdict.score,
            text if policy.audit_text == "hmac" else "",
        )
    if policy.audit == "found":
        return
    for each in scanned:
        if not each.verdicts:
            said = "allowed" if each.read else "remembered"
            yield AuditRecord(
                subject.tenant, subject.request_id, Stage.BEFORE, each.check, each.version, Action.ALLOW, said
            )


def outcome(verdict: Verdict, ruling: Ruling) -> str:
    """Returns what happened to the request by a verdict."""
    if verdict.error is not None:
        return "refused" if verdict.action is Action.BLOCK else "unscanned"
    if verdict.action is Action.REVIEW:
        return "refused" if ruling.refused else "passed"
    return {Action.ALLOW: "allowed", Action.REDACT: "redacted", Action.BLOCK: "refused"}[verdict.action]
