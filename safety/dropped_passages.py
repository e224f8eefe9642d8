"""What a policy does not allow, and what is dropped in place of a refusal. Pure.

Results of a search: their passages are dropped, and the search is answered. Who searches has not written what is found.
So a result that is blocked refuses no search.

Earlier turns of a conversation: each is dropped whole, and the last one is answered. A client sends a message that was
blocked again with each later one, which may be harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from safety.api import FAULTS_OF_TEXTS, Action, Passage, Ruling, Span, Verdict
from safety.policy import PolicyConfig
from safety.quoting import DROPPED
from safety.request_size import is_of_request


@dataclass(frozen=True, slots=True)
class Dropped:
    """What is dropped: the indices of passages, and the numbers of turns, all of whose passages are among these."""

    passages: frozenset[int] = frozenset()
    turns: frozenset[int] = frozenset()

    def plus(self, later: Dropped) -> Dropped:
        """Returns this and what a second step has dropped."""
        return Dropped(self.passages | later.passages, self.turns | later.turns)

    def applied(self, ruling: Ruling) -> Ruling:
        """Returns ``ruling`` with what is dropped, and without the texts of dropped turns."""
        if not self.turns:
            return replace(ruling, dropped=self.passages)
        texts = tuple("" if place in self.passages else text for place, text in enumerate(ruling.texts))
        return replace(ruling, texts=texts, dropped=self.passages, dropped_turns=self.turns)


NOTHING = Dropped()


def with_dropped(
    policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict]
) -> tuple[list[Verdict], frozenset[int]]:
    """Returns the verdicts of the checks of a search's results, and the indices of the passages that are dropped.

    A verdict that blocks a passage, or that a person should decide on, redacts all of it instead. A check that failed
    still blocks, since none of the passages was read.
    """
    changed = [_dropping(each, passages) if _refuses(policy, each) else each for each in verdicts]
    return changed, frozenset(each.passage for each in changed if _drops(each, passages))


def without_turns(
    policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict]
) -> tuple[list[Verdict], Dropped]:
    """Returns the verdicts of the checks of a request, and what is dropped of it: if the policy says so, each earlier
    turn that has a passage for which the request would be refused.

    The verdicts on a dropped turn that find something to block or review redact the whole passage instead. Those that
    would change its texts are left out, since nothing of the turn is left. Not dropped is a turn that a person decides
    on, for a check that failed, or for the size of the request: the rest would be no smaller.
    """
    if policy.earlier_turns != "drop":
        return list(verdicts), NOTHING
    turns = {_turn(passages, each) for each in verdicts if _refuses_turn(policy, each)} - {None}
    places = frozenset(place for place, passage in enumerate(passages) if passage.turn in turns)
    kept = []
    for each in verdicts:
        if each.passage not in places or _is_failure(each) or is_of_request(each):
            kept.append(each)
        elif each.action in (Action.BLOCK, Action.REVIEW):
            kept.append(_dropping(each, passages))
    return kept, Dropped(places, frozenset(turn for turn in turns if turn is not None))


def _turn(passages: Sequence[Passage], verdict: Verdict) -> int | None:
    return passages[verdict.passage].turn if verdict.passage < len(passages) else None


def _refuses_turn(policy: PolicyConfig, verdict: Verdict) -> bool:
    """Returns whether the verdict would refuse a request at once, because of what is in a passage."""
    if verdict.action is Action.REVIEW and policy.review.action in ("queue", "wait"):
        return False
    return _refuses(policy, verdict) and not is_of_request(verdict)


def _is_failure(verdict: Verdict) -> bool:
    """Returns whether the verdict is that of a check that failed, which has read no passage."""
    return verdict.error is not None and verdict.error not in FAULTS_OF_TEXTS


def _refuses(policy: PolicyConfig, verdict: Verdict) -> bool:
    """Returns whether the verdict would refuse a request, because of what is in a passage."""
    if _is_failure(verdict):
        return False
    waits = verdict.action is Action.REVIEW and policy.review.action != "pass"
    return waits or verdict.action is Action.BLOCK


def _dropping(verdict: Verdict, passages: Sequence[Passage]) -> Verdict:
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
