"""Applies people's decisions to a request: texts that were approved before, and reviews of texts in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from safety.api import (
    Action,
    AuditRecord,
    Origin,
    Oversight,
    Passage,
    ReviewOutcome,
    ReviewTerms,
    ReviewUnavailableError,
    Subject,
    Verdict,
)
from safety.check_policies import ReviewPolicy
from safety.policy import PolicyConfig

USUAL_TERMS = ReviewTerms()
UNCERTAIN = frozenset({"classifier"})
"""The checks that may be wrong about a text: what they block, people may have approved."""


class NoOversight:
    """The oversight of a service without reviewers and audit log. Implements ``Oversight``."""

    async def allowed(self, tenant: str, text: str, origin: Origin) -> bool:
        return False

    async def submit(
        self, subject: Subject, passage: Passage, verdict: Verdict, terms: ReviewTerms = USUAL_TERMS
    ) -> str:
        raise ReviewUnavailableError("there is no review queue")

    async def decision(self, tenant: str, item_id: str, timeout_s: float) -> ReviewOutcome:
        return ReviewOutcome.EXPIRED

    def record(self, record: AuditRecord) -> None:
        pass


async def without_exceptions(
    oversight: Oversight, subject: Subject, passages: Sequence[Passage], verdicts: Sequence[Verdict]
) -> list[Verdict]:
    """Returns the verdicts, with the action ALLOW for texts that a reviewer has approved as texts of their origin."""
    doubted = {verdict.passage for verdict in verdicts if verdict.action is Action.REVIEW or _may_be_wrong(verdict)}
    places = sorted(place for place in doubted if place < len(passages))
    asked = [passages[place] for place in places]
    answers = await asyncio.gather(*(oversight.allowed(subject.tenant, each.text, each.origin) for each in asked))
    approved = {place for place, allowed in zip(places, answers, strict=True) if allowed}
    return [
        replace(verdict, action=Action.ALLOW)
        if verdict.passage in approved and (verdict.action is Action.REVIEW or _may_be_wrong(verdict))
        else verdict
        for verdict in verdicts
    ]


async def with_decisions(
    oversight: Oversight,
    policy: PolicyConfig,
    subject: Subject,
    passages: Sequence[Passage],
    verdicts: Sequence[Verdict],
    settles: Callable[[Verdict], bool] = lambda verdict: False,
) -> tuple[Sequence[Verdict], str]:
    """Queues the texts that people should decide on, and may wait for the decisions, as the policy says.

    Returns the verdicts after the decisions, and a sentence about the review queue for the message of a refusal ("" if
    no item waits). An approved text is allowed, a rejected one blocked. A request that is blocked anyway is not queued.
    Verdicts that ``settles`` says are settled neither block it nor are decided on.
    """
    review = policy.review
    open_ones = [verdict for verdict in verdicts if not settles(verdict)]
    asked = [verdict for verdict in open_ones if verdict.action is Action.REVIEW and verdict.passage < len(passages)]
    blocked = any(verdict.action is Action.BLOCK for verdict in open_ones)
    if not asked or blocked or review.action not in ("queue", "wait"):
        return verdicts, ""
    first = {verdict.passage: verdict for verdict in reversed(asked)}
    try:
        items = {
            place: await oversight.submit(subject, passages[place], verdict, terms(review))
            for place, verdict in sorted(first.items())
        }
    except ReviewUnavailableError:
        return verdicts, " It cannot be reviewed at the moment."
    note = f" It waits for review: {', '.join(items.values())}."
    if review.action == "queue":
        return verdicts, note
    outcomes = await asyncio.gather(
        *(oversight.decision(subject.tenant, item, review.wait_s) for item in items.values())
    )
    decided = dict(zip(items, outcomes, strict=True))
    if ReviewOutcome.EXPIRED in outcomes:
        return verdicts, note
    return [_decided(verdict, decided) for verdict in verdicts], ""


def terms(review: ReviewPolicy) -> ReviewTerms:
    """Returns the policy's terms for items in the review queue."""
    return ReviewTerms(review.expires_s, review.show_text, review.keep_text, review.exception_s)


def _decided(verdict: Verdict, decided: dict[int, ReviewOutcome]) -> Verdict:
    if verdict.action is not Action.REVIEW or verdict.passage not in decided:
        return verdict
    approved = decided[verdict.passage] is ReviewOutcome.APPROVED
    return replace(verdict, action=Action.ALLOW if approved else Action.BLOCK)


def _may_be_wrong(verdict: Verdict) -> bool:
    return verdict.check in UNCERTAIN and verdict.action is Action.BLOCK and verdict.error is None
