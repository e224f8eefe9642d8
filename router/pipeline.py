"""``Pipeline``: all steps of a request in their order, one line each, without transport or wire format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from router.access.api_keys import ApiKeys, Principal
from router.access.permissions import allowed_tiers
from router.answer_events import AnswerEvent, Routed
from router.config import RouterConfig
from router.endpoint_protocol import Endpoint
from router.generation.generate import generate
from router.inference_request import Call, InferenceRequest
from router.limits.answer_count import check_answer_count
from router.limits.concurrency import ConcurrencyLimit
from router.limits.limiter import Hold, Limiter
from router.ports.state_store import StateStore
from router.ports.tier_backend import TierBackend
from router.sampling_profiles import apply_profile
from router.tiers.choose import TierChoice, choose_tier, model_names
from router.token_meter import TokenMeter


class Pipeline:
    """The steps of a request, shared by all requests of a router.

    Each step is a package of the router. The packages do not import each other.
    """

    def __init__(self, config: RouterConfig, backend: TierBackend, choice: TierChoice, store: StateStore) -> None:
        self._config = config
        self._backend = backend
        self._choice = choice
        self._api_keys = ApiKeys(config.keys)
        self._concurrency = ConcurrencyLimit(config.max_concurrent_requests)
        tenants = {name: tenant.limits for name, tenant in config.tenants.items()}
        self._limiter = Limiter(store, config.limits, tenants, lambda tier, usage: 0)

    async def start(self) -> None:
        """Starts what runs beside the requests."""
        await self._limiter.start()

    async def close(self) -> None:
        """Ends what runs beside the requests, after the last one."""
        await self._limiter.close()

    async def run(self, call: Call, endpoint: Endpoint) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        """Authenticates, parses and runs one request. Yields its answer events in batches; the first holds Routed
        alone.

        Closing the generator aborts the work in the engine. Raises a RefusalError, or another error that
        ``router.errors.refusal_of`` turns into one.
        """
        config = self._config
        with self._concurrency.admit():
            principal = self._api_keys.authenticate(call.credentials)
            request = endpoint.parse(await call.read(config.max_body_bytes))
            request = apply_profile(request, config.profiles)
            check_answer_count(request, config.max_prompts)
            tiers = allowed_tiers(principal, self._choice.tiers)
            route = choose_tier(request.model, request.prompts, request.sampling.max_tokens, self._choice, tiers)
            hold = await self._reserve(principal, route.tier, request)
            with self._metered(hold) as backend:
                yield [Routed(route.tier, route.reason, request.stream, request.writer, request.ignored, hold.decision)]
                answers = generate(backend, route.tier, request, principal.tenant, config.max_lost_replicas)
                async with aclosing(answers):
                    async for events in answers:
                        yield events

    async def _reserve(self, principal: Principal, tier: str, request: InferenceRequest) -> Hold:
        """Reserves what the request may use within the limits of its key and its tenant. Raises as the limiter does."""
        context = next((each.context_length for each in self._backend.snapshot() if each.name == tier), None)
        limits = principal.limits
        return await self._limiter.reserve(principal.tenant, principal.key_id, limits, tier, request, context)

    @contextmanager
    def _metered(self, hold: Hold) -> Iterator[TokenMeter]:
        """Gives the backend for a request, which counts its tokens. Settles ``hold`` to them at the end, however the
        request ends."""
        meter = TokenMeter(self._backend, self._limiter.prompt_tokens(hold), len(hold.request.prompts))
        hold.used = lambda: self._limiter.charge(hold.tier, meter.usage)
        finished = False
        try:
            yield meter
            finished = True
        finally:
            self._limiter.settle(hold, meter.usage, finished=finished)

    def models(self, credentials: str | None) -> dict[str, str]:
        """Returns the model names that the API key may use, with the tier or ``auto`` of each.

        Raises AuthenticationError for credentials that are missing, malformed or unknown.
        """
        principal = self._api_keys.authenticate(credentials)
        return model_names(self._choice, allowed_tiers(principal, self._choice.tiers))
