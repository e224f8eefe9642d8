"""``RequestInspection``: has the guard inspect a request, and scores its texts where it asks for that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from router.answer_events import AnswerEvent
from router.guard.banned_token_sequences import without_words
from router.guard.guard_refusal import check_ruling, refusal
from router.guard.moderation_scoring import judge_of, moderated_input, with_scores
from router.guard.prompt_length import check_prompt_lengths
from router.guard.request_texts import NO_TURNS, continued_texts, is_json, passages_of, with_texts
from router.guard.text_moderation import moderating
from router.inference_request import InferenceRequest
from router.ledger.ledger import Account
from router.ports.usage_metrics import UsageMetrics
from router.prompts.earlier_turns import earlier_turns, without_turns
from router.trace_attributes import note_verdicts
from safety.api import AnswerGuard, Guard, Inspection, Passage, Ruling, Stage, Subject, TextUse, Verdict

Batches = AsyncGenerator[Sequence[AnswerEvent], None]
Scored = Callable[[Batches], Batches]
"""Adds the scores of the answers to their events, if the request asks for them."""


class InspectedTexts(NamedTuple):
    """The texts of passages as the guard has rewritten them, in order, and the indices of those that it has dropped."""

    texts: Sequence[str]
    dropped: frozenset[int] = frozenset()


class RequestInspection:
    """Inspects the requests of one router. ``guard`` None: no text is inspected. ``metrics`` counts the verdicts."""

    def __init__(self, guard: Guard | None, metrics: UsageMetrics) -> None:
        self._guard = guard
        self._metrics = metrics

    async def inspect(self, account: Account, begin: Callable[[InferenceRequest], None]) -> AnswerGuard | None:
        """Has the guard inspect the request, replaces the texts that it has rewritten, and leaves out the turns that it
        drops. Returns what moderates the answers. The engine leaves out the phrases that it can leave out exactly.

        ``begin`` is called with the request as it is if nothing is rewritten, where the tenant's policy lets the engine
        begin to answer beside the checks.
        A refused request costs no tokens. Raises ContentFilteredError, PermissionDeniedError for a tool,
        UnavailableError if the request could not be inspected and the tenant's policy is to refuse, and
        InvalidRequestError for a prompt that is too long for the model, which is not inspected.
        """
        if self._guard is None:
            return None
        check_prompt_lengths(account.request, account.context_length)
        subject = subject_of(account)
        if (banned := await self._guard.speculates(subject.tenant)) is not None:
            begin(without_words(account.request, banned))
        turns = earlier_turns(account.request) if await self._guard.drops_turns(subject.tenant) else NO_TURNS
        passages = passages_of(account.request, turns)
        ruling = account.ruling = await self._guard.inspect(subject, passages, account.request.tools)
        self._note(account, ruling.verdicts, Stage.BEFORE, ruling.policy)
        check_ruling(ruling)
        request = without_turns(with_texts(account.request, ruling.texts), turns, ruling.dropped_turns)
        account.request = without_words(request, ruling.banned)
        return await self._guard.answers(
            subject,
            passages,
            ruling,
            partial(self._inspected, account, ruling.policy),
            streamed=account.request.stream,
            continued=continued_texts(account.request),
            as_json=is_json(account.request),
        )

    async def inspect_texts(self, account: Account, passages: Sequence[Passage], use: TextUse) -> InspectedTexts:
        """Has the guard inspect texts of a request that no model answers. Returns them as it has rewritten them.

        Raises ContentFilteredError, whatever the policy says of refusals in place of answers, and UnavailableError as
        ``inspect`` does.
        """
        if self._guard is None or not passages:
            return InspectedTexts([passage.text for passage in passages])
        ruling = await self._guard.inspect(subject_of(account), passages, use=use)
        account.ruling = ruling if account.ruling is None else _joined(account.ruling, ruling)
        self._note(account, ruling.verdicts, Stage.BEFORE, ruling.policy)
        if ruling.refused:
            raise refusal(ruling)
        return InspectedTexts(ruling.texts, ruling.dropped)

    async def score_input(self, account: Account) -> Scored:
        """Scores the texts of a request that asks for it, and returns what scores its answers. Raises a RefusalError if
        there is no such classifier, or the request wants to be refused if it is flagged."""
        asked = account.request.moderation
        if asked is None:
            return _unscored
        guard = moderating(self._guard)
        asked.check_model(guard.classifier)
        subject = subject_of(account)
        found = await moderated_input(account.request, judge_of(guard, subject, urgent=True))
        judge = judge_of(guard, subject, urgent=False)  # the answers were sent, or wait for their end anyway
        return partial(with_scores, judge=judge, of_input=found, block=asked.block_output)

    def _inspected(self, account: Account, policy: str, inspection: Inspection) -> None:
        """Notes the guard's record of a text of the answers, by the version ``policy`` of its policy."""
        account.inspections.append(inspection)
        self._note(account, inspection.verdicts, Stage.DURING if account.request.stream else Stage.AFTER, policy)

    def _note(self, account: Account, verdicts: Sequence[Verdict], stage: Stage, policy: str) -> None:
        """Counts the verdicts of one ruling or inspection, and notes them in the trace."""
        self._metrics.verdicts(stage, verdicts)
        note_verdicts(account.call.trace, verdicts, stage, policy)


def subject_of(account: Account) -> Subject:
    """Returns whose request it is, for the guard."""
    principal = account.principal
    user = principal.user or account.request.user or ""
    return Subject(principal.tenant, account.call.request_id, principal.key_id, user, principal.role.value)


def _joined(first: Ruling, second: Ruling) -> Ruling:
    """Returns the decision on a request whose texts were inspected one part after the other."""
    return replace(
        second,
        action=max(first.action, second.action, key=lambda action: action.severity),
        verdicts=(*first.verdicts, *second.verdicts),
        unscanned=tuple(dict.fromkeys((*first.unscanned, *second.unscanned))),
        scanned=first.scanned or second.scanned,
    )


def _unscored(events: Batches) -> Batches:
    return events
