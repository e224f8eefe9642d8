"""``decide``: whether a tier takes a request, refuses it, or another tier takes it instead. Pure.

A request is refused if

1. its class has no room in the tier's queue, in requests or tokens. The room of lower classes shrinks as the higher
   ones come near their objectives (``ceiling``). A full queue has room for a tenant with less than its equal share;
2. its class and those above it have had more of the tier than they may while lower classes starve, each of which
   keeps the share ``floor``;
3. its first token is predicted later than its own deadline or the objective of its class allows. An objective is about
   the work of others: it refuses no request that would be as late if nothing waited before it.

A tier without a ready replica refuses nothing: the request waits for one, for a limited time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engine.api import Priority, rank_of
from router.admission.spill import spill_targets
from router.config.admission import AdmissionConfig, ClassAdmission
from router.config.tenants import Spill

LOWEST = Priority.BATCH - Priority.INTERACTIVE
"""The rank of the lowest class, where the highest has 0."""
OUTPUT_COST = 2
"""Cost of a generated token in prompt tokens, as in the engine's fair scheduling."""
ALONE = 1.25
"""How much later than without a queue a first token may be that exceeds the objective there too, as a multiple."""


class Reason(StrEnum):
    """Why a request is refused, in one word for headers and counters."""

    DEADLINE = "deadline"  # the request's own deadline would pass before its first token
    TTFT = "ttft"  # the objective of its class would not be met
    QUEUE_REQUESTS = "queue_requests"  # too many requests of its class wait
    QUEUE_TOKENS = "queue_tokens"  # too many tokens of its class wait
    CLASS_SHARE = "class_share"  # its class would starve lower ones


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The facts about a request that the decision needs. Its tokens are estimates, of all prompts and all answers
    together. ``cached_tokens`` are those of its prompts that replicas likely have in their prefix caches, by replica
    id; a replica that is not among them has none."""

    tenant: str
    priority: Priority
    requests: int = 1  # prompts, each of which is an engine request
    prompt_tokens: int = 0
    output_tokens: int = 0
    deadline_s: float | None = None  # seconds to the first token that the client waits
    spill: Spill = "none"
    surplus: bool = False  # its tenant has had its share (``TenantShares``)
    cached_tokens: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def rank(self) -> int:
        """The place of its class in the engine's order."""
        return rank_of(self.priority, self.surplus)

    @property
    def elsewhere(self) -> RequestFacts:
        """The same on another tier, which has nothing of it in its prefix caches."""
        return replace(self, cached_tokens={}) if self.cached_tokens else self

    @property
    def uncached_tokens(self) -> int:
        """The prompt tokens that a replica has to compute, if it is the one with the most of them in its cache, which
        is where placement sends it as a rule."""
        return self.prompt_tokens - min(max(self.cached_tokens.values(), default=0), max(self.prompt_tokens - 1, 0))

    @property
    def tokens(self) -> int:
        """The work of the request for the engine, in prompt tokens. A generated token counts as OUTPUT_COST of them."""
        return self.uncached_tokens + OUTPUT_COST * self.output_tokens

    @property
    def prompt_length(self) -> int:
        """The tokens of one prompt, on average, cached ones included."""
        return self.prompt_tokens // max(self.requests, 1)

    @property
    def context(self) -> int:
        """The tokens that one prompt and one answer need together, on average."""
        return (self.prompt_tokens + self.output_tokens) // max(self.requests, 1)


@dataclass(frozen=True, slots=True)
class TierView:
    """The state of a tier that the decision on one request needs.

    ``waiting_requests`` and ``waiting_tokens`` are those of the request's class on the tier, ``own_requests`` and
    ``own_tokens`` the tenant's part of them, ``tenants`` the number of tenants that share them. ``pressure`` is how
    near the higher classes are to their objectives: the largest predicted time to a first token, divided by its
    objective. ``wait_limit`` is the share of an objective, 0 to 1, up to which a predicted wait is admitted
    (``WaitLimit``). ``started_share`` is the share of the request's class and those above it in the tokens that the
    tier has started; ``starving`` classes below it wait too long. ``has_little``: of the started tokens, the tenant has
    had clearly less than an equal share.
    """

    name: str
    replicas: int = 1  # that are ready
    context_length: int | None = None  # tokens; None: unknown
    ttft_s: float | None = None  # predicted time to the first token; None: unknown
    alone_s: float = 0.0  # the same if nothing else waited
    wait_limit: float = 1.0
    started_share: float = 0.0
    starving: int = 0
    has_little: bool = False
    pressure: float = 0.0
    waiting_requests: int = 0
    waiting_tokens: int = 0
    own_requests: int = 0
    own_tokens: int = 0
    tenants: int = 1


@dataclass(frozen=True, slots=True)
class Refuse:
    """The tier does not take the request, for ``reason``. ``value`` is what was compared with ``limit``, in seconds,
    requests, tokens or shares of the tier (0 to 1), by ``reason``. Of requests and tokens it is those that wait
    already, without the refused request. ``retry_after_s`` is the time after which the tier is predicted to have room
    for it. ``ceiling`` is the share of the queue, 0 to 1, that its class may fill at present."""

    tier: str
    reason: Reason
    value: float
    limit: float
    retry_after_s: float
    ceiling: float = 1.0


@dataclass(frozen=True, slots=True)
class Admit:
    """The tier takes the request. ``instead_of`` is the refusal of the tier that it was meant for; None: it is that
    one."""

    tier: str
    instead_of: Refuse | None = None


def ceiling(priority: Priority, pressure: float, floor: float) -> float:
    """Returns the share of its queue that a scheduling class may fill, from ``floor`` to 1.

    The highest class always has all of it. The others have less as ``pressure`` (0 to 1) rises: batch falls to
    ``floor``, standard half as far.
    """
    rank = (priority - Priority.INTERACTIVE) / LOWEST
    return 1.0 - rank * min(max(pressure, 0.0), 1.0) * (1.0 - floor)


def decide(
    facts: RequestFacts, tier: str, views: Mapping[str, TierView], order: Sequence[str], config: AdmissionConfig
) -> Admit | Refuse:
    """Returns the decision on a request for ``tier``: that tier or another one of ``order`` takes it, or it is refused.
    ``order`` are the tiers that its key may use, weakest first. ``views`` has the view of ``tier``, and of each tier
    that ``facts.spill`` allows, by name. Another tier has nothing of the request in its prefix caches."""
    refusal = check(facts, views[tier], config)
    if refusal is None:
        return Admit(tier)
    for other in spill_targets(tier, order, facts.spill):
        view = views[other]
        fits = view.context_length is None or facts.context <= view.context_length
        if view.replicas and fits and check(facts.elsewhere, view, config) is None:
            return Admit(other, refusal)
    return refusal


def check(facts: RequestFacts, view: TierView, config: AdmissionConfig) -> Refuse | None:
    """Returns the refusal of a request by the tier of ``view``; None if the tier takes it."""
    if not view.replicas:
        return None
    terms = config.terms(view.name, facts.priority)
    share = ceiling(facts.priority, view.pressure, config.floor)
    return (
        _no_room(facts, view, terms, share)
        or _starves(view, config.floor, share)
        or _too_late(facts, view, terms, share)
    )


def _no_room(facts: RequestFacts, view: TierView, terms: ClassAdmission, share: float) -> Refuse | None:
    """Returns the refusal of a request for which the queue of its class has no room.

    An empty queue has room for a request of any size. A tenant below its equal share has room up to twice the bound.
    """
    measures = (
        (Reason.QUEUE_REQUESTS, view.waiting_requests, view.own_requests, facts.requests, terms.max_requests),
        (Reason.QUEUE_TOKENS, view.waiting_tokens, view.own_tokens, facts.tokens, terms.max_tokens),
    )
    for reason, waiting, own, more, most in measures:
        bound = share * most * view.replicas
        below_share = own + more <= bound / view.tenants and waiting + more <= 2 * bound
        if waiting and waiting + more > bound and not below_share:
            return Refuse(view.name, reason, waiting, bound, _excess_s(view, waiting + more - bound, waiting), share)
    return None


def _starves(view: TierView, floor: float, share: float) -> Refuse | None:
    """Returns the refusal of a request whose class takes what is left to lower ones. A tenant that has had little is
    not why."""
    most = 1.0 - floor * view.starving
    if view.starving and view.waiting_requests and not view.has_little and view.started_share > most:
        wait_s = view.ttft_s or 1.0
        return Refuse(view.name, Reason.CLASS_SHARE, view.started_share, most, wait_s, share)
    return None


def _too_late(facts: RequestFacts, view: TierView, terms: ClassAdmission, share: float) -> Refuse | None:
    """Returns the refusal of a request whose first token would come too late."""
    if view.ttft_s is None:
        return None
    alone_s = ALONE * view.alone_s
    if facts.deadline_s is not None:
        limit_s = facts.deadline_s
        if view.ttft_s > alone_s:
            limit_s = min(limit_s, _limit_s(view, limit_s))
        if view.ttft_s > limit_s:
            return Refuse(view.name, Reason.DEADLINE, view.ttft_s, limit_s, view.ttft_s - limit_s, share)
    objective_s = terms.objective_s(facts.prompt_length)
    if objective_s is not None:
        limit_s = max(_limit_s(view, objective_s), alone_s)
        if view.ttft_s > limit_s:
            return Refuse(view.name, Reason.TTFT, view.ttft_s, limit_s, view.ttft_s - limit_s, share)
    return None


def _limit_s(view: TierView, objective_s: float) -> float:
    """Returns the longest predicted time to the first token that is admitted for an objective or a deadline, in
    seconds: the request's own part, and the share ``wait_limit`` of what that leaves."""
    return view.alone_s + view.wait_limit * (objective_s - view.alone_s)


def _excess_s(view: TierView, excess: float, waiting: float) -> float:
    """Returns the seconds after which ``excess`` of what is ``waiting`` has started, if all of it takes as long as
    the wait for a first token."""
    return (view.ttft_s or 1.0) * min(1.0, excess / waiting)
