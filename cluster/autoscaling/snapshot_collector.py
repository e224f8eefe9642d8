"""``collect``: turns what Ray Serve knows of a tier into its ``TierSnapshot``. Pure.

Serve names the running replicas and has the last report of each. From one call to the next, ``TierMemory`` keeps what
Serve does not say: since when a replica runs, when a report was received, how long a cold start took, and what replicas
counted that are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from cluster.autoscaling.majority_speed_group import majority_speed_group
from cluster.autoscaling.replica_report import ReplicaReport, from_numbers
from cluster.autoscaling.snapshot import (
    BatchWork,
    ClassCounters,
    ReplicaSnapshot,
    ReplicaState,
    TierSnapshot,
    WaitingRoom,
)
from cluster.autoscaling.warm_pool import warm_ids
from engine.api import DueWork, Priority

COLD_STARTS = 5
"""Cold starts that are remembered. Their median counts."""

ABSENT_S = 60.0
"""Seconds for which a replica is remembered that Serve does not call running. With new settings, and after a restart of
the controller, replicas are updated or recovered first, and are the same ones afterwards."""

Counters = Mapping[Priority, ClassCounters]
NO_COUNTERS: Counters = {priority: ClassCounters() for priority in Priority}


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """A running replica as Serve knows it. ``reported_at_s`` is the instant of its last report by its own clock, None
    if there is none; ``numbers`` are that report."""

    replica_id: str
    reported_at_s: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TierView:
    """A tier as Serve knows it: ``target`` is the number of replicas that should serve, ``replicas`` are those that
    run. ``room`` has the requests that wait at all routers for a first replica, by the routers' reports. ``warm`` is
    the number of replicas that should run beside the target, for the warm pool."""

    name: str
    target: int
    replicas: tuple[ReplicaView, ...] = ()
    room: WaitingRoom = field(default_factory=WaitingRoom)
    warm: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    """A replica that runs or ran, and its last report. ``before`` are its counts before the collector knew it; None:
    unknown until its next report. ``left_at_s`` is when it was first missing; None: it runs."""

    since_s: float
    reported_at_s: float | None = None
    observed_at_s: float = 0.0
    report: ReplicaReport | None = None
    before: Counters | None = None
    left_at_s: float | None = None

    @property
    def counted(self) -> Counters:
        if self.report is None or self.before is None:
            return NO_COUNTERS
        return _combined(self.report.counters, self.before, -1)


@dataclass(frozen=True, slots=True)
class _Order:
    """A replica that was ordered. ``seen``: the order was, so that its instant is known."""

    at_s: float
    seen: bool


@dataclass(frozen=True, slots=True)
class TierMemory:
    """The state that ``collect`` keeps of a tier from one call to the next. ``TierMemory()`` is the state before the
    first call."""

    replicas: Mapping[str, _Known] = field(default_factory=dict)
    absent: Mapping[str, _Known] = field(default_factory=dict)  # ran within ABSENT_S
    orders: tuple[_Order, ...] = ()  # oldest first
    cold_starts_s: tuple[float, ...] = ()
    model: int = 0  # of the cold starts; 0: unknown
    gone: Counters = field(default_factory=lambda: dict(NO_COUNTERS))  # counts of replicas that do not run any more
    begun: bool = False  # whether there was a call before


def collect(memory: TierMemory, view: TierView, at_s: float, gpus: float = 0.0) -> tuple[TierMemory, TierSnapshot]:
    """Returns the next memory and the snapshot of a tier at the instant ``at_s``.

    A report counts from the instant at which it is first seen here, less the age that it gives for its numbers, so that
    the clocks of replicas do not matter. A report that cannot be read leaves the replica without a sample. Cold starts
    of another model are forgotten. A new replica whose order no call has seen may have run for long: its counters start
    from its first report. ``gpus`` is the number of GPUs of one replica.
    """
    remembered = {**memory.absent, **memory.replicas}
    new = [each.replica_id for each in view.replicas if each.replica_id not in remembered]
    pasts = dict(zip(new, memory.orders, strict=False))
    known = {
        each.replica_id: _seen(remembered.get(each.replica_id) or _new(pasts.get(each.replica_id), at_s), each, at_s)
        for each in view.replicas
    }
    left = {name: _leaving(old, at_s) for name, old in remembered.items() if name not in known}
    absent = {name: old for name, old in left.items() if at_s - (old.left_at_s or at_s) < ABSENT_S}
    orders, started = _orders(memory, view, len(new), at_s)
    model = majority_speed_group([each.report.sample.model for each in known.values() if each.report], memory.model)
    measured = memory.cold_starts_s if model == memory.model or not memory.model else ()
    next_memory = TierMemory(
        known,
        absent,
        orders,
        (*measured, *started)[-COLD_STARTS:],
        model,
        _sum([memory.gone, *(old.counted for name, old in left.items() if name not in absent)]),
        begun=True,
    )
    return next_memory, _snapshot(next_memory, view, at_s, gpus)


def _new(order: _Order | None, at_s: float) -> _Known:
    """Returns what is known of a replica that runs for the first time. ``order`` is the one that it fills; None: none.

    One whose order was seen has counted nothing before. Any other may be one that ran long ago: its counts would look
    like a surge.
    """
    return _Known(at_s, before=NO_COUNTERS if order is not None and order.seen else None)


def _leaving(known: _Known, at_s: float) -> _Known:
    return known if known.left_at_s is not None else replace(known, left_at_s=at_s)


def _seen(known: _Known, view: ReplicaView, at_s: float) -> _Known:
    """Returns what is known of a replica that runs."""
    known = replace(known, left_at_s=None)
    if view.reported_at_s is None or view.reported_at_s == known.reported_at_s:
        return known
    report = from_numbers(view.numbers)
    if report is None:
        return replace(known, reported_at_s=view.reported_at_s)
    before = report.counters if known.before is None else known.before
    observed_at_s = at_s - report.age_s
    return replace(known, reported_at_s=view.reported_at_s, observed_at_s=observed_at_s, report=report, before=before)


def _orders(memory: TierMemory, view: TierView, new: int, at_s: float) -> tuple[tuple[_Order, ...], tuple[float, ...]]:
    """Returns the orders that are open, and how long those took that were carried out: the oldest are first."""
    done = memory.orders[:new]
    started = tuple(at_s - order.at_s for order in done if order.seen)
    missing = max(0, view.target + view.warm - len(view.replicas))
    still = memory.orders[len(done) :][:missing]
    return (*still, *[_Order(at_s, memory.begun)] * (missing - len(still))), started


def _snapshot(memory: TierMemory, view: TierView, at_s: float, gpus: float) -> TierSnapshot:
    known = memory.replicas
    reported = {name: each for name, each in known.items() if each.report is not None}
    replicas = [
        ReplicaSnapshot(
            name,
            ReplicaState.READY,
            each.since_s,
            None if each.report is None else replace(each.report.sample, observed_at_s=each.observed_at_s),
        )
        for name, each in known.items()
    ]
    if view.warm:
        warm = warm_ids(replicas, view.target)
        replicas = [replace(each, state=ReplicaState.WARM) if each.replica_id in warm else each for each in replicas]
    to_serve = memory.orders[: max(0, view.target - len(known))]  # the others are for the warm pool
    starting = [
        ReplicaSnapshot(f"starting-{place}", ReplicaState.STARTING, order.at_s) for place, order in enumerate(to_serve)
    ]
    return TierSnapshot(
        view.name,
        view.target,
        (*replicas, *starting),
        _sum([memory.gone, *(each.counted for each in (*memory.absent.values(), *known.values()))])
        if reported or not known
        else {},
        max((each.observed_at_s for each in reported.values()), default=at_s),
        tuple(
            report
            for name, each in reported.items()
            if each.report is not None
            for report in each.report.latency_reports(name, each.observed_at_s)
        ),
        WaitingRoom() if known else view.room,  # the others have found a replica, or will at once
        _batch_work(reported.values(), at_s),
        cold_start_s=_cold_start_s(memory),
        gpus_per_replica=gpus,
    )


def _batch_work(reported: Iterable[_Known], at_s: float) -> tuple[BatchWork, ...]:
    """Returns the batch work that can still be done in time. Engines end what is late.

    Of work that was summed up, the earliest deadline counts. Once that has passed, and until the next report tells what
    is left, all of it is due by the latest.
    """
    work = (
        BatchWork(deadline_at_s, due.prompt_tokens, due.output_tokens)
        for each in reported
        if each.report is not None
        for due in each.report.due
        if (deadline_at_s := _next_deadline_s(due, each.observed_at_s, at_s)) is not None
    )
    return tuple(work)


def _next_deadline_s(due: DueWork, observed_at_s: float, at_s: float) -> float | None:
    """Returns the earliest deadline of ``due``, or the latest if that has passed; None if both have."""
    deadlines = (observed_at_s + due.left_s, observed_at_s + due.latest_left_s)
    return next((each for each in deadlines if each > at_s), None)


def _cold_start_s(memory: TierMemory) -> float:
    """Returns the cold start as measured from orders; until one was, the time in which replicas loaded their model; 0
    until that is known."""
    loaded = [each.report.start_s for each in memory.replicas.values() if each.report and each.report.start_s]
    measured = memory.cold_starts_s or loaded
    return median(measured) if measured else 0.0


def _sum(all_counters: Iterable[Counters]) -> dict[Priority, ClassCounters]:
    total = dict(NO_COUNTERS)
    for counters in all_counters:
        total = _combined(total, counters, 1)
    return total


def _combined(one: Counters, other: Counters, sign: int) -> dict[Priority, ClassCounters]:
    """Returns the counts of ``one``, and those of ``other`` ``sign`` times."""
    return {
        priority: ClassCounters(
            a.arrivals + sign * b.arrivals,
            a.refusals + sign * b.refusals,
            a.prompt_tokens + sign * b.prompt_tokens,
            a.finished + sign * b.finished,
            a.output_tokens + sign * b.output_tokens,
            a.late + sign * b.late,
        )
        for priority in Priority
        for a, b in [(one.get(priority, ClassCounters()), other.get(priority, ClassCounters()))]
    }
