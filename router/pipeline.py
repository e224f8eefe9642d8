"""``Pipeline``: all steps of a request in their order, one line each, without transport or wire format."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from router.access.authenticator import Authenticator
from router.access.permissions import allowed_models, allowed_tiers, check_endpoint, check_model, check_tools
from router.admission.admission import Admission, Place
from router.admission.admission_decision import RequestFacts
from router.admission.spill import allowed_spill, narrowed
from router.answer_events import AnswerEvent, Repeated, Routed
from router.answer_source import AnswerSource
from router.cache.answer_cache import AnswerCache, CacheStatus, Found
from router.cache.cache_control import controlled
from router.cache.cache_key import CacheScope
from router.config.router import RouterConfig
from router.config.tenants import Spill
from router.embedding_request import EMBEDDINGS, EmbeddingAccepted, EmbeddingRequest, EmbeddingResult
from router.embeddings.embedding import check_embedding, embedded, embedding, embedding_models, priced_request
from router.endpoint_protocol import Endpoint
from router.errors import InvalidRequestError, LimitExceededError, UnavailableError
from router.guard.banned_token_sequences import without_words
from router.guard.guard_refusal import check_ruling
from router.guard.moderation_scoring import judge_of, moderated_input, with_scores
from router.guard.prompt_length import check_prompt_lengths
from router.guard.request_texts import continued_text, is_json, passages_of, with_texts
from router.guard.text_moderation import TIER, accounted_request, moderated, moderating
from router.idempotency.idempotent_requests import Claim, IdempotentRequests
from router.inference_request import Call, InferenceRequest
from router.kept_answers import AwaitedAnswer
from router.ledger.ledger import Account, Ledger
from router.ledger.ledger_entry import CACHE_HITS
from router.ledger.max_usage import check_max_cost, largest_usage
from router.limits.fanout_limit import check_answer_count
from router.limits.limiter import Hold, Limiter
from router.limits.router_concurrency import ConcurrencyLimit
from router.ports.clock import Clock
from router.ports.embedder import Embedder
from router.ports.limit_store import LimitStore
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import StreamOwner
from router.ports.tier_backend import OrphanedAttempt, TierBackend, TierSnapshot
from router.ports.trace_names import SpanName
from router.ports.usage_metrics import NoUsageMetrics, UsageMetrics
from router.principal import Principal
from router.prompt_report import PromptReport
from router.prompts.context_overflow import ContextOverflow, TierRoom, limits_of
from router.prompts.off_event_loop import in_thread_if_long
from router.prompts.prepend_prompt import assemble
from router.prompts.prompt_parts import assembly_of, prompt_parts
from router.prompts.prompt_size import TokensPerCharacter
from router.prompts.stored_prompts import StoredPrompts
from router.resume.detached_streams import DetachedStreams
from router.retrieval.cited_answers import cited
from router.retrieval.retrieval_usage import RETRIEVAL, retrieval_request
from router.retrieval.retriever import Retriever
from router.sampling_profiles import apply_profile, apply_tier_defaults
from router.tiers.choose_tier import Route, TierChoice, choose_tier, model_names
from router.trace_attributes import accepted, answered, identified
from router.usage_meter import MeteredUsage
from safety.api import AnswerGuard, Guard, Moderation, Subject

T = TypeVar("T")
Batches = AsyncGenerator[Sequence[AnswerEvent], None]
Scored = Callable[[Batches], Batches]
"""Adds the scores of the answers to their events, if the request asks for them."""


class Pipeline:
    """The steps of a request, shared by all requests of a router.

    Each step is a package of the router. The packages do not import each other. ``guard`` None: no text is inspected.
    ``metrics`` None: nothing is counted. ``embedder`` None: there are no embeddings. ``cache`` None: there is no answer
    cache.
    """

    def __init__(
        self,
        config: RouterConfig,
        backend: TierBackend,
        choice: TierChoice,
        authenticator: Authenticator,
        ledger: Ledger,
        store: LimitStore,
        clock: Clock,
        guard: Guard | None = None,
        metrics: UsageMetrics | None = None,
        embedder: Embedder | None = None,
        cache: AnswerCache | None = None,
        *,
        prompts: StoredPrompts,
        retriever: Retriever,
        streams: DetachedStreams,
        idempotency: IdempotentRequests,
    ) -> None:
        self._config = config
        self._embedder = embedder
        self._prompts = prompts
        self._overflow = ContextOverflow(config.prompts)
        self._retriever = retriever
        self._streams = streams
        self._idempotency = idempotency
        self._guard = guard
        self._cache = cache
        self._metrics = metrics or NoUsageMetrics()
        self._backend = backend
        self._choice = choice
        self._authenticator = authenticator
        self._ledger = ledger
        self._clock = clock
        self._targets = choice.targets
        self._versions = {tier.name: tier.model for tier in backend.tiers()}
        self._weights = {tier.name: tier.version for tier in backend.tiers()}
        self._sampling = {tier.name: tier.sampling for tier in backend.tiers()}
        self._concurrency = ConcurrencyLimit(config.max_concurrent_requests)
        tenants = {name: tenant.limits for name, tenant in config.tenants.items()}
        self._limiter = Limiter(store, config.limits, tenants, ledger.cost)
        self._admission = Admission(config.admission, clock, self._metrics)
        self._source = AnswerSource(
            config, backend, ledger, self._admission, self._overflow, self._room_of, self._metrics
        )

    async def start(self) -> None:
        """Starts the background tasks and the stores."""
        await self._authenticator.start()
        await self._limiter.start()
        await self._prompts.start()
        await self._streams.start()
        await self._idempotency.start()
        if self._cache is not None:
            await self._cache.start()

    async def close(self) -> None:
        """Stops the background tasks and the stores. It is called after the last request, and before the backend
        closes, since lanes bring the token counts that the last ledger entries wait for."""
        await self._streams.close()
        await self._ledger.close()
        await self._prompts.close()
        await self._authenticator.close()
        await self._limiter.close()
        await self._idempotency.close()
        if self._cache is not None:
            await self._cache.close()

    async def run(self, call: Call, endpoint: Endpoint) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        """Authenticates, parses and runs one request. Yields its answer events in batches. The first batch holds only
        Routed, or only Repeated, which is then the last.

        Closing the generator aborts the work in the engine. The ledger still gets the tokens that were generated.
        Raises a RefusalError, or another error that ``router.errors.refusal_of`` turns into one.
        """
        config, started_at, trace = self._config, self._clock.now(), call.trace
        with self._concurrency.admit():
            trace.enter(SpanName.ACCESS)
            principal = await self._authenticator.authenticate(call.credentials, call.feature)
            check_endpoint(principal, call.endpoint)
            body = await call.read(config.max_body_bytes)
            request = endpoint.parse(body)
            trace.enter(SpanName.PROMPT)
            request = apply_profile(request, config.profiles)
            check_answer_count(request, config.max_prompts)
            request = await assemble(self._prompts, principal.tenant, request)
            request = await self._retriever.augment(principal.tenant, request)
            trace.enter(SpanName.ROUTE)
            route = self._route(principal, request)
            request, route = await self._fit(principal, request, route)
            claim = await self._claim(call, principal, request, body)
            if claim.stored is not None:
                yield [Repeated(claim.stored)]
                return
            loads = self._backend.snapshot()
            async with claim, self._admit(call, principal, request, route, loads) as place:
                request, route = self._placed(request, route, place)
                self._check_cost(request, route.tier)
                account = self._account(call, principal, request, route, started_at, claim, place)
                account.context_length = _context_length(loads, route.tier)
                trace.describe(accepted(account, route.reason))
                trace.enter(SpanName.LIMITS)
                hold = await self._reserve(account)
                with self._accounted(account, hold):
                    trace.enter(SpanName.SAFETY)
                    answer_guard = await self._inspect(account)
                    scored = await self._moderate_input(account)
                    trace.enter(SpanName.CACHE)
                    with place.looking_up():
                        looked_up = await self._look_up(account)
                    with looked_up as found:
                        place.settle(needs_engine=self._needs_engine(account, found))
                        trace.enter(SpanName.ANSWER)
                        yield [self._routed(account, route, hold, found, claim)]
                        answered = scored(self._source.answers(account, answer_guard, found))
                        async with aclosing(_cited(account, answered)) as answers:
                            async for events in answers:
                                if account.first_event_at is None:
                                    account.first_event_at = self._clock.now()
                                yield events

    async def resume(self, call: Call, stream_id: str, after: int) -> AsyncGenerator[tuple[int, Sequence[str]], None]:
        """Authenticates a client that has lost the connection of a detached stream. Yields the number of an event and
        its body with those that follow, from the one after the number ``after`` to the last.

        Raises a RefusalError, also if the stream is not one of this key.
        """
        with self._concurrency.admit():
            principal = await self._authenticator.authenticate(call.credentials, call.feature)
            async with aclosing(self._streams.read(_owner(principal), stream_id, after)) as parts:
                async for part in parts:
                    yield part

    async def moderate(
        self, call: Call, texts_of: Callable[[bytes, str], Sequence[str]]
    ) -> tuple[str, Sequence[Moderation]]:
        """Authenticates and parses a request for moderation.

        Returns the name of the classifier, and its result for each text.

        ``texts_of`` parses the body; its second argument is the name of the classifier. Raises a RefusalError:
        NotFoundError if the service has no classifier, UnavailableError if the classifier does not answer,
        InvalidRequestError for more characters than the tenant's policy allows.
        """
        started_at, trace = self._clock.now(), call.trace
        with self._concurrency.admit():
            trace.enter(SpanName.ACCESS)
            principal = await self._authenticator.authenticate(call.credentials, call.feature)
            check_endpoint(principal, call.endpoint)
            guard = moderating(self._guard)
            texts = texts_of(await call.read(self._config.max_body_bytes), guard.classifier)
            request = accounted_request(guard.classifier)
            account = Account(call, principal, request, TIER, guard.classifier, started_at)
            trace.describe(identified(account))
            trace.enter(SpanName.LIMITS)
            with self._accounted(account, await self._reserve(account)):
                trace.enter(SpanName.SAFETY)
                return guard.classifier, await moderated(guard, _subject(account), texts)

    async def embed(
        self, call: Call, parse: Callable[[bytes], EmbeddingRequest]
    ) -> AsyncGenerator[EmbeddingAccepted | EmbeddingResult, None]:
        """Authenticates and parses a request for embeddings. Yields EmbeddingAccepted, and then the result.

        Closing the generator drops the texts that are not computed yet. Raises a RefusalError: NotFoundError if the
        service has no embedder, UnavailableError if the embedder does not answer.
        """
        config, started_at, trace = self._config, self._clock.now(), call.trace
        with self._concurrency.admit():
            trace.enter(SpanName.ACCESS)
            principal = await self._authenticator.authenticate(call.credentials, call.feature)
            check_endpoint(principal, call.endpoint)
            embedder = embedding(self._embedder)
            request = parse(await call.read(config.max_body_bytes))
            check_embedding(request, principal, embedder, config.embeddings.aliases)
            accounted = priced_request(request)
            account = Account(call, principal, accounted, EMBEDDINGS, embedder.model, started_at)
            trace.describe(identified(account))
            trace.enter(SpanName.LIMITS)
            hold = await self._reserve(account)
            with self._accounted(account, hold):
                trace.enter(SpanName.ANSWER)
                yield EmbeddingAccepted(hold.decision)
                result = await embedded(embedder, request, account.meter)
            yield result

    async def manage(self, call: Call, work: Callable[[str, bytes], Awaitable[T]], *, has_body: bool) -> T:
        """Authenticates a request for the tenant's collections, and returns the result of ``work``, which gets the
        tenant and the body.

        It counts as one request without tokens in the limits and the ledger. ``has_body``: the body is read; otherwise
        ``work`` gets b"". Raises a RefusalError, and what ``work`` raises, but UnavailableError in place of
        StateUnavailableError.
        """
        started_at = self._clock.now()
        with self._concurrency.admit():
            principal = await self._authenticator.authenticate(call.credentials, call.feature)
            check_endpoint(principal, call.endpoint)
            body = await call.read(self._config.max_body_bytes) if has_body else b""
            account = Account(call, principal, retrieval_request(), RETRIEVAL, "", started_at)
            with self._accounted(account, await self._reserve(account)):
                try:
                    return await work(principal.tenant, body)
                except StateUnavailableError:
                    message = "The collections cannot be reached at the moment."
                    raise UnavailableError(message, "state_unavailable", retry_after_s=5) from None

    async def _claim(self, call: Call, principal: Principal, request: InferenceRequest, body: bytes) -> Claim:
        """Claims the idempotency key of the request, if it has one. Raises as ``IdempotentRequests.claim`` does."""
        tenant, key_id, content = principal.tenant, principal.key_id, (call.endpoint, body)
        claim = self._idempotency.claim
        return await claim(tenant, key_id, call.idempotency_key, content, streamed=request.stream)

    def _admit(
        self, call: Call, principal: Principal, request: InferenceRequest, route: Route, loads: Sequence[TierSnapshot]
    ) -> Place:
        """Returns the place of the request in the queue of its tier, or of another one that it may spill to. ``loads``
        are the present ones of all tiers. Raises AdmissionRefusedError.

        It is before the limits, so that a refusal is charged to none, and before the guard, whose checks take longer
        than a refusal may. So the answer cache, which comes after them, is asked only for a few of those that would be
        refused.
        """
        tenant, tier = principal.tenant, route.tier
        expected = self._limiter.expected(tenant, tier, request, _context_length(loads, tier))
        allowed = self._allowed_spill(principal)
        facts = RequestFacts(
            tenant,
            request.priority,
            max(len(request.prompts), 1),
            expected.prompt_tokens,
            expected.completion_tokens,
            request.deadline_s,
            narrowed(allowed, request.spill),
            cached_tokens=_cached_tokens(request, tenant, loads, tier),
        )
        controls = controlled(request.cache, call.cache_control)
        cacheable = self._cache is not None and self._cache.may_have(tenant, request, controls)
        order = allowed_tiers(principal, self._choice.tiers)
        if facts.spill != "none":
            order = [each for each in order if each == tier or self._affordable(request, each)]
        return self._admission.enter(facts, tier, order, loads, call.request_id, cacheable=cacheable)

    def _allowed_spill(self, principal: Principal) -> Spill:
        """Returns the directions in which the requests of ``principal`` may spill."""
        own = self._config.tenants.get(principal.tenant)
        return allowed_spill(
            None if own is None else own.spill,
            principal.spill,
            self._config.admission.spill,
            only_narrows=principal.narrows_spill,
        )

    def _placed(self, request: InferenceRequest, route: Route, place: Place) -> tuple[InferenceRequest, Route]:
        """Returns the request as the tier of its place gets it."""
        if place.moved:
            route = Route(place.tier, f"{route.reason}; spilled, {place.moved}")
        request = apply_tier_defaults(request, self._sampling.get(route.tier, {}))
        return replace(request, ttft_slo_s=place.ttft_s, surplus=place.surplus), route

    def _account(
        self,
        call: Call,
        principal: Principal,
        request: InferenceRequest,
        route: Route,
        started_at: float,
        claim: Claim,
        place: Place,
    ) -> Account:
        """Returns the account of a request that has its place."""
        return Account(
            call,
            principal,
            request,
            route.tier,
            self._versions.get(route.tier, ""),
            started_at,
            id=claim.account,
            run=claim.run,
            on_first_token=place.started if self._config.admission.enabled else None,
        )

    @staticmethod
    def _needs_engine(account: Account, found: Found) -> bool:
        """Returns whether the answer has to be generated."""
        return found.hit is None and not (account.ruling is not None and account.ruling.refused)

    async def _reserve(self, account: Account) -> Hold:
        """Reserves what the request may use within the limits of its key and its tenant. Raises as the limiter does."""
        tier, principal = account.tier, account.principal
        context, limits = account.context_length, principal.limits
        tenant, key_id = principal.tenant, principal.key_id
        try:
            hold = await self._limiter.reserve(tenant, key_id, limits, tier, account.request, context)
        except LimitExceededError as error:
            for use in error.decision.refused:
                self._metrics.refused(tenant, use.owner, use.name)
            raise
        for use in () if hold.decision is None else hold.decision.near(self._config.limits.warn_at):
            self._metrics.near_limit(tenant, use.owner, use.name)
        return hold

    async def _inspect(self, account: Account) -> AnswerGuard | None:
        """Has the guard inspect the request, and replaces the texts that it has rewritten. Returns what moderates the
        answers. The engine leaves out the phrases that it can leave out exactly.

        A refused request costs no tokens. Raises ContentFilteredError, PermissionDeniedError for a tool,
        UnavailableError if the request could not be inspected and the tenant's policy is to refuse, and
        InvalidRequestError for a prompt that is too long for the model, which is not inspected.
        """
        if self._guard is None:
            return None
        check_prompt_lengths(account.request, account.context_length)
        subject, passages = _subject(account), passages_of(account.request)
        ruling = account.ruling = await self._guard.inspect(subject, passages, account.request.tools)
        check_ruling(ruling)
        account.request = without_words(with_texts(account.request, ruling.texts), ruling.banned)
        return await self._guard.answers(
            subject,
            passages,
            ruling,
            account.inspections.append,
            streamed=account.request.stream,
            continued=continued_text(account.request),
            as_json=is_json(account.request),
        )

    async def _moderate_input(self, account: Account) -> Scored:
        """Scores the texts of a request that asks for it, and returns what scores its answers. Raises a RefusalError if
        there is no such classifier, or the request wants to be refused if it is flagged."""
        asked = account.request.moderation
        if asked is None:
            return _unscored
        guard = moderating(self._guard)
        asked.check_model(guard.classifier)
        judge = judge_of(guard, _subject(account))
        found = await moderated_input(account.request, judge)
        return partial(with_scores, judge=judge, of_input=found, block=asked.block_output)

    @contextmanager
    def _accounted(self, account: Account, hold: Hold) -> Iterator[None]:
        """Writes the ledger entry of a request, and settles ``hold``, with its token counts, however it ends."""
        hold.used = lambda: self._limiter.charge(hold.tier, account.meter.total.usage)
        settle = partial(self._limiter.settle, hold)

        def settled(used: MeteredUsage, finished: bool) -> None:
            account.call.trace.describe(answered(account, used))
            refused = account.ruling is not None and account.ruling.refused
            hold.request = account.request  # as it was sent, from which the estimator learns
            generated = not refused and account.cache not in CACHE_HITS  # a hit that is free has used nothing
            settle(used.usage, finished=finished and bool(account.request.prompts) and generated)

        with self._ledger.open(account, settled):
            yield

    def adopt(self, orphans: Sequence[OrphanedAttempt]) -> None:
        """Writes the ledger entries of attempts whose router has died. Their reservations end when their leases
        expire."""
        for orphan in orphans:
            self._ledger.adopt(orphan)

    async def models(self, credentials: str | None) -> dict[str, str]:
        """Returns the model names that the API key may use. Each is mapped to its tier, to ``auto`` or to
        ``embeddings``.

        Raises AuthenticationError for credentials that are missing, malformed or unknown, and UnavailableError if they
        cannot be checked.
        """
        principal = await self._authenticator.authenticate(credentials)
        names = model_names(self._choice, allowed_tiers(principal, self._choice.tiers))
        others = embedding_models(self._embedder, self._config.embeddings.aliases)
        return allowed_models(principal, {**dict.fromkeys(others, EMBEDDINGS), **names})

    def _route(self, principal: Principal, request: InferenceRequest) -> Route:
        """Returns the tier for the request. Raises PermissionDeniedError that names the tier, model or tool that
        ``principal`` may not use, and NotFoundError for a model that does not exist."""
        check_tools(principal, request.tools)
        check_model(principal, request.model, self._targets.get(request.model), self._choice.tiers)
        tiers = allowed_tiers(principal, self._choice.tiers)
        return choose_tier(request.model, request.prompts, request.sampling.max_tokens, self._choice, tiers)

    async def _fit(
        self, principal: Principal, request: InferenceRequest, route: Route
    ) -> tuple[InferenceRequest, Route]:
        """Returns the request as it fits its tier, or the one that takes it instead. Raises InvalidRequestError for a
        conversation that is longer than the settings allow."""
        if not self._overflow.applies(request, principal.tenant, route.tier):
            return request, route
        tiers = self._rooms(allowed_tiers(principal, self._choice.tiers))
        context, tenant = request.context_text, principal.tenant
        fitted = await in_thread_if_long(request, self._overflow.fit, request, tenant, route.tier, tiers, context)
        if fitted.tier == route.tier:
            return fitted.request, route
        return fitted.request, Route(fitted.tier, f"{route.reason}; context of {route.tier} too small")

    def _rooms(self, tiers: Sequence[str]) -> dict[str, TierRoom]:
        """Returns how much the contexts of ``tiers`` hold."""
        lengths = {snapshot.name: snapshot.context_length for snapshot in self._backend.snapshot()}
        return limits_of(tiers, lengths, self._limiter.tokens_per_character)

    def _room_of(self, tier: str) -> TierRoom:
        """Returns how much the context of ``tier`` holds."""
        return self._rooms([tier])[tier]

    def _prompt_details(self, account: Account) -> dict[str, Any] | None:
        """Returns what the usage says of the prompt; None: nothing was done with it and nothing was asked."""
        request = account.request
        report = request.report
        if report is None and request.template_version is None and not request.include_assembly:
            return None
        measure = TokensPerCharacter(*self._limiter.tokens_per_character(account.tier))
        report = replace(report or PromptReport(), parts=prompt_parts(request, measure, request.context_text))
        shown = {"template": request.template_version, **report.fields}
        return {**shown, "assembly": assembly_of(request)} if request.include_assembly else shown

    def _check_cost(self, request: InferenceRequest, tier: str) -> None:
        """Raises InvalidRequestError if the request may cost more than its ``max_cost``."""
        if request.max_cost is not None:
            usage = largest_usage(request, _context_length(self._backend.snapshot(), tier))
            check_max_cost(request, self._ledger.price(tier), usage)

    def _affordable(self, request: InferenceRequest, tier: str) -> bool:
        """Returns whether the request cannot cost more than its ``max_cost`` on ``tier``."""
        try:
            self._check_cost(request, tier)
        except InvalidRequestError:
            return False
        return True

    async def _look_up(self, account: Account) -> Found:
        """Returns what the answer cache has for the request. May wait for an identical one that is under way."""
        request, ruling, principal = account.request, account.ruling, account.principal
        if self._cache is None or (ruling is not None and ruling.refused):
            return Found(None, CacheStatus.BYPASS, "off" if self._cache is None else "refused")
        policy, checks = ("", "") if ruling is None else (ruling.policy, " ".join(ruling.checks))
        weights = self._weights.get(account.tier, "")
        scope = CacheScope(principal.tenant, account.tier, account.model, policy, principal.role.value, weights, checks)
        controls = controlled(request.cache, account.call.cache_control)
        found = await self._cache.find(scope, request, controls, ruling)
        account.cache = found.status.value
        if found.hit is not None and self._cache.billed:
            account.meter.attempt(0).report(found.hit.stored.usage)
            account.meter.reasoning_tokens = found.hit.stored.reasoning_tokens
        return found

    async def _keep(self, account: Account, claim: Claim, body: str) -> None:
        """Stores a whole answer under the idempotency key of its request. A partial one is not stored."""
        await (claim.keep(body) if account.fault is None else claim.forget())

    def _routed(self, account: Account, route: Route, hold: Hold, found: Found, claim: Claim) -> Routed:
        """Returns the first event of an accepted request."""
        request, meter, principal = account.request, account.meter, account.principal
        detached = request.detach and self._streams.allowed(principal.tenant)
        without_effect = {"detach": request.detach and not detached, "idempotency-key": claim.ignored}
        others = (name for name, holds in without_effect.items() if holds)
        ignored = (*request.ignored, *others, *ignored_headers(account.call, principal))
        return Routed(
            route.tier,
            route.reason,
            request.stream,
            request.writer,
            ignored,
            hold.decision,
            "unscanned" if account.ruling is None else account.ruling.label,
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
            owner=_owner(principal) if detached else None,
            shared=AwaitedAnswer(account, found) if found.keeps else None,
        )


def _cited(
    account: Account, answers: AsyncGenerator[Sequence[AnswerEvent], None]
) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Returns ``answers`` with the citations of the passages that the model was given. Text of a given form has none:
    a list of numbers in JSON would be taken for them."""
    request = account.request
    formed = request.sampling.grammar is not None and not request.parsing.tool_calls
    if formed or request.context is None or not request.context.citations or not request.context.passages:
        return answers
    return cited(answers, request.context.passages)


def _context_length(loads: Sequence[TierSnapshot], tier: str) -> int | None:
    """Returns the tokens that prompt and answer may have together on ``tier``; None: no replica has reported it yet."""
    return next((each.context_length for each in loads if each.name == tier), None)


def _cached_tokens(request: InferenceRequest, tenant: str, loads: Sequence[TierSnapshot], tier: str) -> dict[str, int]:
    """Returns the tokens of the request's prompts that replicas of ``tier`` likely have cached, by replica id."""
    cached: Counter[str] = Counter()
    for load in loads:
        if load.name == tier:
            for prompt in request.prompts:
                cached.update(load.cached_tokens(prompt, tenant))
    return cached


def _unscored(events: Batches) -> Batches:
    return events


def _subject(account: Account) -> Subject:
    """Returns whose request it is, for the guard."""
    principal = account.principal
    user = principal.user or account.request.user or ""
    return Subject(principal.tenant, account.call.request_id, principal.key_id, user, principal.role.value)


def _owner(principal: Principal) -> StreamOwner:
    """Returns whose the streams of a request are: those of its API key."""
    return StreamOwner(principal.tenant, principal.key_id)


def ignored_headers(call: Call, principal: Principal) -> tuple[str, ...]:
    """Returns the names of the headers of ``call`` that have no effect: the feature, if the key does not let the client
    choose it."""
    return () if call.feature in (None, principal.feature) else ("x-manta-feature",)
