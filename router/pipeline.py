"""The whole way of a request, top-down, one line per step. It knows no transport and no wire format."""

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
    """The steps of a request in their order. Each is a package of the router that knows none of the others."""

    def __init__(self, config: RouterConfig, backend: TierBackend, choice: TierChoice) -> None:
        self._config = config
        self._backend = backend
        self._choice = choice
        self._api_keys = ApiKeys(config.keys)
        self._concurrency = ConcurrencyLimit(config.max_concurrent_requests)

    async def run(self, call: Call, endpoint: Endpoint) -> AsyncGenerator[Sequence[AnswerEvent], None]:
        """The events of the answers to one request; the first is Routed. Closing it aborts the work under way.

        Raises a RefusalError, or another error that ``router.errors.refusal_of`` turns into one.
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
        """The tier, or ``auto``, behind each model name that the key may use. Raises AuthenticationError."""
        principal = self._api_keys.authenticate(credentials)
        return model_names(self._choice, allowed_tiers(principal, self._choice.tiers))
