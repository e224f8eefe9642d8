"""Earlier turns that a policy does not allow: each is dropped whole, and the last one is answered. Pure.

A client sends a message that was blocked again with each later one, which may be harmless. What is dropped is decided
twice: before people are asked, who need not decide on it, and after they have decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from safety.api import Action, Passage, Ruling, Verdict
from safety.dropped_passages import dropping, is_failure, refuses
from safety.policy import PolicyConfig
from safety.request_size import is_of_request
from safety.rule import rewritten_texts, rule, with_pseudonyms

MAX_DROPPED_TURNS = 8
"""The turns that a request may drop; one with more to drop is blocked. Histories have one or two. Without a bound, a
thousand turns could try out a thousand texts in one request."""


@dataclass(frozen=True, slots=True)
class DroppedTurns:
    """The numbers of the turns that are to be dropped, and the indices of all their passages."""

    turns: frozenset[int] = frozenset()
    passages: frozenset[int] = frozenset()

    def settles(self, verdict: Verdict) -> bool:
        """Returns whether ``verdict`` is on a text of these turns, so that it has no weight once they are dropped. A
        check that failed has read nothing, and the size is that of the whole request."""
        return verdict.passage in self.passages and not is_failure(verdict) and not is_of_request(verdict)


def dropped_turns(policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict]) -> DroppedTurns:
    """Returns the turns to drop of a request: if the policy says so, each earlier one that has a passage for which the
    request would be refused; none if there are more than MAX_DROPPED_TURNS.

    Not dropped is a turn that a person decides on, for a check that failed, or for the size of the request: the rest
    would be no smaller.
    """
    if policy.earlier_turns != "drop":
        return DroppedTurns()
    found = {_turn(passages, each) for each in verdicts if _refuses_turn(policy, each)}
    turns = frozenset(turn for turn in found if turn is not None)
    if len(turns) > MAX_DROPPED_TURNS:
        return DroppedTurns()
    return DroppedTurns(turns, frozenset(place for place, passage in enumerate(passages) if passage.turn in turns))


def ruled(
    policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict], dropped: DroppedTurns
) -> Ruling:
    """Returns the decision on a request from the verdicts of all checks, without the turns ``dropped``.

    The verdicts on a dropped turn that find something to block or review redact the whole passage instead. Those that
    would change its texts are left out, since nothing of the turn is left. A request that is refused for something else
    drops nothing: its verdicts are those that were given, and that other thing is the reason.
    """
    kept, restored = with_pseudonyms(policy, passages, _without(dropped, passages, verdicts))
    ruling = replace(rule(policy, passages, kept), restored=restored)
    if not dropped.turns:
        return ruling
    if ruling.refused:
        given, restored = with_pseudonyms(policy, passages, verdicts)
        return replace(ruling, verdicts=tuple(given), texts=rewritten_texts(passages, given), restored=restored)
    texts = tuple("" if place in dropped.passages else text for place, text in enumerate(ruling.texts))
    return replace(ruling, texts=texts, dropped=dropped.passages, dropped_turns=dropped.turns)


def _without(dropped: DroppedTurns, passages: Sequence[Passage], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Returns the verdicts as they are once the turns are dropped."""
    kept = []
    for each in verdicts:
        if not dropped.settles(each):
            kept.append(each)
        elif each.action in (Action.BLOCK, Action.REVIEW):
            kept.append(dropping(each, passages))
    return kept


def _turn(passages: Sequence[Passage], verdict: Verdict) -> int | None:
    return passages[verdict.passage].turn if verdict.passage < len(passages) else None


def _refuses_turn(policy: PolicyConfig, verdict: Verdict) -> bool:
    """Returns whether the verdict would refuse a request at once, because of what is in a passage."""
    if verdict.action is Action.REVIEW and policy.review.action in ("queue", "wait"):
        return False
    return refuses(policy, verdict) and not is_of_request(verdict)
