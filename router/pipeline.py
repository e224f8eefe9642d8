"""``Pipeline``: all steps of a request in their order, one line each, without transport or wire format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from router.access.api_keys import ApiKeys
from router.access.permissions import allowed_tiers
from router.answer_events import AnswerEvent, Routed
from router.config import RouterConfig
from router.endpoint_protocol import Endpoint
from router.generation.generate import generate
from router.inference_request import Call
from router.limits.answer_count import check_answer_count
from router.limits.concurrency import ConcurrencyLimit
from router.ports.tier_backend import TierBackend
from router.sampling_profiles import apply_profile
from router.tiers.choose import TierChoice, choose_tier, model_names


class Pipeline:
    """The steps of a request, shared by all requests of a router.

    Each step is a package of the router. The packages do not import each other.
    """

    def __init__(self, config: RouterConfig, backend: TierBackend, choice: TierChoice) -> None:
        self._config = config
        self._backend = backend
        self._choice = choice
        self._api_keys = ApiKeys(config.keys)
        self._concurrency = ConcurrencyLimit(config.max_concurrent_requests)

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
            yield [Routed(route.tier, route.reason, request.stream, request.writer, request.ignored)]
            answers = generate(self._backend, route.tier, request, principal.tenant, config.max_lost_replicas)
            async with aclosing(answers):
                async for events in answers:
                    yield events

    def models(self, credentials: str | None) -> dict[str, str]:
        """Returns the model names that the API key may use, with the tier or ``auto`` of each.

        Raises AuthenticationError for credentials that are missing, malformed or unknown.
        """
        principal = self._api_keys.authenticate(credentials)
        return model_names(self._choice, allowed_tiers(principal, self._choice.tiers))
