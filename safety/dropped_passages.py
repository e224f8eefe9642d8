"""Search results that a policy does not allow: their passages are dropped, and the search is answered. Pure.

Who searches has not written what is found. So a result that is blocked refuses no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safety.api import FAULTS_OF_TEXTS, Action, Passage, Span, Verdict
from safety.policy import PolicyConfig
from safety.quoting import DROPPED


def with_dropped(
    policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict]
) -> tuple[list[Verdict], frozenset[int]]:
    """Returns the verdicts of the checks of a search's results, and the indices of the passages that are dropped.

    A verdict that blocks a passage, or that a person should decide on, redacts all of it instead. A check that failed
    still blocks, since none of the passages was read.
    """
    changed = [dropping(each, passages) if refuses(policy, each) else each for each in verdicts]
    return changed, frozenset(each.passage for each in changed if _drops(each, passages))


def is_failure(verdict: Verdict) -> bool:
    """Returns whether the verdict is that of a check that failed, which has read no passage."""
    return verdict.error is not None and verdict.error not in FAULTS_OF_TEXTS


def refuses(policy: PolicyConfig, verdict: Verdict) -> bool:
    """Returns whether the verdict would refuse a request, because of what is in a passage."""
    if is_failure(verdict):
        return False
    waits = verdict.action is Action.REVIEW and policy.review.action != "pass"
    return waits or verdict.action is Action.BLOCK


def dropping(verdict: Verdict, passages: Sequence[Passage]) -> Verdict:
    """Returns the verdict as one that drops its passage."""
    category = verdict.category or verdict.error or ""
    whole = Span(0, len(passages[verdict.passage].text), category.upper(), "")
    return replace(verdict, action=Action.REDACT, category=category, spans=(whole,), error=None)


def _drops(verdict: Verdict, passages: Sequence[Passage]) -> bool:
    """Returns whether nothing is left of the verdict's passage: it was blocked, or the policy drops injections."""
    if verdict.action is not Action.REDACT or len(verdict.spans) != 1:
        return False
    (span,) = verdict.spans
    whole = (span.start, span.end) == (0, len(passages[verdict.passage].text))
    return whole and span.replacement in ("", DROPPED)
