"""``Limiter``: reserves the most that a request may use before it runs, and settles the reservation at the end. It
calls the store.

While a request runs, its lease is renewed, with its usage so far. A failed settlement is sent again at the next
renewal. If a router crashes, its reservations expire after one lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.api import Usage
from router.config.limits import LimitPolicy, LimitsConfig
from router.errors import UnavailableError
from router.inference_request import InferenceRequest
from router.keep_running import keep_running
from router.limits.guessed_charge import within_limits
from router.limits.limit_refusal import refusal
from router.limits.limit_scopes import scopes_of
from router.limits.settlement_sender import SettlementSender
from router.limits.usage_estimator import UsageEstimator
from router.ports.limit_store import Charge, LimitDecision, LimitStore, Renewal, Reservation
from router.ports.state_store import StateUnavailableError

RENEWALS_PER_LEASE = 3
NO_LIMITS = LimitsConfig()

CostOf = Callable[[str, Usage], int]
"""Returns the cost of token counts on a tier, in units of 1e-9 of the currency."""


@dataclass(slots=True, eq=False)
class Hold:
    """The reservation of one request.

    ``reservation`` is None without limits. ``decision`` is None without limits, or if the store did not answer.
    ``used`` returns the request's usage so far; once it is settled, nothing. ``accounted``: the ledger settles it.
    """

    tenant: str
    tier: str
    request: InferenceRequest
    reservation: Reservation | None = None
    decision: LimitDecision | None = None
    used: Callable[[], Charge] = field(default=Charge)
    accounted: bool = False


class Limiter:
    """Reserves and settles the usage of all requests of one router. ``policy`` says how limits are enforced,
    ``tenants`` has the limits of each tenant, by name, and ``cost_of`` returns what tokens cost on a tier."""

    def __init__(
        self, store: LimitStore, policy: LimitPolicy, tenants: dict[str, LimitsConfig], cost_of: CostOf
    ) -> None:
        self._store = store
        self._policy = policy
        self._tenants = tenants
        self._cost_of = cost_of
        self._estimator = UsageEstimator(policy.usual_output_tokens)
        self._lease_ms = round(policy.lease_s * 1000)
        self._holds: set[Hold] = set()  # of the requests that run
        self._renew_s = policy.lease_s / RENEWALS_PER_LEASE
        self._settler = SettlementSender(store, self._renew_s)
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the background tasks that renew leases and that repeat failed settlements. Neither waits for the
        other."""
        self._settler.start()
        self._renewing = asyncio.create_task(keep_running("the renewal of leases", self._renew, self._renew_s))

    async def close(self) -> None:
        """Waits for running settlements, as ``SettlementSender.close``, and stops the background tasks."""
        await self._settler.close()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
            self._renewing = None

    async def reserve(
        self,
        tenant: str,
        key_id: str,
        limits: LimitsConfig,
        tier: str,
        request: InferenceRequest,
        context: int | None,
        ahead: Hold | None = None,
    ) -> Hold:
        """Reserves the tokens and the money that few such requests exceed on ``tier`` (``expected``). ``limits`` are
        the key's, ``context`` is the tier's context length (None: unknown). ``ahead`` was reserved for the same request
        before more was known of it; its charge is replaced. The caller settles the result, however the request ends,
        and ``ahead`` too if this raises.

        Raises LimitExceededError, and UnavailableError if the store cannot be reached and the policy is to refuse
        requests then.
        """
        hold = ahead or Hold(tenant, tier, request)
        hold.tier, hold.request = tier, request
        scopes = scopes_of(key_id, limits, self._tenants.get(tenant, NO_LIMITS))
        if not scopes:
            return hold
        expected = self._estimator.usage(tenant, tier, request, context)
        charge = self.charge(tier, expected)
        if request.sampling.max_tokens is None:
            least = self.charge(tier, Usage(expected.prompt_tokens, 0, 0))
            charge = within_limits(charge, least, scopes)
        known = hold.reservation
        hold.reservation = Reservation(uuid.uuid4().hex if known is None else known.id, tenant, scopes, charge)
        try:
            hold.decision = await self._store.reserve(hold.reservation, self._lease_ms)
        except StateUnavailableError as error:
            if self._policy.when_unavailable == "refuse":
                if error.sent:  # the store may have reserved it, and answered too late
                    self._settler.settle(hold.reservation, Charge())
                message = "The limits of this request cannot be checked at the moment."
                raise UnavailableError(message, "state_unavailable", retry_after_s=1) from None
        except asyncio.CancelledError:
            self._settler.settle(hold.reservation, Charge())  # the store may have reserved it
            raise
        if hold.decision is not None and not hold.decision.admitted:
            raise refusal(hold.decision, charge)
        self._holds.add(hold)
        return hold

    def expected(self, tenant: str, tier: str, request: InferenceRequest, context: int | None) -> Usage:
        """Returns the token counts that few such requests exceed on ``tier``, as ``reserve`` reserves them. ``context``
        is the tier's context length; None: unknown."""
        return self._estimator.usage(tenant, tier, request, context)

    def prompt_tokens(self, hold: Hold) -> int:
        """Returns the estimated number of prompt tokens of a request."""
        return self._estimator.usage(hold.tenant, hold.tier, hold.request, None).prompt_tokens

    def tokens_per_character(self, tier: str) -> tuple[float, float]:
        """Returns two estimates of the tokens per character on ``tier``: the mean, and a value that few texts
        exceed."""
        return self._estimator.tokens_per_character(tier)

    def charge(self, tier: str, usage: Usage) -> Charge:
        """Returns the tokens and cost that ``usage`` adds to the limits."""
        return Charge(usage.prompt_tokens + usage.completion_tokens, self._cost_of(tier, usage))

    def settle(self, hold: Hold, usage: Usage, *, finished: bool) -> None:
        """Replaces the reserved charge by ``usage`` in the background, and returns at once. If ``finished``, the
        estimator learns from the answer's length."""
        if finished:
            self._estimator.learn(hold.tenant, hold.tier, hold.request, usage)
        self._holds.discard(hold)
        hold.used = Charge  # it holds the hold itself
        if hold.reservation is not None:
            unchecked = hold.decision is None
            self._settler.settle(hold.reservation, self.charge(hold.tier, usage), unchecked=unchecked)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            renewals = [
                Renewal(hold.reservation.id, hold.tenant, hold.used())
                for hold in self._holds
                if hold.reservation is not None
            ]
            if renewals:
                with contextlib.suppress(StateUnavailableError):
                    await self._store.renew(renewals, self._lease_ms)
