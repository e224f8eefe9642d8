"""``AnswerSource``: where the answers to an accepted request come from: the answer cache, a refusal, or the engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from router.aborted_prompts import AbortedPrompts
from router.admission.admission import Admission, Place
from router.answer_events import AnswerEvent
from router.cache.found_answer import Found
from router.cache.replay import replay
from router.config.router import RouterConfig
from router.errors import PromptTooLongError
from router.generation.attempts import ready_replicas
from router.generation.finish_on_failure import finish_on_failure
from router.generation.generate import Generation, generate
from router.generation.suspect_requests import SuspectRequests
from router.generation.wasted_share import WastedShares
from router.guard.moderated_answers import moderate
from router.guard.refused_answer import refused_answer
from router.inference_request import InferenceRequest
from router.kept_answers import kept
from router.ledger.ledger import Account, Ledger
from router.ledger.max_usage import prompt_tokens
from router.ports.tier_backend import TierBackend
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.usage_metrics import UsageMetrics
from router.prompts.context_overflow import ContextOverflow, TierRoom
from router.prompts.off_event_loop import in_thread_if_long
from router.speculative_answers import Generated, SpeculativeAnswers
from router.usage_meter import UsageMeter
from safety.api import AnswerGuard


class AnswerSource:
    """The sources of answers of one router: the answer cache, the guard's refusals and the engine. ``room_of`` returns
    how much the context of a tier holds."""

    def __init__(
        self,
        config: RouterConfig,
        backend: TierBackend,
        ledger: Ledger,
        admission: Admission,
        overflow: ContextOverflow,
        room_of: Callable[[str], TierRoom],
        metrics: UsageMetrics,
    ) -> None:
        self._config = config
        self._backend = backend
        self._ledger = ledger
        self._admission = admission
        self._overflow = overflow
        self._room_of = room_of
        self._metrics = metrics
        self._suspects: defaultdict[str, SuspectRequests] = defaultdict(SuspectRequests)  # by tier
        self._wasted = WastedShares()
        self._versions = {tier.name: tier.replica_version for tier in backend.tiers()}

    def speculative(self, account: Account, place: Place, cached: Callable[[], bool]) -> SpeculativeAnswers:
        """Returns what begins the answers to a request with its ``place`` ahead of the checks. ``cached`` returns
        whether the answer cache may have the answer, or store it: then the request waits for its checks and the cache.
        It waits as well where the tier has no replica yet, so that a refused request starts none."""
        return SpeculativeAnswers(
            account,
            lambda: not cached() and bool(ready_replicas(self._backend, account.tier)),
            partial(self._generated, account, ahead=True),
            _prompt_tokens,
            self._wasted,
            partial(self._metrics.speculation, account.tier),
            place.lend,
        )

    def answers(
        self, account: Account, guard: AnswerGuard | None, found: Found, begun: Generated | None = None
    ) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        """Returns the events of the answers to a request, in batches: the message of the guard if it has refused the
        request, those of the hit that was ``found``, those that were ``begun`` ahead of the checks, or new ones from
        the engine. ``guard`` moderates new answers; None: they are sent as they are. The generator raises what
        ``generate`` raises."""
        prompts = account.request.choice_prompts
        if account.ruling is not None and account.ruling.refused:
            return refused_answer(account.ruling.message, prompts)
        if found.hit is not None:
            return replay(found.hit.stored)
        generated = begun or self._new(account, AbortedPrompts(), found)
        events, aborts = generated
        if self._overflow.may_shorten(account.request, account.principal.tenant, account.tier):
            events = self._generated_when_it_fits(account, generated, found)
        if self._gives_part(account):
            events = finish_on_failure(events, prompts, account.meter, partial(setattr, account, "fault"))
        if guard is not None:
            events = moderate(events, guard, account.meter, prompts, aborts)
            events = account.call.trace.around(SpanName.MODERATE, events)
        return kept(events, account, found) if found.keeps else events

    def _gives_part(self, account: Account) -> bool:
        """Returns whether the request gets the part of a whole answer that was generated when it fails."""
        if account.request.stream:
            return False
        tenant = self._config.tenants.get(account.principal.tenant)
        of_tenant = None if tenant is None else tenant.on_failure
        return (account.request.on_failure or of_tenant or self._config.failover.on_failure) == "partial"

    def _new(self, account: Account, aborts: AbortedPrompts, found: Found) -> Generated:
        """Returns the engine's answers to a request, as its checks have left it."""
        return Generated(self._generated(account, account.request, account.meter, aborts, found), aborts)

    def _generated(
        self,
        account: Account,
        request: InferenceRequest,
        meter: UsageMeter,
        aborts: AbortedPrompts,
        found: Found | None = None,
        *,
        ahead: bool = False,
    ) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        """Returns the events of the engine's answers to ``request``. ``found`` None: the answer cache does not store
        them. ``ahead``: the request is still being checked."""
        refused = self._admission.take_refusals(account.tier)
        work = Generation(
            backend=self._backend,
            tier=account.tier,
            request=replace(request, refused_before=refused) if refused else request,
            tenant=account.principal.tenant,
            failover=self._config.failover,
            meter=meter,
            prompt_tokens=prompt_tokens,
            account_id=account.id,
            account=self._ledger.draft(account, ahead=ahead),
            aborts=aborts,
            count_failover=partial(self._failover, account),
            trace_context=account.call.trace.context,
            run=account.run,
            restarted=account.restarted,
            suspects=self._suspects[account.tier],
            on_first_token=account.on_first_token,
            on_placed=partial(self._placed, account, found),
            trace_state=account.call.trace.state,
        )
        return generate(work)

    def _placed(self, account: Account, found: Found | None, prompt: int, replica_id: str, tokens: int) -> None:
        """Notes that a replica has a prompt of the request. While a release is rolled out it may have another version
        of the model than this router has in its cache keys. Then its answer is not stored."""
        account.on_placed(prompt, replica_id, tokens)
        expected = self._versions.get(account.tier, "")
        if (
            expected
            and found is not None
            and found.keeps
            and self._backend.model_version(account.tier, replica_id) not in ("", expected)
        ):
            found.not_stored("version")

    def _failover(self, account: Account, kind: str) -> None:
        """Counts a failover of the request, and notes it in its trace."""
        self._metrics.failover(account.tier, kind)
        account.call.trace.event(EventName.FAILOVER, lambda: {Attribute.FAILOVER_KIND: kind})

    async def _generated_when_it_fits(
        self, account: Account, answers: Generated, found: Found
    ) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        """Yields the events of the ``answers`` to a conversation, which is shortened again if the engine refuses it as
        too long. The last refusal is raised."""
        tries, tenant, tier = 0, account.principal.tenant, account.tier
        began = False
        while True:
            try:
                async with aclosing(answers.events) as batches:
                    async for events in batches:
                        began = True
                        yield events
                return
            except PromptTooLongError as error:
                tries += 1
                shorter = None
                if not began:
                    room = self._room_of(tier)
                    request = account.request
                    again, context = self._overflow.after_refusal, request.context_text
                    counted = error.prompt_tokens
                    shorter = await in_thread_if_long(
                        request, again, request, tenant, tier, room, tries, context, counted
                    )
                if shorter is None:
                    raise
                account.request = shorter
                answers = self._new(account, answers.aborts, found)


def _prompt_tokens(request: InferenceRequest) -> int:
    """Returns the estimate of the prompt tokens of all prompts of a request."""
    return sum(map(prompt_tokens, request.prompts))
