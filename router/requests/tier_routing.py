"""``TierRouting``: the tier of a request that its key may use, and that its conversation fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.access.permissions import allowed_tiers, check_model, check_tools
from router.inference_request import InferenceRequest
from router.ports.tier_backend import TierBackend
from router.principal import Principal
from router.prompts.context_overflow import ContextOverflow, TierRoom, limits_of
from router.prompts.off_event_loop import in_thread_if_long
from router.tiers.choose_tier import AUTO, Route, TierChoice, choose_tier


class TierRouting:
    """Chooses the tiers of the requests of one router.

    ``overflow`` decides about conversations that do not fit. ``tokens_per_character`` returns the tokens per
    character on a tier: the mean, and a value that few texts exceed.
    """

    def __init__(
        self,
        choice: TierChoice,
        backend: TierBackend,
        overflow: ContextOverflow,
        tokens_per_character: Callable[[str], tuple[float, float]],
    ) -> None:
        self._choice = choice
        self._targets = choice.targets
        self._backend = backend
        self._overflow = overflow
        self._tokens_per_character = tokens_per_character

    def route(self, principal: Principal, request: InferenceRequest) -> Route:
        """Returns the tier for the request. Raises PermissionDeniedError that names the tier, model or tool that
        ``principal`` may not use, and NotFoundError for a model that does not exist."""
        check_tools(principal, request.tools)
        check_model(principal, request.model, self._targets.get(request.model), self._choice.tiers)
        tiers = self.allowed(principal)
        return choose_tier(request.model, request.prompts, request.sampling.max_tokens, self._choice, tiers)

    async def fit(
        self, principal: Principal, request: InferenceRequest, route: Route
    ) -> tuple[InferenceRequest, Route]:
        """Returns the request as it fits its tier, or the one that takes it instead. ``route`` is that of the request
        without passages: with these it is routed anew. Raises InvalidRequestError for a conversation that is longer
        than the settings allow."""
        if request.context is not None:
            route = self.route(principal, request)
        if not self._overflow.applies(request, principal.tenant, route.tier):
            return request, route
        tiers = self._rooms(self.allowed(principal))
        context, tenant = request.context_text, principal.tenant
        fitted = await in_thread_if_long(request, self._overflow.fit, request, tenant, route.tier, tiers, context)
        if fitted.tier == route.tier:
            return fitted.request, route
        return fitted.request, Route(fitted.tier, f"{route.reason}; context of {route.tier} too small")

    def is_settled(self, principal: Principal, request: InferenceRequest, route: Route) -> bool:
        """Returns whether the request keeps the tier of ``route``, however much is added to it."""
        named = self._targets.get(request.model) != AUTO
        return named and not self._overflow.may_move(request, principal.tenant, route.tier)

    def keeps_prompt(self, principal: Principal, request: InferenceRequest, tier: str) -> bool:
        """Returns whether ``tier`` gets the prompt whole, however much is added to it."""
        return not self._overflow.may_shorten(request, principal.tenant, tier)

    def allowed(self, principal: Principal) -> Sequence[str]:
        """Returns the tiers that ``principal`` may use, in the order of the configuration."""
        return allowed_tiers(principal, self._choice.tiers)

    def room_of(self, tier: str) -> TierRoom:
        """Returns how much the context of ``tier`` holds."""
        return self._rooms([tier])[tier]

    def _rooms(self, tiers: Sequence[str]) -> dict[str, TierRoom]:
        lengths = {snapshot.name: snapshot.context_length for snapshot in self._backend.snapshot()}
        return limits_of(tiers, lengths, self._tokens_per_character)
