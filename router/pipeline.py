"""``Pipeline``: all steps of a request in their order, one line each, without transport or wire format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from router.admission.admission import Place
from router.answer_events import CONTENT, AnswerEvent, Repeated, Routed
from router.answer_source import AnswerSource
from router.cache.found_answer import Found
from router.config.router import RouterConfig
from router.endpoint_protocol import Endpoint
from router.guard.safety_header import safety_header
from router.idempotency.idempotent_requests import Claim, IdempotentRequests
from router.inference_request import Call, InferenceRequest
from router.kept_answers import AwaitedAnswer
from router.ledger.ledger import Account
from router.ledger.ledger_entry import decision_of
from router.limits.fanout_limit import check_answer_count
from router.limits.limiter import Hold
from router.ports.clock import Clock
from router.ports.tier_backend import TierBackend
from router.ports.trace_names import SpanName
from router.principal import Principal
from router.prompt_report import PromptReport
from router.prompts.prepend_prompt import assemble
from router.prompts.prompt_parts import assembly_of, prompt_parts
from router.prompts.prompt_size import TokensPerCharacter
from router.prompts.stored_prompts import StoredPrompts
from router.requests.cache_look_up import CacheLookUp, needs_engine
from router.requests.request_accounting import RequestAccounting
from router.requests.request_admission import RequestAdmission, context_length
from router.requests.request_inspection import RequestInspection
from router.requests.request_intake import RequestIntake
from router.requests.request_retrieval import RequestRetrieval
from router.requests.stream_requests import owner_of
from router.requests.text_logging import TextLogging
from router.requests.tier_routing import TierRouting
from router.resume.detached_streams import DetachedStreams
from router.retrieval.cited_answers import cited
from router.sampling_profiles import apply_profile
from router.tiers.choose_tier import Route
from router.trace_attributes import accepted, routed


class Placed(NamedTuple):
    """What a request gets with its place: its form for the tier, its route, the place, and the context length of the
    tier in tokens; None: no replica has reported it."""

    request: InferenceRequest
    route: Route
    place: Place
    context_length: int | None


@dataclass(frozen=True, slots=True)
class PipelineSteps:
    """The steps of an inference request, in their order. ``streams`` knows which tenants may detach a stream."""

    intake: RequestIntake
    prompts: StoredPrompts
    routing: TierRouting
    idempotency: IdempotentRequests
    retrieval: RequestRetrieval
    admission: RequestAdmission
    accounting: RequestAccounting
    inspection: RequestInspection
    look_up: CacheLookUp
    source: AnswerSource
    texts: TextLogging
    streams: DetachedStreams


class Pipeline:
    """The way of an inference request, shared by all requests of a router.

    Each step is a package of the router. The packages do not import each other. ``tokens_per_character`` returns the
    tokens per character on a tier: the mean, and a value that few texts exceed.
    """

    def __init__(
        self,
        config: RouterConfig,
        backend: TierBackend,
        clock: Clock,
        tokens_per_character: Callable[[str], tuple[float, float]],
        steps: PipelineSteps,
    ) -> None:
        self._config = config
        self._backend = backend
        self._clock = clock
        self._tokens_per_character = tokens_per_character
        self._steps = steps
        self._versions = {tier.name: tier.model for tier in backend.tiers()}

    async def run(self, call: Call, endpoint: Endpoint) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        """Authenticates, parses and runs one request. Yields its answer events in batches. The first batch holds only
        Routed, or only Repeated, which is then the last.

        Closing the generator aborts the work in the engine. The ledger still gets the tokens that were generated.
        Raises a RefusalError, or another error that ``router.errors.refusal_of`` turns into one.
        """
        config, steps, started_at, trace = self._config, self._steps, self._clock.now(), call.trace
        async with steps.intake.open(call) as principal:
            body = await steps.intake.body(call)
            request = endpoint.parse(body)
            trace.enter(SpanName.PROMPT)
            request = apply_profile(request, config.profiles)
            check_answer_count(request, config.max_prompts)
            request = await assemble(steps.prompts, principal.tenant, request)
            trace.enter(SpanName.ROUTE)
            asked = steps.routing.route(principal, request)
            trace.describe(routed(call, request.model, asked.tier))
            claim = await self._claim(call, principal, request, body)
            if claim.stored is not None:
                yield [Repeated(claim.stored)]
                return
            async with (
                claim,
                steps.retrieval.augmented(call, principal, request, asked) as (augmented, ahead),
                self._placed(call, principal, augmented, asked) as placed,
            ):
                route, place = placed.route, placed.place
                account = self._account(call, principal, placed, started_at, claim)
                trace.describe(accepted(account, route.reason))
                trace.enter(SpanName.LIMITS)
                hold = await steps.accounting.reserve(account, ahead)
                claim.recorded = True
                with steps.accounting.settling(account, hold):
                    cached = partial(steps.look_up.concerns, account)
                    async with steps.source.speculative(account, place, cached) as speculative:
                        trace.enter(SpanName.SAFETY)
                        answer_guard = await steps.inspection.inspect(account, speculative.begin)
                        scored = await steps.inspection.score_input(account)
                        begun = await speculative.judge()
                        trace.enter(SpanName.CACHE)
                        with place.looking_up():
                            looked_up = await steps.look_up.find(account)
                        with looked_up as found:
                            place.settle(needs_engine=needs_engine(account, found))
                            trace.enter(SpanName.ANSWER)
                            yield [self._routed(account, route, hold, found, claim)]
                            generated = steps.source.answers(account, answer_guard, found, begun)
                            answered = steps.texts.logged(account, _cited(account, scored(generated)))
                            async with aclosing(answered) as answers:
                                begins = True
                                async for events in answers:
                                    if begins:
                                        begins = self._begin(account, events, moderated=answer_guard is not None)
                                    yield events

    @asynccontextmanager
    async def _placed(
        self, call: Call, principal: Principal, request: InferenceRequest, asked: Route
    ) -> AsyncIterator[Placed]:
        """Returns what the request gets, until the end of the context. ``asked`` is the route of the request without
        passages. Raises a RefusalError."""
        request, route = await self._steps.routing.fit(principal, request, asked)
        loads, tiers = self._backend.snapshot(), self._steps.routing.allowed(principal)
        async with self._steps.admission.admit(call, principal, request, route.tier, tiers, loads) as place:
            request, route = self._steps.admission.placed(request, route, place)
            yield Placed(request, route, place, context_length(loads, route.tier))

    def _begin(self, account: Account, events: Sequence[AnswerEvent], *, moderated: bool) -> bool:
        """Notes that the first events of an answer have come, and the first text of a stream if it was held back.
        Returns whether that is still to come. A stream sends its status with the first events."""
        trace, stream = account.call.trace, account.request.stream
        held = stream and moderated and not any(isinstance(event, CONTENT) for event in events)
        if account.first_event_at is None:
            account.first_event_at = self._clock.now()
            trace.began(status_sent=stream, held=held)
        elif not held:
            trace.released()
        return held

    async def _claim(self, call: Call, principal: Principal, request: InferenceRequest, body: bytes) -> Claim:
        """Claims the idempotency key of the request, if it has one. Raises as ``IdempotentRequests.claim`` does."""
        tenant, key_id, content = principal.tenant, principal.key_id, (call.endpoint, body)
        claim = self._steps.idempotency.claim
        return await claim(tenant, key_id, call.idempotency_key, content, streamed=request.stream)

    def _account(
        self,
        call: Call,
        principal: Principal,
        placed: Placed,
        started_at: float,
        claim: Claim,
    ) -> Account:
        """Returns the account of a request that has its place."""
        return Account(
            call,
            principal,
            placed.request,
            placed.route.tier,
            self._versions.get(placed.route.tier, ""),
            started_at,
            id=claim.account,
            run=claim.run,
            on_first_token=placed.place.started if self._config.admission.enabled else None,
            on_placed=placed.place.placed,
            context_length=placed.context_length,
        )

    def _prompt_details(self, account: Account) -> dict[str, Any] | None:
        """Returns what the usage says of the prompt; None: nothing was done with it and nothing was asked."""
        request = account.request
        report = request.report
        if report is None and request.template_version is None and not request.include_assembly:
            return None
        measure = TokensPerCharacter(*self._tokens_per_character(account.tier))
        report = replace(report or PromptReport(), parts=prompt_parts(request, measure, request.context_text))
        shown = {"template": request.template_version, **report.fields}
        return {**shown, "assembly": assembly_of(request)} if request.include_assembly else shown

    async def _keep(self, account: Account, claim: Claim, body: str) -> None:
        """Stores a whole answer under the idempotency key of its request. A partial one is not stored."""
        await (claim.keep(body) if account.fault is None else claim.forget())

    def _routed(self, account: Account, route: Route, hold: Hold, found: Found, claim: Claim) -> Routed:
        """Returns the first event of an accepted request."""
        request, meter, principal = account.request, account.meter, account.principal
        detached = request.detach and self._steps.streams.allowed(principal.tenant)
        without_effect = {"detach": request.detach and not detached, "idempotency-key": claim.ignored}
        others = (name for name, holds in without_effect.items() if holds)
        ignored = (*request.ignored, *others, *_ignored_headers(account.call, principal))
        return Routed(
            route.tier,
            route.reason,
            request.stream,
            request.writer,
            ignored,
            hold.decision,
            lambda: safety_header(decision_of(account.ruling, account.inspections), account.ruling),
            output_tokens=lambda: meter.output_tokens,
            usage=lambda: meter.total.usage,
            failovers=lambda: (meter.failovers, meter.other_version),
            template=request.template_version,
            context=lambda: None if account.request.report is None else account.request.report.header,
            prompt_details=lambda: self._prompt_details(account),
            cache=found.header,
            cache_entry=found.entry_id,
            retrieval=None if request.context is None else request.context.details,
            prompts=request.prompts,
            keep=None
            if request.stream or account.call.idempotency_key is None
            else partial(self._keep, account, claim),
            owner=owner_of(principal) if detached else None,
            shared=AwaitedAnswer(account, found) if found.keeps else None,
            reasoning_tokens=lambda: meter.reasoning_tokens if found.hit is None else found.hit.stored.reasoning_tokens,
        )


def _cited(
    account: Account, answers: AsyncGenerator[Sequence[AnswerEvent], None]
) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Returns ``answers`` with the citations of the passages that the model was given. Text of a given form has none:
    a list of numbers in JSON would be taken for them."""
    request = account.request
    formed = request.writes_json or (request.sampling.grammar is not None and not request.parsing.tool_calls)
    if formed or request.context is None or not request.context.citations or not request.context.passages:
        return answers
    return cited(answers, request.context.passages)


def _ignored_headers(call: Call, principal: Principal) -> tuple[str, ...]:
    """Returns the names of the headers of ``call`` that have no effect: the feature, if the key does not let the client
    choose it."""
    return () if call.feature in (None, principal.feature) else ("x-manta-feature",)
