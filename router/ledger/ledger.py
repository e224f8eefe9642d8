"""``Ledger``: writes one entry for each request, whether it finishes, fails or is cancelled."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from engine.api import Usage
from router.config.prices import PriceConfig, PricesConfig
from router.errors import SERVICE_FAULTS, AdmissionRefusedError, RefusalError, refusal_of
from router.inference_request import Call, InferenceRequest
from router.ledger.ledger_entry import PENDING, Outcome, RequestEntry, SafetyEntry, safety_of
from router.ledger.orphaned_entries import ROUTER_LOST, draft_of, entry_of
from router.ledger.price import cost_of
from router.ports.clock import Clock
from router.ports.ledger_store import LedgerStore
from router.ports.tier_backend import OrphanedAttempt
from router.ports.usage_metrics import REFUSED, NoUsageMetrics, UsageMetrics
from router.principal import Principal
from router.usage_meter import MeteredUsage, UsageMeter
from safety.api import Inspection, Ruling

SETTLE_S = 5.0
"""The longest that an entry waits for the engine's counts after an abort. They come within an engine step."""
CLOSE_S = 5.0
"""The longest that ``close`` waits for them."""

OnSettled = Callable[[MeteredUsage, bool], None]
"""Called once with what a request used at last, and whether its answer is whole."""


@dataclass(slots=True)
class Account:
    """The facts about a running request that its ledger entry needs. ``meter`` counts its tokens."""

    call: Call
    principal: Principal
    request: InferenceRequest
    tier: str
    model: str  # the model behind the tier
    started_at: float  # seconds since the epoch
    meter: UsageMeter = field(default_factory=UsageMeter)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    run: str = ""  # tells a retry from the request with the same id, which may still run; "": there is none
    first_event_at: float | None = None
    ruling: Ruling | None = None  # of the guard; None: the request was not inspected
    variant: str | None = None  # of a rollout or an experiment; None: the request was in none
    cache: str | None = None  # how the response cache answered, such as exact, semantic or miss; None: it was not asked
    fault: RefusalError | None = None  # that has cut off an answer of which the client got a part
    inspections: list[Inspection] = field(default_factory=list)  # of the texts of the answers
    on_first_token: Callable[[], None] | None = None  # None: the router has not admitted it, and replicas may refuse it
    on_placed: Callable[[int, str, int], None] = lambda _, __, ___: None  # as in ``generate``
    context_length: int | None = None  # of its tier, in tokens; None: no replica has reported it, or it has none
    restarted: bool = False  # it was begun ahead of its checks, aborted, and is begun anew
    client_left: bool = False  # its answer is generated to the end for others that wait for the same one


class Ledger:
    """Writes the entries of requests to ``store``, and counts them in ``metrics``. Each entry uses the ``prices``
    current when it is written."""

    def __init__(
        self, store: LedgerStore, prices: PricesConfig, clock: Clock, metrics: UsageMetrics | None = None
    ) -> None:
        self._store = store
        self._prices = prices
        self._clock = clock
        self._metrics = metrics or NoUsageMetrics()
        self._waiting: set[asyncio.Task[None]] = set()

    def price(self, tier: str) -> PriceConfig | None:
        """Returns the price of a tier; None if it costs nothing."""
        return self._prices.tiers.get(tier)

    def cost(self, tier: str, usage: Usage) -> int:
        """Returns the cost of ``usage`` on a tier, in units of 1e-9 of the currency."""
        return cost_of(self.price(tier), usage)

    @contextmanager
    def open(self, account: Account, on_settled: OnSettled | None = None) -> Iterator[None]:
        """Writes the entry of a request when the context ends, by an error or a cancellation too. One that is cancelled
        because it takes too long has failed.

        The entry of a request that was cut off is written a moment later, when the engine has stopped it and reported
        its counts: a cancelled stream costs exactly the tokens that were generated. After SETTLE_S without the engine's
        counts, or if the replica is lost, the router's own are written with ``exact=False``. ``on_settled`` is called
        right before the entry is written.
        """
        outcome, refusal = Outcome.CANCELLED, None
        try:
            yield
            outcome, refusal = (Outcome.FINISHED if account.fault is None else Outcome.FAILED), account.fault
            if account.client_left and account.fault is None:
                outcome = Outcome.CANCELLED
        except Exception as fault:
            outcome, refusal = Outcome.FAILED, refusal_of(fault)
            raise
        except BaseException:
            if account.call.timed_out:
                outcome, refusal = Outcome.FAILED, refusal_of(TimeoutError())
            raise
        finally:
            self._close(account, outcome, refusal, on_settled)

    def draft(self, account: Account, *, ahead: bool = False) -> str:
        """Returns a JSON draft of the entry of ``account``, from which another router writes the entry if this one
        dies. ``ahead``: the request is still being checked, so that the draft does not say what was decided."""
        used = MeteredUsage(Usage(0, 0, 0))
        entry = self._entry(account, used, Outcome.FAILED, ROUTER_LOST, account.started_at)
        return draft_of(replace(entry, safety=SafetyEntry(PENDING)) if ahead else entry)

    def adopt(self, orphan: OrphanedAttempt) -> None:
        """Writes the entry of an attempt whose router has died. It has no effect if that router has written the entry
        itself."""
        if (entry := entry_of(orphan, self._clock.now())) is not None:
            self._store.record(entry)

    async def close(self) -> None:
        """Writes all entries that still wait for the engine's counts, after waiting at most CLOSE_S seconds for
        these."""
        if not self._waiting:
            return
        _, late = await asyncio.wait(self._waiting, timeout=CLOSE_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    def _close(
        self, account: Account, outcome: Outcome, refusal: RefusalError | None, on_settled: OnSettled | None
    ) -> None:
        ended_at, error = self._clock.now(), None if refusal is None else refusal.code
        refused = refusal is not None and (
            refusal.kind not in SERVICE_FAULTS or isinstance(refusal, AdmissionRefusedError)
        )

        def write() -> None:
            used = account.meter.total
            if on_settled is not None:
                on_settled(used, outcome is Outcome.FINISHED)
            entry = self._entry(account, used, outcome, error, ended_at)
            self._metrics.count(replace(entry.sample, outcome=REFUSED) if refused else entry.sample)
            self._store.record(entry.stored())

        if account.meter.known:
            return write()

        async def write_later() -> None:
            try:
                await account.meter.wait(SETTLE_S)
            finally:
                write()

        task = asyncio.create_task(write_later())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return None

    def _entry(
        self, account: Account, used: MeteredUsage, outcome: Outcome, error: str | None, ended_at: float
    ) -> RequestEntry:
        principal, usage, price = account.principal, used.usage, self.price(account.tier)
        return RequestEntry(
            id=account.id,
            request_id=account.call.request_id,
            tenant=principal.tenant,
            team=principal.team,
            feature=principal.feature,
            user=principal.user or (account.request.user or "")[:128],
            key_id=principal.key_id,
            endpoint=account.call.endpoint,
            tier=account.tier,
            model=account.request.model,
            version=account.model,
            input_tokens=usage.prompt_tokens,
            cached_input_tokens=usage.cached_tokens,
            output_tokens=usage.completion_tokens,
            reasoning_tokens=used.reasoning_tokens,
            price=(0.0, 0.0, 0.0) if price is None else price.per_million,
            price_version=self._prices.version,
            cost=cost_of(price, usage),
            outcome=outcome,
            error=error,
            exact=used.exact,
            started_at=account.started_at,
            first_event_at=account.first_event_at,
            ended_at=ended_at,
            safety=safety_of(account.ruling, account.inspections),
            variant=account.variant,
            cache=account.cache,
            template_version=account.request.template_version,
        )
