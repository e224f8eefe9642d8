"""``forecast_ttft``: when a request would get its first token, by what the tier's replicas report. Pure.

Of its own requests this router knows more than a report says: those that it has admitted since, and whose turn is
before that of a new one. So they count as the router knows them: those that were sent to a replica there, as far as its
report still has their tokens; those that are not sent yet in equal parts on all. The rest of a report is that of other
routers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from engine.api import Priority
from router.admission.admission_decision import RequestFacts
from router.admission.admitted_requests import AdmittedRequests, Prompts
from router.admission.start_rate import RANKS
from router.latency_prediction import predict_ttft
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import TierSnapshot

REPORTED_RANKS = tuple(
    tuple(rank for rank in RANKS if rank == each or (each is Priority.BATCH and rank > each)) for each in Priority
)
"""The ranks that replicas report as each class: surplus counts as batch work."""


@dataclass(frozen=True, slots=True)
class TtftForecast:
    """A forecast for one request, in seconds: its time to the first token, and that if nothing else waited."""

    ttft_s: float
    alone_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OwnQueue:
    """This router's waiting requests that one replica has, or will have on average: all of them, and those ahead of a
    new request. The tokens are those of prompts, by class in the order of ``Priority``."""

    tokens: tuple[int, ...]
    tokens_ahead: tuple[int, ...]
    requests: int
    requests_ahead: int
    displaceable: int  # running requests of lower classes, which give their places in the batch to higher ones


@dataclass(frozen=True, slots=True)
class OwnRequests:
    """This router's requests on a tier of ``replicas``, as a new one sees them: ``shares`` are the parts of the waiting
    ones that are ahead of it, by class, 0 to 1."""

    admitted: AdmittedRequests
    replicas: int
    shares: tuple[float, ...]
    displaceable: int
    unplaced: tuple[Prompts, ...]

    def on(self, replica_id: str, load: ReplicaLoad) -> OwnQueue:
        """Returns the part of them that the replica with this ``load`` has: those that were sent to it, of which no
        more counts than it still has to do, and an equal part of those that no replica is known to have."""
        sent = [self.admitted.on(replica_id, *ranks) for ranks in REPORTED_RANKS]
        unplaced = self.unplaced
        left = list(map(min, _queued(load), (each.tokens for each in sent)))
        there = sum(each.count for each in sent)
        waiting = min(load.waiting, there)  # the others run: their prompts are being computed
        before = _ahead(self.shares, [each.count for each in sent])
        return OwnQueue(
            tuple(here + each.tokens // self.replicas for here, each in zip(left, unplaced, strict=True)),
            tuple(
                round(share * here) + round(share * each.tokens) // self.replicas
                for share, here, each in zip(self.shares, left, unplaced, strict=True)
            ),
            waiting + sum(each.count for each in unplaced) // self.replicas,
            (round(waiting * before / there) if there else 0)
            + round(_ahead(self.shares, [each.count for each in unplaced])) // self.replicas,
            self.displaceable,
        )


def forecast_ttft(snapshot: TierSnapshot, facts: RequestFacts, admitted: AdmittedRequests) -> TtftForecast | None:
    """Returns the forecast for a request on the replica that would be quickest. Before any replica has measured its
    steps, it is the shortest wait that replicas report; None if no sequence waits either."""
    loads = {replica_id: load for replica_id, load in snapshot.loads.items() if load.measured}
    if not loads:
        return TtftForecast(snapshot.wait_s) if snapshot.waiting else None
    prompt = facts.prompt_length

    def ttft_s(replica_id: str, load: ReplicaLoad) -> float:
        cached = facts.cached_tokens.get(replica_id, 0) // max(facts.requests, 1)
        return predict_ttft(load, prompt, cached, reported_as(facts))

    # A warm or unmeasured replica works off what it has; what a lost one had goes to another.
    alive = snapshot.replicas | snapshot.warm | snapshot.loads.keys()
    own = own_requests(facts, admitted, max(len(loads), len(snapshot.replicas)), alive)
    seen = {
        replica_id: as_seen(load, own.on(replica_id, load), reported_as(facts)) for replica_id, load in loads.items()
    }
    return TtftForecast(
        min(ttft_s(replica_id, load) for replica_id, load in seen.items()),
        min(ttft_s(replica_id, without_queue(load)) for replica_id, load in seen.items()),
    )


def reported_as(facts: RequestFacts) -> Priority:
    """Returns the class under which replicas report the waiting tokens of a request: batch, if it is surplus."""
    return Priority.BATCH if facts.surplus else facts.priority


def own_requests(facts: RequestFacts, admitted: AdmittedRequests, replicas: int, alive: Collection[str]) -> OwnRequests:
    """Returns the requests in ``admitted`` as a new one sees them. The tier has ``replicas``."""
    own_class = reported_as(facts)
    counts = [admitted.of(*ranks) for ranks in REPORTED_RANKS]
    same = counts[own_class - Priority.INTERACTIVE]
    before = admitted.ahead(facts.rank, facts.tenant, max(facts.tokens, 1)) - sum(
        count.tokens for priority, count in zip(Priority, counts, strict=True) if priority < own_class
    )
    part = before / same.tokens if same.tokens else 1.0
    return OwnRequests(
        admitted,
        replicas,
        tuple(1.0 if each < own_class else part if each is own_class else 0.0 for each in Priority),
        displaceable=sum(admitted.running[each] for each in RANKS if each > facts.rank) // replicas,
        unplaced=tuple(admitted.unplaced(*ranks, alive=alive) for ranks in REPORTED_RANKS),
    )


def as_seen(load: ReplicaLoad, own: OwnQueue, priority: Priority) -> ReplicaLoad:
    """Returns ``load``, restricted to the work that is ahead of a new request of the class ``priority``.

    Of the waiting requests that are not this router's, those count whose class is not below it; as the report has only
    their sum, by the share of these classes in the queued tokens. Preempted sequences are among them: they had started,
    and are mostly of lower classes.
    """
    short = load.queued_short or (0,) * len(Priority)
    long = load.queued_long or (0,) * len(Priority)
    queued = [_of_class(*each) for each in zip(short, long, own.tokens, own.tokens_ahead, strict=True)]
    total, before = sum(short) + sum(long), slice(priority - Priority.INTERACTIVE + 1)
    share = (sum(short[before]) + sum(long[before])) / total if total else 0.0
    return replace(
        load,
        waiting=round(share * max(0, load.waiting - own.requests)) + own.requests_ahead,
        queued_short=tuple(each for each, _ in queued),
        queued_long=tuple(each for _, each in queued),
        max_sequences=load.max_sequences and load.max_sequences + own.displaceable,
    )


def _queued(load: ReplicaLoad) -> list[int]:
    """Returns the prompt tokens that a replica has to compute, by class."""
    nothing = (0,) * len(Priority)
    return [sum(pair) for pair in zip(load.queued_short or nothing, load.queued_long or nothing, strict=True)]


def _ahead(shares: Sequence[float], counts: Sequence[int]) -> float:
    """Returns how many of the waiting prompts ``counts`` are ahead of a new request, both by class."""
    return sum(share * count for share, count in zip(shares, counts, strict=True))


def _of_class(short: int, long: int, known: int, ahead: int) -> tuple[int, int]:
    """Returns the tokens of a class ahead of a new request: those of short and those of long prompts, of which the
    replica reports ``short`` and ``long``. This router has ``known`` of them, and of these ``ahead`` come first. They
    are divided as the report is: a short prompt passes long ones."""
    reported = short + long
    everything = max(0, reported - known) + ahead
    of_long = everything * long // reported if reported else 0
    return everything - of_long, of_long


def without_queue(load: ReplicaLoad) -> ReplicaLoad:
    """Returns the load of the same replica if nothing waited. The running requests stay: they would delay a request
    even if all that wait had been refused."""
    return replace(load, waiting=0, queued_short=(), queued_long=())
