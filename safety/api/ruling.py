"""``Ruling``: the decision on a request, from the verdicts of all checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safety.api.verdict import FAULTS_OF_TEXTS, Action, Verdict


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decision on a request, from the verdicts of all checks.

    ``texts`` are the passages' texts, redacted where a verdict says so, in the order of the passages. ``unscanned`` has
    the names of the checks that failed and that the policy lets pass. ``message`` is the tenant's text for refusals.
    ``restored`` maps each pseudonym to the text that it stands for, to be put back into the answer.

    ``refused``: the request is blocked, or a person has not approved it. ``reason`` is the verdict that decided that,
    ``refused_field`` the field of the request that it is about; None: no single one. ``as_answer``: the refusal is sent
    as an answer, not as an error. ``policy`` is the policy's version, and ``checks`` has ``name@version`` of each check
    of requests and answers that it asks for. ``scanned``: at least one check has read the request. ``banned`` are
    phrases that no answer may have and that the engine can ban exactly; scanners look for them too. ``canary`` is the
    token that ``texts`` have in the system prompt, for the check of the answers; empty: they have none. ``dropped`` are
    the indices of passages of search results that the caller must not get: the policy blocks them, or drops injections;
    and of all passages of dropped turns, whose ``texts`` are empty. ``dropped_turns`` are the numbers, as in
    ``Passage.turn``, of the turns that the model must not get.
    """

    action: Action
    texts: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()
    unscanned: tuple[str, ...] = ()
    message: str = ""
    restored: Mapping[str, str] = field(default_factory=dict)
    refused: bool = False
    reason: Verdict | None = None
    refused_field: str | None = None
    as_answer: bool = False
    policy: str = ""
    checks: tuple[str, ...] = ()
    scanned: bool = True
    banned: tuple[str, ...] = ()
    canary: str = field(default="", repr=False)
    dropped: frozenset[int] = frozenset()
    dropped_turns: frozenset[int] = frozenset()

    @property
    def label(self) -> str:
        """The decision in one word: allowed, redacted, review, blocked, or unscanned if a check did not run."""
        if self.unavailable:
            return "unscanned"
        if self.action in (Action.BLOCK, Action.REVIEW):
            return "blocked" if self.action is Action.BLOCK else "review"
        if self.unscanned or not self.scanned:
            return "unscanned"
        return "redacted" if self.action is Action.REDACT else "allowed"

    def drops_turn(self, verdict: Verdict) -> bool:
        """Returns whether ``verdict``, one of ``verdicts``, is one for which a turn was dropped."""
        return bool(self.dropped_turns) and verdict.action is Action.REDACT and verdict.passage in self.dropped

    @property
    def unavailable(self) -> bool:
        """Whether the request is refused because a check failed."""
        reason = self.reason
        return reason is not None and reason.error is not None and reason.error not in FAULTS_OF_TEXTS
