"""Makes the audit records of a request: one for each check that ran. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safety.api import TOOLS, Action, AuditRecord, Inspection, Passage, Ruling, Stage, Subject, Verdict
from safety.policy import PolicyConfig


@dataclass(frozen=True, slots=True)
class Scanned:
    """The result of one check. ``read`` is the number of passages that it has read; passages whose verdict was cached
    do not count."""

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
            len(ruling.dropped_turns) if ruling.drops_turn(verdict) else 0,
        )
    if policy.audit == "found":
        return
    for each in scanned:
        if not each.verdicts:
            said = "allowed" if each.read else "remembered"
            yield AuditRecord(
                subject.tenant, subject.request_id, Stage.BEFORE, each.check, each.version, Action.ALLOW, said
            )


def answer_records(
    policy: PolicyConfig, subject: Subject, inspection: Inspection, stage: Stage
) -> Iterator[AuditRecord]:
    """Returns a record for each verdict on a text of an answer, and one for each check that read all of it and found
    nothing. A check that has not read the whole text, for example after a halt, gets the outcome unfinished. ``stage``
    is DURING for an answer that is streamed, otherwise AFTER."""
    found = {f"{verdict.check}@{verdict.version}" for verdict in inspection.verdicts}
    for verdict in inspection.verdicts:
        yield AuditRecord(
            subject.tenant,
            subject.request_id,
            stage,
            verdict.check,
            verdict.version,
            verdict.action,
            ANSWER_OUTCOMES[verdict.action] if verdict.error is None else _failed(verdict),
            verdict.category,
            None if verdict.error is not None else verdict.score,
        )
    for label, covered in inspection.covered.items():
        if label not in found and policy.audit == "all":
            name, _, version = label.rpartition("@")
            said = "allowed" if covered >= inspection.characters else "unfinished"
            yield AuditRecord(subject.tenant, subject.request_id, stage, name, version, Action.ALLOW, said)


ANSWER_OUTCOMES = {
    Action.ALLOW: "allowed",
    Action.REDACT: "redacted",
    Action.REVIEW: "passed",  # a stream cannot wait for a person
    Action.BLOCK: "halted",
}


def _failed(verdict: Verdict) -> str:
    return "halted" if verdict.action is Action.BLOCK else "unscanned"


def outcome(verdict: Verdict, ruling: Ruling) -> str:
    """Returns the consequence of a verdict for the request, as in ``AuditRecord.outcome``."""
    if verdict.error is not None:
        return "refused" if verdict.action is Action.BLOCK else "unscanned"
    if ruling.drops_turn(verdict):
        return "dropped"
    if verdict.action is Action.REVIEW:
        return "refused" if ruling.refused else "passed"
    return {Action.ALLOW: "allowed", Action.REDACT: "redacted", Action.BLOCK: "refused"}[verdict.action]
