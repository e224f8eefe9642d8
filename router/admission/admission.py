"""``Admission``: admits or refuses the requests of one router, and counts its decisions.

::

    enter ┬ Admit  → Place with a Ticket → the first token, a cache hit or the end gives the room back; so does the wait
          │                                for the answer to an identical request (``looking_up``). Until then, it
          │                                waits on the replica to which it was sent (``placed``)
          └ Refuse ┬ the answer cache may have the answer → Place without a Ticket → a hit, or ``settle`` raises
                   └ AdmissionRefusedError

Between the decision and the ticket nothing is awaited, so that the decision holds for the request that it was made for.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType

from engine.api import Priority, rank_of
from router.admission.admission_decision import Admit, Refuse, RequestFacts, TierView, decide
from router.admission.admitted_requests import AdmittedRequests, Ticket
from router.admission.refusal import refusal_error
from router.admission.retry_schedule import RetrySchedule
from router.admission.tier_views import view_of
from router.config.admission import AdmissionConfig
from router.errors import AdmissionRefusedError
from router.ports.clock import Clock
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import AdmissionSample, UsageMetrics

LOOK_UP_S = 0.1
"""Seconds that the answer cache takes at most, unless a request waits for the answer to an identical one."""


class Place:
    """The place of an admitted request: the ``tier`` that takes it, and its room in the tier's queue until its first
    token. It is an asynchronous context manager, which gives the room back at its end.

    ``ttft_s`` is the objective for the time to the first token, in seconds; None: there is none. ``surplus``: the
    request comes after those of other tenants (``TenantShares``). ``moved`` says in
    ASCII why another tier takes the request, for a response header; "": the tier that was asked for takes it. ``take``
    takes the room; None: no room is counted. ``refused`` makes the error of a request that only the answer cache can
    answer; None: the tier has room for it. ``on_exit`` is called at the end of the context.
    """

    def __init__(
        self,
        clock: Clock,
        tier: str,
        ttft_s: float | None = None,
        moved: str = "",
        take: Callable[[], Ticket] | None = None,
        refused: Callable[[], AdmissionRefusedError] | None = None,
        on_exit: Callable[[], None] = lambda: None,
        *,
        surplus: bool = False,
    ) -> None:
        self.tier = tier
        self.ttft_s = ttft_s
        self.moved = moved
        self.surplus = surplus
        self._clock = clock
        self._take = take
        self._ticket = None if take is None else take()
        self._refused = refused
        self._on_exit = on_exit

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on_exit()
        self.release()

    def settle(self, *, needs_engine: bool) -> None:
        """Gives the room back if the answer needs no engine. Raises AdmissionRefusedError if the answer needs the
        engine and the tier has no room."""
        if not needs_engine:
            self.release()
        elif self._refused is not None:
            raise self._refused()
        elif self._take is not None and self._ticket is None:
            self._ticket = self._take()

    @contextmanager
    def looking_up(self) -> Iterator[None]:
        """Returns the context in which the answer cache is asked. A request that waits there for the answer to an
        identical one needs no room: after LOOK_UP_S seconds the room is given back, and ``settle`` takes it again if
        the answer has to be generated after all."""
        timer = asyncio.get_running_loop().call_later(LOOK_UP_S, self.lend)
        try:
            yield
        finally:
            timer.cancel()

    def placed(self, prompt: int, replica_id: str, tokens: int) -> None:
        """Records that the prompt with the index ``prompt`` was sent to a replica, which likely has to compute
        ``tokens`` of it. It waits there from now on, and nowhere else."""
        if self._ticket is not None:
            self._ticket.placed(prompt, replica_id, tokens)

    def started(self) -> None:
        """Gives the room back, since the first token has come."""
        if self._ticket is not None:
            self._ticket.started(self._clock.monotonic())

    def lend(self) -> None:
        """Gives the room back until ``settle`` takes it again, since the request waits for something else."""
        self.release()
        self._ticket = None

    def release(self) -> None:
        """Gives the room back, since the request needs no engine or has ended."""
        if self._ticket is not None:
            self._ticket.release(self._clock.monotonic())


class Admission:
    """Admits or refuses the requests of this router. ``admitted`` has the admitted requests, by tier. ``metrics``
    counts the decisions."""

    def __init__(self, config: AdmissionConfig, clock: Clock, metrics: UsageMetrics) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self.admitted: defaultdict[str, AdmittedRequests] = defaultdict(AdmittedRequests)
        self._retries: dict[tuple[str, int], RetrySchedule] = {}  # by tier and rank
        self._unreported: defaultdict[str, Counter[Priority]] = defaultdict(Counter)  # refusals by tier
        self._reading = 0  # requests that would be refused, and look into the answer cache

    def enter(
        self,
        facts: RequestFacts,
        tier: str,
        order: Sequence[str],
        loads: Sequence[TierSnapshot],
        request_id: str,
        *,
        cacheable: bool = False,
    ) -> Place:
        """Returns the place of a request for ``tier``, or for another one of ``order``, which are the tiers that its
        key may use, weakest first.

        ``loads`` are the present loads of all tiers. ``request_id`` spreads the times at which refused clients should
        come again. ``cacheable``: the answer cache may answer the request, which then needs no room; a request that
        would be refused gets a place without room for the look-up, as long as fewer than ``max_cache_reads`` have one.
        Raises AdmissionRefusedError if no tier takes the request.
        """
        if not self._config.enabled:
            return Place(self._clock, tier)
        now = self._clock.monotonic()
        self.admitted[tier].shares.asked(facts.tenant, facts.tokens, now)
        asked = facts.tokens  # of the tier that was asked for
        facts, decision, views = self._decided(facts, tier, order, loads, now)
        if isinstance(decision, Admit):
            return self._admit(facts, decision, views[decision.tier], asked)
        if cacheable and self._reading < self._config.max_cache_reads:
            self._reading += 1
            return Place(
                self._clock,
                tier,
                refused=lambda: self._refuse(facts, decision, views[tier], request_id),
                on_exit=self._read,
            )
        raise self._refuse(facts, decision, views[tier], request_id)

    def check(
        self,
        facts: RequestFacts,
        tier: str,
        order: Sequence[str],
        loads: Sequence[TierSnapshot],
        request_id: str,
        *,
        cacheable: bool = False,
    ) -> None:
        """Raises AdmissionRefusedError, which is counted, if ``enter`` would do so now. Takes no room, and says nothing
        of later. The arguments are as in ``enter``."""
        if not self._config.enabled:
            return
        now = self._clock.monotonic()
        ranked, decision, views = self._decided(facts, tier, order, loads, now)
        reads = cacheable and self._reading < self._config.max_cache_reads
        if isinstance(decision, Refuse) and not reads:
            self.admitted[tier].shares.asked(facts.tenant, facts.tokens, now)
            raise self._refuse(ranked, decision, views[tier], request_id)

    def take_refusals(self, tier: str) -> tuple[int, ...]:
        """Returns the numbers of requests for ``tier`` that were refused since the last call, by class in the order of
        ``Priority``; () if none was. The next request takes them to a replica, since autoscaling reads replicas: demand
        that is refused before it reaches one would never add any."""
        refused = self._unreported.pop(tier, None)
        return () if refused is None else tuple(refused[priority] for priority in Priority)

    def _decided(
        self, facts: RequestFacts, tier: str, order: Sequence[str], loads: Sequence[TierSnapshot], now: float
    ) -> tuple[RequestFacts, Admit | Refuse, dict[str, TierView]]:
        """Returns the facts of a request on the tier that the decision is about, the decision, and the views that it
        was made by."""
        views = self._views(facts, tier, order, loads, now)
        decision = decide(facts, tier, views, order, self._config)
        if decision.tier != tier:
            facts = facts.elsewhere
        return self._ranked(facts, decision.tier), decision, views

    def _ranked(self, facts: RequestFacts, tier: str) -> RequestFacts:
        """Returns the facts of a request, marked if it is surplus on ``tier``. What a tenant asks of one tier makes
        nothing surplus on another."""
        admitted = self.admitted[tier]
        waiting = admitted.waiting_of(facts.tenant)
        surplus = admitted.shares.surplus(facts.tenant, facts.priority, waiting)
        return replace(facts, surplus=True) if surplus else facts

    def _views(
        self, facts: RequestFacts, tier: str, order: Sequence[str], loads: Sequence[TierSnapshot], now: float
    ) -> dict[str, TierView]:
        """Returns the views of the tiers that the decision may need."""
        names = {tier} if facts.spill == "none" else {tier, *order}
        elsewhere = facts.elsewhere
        return {
            load.name: view_of(
                self._ranked(facts if load.name == tier else elsewhere, load.name),
                load,
                self.admitted[load.name],
                self._config,
                now,
            )
            for load in loads
            if load.name in names
        } or {tier: TierView(tier, replicas=0)}

    def _admit(self, facts: RequestFacts, decision: Admit, view: TierView, asked: int) -> Place:
        """Takes the room of an admitted request. ``asked``: its tokens on the tier that was asked for, which has maybe
        refused it."""
        terms = self._config.terms(decision.tier, facts.priority)
        admitted = self.admitted[decision.tier]
        objective_s = terms.objective_s(facts.prompt_length)
        in_time = view.ttft_s is not None and (objective_s is None or view.ttft_s <= objective_s)
        # The engine computes the prompts of a tenant that floods in small parts, which no prediction knows.
        counts = facts.surplus or not admitted.shares.floods(facts.tenant, admitted.waiting_of(facts.tenant))

        def take() -> Ticket:
            return admitted.take(
                facts.rank,
                facts.tenant,
                facts.requests,
                facts.tokens,
                self._clock.monotonic(),
                facts.uncached_tokens,
                objective_s,
                in_time=in_time and counts,
                replicas=view.replicas,
                alone_s=view.alone_s,
            )

        instead = decision.instead_of
        if instead is not None:
            self.admitted[instead.tier].shares.decided(
                facts.tenant, facts.priority, asked, admitted=False, surplus=False
            )
            admitted.shares.asked(facts.tenant, facts.tokens, self._clock.monotonic())
        admitted.shares.decided(facts.tenant, facts.priority, facts.tokens, admitted=True, surplus=facts.surplus)
        moved = "" if instead is None else f"{instead.tier} refused it: {instead.reason}"
        place = Place(self._clock, decision.tier, objective_s, moved, take, surplus=facts.surplus)
        self._count(
            facts, view, "admitted" if instead is None else "spilled", "" if instead is None else instead.reason
        )
        return place

    def _refuse(self, facts: RequestFacts, refused: Refuse, view: TierView, request_id: str) -> AdmissionRefusedError:
        """Returns the error of a refused request, and counts it."""
        now = self._clock.monotonic()
        admitted = self.admitted[refused.tier]
        admitted.refused_at[facts.rank] = now
        admitted.shares.decided(facts.tenant, facts.priority, facts.tokens, admitted=False, surplus=facts.surplus)
        self._unreported[refused.tier][facts.priority] += facts.requests
        schedule = self._retries.setdefault((refused.tier, facts.rank), RetrySchedule(self._config.max_retry_s))
        retry_s = schedule.place(now, refused.retry_after_s, view.alone_s, request_id)
        self._count(facts, view, "refused", refused.reason)
        return refusal_error(facts, refused, view, retry_s)

    def _read(self) -> None:
        self._reading -= 1

    def _count(self, facts: RequestFacts, view: TierView, outcome: str, reason: str) -> None:
        waiting = self.admitted[view.name].of(facts.priority, rank_of(facts.priority, surplus=True))
        name = facts.priority.name.lower()
        self._metrics.admission(
            AdmissionSample(
                view.name, name, outcome, reason, view.ttft_s, view.pressure, waiting.requests, waiting.tokens
            )
        )
