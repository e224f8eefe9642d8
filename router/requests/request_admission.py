"""``RequestAdmission``: asks the admission for the place of a request, with what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.api import Usage
from router.admission.admission import Admission, Place
from router.admission.admission_decision import RequestFacts
from router.admission.spill import allowed_spill, narrowed
from router.cache.answer_cache import AnswerCache
from router.cache.cache_control import controlled
from router.config.router import RouterConfig
from router.config.tenants import Spill
from router.errors import InvalidRequestError
from router.inference_request import Call, InferenceRequest
from router.ledger.ledger import Ledger
from router.ledger.max_usage import check_max_cost, largest_usage
from router.ledger.price import cost_of, money
from router.limits.limiter import Limiter
from router.ports.tier_backend import TierBackend, TierSnapshot
from router.principal import Principal
from router.sampling_profiles import apply_tier_defaults
from router.tiers.choose_tier import Route

COMPARED_PROMPTS = 8
"""Each takes up to a millisecond of the event loop. The others of a request count as not cached."""


class RequestAdmission:
    """Admits the requests of one router. ``cache`` None: there is no answer cache."""

    def __init__(
        self,
        config: RouterConfig,
        admission: Admission,
        limiter: Limiter,
        ledger: Ledger,
        backend: TierBackend,
        cache: AnswerCache | None,
    ) -> None:
        self._config = config
        self._admission = admission
        self._limiter = limiter
        self._ledger = ledger
        self._backend = backend
        self._cache = cache
        self._sampling = {tier.name: tier.sampling for tier in backend.tiers()}

    def admit(
        self,
        call: Call,
        principal: Principal,
        request: InferenceRequest,
        tier: str,
        allowed: Sequence[str],
        loads: Sequence[TierSnapshot],
    ) -> Place:
        """Returns the place of the request in the queue of ``tier``, or of another one of those ``allowed`` that it may
        spill to. ``loads`` are the present ones of all tiers. Raises AdmissionRefusedError.

        It is before the limits, so that a refusal is charged to none, and before the guard, whose checks take longer
        than a refusal may. So the answer cache, which comes after them, is asked only for a few of those that would be
        refused.
        """
        facts, order = self._facts(principal, request, tier, allowed, loads)
        cacheable = self._cacheable(call, principal, request)
        return self._admission.enter(facts, tier, order, loads, call.request_id, cacheable=cacheable)

    def check(
        self,
        call: Call,
        principal: Principal,
        request: InferenceRequest,
        tier: str,
        allowed: Sequence[str],
        loads: Sequence[TierSnapshot],
    ) -> None:
        """Raises AdmissionRefusedError if the request would be refused now, before more is done for it than to parse
        it. The arguments are as in ``admit``."""
        facts, order = self._facts(principal, request, tier, allowed, loads)
        cacheable = self._cacheable(call, principal, request)
        self._admission.check(facts, tier, order, loads, call.request_id, cacheable=cacheable)

    def may_spill(self, principal: Principal, request: InferenceRequest) -> bool:
        """Returns whether a full tier may pass the request on to another one."""
        return self._config.admission.enabled and self._spill(principal, request) != "none"

    def check_cost_ahead(
        self, request: InferenceRequest, tier: str, tiers: Sequence[str], least: Callable[[str], Usage]
    ) -> None:
        """Raises InvalidRequestError if the request may cost more than its ``max_cost`` on each of the ``tiers`` that
        may get it, ``tier`` included, by the ``least`` that the estimate for each will be."""
        limit = request.max_cost
        if limit is not None and all(money(cost_of(self._ledger.price(each), least(each))) > limit for each in tiers):
            self._check_cost(request, tier)

    def _facts(
        self,
        principal: Principal,
        request: InferenceRequest,
        tier: str,
        allowed: Sequence[str],
        loads: Sequence[TierSnapshot],
    ) -> tuple[RequestFacts, Sequence[str]]:
        """Returns what the admission decides by, and the tiers that may take the request."""
        tenant = principal.tenant
        expected = self._limiter.expected(tenant, tier, request, context_length(loads, tier))
        facts = RequestFacts(
            tenant,
            request.priority,
            max(len(request.prompts), 1),
            expected.prompt_tokens,
            expected.completion_tokens,
            request.deadline_s,
            self._spill(principal, request),
            cached_tokens=_cached_tokens(request, tenant, loads, tier) if self._config.admission.enabled else {},
        )
        if facts.spill == "none":
            return facts, allowed
        return facts, [each for each in allowed if each == tier or self._affordable(request, each)]

    def _cacheable(self, call: Call, principal: Principal, request: InferenceRequest) -> bool:
        """Returns whether the answer cache may have the answer."""
        controls = controlled(request.cache, call.cache_control)
        return self._cache is not None and self._cache.may_have(principal.tenant, request, controls)

    def placed(self, request: InferenceRequest, route: Route, place: Place) -> tuple[InferenceRequest, Route]:
        """Returns the request as the tier of its place gets it. Raises InvalidRequestError if it may cost more there
        than its ``max_cost``."""
        if place.moved:
            route = Route(place.tier, f"{route.reason}; spilled, {place.moved}")
        request = apply_tier_defaults(request, self._sampling.get(route.tier, {}))
        request = replace(request, ttft_slo_s=place.ttft_s, surplus=place.surplus)
        self._check_cost(request, route.tier)
        return request, route

    def _spill(self, principal: Principal, request: InferenceRequest) -> Spill:
        """Returns the directions in which the request may spill."""
        return narrowed(self._allowed_spill(principal), request.spill)

    def _allowed_spill(self, principal: Principal) -> Spill:
        """Returns the directions in which the requests of ``principal`` may spill."""
        own = self._config.tenants.get(principal.tenant)
        return allowed_spill(
            None if own is None else own.spill,
            principal.spill,
            self._config.admission.spill,
            only_narrows=principal.narrows_spill,
        )

    def _affordable(self, request: InferenceRequest, tier: str) -> bool:
        """Returns whether the request cannot cost more than its ``max_cost`` on ``tier``."""
        try:
            self._check_cost(request, tier)
        except InvalidRequestError:
            return False
        return True

    def _check_cost(self, request: InferenceRequest, tier: str) -> None:
        """Raises InvalidRequestError if the request may cost more than its ``max_cost``."""
        if request.max_cost is not None:
            usage = largest_usage(request, context_length(self._backend.snapshot(), tier))
            check_max_cost(request, self._ledger.price(tier), usage)


def context_length(loads: Sequence[TierSnapshot], tier: str) -> int | None:
    """Returns the tokens that prompt and answer may have together on ``tier``; None: no replica has reported it yet."""
    return next((each.context_length for each in loads if each.name == tier), None)


def _cached_tokens(request: InferenceRequest, tenant: str, loads: Sequence[TierSnapshot], tier: str) -> dict[str, int]:
    """Returns the tokens of the request's first COMPARED_PROMPTS prompts that replicas of ``tier`` likely have cached,
    by replica id."""
    cached: Counter[str] = Counter()
    for load in loads:
        if load.name == tier:
            for prompt in request.prompts[:COMPARED_PROMPTS]:
                cached.update(load.cached_tokens(prompt, tenant))
    return cached
