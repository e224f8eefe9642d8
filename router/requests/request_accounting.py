"""``RequestAccounting``: reserves what a request may use, and settles what it has used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from router.errors import LimitExceededError
from router.ledger.ledger import Account, Ledger
from router.ledger.ledger_entry import CACHE_HITS
from router.limits.limiter import Hold, Limiter
from router.ports.usage_metrics import UsageMetrics
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

    async def reserve(self, account: Account) -> Hold:
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
        for use in () if hold.decision is None else hold.decision.near(self._warn_at):
            self._metrics.near_limit(tenant, use.owner, use.name)
        return hold

    @contextmanager
    def settling(self, account: Account, hold: Hold) -> Iterator[None]:
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
