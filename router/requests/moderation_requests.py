"""``ModerationRequests``: the way of a request that asks for the classifier's scores of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.guard.text_moderation import TIER, accounted_request, moderated, moderating
from router.inference_request import Call
from router.ledger.ledger import Account
from router.ports.clock import Clock
from router.ports.trace_names import SpanName
from router.requests.request_accounting import RequestAccounting
from router.requests.request_inspection import subject_of
from router.requests.request_intake import RequestIntake
from router.trace_attributes import identified
from safety.api import Guard, Moderation


class ModerationRequests:
    """Moderates texts. ``guard`` None: the service has no classifier."""

    def __init__(self, intake: RequestIntake, accounting: RequestAccounting, guard: Guard | None, clock: Clock) -> None:
        self._intake = intake
        self._accounting = accounting
        self._guard = guard
        self._clock = clock

    async def run(
        self, call: Call, texts_of: Callable[[bytes, str], Sequence[str]]
    ) -> tuple[str, Sequence[Moderation]]:
        """Authenticates and parses a request for moderation.

        Returns the name of the classifier, and its result for each text.

        ``texts_of`` parses the body; its second argument is the name of the classifier. Raises a RefusalError:
        NotFoundError if the service has no classifier, UnavailableError if the classifier does not answer,
        InvalidRequestError for more characters than the tenant's policy allows.
        """
        started_at, trace = self._clock.now(), call.trace
        async with self._intake.open(call) as principal:
            guard = moderating(self._guard)
            texts = texts_of(await self._intake.body(call), guard.classifier)
            request = accounted_request(guard.classifier)
            account = Account(call, principal, request, TIER, guard.classifier, started_at)
            trace.describe(identified(account))
            trace.enter(SpanName.LIMITS)
            with self._accounting.settling(account, await self._accounting.reserve(account)):
                trace.enter(SpanName.SAFETY)
                return guard.classifier, await moderated(guard, subject_of(account), texts)
