"""``RequestAccounting``: reserves what a request may use, and settles what it has used.

A request whose passages have yet to be searched reserves twice: ``ahead`` of the search, by its own texts, so that one
without room costs no search; then, by the prompt with the passages, ``reserve`` in the place of that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from engine.api import Usage
from router.errors import LimitExceededError
from router.inference_request import InferenceRequest
from router.ledger.ledger import Account, Ledger
from router.ledger.ledger_entry import CACHE_HITS
from router.limits.limiter import Hold, Limiter
from router.ports.usage_metrics import UsageMetrics
from router.principal import Principal
from router.trace_attributes import answered
from router.usage_meter import MeteredUsage


class RequestAccounting:
    """Joins the limits and the ledger for the requests of one router. ``warn_at`` is the share of a limit from which
    its use is counted as near the limit."""

    def __init__(self, ledger: Ledger, limiter: Limiter, metrics: UsageMetrics, warn_at: float) -> None:
        self._ledger = ledger
        self._limiter = limiter
        self._metrics = metrics
        self._warn_at = warn_at

    async def reserve(self, account: Account, ahead: Hold | None = None) -> Hold:
        """Reserves what the request may use within the limits of its key and its tenant, in the place of what was
        reserved ``ahead``. Raises as the limiter does."""
        hold = await self._reserve(account.principal, account.tier, account.request, account.context_length, ahead)
        for use in () if hold.decision is None else hold.decision.near(self._warn_at):
            self._metrics.near_limit(account.principal.tenant, use.owner, use.name)
        return hold

    @asynccontextmanager
    async def ahead(
        self, principal: Principal, request: InferenceRequest, tier: str, context: int | None
    ) -> AsyncIterator[Hold]:
        """Reserves what the request uses by what is known of it: more will be, as ``reserve`` says then. ``context`` is
        the context length of ``tier``; None: unknown. If the request does not come to its account, nothing stays
        reserved at the end of the context, and it counts as one request. Raises as the limiter does."""
        hold = await self._reserve(principal, tier, request, context)
        try:
            yield hold
        finally:
            if not hold.accounted:
                self._limiter.settle(hold, Usage(0, 0, 0), finished=False)

    async def _reserve(
        self, principal: Principal, tier: str, request: InferenceRequest, context: int | None, ahead: Hold | None = None
    ) -> Hold:
        tenant, key_id, limits = principal.tenant, principal.key_id, principal.limits
        try:
            return await self._limiter.reserve(tenant, key_id, limits, tier, request, context, ahead)
        except LimitExceededError as error:
            for use in error.decision.refused:
                self._metrics.refused(tenant, use.owner, use.name)
            raise

    @contextmanager
    def settling(self, account: Account, hold: Hold) -> Iterator[None]:
        """Writes the ledger entry of a request, and settles ``hold``, with its token counts, however it ends."""
        hold.accounted = True
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
